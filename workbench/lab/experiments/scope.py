"""Unlike populations: what all tokens of one side against the last token of the other would have reported."""

import numpy as np

from kernels.errors import WorkbenchError
from kernels.forward import steps
from kernels.kinds.elementwise import Multiply
from store.text import printable
from workbench.bisect.models.cell import Side
from workbench.lab.experiment import Experiment, Outcome, Plot, Rows, Settings
from workbench.lab.subject import Subject

_BAND = 2.0
_ALL, _LAST, _ALIKE = 1.2216, 0.0670, 1.245  # the published case: A over 7 tokens, B over the last, both over the last


def _published() -> Outcome:
    unlike = _ALL / _LAST
    return Outcome(
        inputs={"source": "the published figures", "layer": 3, "population": "A: all 7 tokens; B: the last token"},
        series=[{"layer": 3, "all_a": _ALL, "last_b": _LAST, "unlike": unlike, "alike_last": _ALIKE}],
        value=unlike,
        figures={"alike": _ALIKE, "exaggeration": unlike / _ALIKE},
        verdict="CONFIRMED",
        notes=(f"like for like {_ALIKE}× was published later; give A and B to measure both on your own pair",),
    )


def _run(_: Settings, subject: Subject | None) -> Outcome:
    if subject is None:
        return _published()
    name = subject.stage if subject.stage is not None else subject.stage_of(Multiply).site.stage
    series = _layers(subject, name)
    known = [row for row in series if row["unlike"] and row["alike_all"]]
    if not known:
        raise WorkbenchError(f"no layer of both sides has a stage {printable(name, 40)} that varies; try another")
    if subject.layer is None:
        row = max(known, key=lambda row: abs(np.log(row["unlike"])))
    else:
        row = next((row for row in known if row["layer"] == subject.chosen_layer), known[-1])
    tokens = len(subject.ids)
    return Outcome(
        inputs={
            **subject.inputs(both=True),
            "stage": name,
            "layer": row["layer"],
            "population": f"unlike: A over all {tokens} tokens, B over the last; alike: both over all {tokens}",
        },
        series=series,
        value=row["unlike"],
        figures={
            "alike": row["alike_all"],
            "alike_last": row["alike_last"],
            "exaggeration": row["unlike"] / row["alike_all"],
        },
        verdict="CONFIRMED" if _outside(row["unlike"]) and not _outside(row["alike_all"]) else "FALSIFIED",
        notes=(
            f"layer {row['layer']} {name}: {row['unlike']:.4g}× if A is taken over all tokens and B over the last one, "
            f"{row['alike_all']:.4g}× like for like over all, {row['alike_last']:.4g}× over the last",
        ),
    )


def _layers(subject: Subject, stage: str) -> Rows:
    """Standard deviations of a stage of both sides over all tokens and over the last one, and their quotients."""
    a, b = (_spreads(side, subject.ids, stage) for side in (subject.a, subject.b))
    series: Rows = []
    for layer in sorted(a.keys() & b.keys()):
        (all_a, last_a), (all_b, last_b) = a[layer], b[layer]
        series.append(
            {
                "layer": layer,
                "unlike": _quotient(all_a, last_b),
                "alike_all": _quotient(all_a, all_b),
                "alike_last": _quotient(last_a, last_b),
                "unlike_reversed": _quotient(last_a, all_b),
                "all_a": all_a,
                "last_a": last_a,
                "all_b": all_b,
                "last_b": last_b,
            }
        )
    return series


def _spreads(side: Side, ids: tuple[int, ...], stage: str) -> dict[int, tuple[float, float]]:
    """Population standard deviation of a stage over all tokens and over the last one, by layer."""
    found = {}
    for step in steps(side.model, ids, side.path):
        if step.stage.site.stage == stage and step.stage.site.layer is not None:
            values = step.y.astype(np.float64)
            found[step.stage.site.layer] = float(values.std()), float(values[-1].std())
    return found


def _quotient(top: float, bottom: float) -> float | None:
    return top / bottom if bottom and np.isfinite(top) and np.isfinite(bottom) else None


def _outside(ratio: float) -> bool:
    return not 1 / _BAND <= ratio <= _BAND


EXPERIMENT = Experiment(
    id="scope",
    word="scope",
    question="What would all tokens against the last token have reported?",
    claim="unlike populations make a finding (a std ratio outside 0.5 to 2) where like for like there is none",
    shows="std of A over all tokens divided by std of B over the last one, as in the published 18.23×",
    hides="That the populations are unlike: the quotient says how the first tokens of one model differ from its last.",
    plot=Plot("layer", "unlike", log=True),
    run=_run,
    published="18.23×",
    digits=lambda found: f"{found.value:.2f}×",
    on="either",
    both=True,
)
