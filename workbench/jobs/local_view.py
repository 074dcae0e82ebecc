"""Every cell of a pair run again, as a session's log keeps it: what each stage adds by itself."""

from collections.abc import Iterable, Mapping

from kernels.stages import Site
from store.errors import StoreError
from workbench.cells.decomposition import Checked
from workbench.cells.sites import site_json
from workbench.jobs.bisected import standing_bisection
from workbench.jobs.logged_side import LoggedSide, Runs, are_of, read_sides, sides_json
from workbench.lab.retractions import standing_entries
from workbench.session.session import Session

_KIND = "run again"


def keep_local_view(session: Session, sides: Mapping[str, LoggedSide], cells: Iterable[Checked]) -> None:
    """Keep cells that were run again in a session's log; SessionError if it cannot be written."""
    session.log(_KIND, **sides_json(sides), cells=[site_json(cell.cell.site) | cell.record() for cell in cells])


def local_view(session: Session, runs: Runs) -> dict[Site, Checked]:
    """Return the cells that were run again with the files of these runs: all of them, else those of the bisection.

    What was taken back is not shown, neither all cells nor those of a bisection.
    """
    whole = _whole(session, runs)
    if whole is not None:
        return whole
    known = standing_bisection(session, runs)
    if known is None:
        return {}
    of_models = "trace" not in (known.a.format, known.b.format)
    return {checked.cell.site: checked for checked in known.found.judged(of_models)}


def has_local_view(session: Session, runs: Runs) -> bool:
    """Whether all cells have been run again with the files of these runs."""
    return _whole(session, runs) is not None


def _whole(session: Session, runs: Runs) -> dict[Site, Checked] | None:
    """The last entry that was not taken back, unless it is of other files or somebody has changed it by hand."""
    entries = [entry for entry in standing_entries(session).values() if entry.get("kind") == _KIND]
    try:
        if not entries or not are_of(read_sides(entries[-1], "cells that were run again"), runs):
            return None
        cells = entries[-1].get("cells")
        found = map(Checked.from_record, cells if isinstance(cells, list) else [])
        return {checked.cell.site: checked for checked in found}
    except StoreError:
        return None
