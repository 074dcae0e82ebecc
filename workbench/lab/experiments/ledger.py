"""Factors multiplied towards an observed total: what is left over, and whether they may be multiplied at all."""

from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from kernels.errors import WorkbenchError
from workbench.lab.experiment import Experiment, Outcome, Parameter, Plot, Settings
from workbench.lab.experiments import chain, five_layers, path_difference, rows, tokens
from workbench.lab.subject import Subject

_OBSERVED, _ALIKE = 17.23, 0.245  # |std ratio - 1|: 18.23 of unlike populations, 1.245 like for like


@dataclass(frozen=True)
class Factor:
    """A published factor. top, bottom : the measured quantities that it is the quotient of; bottom "" for none."""

    name: str
    value: float
    top: str
    bottom: str = ""


# Quantity: what it was measured over.
POPULATIONS = {
    "008": "1 output of 1 made block",
    "009": "256 outputs of 1 token after 5 made products",
    "013": "256 channels over 7 tokens after the 5 products of 009, std ratio",
    "014": "1 output of 1 block of a real layer 3",
    "016": "1 output of 1 block of a real layer 4",
}
_ONE, _CHAIN = Factor("0.077 % of one product", 0.00077, "008"), Factor("5.70 compounding", 5.70, "009", "008")
_BATCH, _REAL = Factor("50 std over tokens", 50.0, "013", "008"), Factor("5.56 real weights", 5.56, "014", "008")
_REAL_ONE, _LAYERS = Factor("0.428 % of one real product", 0.00428, "014"), Factor("1.81 layers", 1.81, "016", "014")
CASES = {"first": (_ONE, _CHAIN, _BATCH, _REAL), "second": (_REAL_ONE, _LAYERS, _BATCH)}


def _run(settings: Settings, subject: Subject | None) -> Outcome:
    own, observed = settings["factors"], settings["observed"]
    cases = {"own": tuple(Factor(f"factor {n + 1}", value, "") for n, value in enumerate(own))} if own else CASES
    measured = {} if own else dict(_measured(subject))
    series, figures = list[dict[str, Any]](), dict[str, Any](observed=observed)
    told, notes = list[str](), list[str]()
    for case, factors in cases.items():
        series += _multiplied(case, factors, observed, measured)
        product = series[-1]["product"]
        figures |= {f"product_{case}": product, f"residual_{case}": observed / product}
        told += [f"{case}: {sentence}" for sentence in warnings(factors)]
        if not own:
            figures[f"residual_alike_{case}"] = _ALIKE / product
            notes.append(
                f"{case}: like for like there is {_ALIKE:g} to explain, and the product is {product:.3g}, "
                f"{product / _ALIKE:.2g} times as much"
            )
    about = "own" if own else "|std ratio - 1| of A over 7 tokens and B over the last"
    return Outcome(
        inputs={
            **({} if subject is None else subject.inputs(tokens=False, both=True)),
            **settings,
            "factors": list(own),
            "observed_is": about,
            "population": "not said" if own else "another one for every factor, see the series",
        },
        series=series,
        value=figures[f"residual_{next(iter(cases))}"],
        figures={**figures, "warnings": told},
        notes=(*told, *notes),
    )


def _multiplied(
    case: str, factors: tuple[Factor, ...], observed: float, measured: Mapping[str, float]
) -> Iterator[dict[str, Any]]:
    product = 1.0
    for factor in factors:
        product *= factor.value
        yield {
            "case": case,
            "factor": factor.name,
            "value": factor.value,
            "measured": _again(factor, measured),
            "product": product,
            "residual": observed / product,
            "population": POPULATIONS.get(factor.top, "not said"),
        }


def warnings(factors: tuple[Factor, ...]) -> Iterator[str]:
    """Why these factors cannot be multiplied: what they share, and over what each was measured."""
    powers: Counter[str] = Counter()
    for factor in factors:
        powers[factor.top] += 1
        powers[factor.bottom] -= 1
    del powers[""]
    shared = [name for name in POPULATIONS if sum(name in (f.top, f.bottom) for f in factors) > 1]
    if shared:
        written = " × ".join(f"{name}{_power(n)}" for name, n in powers.items() if n)
        yield (
            f"the factors are not independent: {' and '.join(shared)} stand{'s' * (len(shared) == 1)} in several of "
            f"them, and multiplied out they are {written}, which is no measured quantity"
        )
    if {"009", "013"} <= {factor.top for factor in factors}:
        yield "the std over tokens was taken after the chain, whose growth is counted once more as a factor of its own"
    over = {POPULATIONS.get(factor.top, "not said") for factor in factors}
    if len(over) > 1:
        yield f"the factors are not over one population: {'; '.join(sorted(over))}"
    elif over == {"not said"}:
        yield "nothing says over which population the factors were measured, nor that they are independent"


def _power(n: int) -> str:
    return "" if n == 1 else f"^{n}"


def _measured(subject: Subject | None) -> Iterator[tuple[str, float]]:
    """The quantities as this program measures them; those of a real model only where one has them."""
    for name, made in (("008", path_difference.EXPERIMENT), ("009", chain.EXPERIMENT), ("013", tokens.EXPERIMENT)):
        found = made.run(made.settings({}), None)
        yield name, found.figures["std_ratio_dev"] if name == "013" else found.value or 0.0
    if subject is None:
        return
    for name, on_model in (("014", rows.EXPERIMENT), ("016", five_layers.EXPERIMENT)):
        with suppress(WorkbenchError):  # weights for which nothing is rounded, or too few layers
            found = on_model.run(on_model.settings({}, "model"), subject)
            if not found.unjudged:
                yield name, found.series[0 if name == "014" else -1]["rel"]


def _again(factor: Factor, measured: Mapping[str, float]) -> float | None:
    if factor.top not in measured or (factor.bottom and not measured.get(factor.bottom)):
        return None
    return measured[factor.top] / (measured[factor.bottom] if factor.bottom else 1.0)


EXPERIMENT = Experiment(
    id="ledger",
    word="ledger",
    question="Do measured factors, multiplied, explain an observed total?",
    claim="what is left over is 1",
    shows="the observed total divided by the product of the factors, after each of them",
    hides="A product looks complete with any residual; it means something for independent factors of one population.",
    plot=Plot("factor", "residual", log=True),
    run=_run,
    parameters=(
        Parameter("observed", _OBSERVED, "the total that is to be explained", 1e-12, 1e12),
        Parameter("factors", (), "your own factors instead of the published ones", 1e-12, 1e12),
    ),
    published="14×, 44×",
    digits=lambda found: f"{found.figures['residual_first']:.0f}×, {found.figures['residual_second']:.0f}×",
    on="either",
    both=True,
)
