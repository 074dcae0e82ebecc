"""The map without a screen: the cells as they arrive, the grid they stand in, and the user's place in it."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from kernels.config import ModelConfig
from kernels.measures import Measures
from kernels.models import layer_stages, sites, stages_of
from kernels.stages import FIRST_STAGES, LAST_STAGES, SPINE, Site
from workbench.app.map.folding import folded
from workbench.cells.cell import Cell
from workbench.cells.decomposition import Checked
from workbench.cells.heat import OUTSIDE, Look, level_edge, look, look_of, look_of_times
from workbench.cells.marks import SIGNS, Mark
from workbench.cells.metrics import METRICS, Metric
from workbench.cells.view import FLOORS, OBSERVED, View, filtered, step_of

if TYPE_CHECKING:
    from workbench.jobs.known import Known


class MapModel:
    """Cells by site, seen through a View. Whole-model stages stand at the first or the last layer shown."""

    def __init__(self, view: View) -> None:
        self.view = view
        self.layers = 0
        self.stages = SPINE  # of a layer
        self.tokens = 0
        self.cells: dict[Site, Cell] = {}
        self.aligned: dict[Site, Cell] = {}  # last-token cells of stages whose whole populations are unlike
        self.checked: dict[Site, Checked] = {}  # cells that were run again
        self.viewed = False  # whether that is all of them
        self.marks: dict[Site, Mark] = {}  # what a verdict says of the cells; empty without one
        self.folded = False  # whether layers that look alike stand in one place
        self._spans: dict[int, tuple[int, int]] = {}  # layers that one of them stands for
        self.stage_axis: list[str] = []
        self.layer_axis: list[int] = []
        self._layer = view.cursor.layer or 0  # where the cursor returns to from a whole-model stage
        self._looks: dict[Site, Look] = {}
        self._edge = 0.0
        self._largest = 0.0  # figure of the aspect shown
        self._lay_out()

    # What is known

    def set_size(self, tokens: int, *configs: ModelConfig) -> None:
        """Take the number of tokens, and what models of these configurations have."""
        self.tokens = tokens
        if configs:
            self.layers = max(config.num_hidden_layers for config in configs)
            self.stages = stages_of(*configs)
        self._lay_out()

    def receive(self, cell: Cell) -> None:
        """Take a cell; others may look different because of it."""
        self.cells[cell.site] = cell
        self._looks.pop(cell.site, None)
        edge = max(self._edge, self._edge_of(cell))
        if edge != self._edge:
            self._edge = edge
            self._looks.clear()

    def check(self, checked: Checked) -> None:
        """Take a cell that was run again."""
        site = checked.cell.site
        known = self.checked.get(site)
        if known is None or known.amplification is None:  # of two runs the one that looked at the inputs too
            self.checked[site] = checked
            self._looks.pop(site, None)
            largest = max(self._largest, self.figure(checked) or 0.0)
            if largest != self._largest:
                self._largest = largest
                self._looks.clear()

    def take_known(self, known: "Known") -> None:
        """Take the verdict of the pair, and the cells that it rests on."""
        for checked in known.checked.values():
            self.check(checked)
        self.viewed = self.viewed or known.whole
        self.marks = known.marks(self.every_site())
        self._lay_out()

    def forget(self) -> None:
        """Drop all cells: the capture starts anew."""
        self.cells.clear()
        self.marks, self.folded = {}, False
        self.aligned.clear()
        self._judge_again()

    def align(self, cells: Iterable[Cell]) -> None:
        """Take the last-token cells of stages whose whole populations are unlike."""
        self.aligned.update((cell.site, cell) for cell in cells)
        self._judge_again()

    # What is shown

    @property
    def metric(self) -> Metric:
        """The metric shown."""
        return METRICS[self.view.metric]

    @property
    def cursor(self) -> Site:
        """The site under the cursor."""
        return self.view.cursor

    def cell(self, site: Site) -> Cell | None:
        """Return the cell in the token scope shown, or None if it has not arrived."""
        cell = self.cells.get(site)
        if cell is not None and cell.status == "uncomparable" and self.view.tokens.kind == "last":
            return self.aligned.get(site, cell)
        return cell

    def row(self, cell: Cell) -> int | None:
        """Row of a cell that the token scope selects; None for all."""
        return self.view.tokens.row(cell, self.tokens)

    def measures(self, site: Site) -> Measures | None:
        """Return the metrics of a cell over the tokens shown."""
        cell = self.cell(site)
        return None if cell is None else cell.measures(self.row(cell))

    def look(self, site: Site) -> Look | None:
        """Return how the cell looks in the metric and scope shown; None if it has not arrived."""
        known = self._looks.get(site)
        if known is None and (cell := self.cell(site)) is not None:
            known = self._looks[site] = self._look(cell, self.view.aspect, self._edge)
        return known

    @property
    def second_aspect(self) -> str:
        """What a second map shows beside the first."""
        return FLOORS if self.view.aspect != FLOORS else OBSERVED

    def second_look(self, site: Site) -> Look | None:
        """Return how the cell looks on a second map."""
        cell = self.cell(site)
        return None if cell is None else self._look(cell, self.second_aspect, self._edge)

    def _look(self, cell: Cell, aspect: str, edge: float) -> Look:
        if aspect == OBSERVED or cell.status == "absent":
            return look(cell, self.metric, edge, self.row(cell))
        checked = self.checked.get(cell.site)
        beyond = checked is not None and checked.beyond_floor
        if aspect == FLOORS:
            return look_of_times(None if checked is None else checked.floors, beyond)
        if aspect in ("inherited", "amplification"):
            beyond = checked is not None and checked.unforeseen
        return look_of(self.figure(checked), self._largest, beyond, step_of(aspect))

    def figure(self, checked: Checked | None) -> float | None:
        """The figure of the aspect shown, of a cell that was run again; None where there is none."""
        if checked is None:
            return None
        match self.view.aspect:
            case "local":
                return checked.cell.local
            case "inherited":
                return checked.cell.inherited
            case "amplification":
                return checked.amplification
        return checked.floors

    def sign(self, site: Site) -> str:
        """Return what stands behind a cell's figure: what the verdict says of it, or without one the band."""
        if self.marks:
            return SIGNS[self.marks[site]] if site in self.marks else " "
        seen = self.look(site)
        return OUTSIDE if seen is not None and seen.outside else " "

    def outside(self) -> list[Site]:
        """Sites shown that stand out, in execution order: by the verdict, or without one those out of band."""
        if self.marks:
            return [site for site in self.sites() if self.marks.get(site) in ("culprit", "wrong")]
        return [site for site in self.sites() if (seen := self.look(site)) is not None and seen.outside]

    def set_view(self, view: View) -> None:
        """Show another metric, scope or filter."""
        judged = any(getattr(view, name) != getattr(self.view, name) for name in ("metric", "tokens", "aspect"))
        self.view = view
        if judged:
            self._judge_again()
        self._lay_out()

    # The grid

    def fold(self, folded: bool) -> None:
        """Let one layer stand for those beside it that look alike, or show them all; the cursor stays where it is."""
        self.folded = folded
        self._lay_out()

    def span(self, layer: int) -> tuple[int, int]:
        """Return the first and the last layer that a layer of the axis stands for."""
        return self._spans.get(layer, (layer, layer))

    def shows(self, site: Site) -> bool:
        """Whether a site has a place on the map, though another may stand there for it."""
        hidden = site.layer is not None and any(first <= site.layer <= last for first, last in self._spans.values())
        return site in self.sites() or (hidden and site.stage in self.stage_axis)

    def site(self, stage: int, layer: int) -> Site | None:
        """Site at two indices of the axes; None where a whole-model stage leaves the grid empty."""
        name = self.stage_axis[stage]
        if name in self.stages:
            return Site(self.layer_axis[layer], name) if self.layer_axis else None
        return Site(None, name) if layer == self._whole_model_index(name) else None

    def place(self, site: Site) -> tuple[int, int]:
        """Return indices of a site on the stage and the layer axis; (0, 0) if it is filtered out."""
        if site.stage not in self.stage_axis:
            return 0, 0
        if site.layer is None:
            return self.stage_axis.index(site.stage), self._whole_model_index(site.stage)
        layer = self.layer_axis.index(site.layer) if site.layer in self.layer_axis else 0
        return self.stage_axis.index(site.stage), layer

    def sites_of(self, layer: int) -> list[Site]:
        """Sites of a layer that are shown, in execution order."""
        return [Site(layer, stage) for stage in self.stage_axis if stage in self.stages]

    def every_site(self) -> list[Site]:
        """All sites, shown or not, in execution order."""
        return sites(self.layers, self.stages)

    def sites(self) -> list[Site]:
        """Sites shown, in execution order."""
        first, middle, last = (
            [stage for stage in self.stage_axis if stage in group] for group in (FIRST_STAGES, self.stages, LAST_STAGES)
        )
        inner = [Site(layer, stage) for layer in self.layer_axis for stage in middle]
        return [Site(None, stage) for stage in first] + inner + [Site(None, stage) for stage in last]

    def move(self, stages: int, layers: int) -> None:
        """Move the cursor along the axes, stopping at the ends."""
        if not self.stage_axis:
            return
        stage, _ = self.place(self.cursor)
        name = self.stage_axis[min(max(stage + stages, 0), len(self.stage_axis) - 1)]
        if name not in self.stages:
            self.put_cursor(Site(None, name))
        elif self.layer_axis:
            here = self.layer_axis.index(self._layer) if self._layer in self.layer_axis else 0
            step = layers if self.cursor.layer is not None else 0
            self.put_cursor(Site(self.layer_axis[min(max(here + step, 0), len(self.layer_axis) - 1)], name))

    def next_outside(self, direction: int) -> Site | None:
        """Return the next (1) or previous (-1) site out of band from the cursor, or None."""
        order = {site: index for index, site in enumerate(self.sites())}
        here = order.get(self.cursor, -1)
        ahead = [site for site in self.outside() if (order[site] - here) * direction > 0]
        return (ahead[0] if direction > 0 else ahead[-1]) if ahead else None

    def put_cursor(self, site: Site) -> None:
        """Put the cursor on a site."""
        self.view = self.view._replace(cursor=site)
        if site.layer is not None:
            self._layer = site.layer
            if self._spans and site.layer not in self.layer_axis:
                self._lay_out()

    def _whole_model_index(self, stage: str) -> int:
        return 0 if stage in FIRST_STAGES else max(len(self.layer_axis) - 1, 0)

    def _lay_out(self) -> None:
        self.stage_axis, self.layer_axis = filtered(self.view.filter, self.layers, self.stages)
        self._spans = {}
        if self.folded:
            self.layer_axis, self._spans = folded(self.layer_axis, self._looks_of, self._layer)
        shown = set(self.sites())
        if shown and self.layers and self.cursor not in shown:
            self.put_cursor(min(shown, key=self._distance))

    def _looks_of(self, layer: int) -> tuple[tuple[str, str], ...]:
        """What the digits and signs of a layer are."""
        sites = (Site(layer, stage) for stage in self.stages if stage in self.stage_axis)
        return tuple(("" if (seen := self.look(site)) is None else seen.glyph, self.sign(site)) for site in sites)

    def _distance(self, site: Site) -> tuple[int, int]:
        """How far a site is from the cursor, layers before stages."""
        stages = FIRST_STAGES + layer_stages() + LAST_STAGES
        apart = abs(stages.index(site.stage) - stages.index(self.cursor.stage))
        return abs((site.layer if site.layer is not None else self._layer) - self._layer), apart

    def _edge_of(self, cell: Cell) -> float:
        return level_edge([cell], self.metric, self.row(cell))

    def _judge_again(self) -> None:
        self._looks.clear()
        self._largest = max((self.figure(checked) or 0.0 for checked in self.checked.values()), default=0.0)
        # Where a metric has a band, its edge does not depend on the cells.
        cells = () if self.metric.band else filter(None, map(self.cell, self.cells))
        self._edge = max(map(self._edge_of, cells), default=level_edge((), self.metric))
