"""The experiments of the lab, to be run at the cell of the map or on their published input."""

from dataclasses import dataclass
from typing import Any, ClassVar

from rich.text import Text
from textual.binding import BindingType
from textual.message import Message

from kernels.stages import Site
from store.text import printable
from workbench.app.actions import bindings
from workbench.app.pages.lab_page import LabPage


class LabScreen(LabPage):
    """Lists the experiments. site : the cell under the cursor of the map."""

    NAME = "lab"
    BINDINGS: ClassVar[list[BindingType]] = list(bindings(NAME))
    HEAD = f"{'no':<4} {'name':<15} question"

    @dataclass
    class Asked(Message):
        """An experiment is to be run: at a site, or on its published input."""

        experiment: str
        site: Site | None

    def __init__(self, site: Site) -> None:
        super().__init__()
        self._site = site
        self._experiments: list[dict[str, Any]] = []

    def on_mount(self) -> None:
        """Wait for the list."""
        self.doing("reading the experiments")

    def take(self, record: dict[str, Any]) -> None:
        """Show the list."""
        self._experiments = record["experiments"]
        self.doing(f"↵ runs at {self._site}, p on the published input")
        self.list.show(len(self._experiments), self._line)
        self._describe_line()

    def on_line_list_chosen(self) -> None:
        """Run the experiment that was clicked."""
        self.action_run_here()

    def action_run_here(self) -> None:
        """Run it at the cell; one that runs on its published input only, on that."""
        if (chosen := self._chosen()) is not None:
            self._ask(chosen, None if chosen["on"] == "made" else self._site)

    def action_run_published(self) -> None:
        """Run it on its published input."""
        if (chosen := self._chosen()) is None:
            return
        if chosen["on"] == "model":
            self.notify("This one was published of a model; ↵ runs it on this pair.", markup=False)
        else:
            self._ask(chosen, None)

    def detail(self, index: int) -> Text:
        """Return what there is to know of an experiment."""
        known = self._experiments[index]
        published = "" if known["published"] is None else f"; published {known['published']}"
        text = Text(f"{known['question']}\n", "bold")
        facts = {"Claim": known["claim"], "Shows": f"{known['shows']}{published}", "Hides": known["hides"]}
        for label, words in facts.items():
            text.append(f"{label}: ", "bold").append(f"{printable(str(words), 300)}\n")
        return text

    def _ask(self, chosen: dict[str, Any], site: Site | None) -> None:
        self.app.post_message(self.Asked(chosen["experiment"], site))

    def _chosen(self) -> dict[str, Any] | None:
        index = self.list.cursor
        return self._experiments[index] if index < len(self._experiments) else None

    def _line(self, index: int) -> tuple[str, bool]:
        known = self._experiments[index]
        number = known["experiment"] if known["experiment"] != known["name"] else ""
        return f"{number:<4} {known['name']:<15} {known['question']}", False
