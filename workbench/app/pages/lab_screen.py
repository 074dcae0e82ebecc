"""The experiments of the lab, to be run at the cell of the map or on their published input."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

from rich.text import Text
from textual.binding import BindingType
from textual.message import Message

from kernels.errors import WorkbenchError
from kernels.stages import Site
from store.text import printable
from workbench.app.actions import bindings
from workbench.app.pages.lab_page import LabPage
from workbench.app.pages.prompt_screen import PromptScreen
from workbench.lab.experiment import Parameter, read_settings


class LabScreen(LabPage):
    """Lists the experiments. site : the cell under the cursor of the map."""

    NAME = "lab"
    BINDINGS: ClassVar[list[BindingType]] = list(bindings(NAME))
    HEAD = f"{'no':<4} {'name':<15} question"

    @dataclass(eq=False, repr=False)
    class Asked(Message):
        """An experiment is to be run: at a site, or on its published input. settings : parameters that are given."""

        experiment: str
        site: Site | None
        settings: Mapping[str, str]

    def __init__(self, site: Site) -> None:
        super().__init__()
        self._site = site
        self._experiments: list[dict[str, Any]] = []
        self._given: dict[str, dict[str, str]] = {}  # by experiment

    def on_mount(self) -> None:
        """Wait for the list."""
        self.doing("reading the experiments")

    def take(self, record: dict[str, Any]) -> None:
        """Show the list."""
        self._experiments = record["experiments"]
        self.doing(f"↵ runs at {self._site}, p on the published input, s sets parameters")
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

    def action_set(self) -> None:
        """Ask for the parameters of the experiment; they hold for every run from here."""
        if (chosen := self._chosen()) is None:
            return
        parameters, name = _parameters(chosen), chosen["experiment"]
        if not parameters:
            self.notify("This one has no parameters.", markup=False)
            return

        def entered(text: str | None) -> None:
            if text is not None:
                self._given[name] = _changed(parameters, text)
                self._describe_line()

        words = f"Parameters of {chosen['name']}: {', '.join(parameters)}; as KEY=VALUE, spaces between them"
        self.app.push_screen(PromptScreen(words, self._settings(chosen), partial(_problem, parameters)), entered)

    def detail(self, index: int) -> Text:
        """Return what there is to know of an experiment."""
        known = self._experiments[index]
        published = "" if known["published"] is None else f"; published {known['published']}"
        text = Text(f"{known['question']}\n", "bold")
        facts = {"Set": self._settings(known)} if known["parameters"] else {}
        facts |= {"Claim": known["claim"], "Shows": f"{known['shows']}{published}", "Hides": known["hides"]}
        for label, words in facts.items():
            text.append(f"{label}: ", "bold").append(f"{printable(str(words), 300)}\n")
        return text

    def _ask(self, chosen: dict[str, Any], site: Site | None) -> None:
        given = self._given.get(chosen["experiment"], {})
        on, other = ("made", "a model") if site is None else ("model", "the published input")
        for name in given:
            if _parameters(chosen)[name].only not in ("", on):
                self.notify(f"{name} is about {other} only; s sets it back.", severity="warning", markup=False)
                return
        self.app.post_message(self.Asked(chosen["experiment"], site, given))

    def _settings(self, known: dict[str, Any]) -> str:
        """All parameters of an experiment as they are set."""
        given = self._given.get(known["experiment"], {})
        parameters = _parameters(known).items()
        return " ".join(f"{name}={given.get(name, each.shown(each.default))}" for name, each in parameters)

    def _chosen(self) -> dict[str, Any] | None:
        index = self.list.cursor
        return self._experiments[index] if index < len(self._experiments) else None

    def _line(self, index: int) -> tuple[str, bool]:
        known = self._experiments[index]
        number = known["experiment"] if known["experiment"] != known["name"] else ""
        return f"{number:<4} {known['name']:<15} {known['question']}", False


def _parameters(known: dict[str, Any]) -> dict[str, Parameter]:
    return {record["name"]: Parameter.from_json(record) for record in known["parameters"]}


def _changed(parameters: Mapping[str, Parameter], text: str) -> dict[str, str]:
    """The parameters that a text sets to something else than usual; WorkbenchError for what is none, or no value."""
    given = read_settings(text.split())
    for name in given:
        if name not in parameters:
            raise WorkbenchError(f"{printable(name, 60)} is no parameter of it; it has {', '.join(parameters)}")
    return {name: value for name, value in given.items() if parameters[name].read(value) != parameters[name].default}


def _problem(parameters: Mapping[str, Parameter], text: str) -> str:
    try:
        _changed(parameters, text)
    except WorkbenchError as error:
        return str(error).removeprefix("--set ")
    return ""
