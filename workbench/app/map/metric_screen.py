"""A list of the metrics with their definitions, to pick one."""

from typing import ClassVar

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.screen import ModalScreen
from textual.widgets import OptionList
from textual.widgets.option_list import Option

from workbench.cells.metrics import METRICS, Metric


class MetricScreen(ModalScreen[str | None]):
    """Returns the key of the metric picked, or None."""

    BINDINGS: ClassVar[list[BindingType]] = [
        ("escape,q", "dismiss", "Back"),
        ("j", "list('cursor_down')", "Down"),
        ("k", "list('cursor_up')", "Up"),
    ]

    def __init__(self, current: str) -> None:
        super().__init__()
        self._current = current

    def compose(self) -> ComposeResult:
        """Lay out the list."""
        metrics = (Option(_describe(metric), id=key) for key, metric in METRICS.items())
        options = OptionList(*metrics, classes="dialog", markup=False)
        options.border_title = "Metric"
        options.border_subtitle = "enter pick · esc back"
        options.highlighted = list(METRICS).index(self._current)
        yield options

    def action_list(self, action: str) -> None:
        """Move the cursor of the list."""
        getattr(self.query_one(OptionList), f"action_{action}")()

    def on_option_list_option_selected(self, event: OptionList.OptionSelected) -> None:
        """Return the metric picked."""
        self.dismiss(event.option_id)


def _describe(metric: Metric) -> Text:
    band = f"  band {metric.band[0]:g} to {metric.band[1]:g}" if metric.band else "  no band"
    return Text.assemble((metric.label, "bold"), (band, "dim"), f"\n  {metric.definition}")
