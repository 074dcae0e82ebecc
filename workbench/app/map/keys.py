"""The keys of the map that change what it shows: cursor, metric, tokens, axes, filter."""

from abc import abstractmethod

from textual.screen import Screen

from kernels.stages import Site
from workbench.app.map.metric_screen import MetricScreen
from workbench.app.map.model import MapModel
from workbench.app.map.undo import Undo
from workbench.app.map.view import MapView
from workbench.app.pages.prompt_screen import PromptScreen
from workbench.cells.heat import counts
from workbench.cells.metrics import METRICS
from workbench.cells.view import OBSERVED, View, filter_problem, filtered


class MapKeys(Screen[None]):
    """The part of the map's screen that moves about in it."""

    model: MapModel
    undo: Undo

    @property
    def map(self) -> MapView:
        """The map."""
        return self.query_one(MapView)

    @abstractmethod
    def change_view(self, view: View) -> None:
        """Show the map in another way."""

    @abstractmethod
    def show_view(self, view: View) -> None:
        """Show the map in another way, without keeping the one before."""

    def action_move(self, rows: int, columns: int) -> None:
        """Move the cursor."""
        if abs(rows) + abs(columns) > 1:
            self.undo.leaving(self.model.view)
        self.map.move(rows, columns)

    def jump(self, site: Site) -> None:
        """Put the cursor on a site that may be anywhere."""
        self.undo.leaving(self.model.view)
        before = self.model.layer_axis
        self.map.go(site)
        if self.model.layer_axis != before:  # the site was one of those that another stood for
            self.lay_out()

    def action_undo(self) -> None:
        """Go back to the view before: its metric, tokens, filter, axes, and where the cursor was."""
        view = self.undo.back(self.model.view)
        if view is None:
            self.notify("There is no view before this one.", markup=False)
        else:
            self.show_view(view)

    def action_next_outside(self, direction: int) -> None:
        """Go to the next or previous cell out of band."""
        site = self.model.next_outside(direction)
        if site is not None:
            self.jump(site)
        else:
            self.notify(self._nothing_more(direction), markup=False)

    def _nothing_more(self, direction: int) -> str:
        """Say why there is no cell to go to; what was not measured is not called right."""
        further, model = "further" if direction > 0 else "earlier", self.model
        if model.marks:
            return f"The verdict accuses no {further} cell."
        if model.view.aspect != OBSERVED and not model.viewed:
            return f"No {further} cell stands out of those that were run again so far."
        if model.view.aspect == OBSERVED and model.metric.band is None:
            return f"{model.metric.label} has no band; choose a metric that has one (m)."
        compared, expected = counts(model.cells.values())
        expected = max(expected, len(model.every_site()) - len(model.cells) + expected)
        if compared < expected:
            return f"No {further} cell is out of band, of the {compared} of {expected} that were compared."
        return f"No {further} cell is out of band."

    def action_cycle_metric(self, direction: int) -> None:
        """Show the next or previous metric."""
        keys = list(METRICS)
        here = keys.index(self.model.view.metric)
        self._show_metric(keys[(here + direction) % len(keys)])

    def _show_metric(self, key: str) -> None:
        """Show a metric; say it where the map shows something else."""
        self.change_view(self.model.view._replace(metric=key))
        if OBSERVED not in {view.aspect for view in self.query(MapView) if view.display}:
            label = self.model.metric.label
            self.notify(f"{label} is of what was observed, which i goes on to; this map shows no metric.", markup=False)

    def action_pick_metric(self) -> None:
        """Choose the metric from a list."""

        def picked(key: str | None) -> None:
            if key is not None:
                self._show_metric(key)

        self.app.push_screen(MetricScreen(self.model.view.metric), picked)

    def action_cycle_tokens(self) -> None:
        """Show all tokens, the last, or one."""
        if self._covers_all_tokens():
            return
        self.change_view(self.model.view._replace(tokens=self.model.view.tokens.following()))

    def action_shift_token(self, by: int) -> None:
        """Show one token, the one before or after."""
        if self._covers_all_tokens():
            return
        self.change_view(self.model.view._replace(tokens=self.model.view.tokens.shifted(by, self.model.tokens)))

    def _covers_all_tokens(self) -> bool:
        """Say that a view has no other tokens to show, if it has none."""
        all_tokens = self.model.view.aspect != OBSERVED
        if all_tokens:
            self.notify("What was run again is known over all tokens only; i goes on to the observed.", markup=False)
        return all_tokens

    def show_site(self, site: Site) -> None:
        """Put the cursor on a site; a filter that hides it is taken away."""
        if not self.model.shows(site):
            self.change_view(self.model.view._replace(filter=""))
        if self.model.shows(site):
            self.jump(site)
        else:
            self.notify(f"The map has no {site}.", markup=False)

    @abstractmethod
    def lay_out(self) -> None:
        """Fit the map to its axes and to the terminal."""

    def action_fold(self) -> None:
        """Take layers that look alike together, or show each."""
        if self.model.cells:
            self.model.fold(not self.model.folded)
            self.lay_out()

    def action_transpose(self) -> None:
        """Exchange rows and columns."""
        self.change_view(self.model.view._replace(transposed=not self.map.stage_rows))

    def action_filter(self) -> None:
        """Ask which stages and layers to show."""

        def problem(text: str) -> str:
            _, layers = filtered(text, self.model.layers, self.model.stages)
            nothing = self.model.layers and not layers
            return filter_problem(text) or (f"The layers are 0-{self.model.layers - 1}." if nothing else "")

        def entered(text: str | None) -> None:
            if text is not None:
                self.change_view(self.model.view._replace(filter=text.strip()))

        self.app.push_screen(
            PromptScreen("Stages and layers to show: ffn 3-7", self.model.view.filter, problem), entered
        )
