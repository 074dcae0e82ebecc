"""The lines of words around the map: the verdict, what is shown and how far it is, and what the signs mean."""

from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from rich.text import Text

from kernels.models import sites
from kernels.stages import Site
from store.text import printable
from workbench.app.map.model import MapModel
from workbench.bisect.headline import SIGNS as SIGN_OF
from workbench.cells.heat import ABSENT, BEYOND, IDENTICAL, LEVELS, OUTSIDE, UNCOMPARABLE, UNMEASURED, counts
from workbench.cells.limit import LIMIT
from workbench.cells.marks import MEANINGS, SIGNS, Mark
from workbench.cells.view import ASPECTS, FLOORS, OBSERVED, TokenScope, step_of

if TYPE_CHECKING:
    from store.traces.run import RunRecord
    from workbench.jobs.bisected import Bisected
    from workbench.jobs.known import Known
    from workbench.lab.standing import Board
    from workbench.session.session import Side

Phase = Literal["running", "stopping", "stopped", "failed", "finished"]

_MARKED = {
    OBSERVED: "out of band",
    "local": "more than rounding",
    "inherited": "more than inputs explain",
    "amplification": "more than inputs explain",
    FLOORS: "more than rounding",
}


def headline(bisected: "Bisected | None", phase: Phase, refusal: str, bisecting: bool) -> tuple[str, Text]:
    """Return the verdict in one sentence and of which kind it is: whole, broken or open; it follows the capture.

    refusal : why there is no verdict. bisecting : whether one is being looked for.
    """
    if bisected is not None:
        from workbench.bisect.verdict import EXIT_CODES

        verdict = bisected.found.verdict
        kind = {0: "whole", 1: "broken"}.get(EXIT_CODES[verdict], "open")
        return kind, Text(f" {SIGN_OF[verdict]} {bisected.headline}", "bold")
    if phase in ("running", "stopping"):
        said = "Both sides run; which cells are really wrong is looked for when they are all there."
    elif bisecting:
        said = "Looking for the first place that is really wrong."
    elif refusal:
        said = f"No verdict: {printable(refusal, 400)}"
    elif phase == "finished":
        said = "No verdict yet: b finds the first place that is really wrong."
    else:
        said = "No verdict: the capture is not complete."
    return "open", Text(f" {said}")


def legend(aspect: str, marks: Collection[Mark], second: str = "", small: bool = False) -> str:
    """Say what the signs of a view mean; marks : of a verdict, empty without one. second : view of a second map.

    small : whether cells have one column, in which the digit says that a cell is fine.
    """
    observed = aspect == OBSERVED
    signs_of = SIGNS | ({"fine": "digit"} if small else {})
    judged = [f"{signs_of[mark]} {meaning}" for mark, meaning in MEANINGS.items() if mark in marks]
    signs = [
        *judged,
        f"{IDENTICAL[0]} {'same' if observed else 'none'}",
        f"{ABSENT[0]} no such stage",
        f"{UNMEASURED[0]} {'unmeasured' if observed else 'not known'}",
        *([f"{UNCOMPARABLE[0]} unlike"] if observed else []),
        *([] if judged else [f"{OUTSIDE} {_MARKED[aspect]}"]),
        _scale(aspect),
        *([f"beside: {_scale(second)}"] if second else []),
    ]
    return "  ".join(signs)


def _scale(aspect: str) -> str:
    """Say what the digits are."""
    if aspect == FLOORS:
        return f"0-{LIMIT:g} times what rounding can cause, {BEYOND} more"
    return f"0-{LEVELS - 1} ×{step_of(aspect):.0f} a step"


def status(model: MapModel, phase: Phase, doing: str, asking: str, two: bool = False) -> Text:
    """Say what the map shows and how far the capture is; work on a question stands first, and how to stop it.

    The end is cut where the terminal is narrow. two : whether a second map stands beside the first.
    """
    view, text = model.view, Text(" ")
    if asking:
        text.append(f"{asking} │ ")
    text.append(_shown(model), "bold")
    if two:
        beside = model.metric.label if model.second_aspect == OBSERVED else ASPECTS[model.second_aspect]
        text.append(f" │ beside it {beside}", "bold")
    if view.filter:
        text.append(f" │ /{printable(view.filter, 30)}", "bold")
    if model.folded:
        text.append(f" │ {model.layers} layers in {len(model.layer_axis)}", "bold")
    if not asking:
        text.append(f" │ {doing}", "bold reverse" if phase == "failed" else "")
    return text.append(f" │ {_counted(model)}")


def _shown(model: MapModel) -> str:
    if model.view.aspect != OBSERVED:
        return f"{ASPECTS[model.view.aspect]} │ {TokenScope().label(model.tokens)}"
    return f"{model.metric.label} │ {model.view.tokens.label(model.tokens)}"


def _counted(model: MapModel) -> str:
    if model.view.aspect != OBSERVED:
        unexplained = "" if model.marks else f", {len(model.outside())} unexplained"
        return f"{len(model.checked)} cells run again{unexplained}"
    compared, expected = counts(model.cells.values())
    if model.layers:
        expected = len(sites(model.layers, model.stages)) - (len(model.cells) - expected)
    if model.marks:  # the headline says the verdict
        return f"{compared}/{expected} compared"
    outside = f"{len(model.outside())} out of band" if model.metric.band else "no band"
    return f"{compared}/{expected} compared, {outside}"


def next_steps(
    phase: Phase, known: "Known | None", accused: Site | None, cursor: Site, bisecting: bool
) -> tuple[str, ...]:
    """Return the keys of what to do next, on the way from where to why, proof and export."""
    if phase in ("running", "stopping"):
        return ("escape",)
    if phase != "finished":
        return ("r",)
    if known is None or known.bisected is None:
        return () if bisecting else ("b",)
    if accused is None:
        return ("e",)
    if accused != cursor:
        return ("b",)
    return ("enter", "P") if known.patched is None else ("enter", "a", "e")


def side_name(side: "Side", run: "RunRecord | None") -> str:
    """Name a side: its file and its numeric path, as it was run if that is known."""
    path = run.numeric_path if run else side.numeric_path
    return f"{printable(Path(side.path).name, 60)} [{path or 'recorded'}]"


def claims_by_site(board: "Board") -> dict[Site, list[str]]:
    """Return what is claimed of each cell, and how that stands."""
    claims: dict[Site, list[str]] = {}
    for standing in board.standings:
        if (site := standing.hypothesis.site) is not None:
            words = f"{standing.number} {standing.words}: {printable(standing.hypothesis.title, 80)}"
            claims.setdefault(site, []).append(words)
    return claims
