"""013: the chain for several tokens at once."""

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kernels.kinds.product import Product
from workbench.lab.experiment import Experiment, Ladder, Outcome, Parameter, Plot, Rows, Settings
from workbench.lab.experiments.chain import chained
from workbench.lab.inputs import DRIFT, Floats, activation
from workbench.lab.subject import Subject
from workbench.lab.two_paths import MIXED, ROUNDING_PATH, UNLIKE, alike, fold, percent, rel_rms, relative_length

_BASELINE = 0.004391  # what 009 gives for one token


def _run(settings: Settings, subject: Subject | None) -> Outcome:
    a, b, inputs = _made(settings) if subject is None else _at_the_cell(subject)
    rels = [relative_length(x, y) for x, y in zip(a, b, strict=True)]
    baseline = _BASELINE if subject is None else rels[0]
    spread_a, spread_b = (_std_over_tokens(side) for side in (a, b))
    deviation = float(abs(spread_a / max(spread_b, np.float32(1e-9)) - np.float32(1)))
    mean = float(fold(np.array(rels, np.float32)) / np.float32(len(rels)))
    amplification = mean / baseline if baseline else None
    sizes = np.sqrt(np.mean(np.square(a.astype(np.float64)), axis=1))
    series: Rows = [{"token": n, "rel": rel, "rms": float(sizes[n])} for n, rel in enumerate(rels)]
    worst, unlike = int(np.argmax(rels)), spread_a / np.sqrt(np.mean(sizes**2))
    return Outcome(
        inputs=inputs,
        series=series,
        value=amplification,
        figures={
            "amplification": amplification,
            "std_ratio_dev": deviation,
            "std_a": float(spread_a),
            "std_b": float(spread_b),
            "mean_rel": mean,
            "sensitivity": deviation / DRIFT,
        },
        against={"vector_rel_rms": rel_rms(a, b)},
        unjudged=MIXED if inputs.get("weights") == UNLIKE else "",
        notes=(
            f"token {worst} has {percent(rels[worst])}, the others {percent(_mean_without(rels, worst))} on average",
            f"std ratio {deviation:.4g} off 1, of what the tokens have unlike: {percent(unlike)} of their size; the "
            "less that is, the larger the ratio",
        ),
    )


def _made(settings: Settings) -> tuple[Floats, Floats, dict[str, Any]]:
    """The end of the published chain for every token: A, B (tokens, outputs), and what they are."""
    starts = (activation(token) for token in range(settings["tokens"]))
    ends = [list(chained(start, settings["depth"], settings["path"]))[-1] for start in starts]
    a, b = np.stack([end.a for end in ends]), np.stack([end.b for end in ends])
    population = f"{a.shape[0]} tokens, {a.shape[1]} outputs, after {settings['depth']} products"
    return a, b, {**settings, "population": population}


def _at_the_cell(subject: Subject) -> tuple[Floats, Floats, dict[str, Any]]:
    """The product of the chosen cell on both sides, both on A's captured input."""
    stage = subject.stage_of(Product)
    x = subject.captured(stage.site).x["x"]
    a, b = (
        of.path.matmul(x.astype(of.path.dtype), subject.weight(stage, side)).astype(np.float32)
        for side, of in (("a", subject.a), ("b", subject.b))
    )
    population = f"{a.shape[0]} tokens, {a.shape[1]} outputs, on A's input"
    return (
        a,
        b,
        {
            **subject.inputs(stage.site, both=True),
            "weights": alike(*(subject.weight(stage, side) for side in "ab")),
            "population": population,
        },
    )


def _std_over_tokens(values: NDArray[np.float32]) -> np.float32:
    """Population standard deviation over the tokens of every channel, averaged over the channels, as published."""
    tokens, channels = values.shape
    columns = np.ascontiguousarray(values.T)
    mean = fold(columns) / np.float32(tokens)
    variance = fold((columns - mean[:, None]) ** 2) / np.float32(tokens)
    return np.float32(fold(np.sqrt(variance)) / np.float32(channels))


def _mean_without(values: list[float], index: int) -> float:
    others = values[:index] + values[index + 1 :]
    return sum(others) / len(others) if others else 0.0


EXPERIMENT = Experiment(
    id="013",
    word="tokens",
    question="Do several tokens amplify the difference of one?",
    claim="a batch of tokens amplifies the difference (A4)",
    shows="mean relative difference of the tokens divided by that of one token's chain",
    hides="A mean over unlike tokens; the 50× beside it divides a std ratio by a relative difference of one output.",
    plot=Plot("token", "rel", log=True),
    run=_run,
    parameters=(
        Parameter("tokens", 7, "how many", 2, 64, only="made"),
        Parameter("depth", 5, "products in the chain", 1, 64, only="made"),
        replace(ROUNDING_PATH, only="made"),
    ),
    published="0.26×, 3.69 %",
    digits=lambda found: f"{found.value:.2f}×, {100 * found.figures['std_ratio_dev']:.2f} %",
    on="either",
    both=True,
    ladder=Ladder(
        "amplification",
        (
            (5.0, "CONFIRMED", "amplifies"),
            (1.5, "PARTIAL", "amplifies a little"),
            (0.7, "FALSIFIED", "neither amplifies nor damps"),
        ),
        "damps",
    ),
)
