"""The two lines of words around the map: what is shown and how far it is, and what the signs mean."""

from typing import Literal

from rich.text import Text

from kernels.stages import execution_order
from store.text import printable
from workbench.app.map.model import MapModel
from workbench.cells.heat import ABSENT, IDENTICAL, LEVELS, OUTSIDE, UNCOMPARABLE, UNMEASURED, counts
from workbench.cells.view import ASPECTS, OBSERVED, TokenScope, step_of

Phase = Literal["running", "stopping", "stopped", "failed", "finished"]

_MARKED = {
    OBSERVED: "out of band",
    "local": "more than rounding",
    "inherited": "more than inputs explain",
    "amplification": "more than inputs explain",
    "floors": "more than rounding",
}


def legend(aspect: str) -> str:
    """Say what the signs of a view mean."""
    observed = aspect == OBSERVED
    signs = [
        f"{IDENTICAL[0]} {'same' if observed else 'none'}",
        f"{ABSENT[0]} no such stage",
        f"{UNMEASURED[0]} {'unmeasured' if observed else 'not known'}",
        *([f"{UNCOMPARABLE[0]} unlike"] if observed else []),
        f"{OUTSIDE} {_MARKED[aspect]}",
        f"0-{LEVELS - 1} ×{step_of(aspect):.0f} a step",
    ]
    return "  ".join(signs)


def status(model: MapModel, phase: Phase, doing: str, asking: str) -> Text:
    """Say what the map shows and how far the capture is, or the work on a question; it stands first meanwhile."""
    view = model.view
    text = Text(f" {_shown(model)}", "bold")
    if view.filter:
        text.append(f" │ /{printable(view.filter, 30)}", "bold")
    counted, doing = f" │ {_counted(model)}", f" │ {asking or doing}"
    if phase == "finished" and not asking:
        return text.append(counted).append(doing)
    return text.append(doing, "bold reverse" if phase == "failed" else "").append(counted)


def _shown(model: MapModel) -> str:
    if model.view.aspect != OBSERVED:
        return f"{ASPECTS[model.view.aspect]} │ {TokenScope().label(model.tokens)}"
    return f"{model.metric.label} │ {model.view.tokens.label(model.tokens)} │ observed"


def _counted(model: MapModel) -> str:
    if model.view.aspect != OBSERVED:
        return f"{len(model.checked)} cells run again, {len(model.outside())} unexplained"
    compared, expected = counts(model.cells.values())
    if model.layers:
        expected = len(execution_order(model.layers)) - (len(model.cells) - expected)
    outside = f"{len(model.outside())} out of band" if model.metric.band else "no band"
    return f"{compared}/{expected} compared, {outside}"
