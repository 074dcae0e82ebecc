"""Hypotheses that a bisection suggests about a cell, each with a prediction that can fail."""

from typing import NamedTuple

from kernels.stages import Site
from store.text import printable
from workbench.bisect.verdict import Bisection, Culprit
from workbench.cells.decomposition import Decomposition
from workbench.cells.limit import LIMIT


class Proposal(NamedTuple):
    """What a hypothesis could say."""

    title: str
    claim: str
    prediction: str


def proposals(site: Site, found: Bisection) -> list[Proposal]:
    """Return what is worth testing about a cell: what is wrong in it, and whether what it shows was made before it."""
    accused = [each for each in (found.culprit, *found.others) if each is not None]
    here = [each for each in accused if site in (each.site, each.measured_at)]
    proposed = [_made_here(site)]
    if found.culprit in here:
        proposed.insert(0, _of_culprit(found.culprit))
    if not here:
        proposed.append(_came_in(site))
    before = _before(site, found)
    if here and before is not None:
        proposed.append(_starts_here(site, before))
    return proposed


def _of_culprit(culprit: Culprit) -> Proposal:
    at = f"bisect().culprit.stage == {_quoted(culprit.site.stage)}"
    if culprit.site.layer is not None:
        at = f"bisect().culprit.layer == {culprit.site.layer} and {at}"
    title = printable(f"{culprit.cause}: {culprit.tensor or culprit.site}", 120)
    prediction = f"{at} and bisect().culprit.cause == {_quoted(culprit.cause)}"
    return Proposal(title, printable(culprit.explanation, 400), prediction)


def _made_here(site: Site) -> Proposal:
    return Proposal(
        f"{site} adds a difference of its own",
        "On one input the two sides give other values here than rounding can cause.",
        f"{_cell(site)}.floors > {LIMIT:g} and {_cell(site)}.local_share > 0.5",
    )


def _came_in(site: Site) -> Proposal:
    return Proposal(
        f"{site} only shows what came in",
        "The difference was made before this stage, which adds no more than rounding can cause.",
        f"{_cell(site)}.floors <= {LIMIT:g} and {_cell(site)}.inherited_share > 0.5",
    )


def _starts_here(site: Site, before: Site) -> Proposal:
    return Proposal(
        f"{site} is the first that is wrong",
        f"What comes before it, {before}, adds no more than rounding can cause.",
        f"{_cell(before)}.floors <= {LIMIT:g} and {_cell(site)}.floors > {LIMIT:g}",
    )


def _before(site: Site, found: Bisection) -> Site | None:
    """The cell that was run again just before another."""
    order: list[Decomposition] = list(found.checked)
    places = [number for number, cell in enumerate(order) if cell.site == site]
    return order[places[0] - 1].site if places and places[0] > 0 else None


def _cell(site: Site) -> str:
    layer = "" if site.layer is None else f"{site.layer}, "
    return f"cell({layer}{_quoted(site.stage)})"


def _quoted(text: str) -> str:
    """A text as predictions have it, which know no escapes."""
    quote = "'" if '"' in text else '"'
    return f"{quote}{''.join(c for c in text if c != quote and c != chr(10))}{quote}"
