"""A second map of the same cells beside the first: errors over rounding beside a metric, the metric beside those."""

from kernels.stages import Site
from workbench.app.map.view import MapView
from workbench.cells.heat import Look


class SecondMap(MapView, can_focus=False):
    """Shows what the first map does not; the cursor is the same."""

    def look(self, site: Site) -> Look | None:
        """How a cell looks here."""
        return self.model.second_look(site)

    @property
    def aspect(self) -> str:
        """What is shown, a key of ASPECTS."""
        return self.model.second_aspect
