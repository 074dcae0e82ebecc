"""The ledger of both sides: what was done to every tensor, and how often its weights show it."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, NamedTuple

from rich.text import Text
from textual import work
from textual.binding import BindingType
from textual.message import Message

from kernels.errors import WorkbenchError
from store.text import printable
from workbench.app.actions import bindings
from workbench.app.pages.list_screen import ListScreen

if TYPE_CHECKING:
    from workbench.conventions.ledger import Ledger

_NAME, _LONGEST_NAME = 26, 56  # columns of the tensor name, at 80 columns and at the most
_DONE, _SAID = 20, 9  # columns of what is done and of how often it should be


class _Row(NamedTuple):
    """A line of the list. marked : whether something is wrong there. more : what there is to say beyond the line."""

    text: str
    marked: bool = False
    more: str = ""


class ConventionsScreen(ListScreen):
    """Shows the ledgers of A and of B that `read` gives; what is wrong stands first."""

    NAME = "conventions"
    BINDINGS: ClassVar[list[BindingType]] = list(bindings(NAME))

    @dataclass(eq=False, repr=False)
    class Read(Message):
        """Both files have been looked at."""

        ledgers: "tuple[Ledger, Ledger]"

    @dataclass(eq=False, repr=False)
    class Refused(Message):
        """They cannot be, for the reason that the sentence gives."""

        sentence: str

    def __init__(self, read: "Callable[[], tuple[Ledger, Ledger]]") -> None:
        super().__init__()
        self._read = read
        self._ledgers: tuple[Ledger, ...] = ()
        self._rows: list[_Row] = []

    def on_mount(self) -> None:
        """Start reading."""
        self.say("conventions │ reading norms and rotary rows of both models")
        self._run()

    @work(thread=True, exclusive=True, group="conventions", exit_on_error=False)
    def _run(self) -> None:
        try:
            self.post_message(self.Read(self._read()))
        except WorkbenchError as error:
            self.post_message(self.Refused(str(error)))

    def on_conventions_screen_refused(self, message: Refused) -> None:
        """Say why there is no ledger."""
        self.say("conventions │ the tensors could not be read")
        self.describe(Text(printable(message.sentence, 400), "bold"))

    def on_conventions_screen_read(self, message: Read) -> None:
        """Show both ledgers."""
        self._ledgers = message.ledgers
        wrong = sum(ledger.counts["otherwise"] for ledger in self._ledgers)
        differs = self._ledgers[0].counts["differs"]
        said = [f"{wrong} otherwise than they should be"] if wrong else []
        said += [f"{differs} of which A or B is wrong"] if differs else []
        self.say(f"conventions │ {', '.join(said) or 'nothing is wrong'}")
        self._show()

    def on_resize(self) -> None:
        """Give the names what room there is."""
        self._show()

    def detail(self, index: int) -> Text:
        """Return the figure behind a line, and the tensors that it is of."""
        row = self._rows[index]
        return Text.assemble((row.text.strip(), "bold"), f"\n{row.more}")

    def _show(self) -> None:
        self._rows = list(self._all_rows())
        self.list.head = (
            f"  {'tensor':<{self._width}} {'of':>3}  {'what is done':<{_DONE}} {'should be':<{_SAID}} weights show"
        )
        self.list.show(len(self._rows), lambda index: self._rows[index][:2])

    @property
    def _width(self) -> int:
        return min(max(self.size.width - 80 + _NAME, _NAME), _LONGEST_NAME)

    def _all_rows(self) -> Iterator[_Row]:
        from workbench.conventions.words import lines, summary

        for side, ledger in zip("AB", self._ledgers, strict=False):
            for sentence in summary(ledger):
                yield _Row(f"{side}  {sentence}", sentence.startswith("✗"), printable(str(ledger.model.path), 400))
        for side, ledger in zip("AB", self._ledgers, strict=False):
            yield _Row("")
            yield _Row(
                f"{side}  {printable(ledger.model.path.name, 200)}", False, printable(str(ledger.model.path), 400)
            )
            for line in lines(ledger):
                name = printable(line.name.removeprefix("model."), self._width)
                words = f"{line.done:<{_DONE}} {line.said:<{_SAID}} {line.shown}"
                names = ", ".join(printable(name) for name in line.tensors[:3]) + (", ..." if line.number > 3 else "")
                text = f"{line.mark or ' '} {name:<{self._width}} {line.number:>3}  {words}"
                yield _Row(text.rstrip(), bool(line.mark), f"{printable(line.figure, 600)}\n{names}")
