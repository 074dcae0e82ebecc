"""Every weight tensor of both sides, compared while you watch."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from rich.text import Text
from textual import work
from textual.binding import BindingType
from textual.message import Message
from textual.worker import get_current_worker

from kernels.errors import WorkbenchError
from store.text import printable
from workbench.app.actions import bindings
from workbench.app.pages.list_screen import ListScreen
from workbench.app.pages.prompt_screen import PromptScreen
from workbench.cells.heat import OUTSIDE
from workbench.cells.metrics import METRICS, format_value

if TYPE_CHECKING:
    from collections.abc import Callable

    from workbench.tensors.sweep import TensorDifference

_NAME, _LONGEST_NAME = 35, 60  # columns of the tensor name, at 80 columns and at the most
_SHOWN = ("rel_rms", "one_minus_cosine", "max_abs")


class WeightsScreen(ListScreen):
    """Lists the differences that `sweep` yields, with the number of tensors expected; opens at tensor `name`."""

    NAME = "weights"
    BINDINGS: ClassVar[list[BindingType]] = list(bindings(NAME))

    @dataclass(eq=False, repr=False)
    class Measured(Message):
        """One more tensor has been compared, of `expected`."""

        difference: "TensorDifference"
        expected: int

    @dataclass(eq=False, repr=False)
    class Refused(Message):
        """The tensors cannot be compared, for the reason that the sentence gives."""

        sentence: str

    def __init__(self, sweep: "Callable[[], Iterator[tuple[TensorDifference, int]]]", name: str | None = None) -> None:
        super().__init__()
        self._sweep = sweep
        self._wanted = name
        self._expected = 0
        self._differences: list[TensorDifference] = []
        self._shown: list[TensorDifference] = []
        self._worst_first = False
        self._filter = ""

    def on_resize(self) -> None:
        """Give the names what room there is."""
        self.list.head = (
            f"  {'tensor':<{self._name_width}} {'types A/B':<10}{'rel. RMS':>9} {'1-cosine':>9} {'max |d|':>9}"
        )
        self.list.refresh()

    @property
    def _name_width(self) -> int:
        return min(max(self.size.width - 80 + _NAME, _NAME), _LONGEST_NAME)

    def on_mount(self) -> None:
        """Start comparing."""
        self.say("reading both models")
        self._run()

    @work(thread=True, exclusive=True, group="weights", exit_on_error=False)
    def _run(self) -> None:
        worker = get_current_worker()
        try:
            for difference, expected in self._sweep():
                if worker.is_cancelled:
                    return
                self.post_message(self.Measured(difference, expected))
        except WorkbenchError as error:
            self.post_message(self.Refused(str(error)))

    def on_weights_screen_refused(self, message: Refused) -> None:
        """Say why there are no weights to compare."""
        self.say("the tensors could not be compared")
        self.describe(Text(printable(message.sentence, 400), "bold"))

    def on_weights_screen_measured(self, message: Measured) -> None:
        """List one more tensor."""
        self._expected = message.expected
        self._differences.append(message.difference)
        self._refill(self._wanted)
        if message.difference.name == self._wanted:
            self._wanted = None

    def detail(self, index: int) -> Text:
        """Return everything known about a tensor."""
        return _details(self._shown[index])

    def action_cycle_order(self) -> None:
        """Order by how bad they are, from the worst on; or as in the model, and stay with the tensor."""
        self._worst_first = not self._worst_first
        self._refill(self._current())
        if self._worst_first:
            self.list.go(0)

    def action_filter(self) -> None:
        """Ask which tensors to show."""

        def entered(text: str | None) -> None:
            if text is not None:
                current, self._filter = self._current(), text.strip()
                self._refill(current)

        self.app.push_screen(PromptScreen("Text in the name of the tensors to show", self._filter), entered)

    def _current(self) -> str | None:
        return self._shown[self.list.cursor].name if self._shown else None

    def _refill(self, name: str | None) -> None:
        """Show the tensors that the filter leaves, the cursor on tensor `name` if it is there."""
        shown = [difference for difference in self._differences if self._filter in difference.name]
        if self._worst_first:
            shown.sort(key=_badness, reverse=True)
        self._shown = shown
        places = [index for index, difference in enumerate(shown) if difference.name == name]
        self.list.show(len(shown), self._line, cursor=places[0] if places else None)
        if self._filter and not shown:
            self.describe(Text(f"No name of a tensor holds {printable(self._filter, 30)}; / asks again."))
        alone = sum(difference.status in ("only_a", "only_b") for difference in self._differences)
        bad = sum(difference.in_band is False for difference in self._differences)
        parts = [f"{len(self._differences) - alone}/{self._expected} tensors compared"]
        parts += [f"/{printable(self._filter, 30)}"] if self._filter else []
        parts += [f"{bad} out of band", f"{alone} unmatched", "worst first" if self._worst_first else "model order"]
        self.say(" │ ".join(parts))

    def _line(self, index: int) -> tuple[str, bool]:
        difference = self._shown[index]
        bad = difference.in_band is False
        name = printable(difference.name.removeprefix("model."), self._name_width - 1)
        types = "/".join(dict.fromkeys(kind or "-" for kind in (difference.type_a, difference.type_b)))
        start = f"{OUTSIDE if bad else ' '} {name:<{self._name_width}} {types:<10}"
        if difference.status == "identical":
            return f"{start}{'= identical':>11}", False
        if difference.measures is None:
            return f"{start}{difference.note or difference.status}", True
        return start + " ".join(f"{_figure(difference, key):>9}" for key in _SHOWN), bad


def _figure(difference: "TensorDifference", key: str) -> str:
    assert difference.measures is not None
    return METRICS[key].text(difference.measures)


def _badness(difference: "TensorDifference") -> tuple[bool, float]:
    """Place in the order of how bad they are: what is out of band, then what has no number, then by size."""
    measures = difference.measures
    if difference.status == "identical":
        return False, 0.0
    value = None if measures is None else measures.rel_rms
    return difference.in_band is False, float("inf") if value is None else value


def _details(difference: "TensorDifference") -> Text:
    """Return everything known about one tensor."""
    text = Text(f"{printable(difference.name)}\n", "bold")
    sides = (("A", difference.shape_a, difference.type_a), ("B", difference.shape_b, difference.type_b))
    text.append("  ".join(f"{side} {_dims(shape)} {kind or ''}" for side, shape, kind in sides))
    if difference.note:
        text.append(f"\n{printable(difference.note, 300)}")
    for finding in difference.findings:
        text.append(f"\n• {printable(finding, 300)}")
    measures = difference.measures
    if measures is not None:
        keys = ("mean_abs", "rms", "max_abs", "rel_rms", "one_minus_cosine")
        figures = (f"{METRICS[key].label} {_figure(difference, key)}" for key in keys)
        text.append("\n" + "  ".join(figures))
        text.append(f"\ncompared {measures.finite} of {measures.count}")
        if difference.worst_row_rel_rms is not None and not measures.identical:
            text.append(
                f"; worst row {difference.worst_row}, relative RMS {format_value(difference.worst_row_rel_rms)}"
            )
    return text


def _dims(shape: tuple[int, ...] | None) -> str:
    return "has none" if shape is None else "×".join(map(str, shape))
