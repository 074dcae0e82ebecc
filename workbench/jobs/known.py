"""What a session has found out about its pair so far: the verdict, its proof, and which cells it covers."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from kernels.stages import Site
from workbench.bisect.verdict import Bisection
from workbench.cells.decomposition import Checked
from workbench.cells.marks import Mark
from workbench.jobs.bisected import Bisected, standing_bisection
from workbench.jobs.local_view import has_local_view, local_view
from workbench.jobs.logged_side import Runs
from workbench.jobs.patched import Patched, accused_part, standing_patch
from workbench.session.session import Session


@dataclass(frozen=True, slots=True)
class Known:
    """What holds of the files that a session shows.

    patched : the exchange of the part that is accused. checked : cells that were run again, and `whole`, whether that
    is all of them.
    """

    bisected: Bisected | None = None
    patched: Patched | None = None
    checked: Mapping[Site, Checked] = field(default_factory=dict)
    whole: bool = False

    @classmethod
    def of(cls, session: Session, runs: Runs) -> "Known":
        """Read it from a session's log; runs : what was run, by side."""
        bisected = standing_bisection(session, runs)
        part = None if bisected is None else accused_part(bisected.found)
        patched = None if part is None else standing_patch(session, part, runs)
        return cls(bisected, patched, local_view(session, runs), has_local_view(session, runs))

    def marks(self, order: Iterable[Site]) -> dict[Site, Mark]:
        """Return what the verdict says of every cell; nothing where there is no verdict on cells.

        order : the cells as they are computed.
        """
        if self.bisected is None or self.bisected.cells_compared is not None:
            return {}
        return _marks(self.bisected.found, self.checked, order)


def _marks(found: Bisection, checked: Mapping[Site, Checked], order: Iterable[Site]) -> dict[Site, Mark]:
    accused = {culprit.site for culprit in (found.culprit, *found.others) if culprit is not None}
    marks: dict[Site, Mark] = {}
    behind = False
    for site in order:
        again = checked.get(site)
        if site in accused:
            marks[site] = "culprit"
        elif again is None:
            marks[site] = "unchecked"
        elif again.beyond_floor:
            marks[site] = "wrong"
        else:
            marks[site] = "inherited" if behind and again.cell.observed != 0 else "fine"
        behind = behind or site == found.first_divergent
    return marks
