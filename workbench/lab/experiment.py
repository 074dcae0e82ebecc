"""What an experiment of the lab is: a question, its parameters, and an outcome that shows more than its one number."""

import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from kernels.errors import WorkbenchError
from store.nearest import did_you_mean
from store.text import printable

if TYPE_CHECKING:
    from workbench.lab.subject import Subject

Verdict = Literal["CONFIRMED", "PARTIAL", "FALSIFIED"]
Settings = Mapping[str, Any]
Rows = list[dict[str, Any]]

_MOST_NUMBERS = 32  # in a list
_MOST_JOINED = 100  # points of a plot
_NUMBER = r"[+-]?(?:[0-9]{1,20}(?:\.[0-9]{0,20})?|\.[0-9]{1,20})(?:[eE][+-]?[0-9]{1,3})?"
_PATTERNS = {int: re.compile(r"[+-]?[0-9]{1,18}", re.ASCII), float: re.compile(_NUMBER, re.ASCII)}


@dataclass(frozen=True, slots=True)
class Parameter:
    """A setting of an experiment. Its kind is that of the default: whole number, number, list of numbers, or a choice.

    least, most : of every number. choices : of a text. only : "made" or "model" where it says nothing about the other.
    """

    name: str
    default: int | float | str | tuple[float, ...]
    words: str
    least: float = 0
    most: float = 0
    choices: tuple[str, ...] = ()
    only: Literal["", "made", "model"] = ""

    def to_json(self) -> dict[str, Any]:
        """What `workbench lab --json` lists of it."""
        return {**asdict(self), "allowed": self.allowed()}

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> "Parameter":
        """Rebuild it from `to_json`, which may have gone through JSON."""
        facts: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value
            for name, value in record.items()
            if name != "allowed"
        }
        return cls(**facts)

    def shown(self, value: object) -> str:
        """A value of this kind as it is given."""
        return ",".join(map(repr, value)) if isinstance(value, tuple) else str(value)

    def read(self, given: object) -> Any:  # noqa: ANN401
        """The value of this kind that was given, as text or as a number; WorkbenchError names the setting."""
        if isinstance(self.default, str):
            if given not in self.choices:
                raise self._refusal(given)
            return given
        if isinstance(self.default, tuple):
            parts = given.split(",", _MOST_NUMBERS) if isinstance(given, str) else [given]
            if len(parts) > _MOST_NUMBERS:
                raise self._refusal(given)
            return tuple(self._number(part, given, float) for part in parts)
        return self._number(given, given, type(self.default))

    def allowed(self) -> str:
        """What may be given, in words."""
        if isinstance(self.default, str):
            return f"one of {', '.join(self.choices)}"
        bounds = f"from {self.least:g} to {self.most:g}"
        if isinstance(self.default, tuple):
            return f"1 to {_MOST_NUMBERS} numbers {bounds}, separated by commas"
        return f"a {'whole ' * isinstance(self.default, int)}number {bounds}"

    def _number(self, part: object, given: object, kind: type) -> int | float:
        text = part.strip() if isinstance(part, str) else repr(part) if type(part) in (int, float) else ""
        if not _PATTERNS[kind].fullmatch(text):
            raise self._refusal(given)
        number: int | float = kind(text)
        if not (math.isfinite(number) and self.least <= number <= self.most):
            raise self._refusal(given)
        return number

    def _refusal(self, given: object) -> WorkbenchError:
        shown = printable(str(given), 60)
        return WorkbenchError(f"--set {self.name}={shown}: give {self.allowed()}")


def read_settings(texts: Iterable[str]) -> dict[str, str]:
    """Take texts of the form KEY=VALUE apart; WorkbenchError for one that has another form, or comes twice."""
    given: dict[str, str] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals or not key:
            raise WorkbenchError(f"--set {printable(text, 60)} is not KEY=VALUE, such as --set depth=5")
        if key in given:
            raise WorkbenchError(f"--set {printable(key, 60)} is given twice; give it once")
        given[key] = value
    return given


@dataclass(frozen=True, slots=True)
class Ladder:
    """The verdict that a figure earns: that of the first step which it is above, else the last one.

    steps : (bound, verdict, words).
    """

    figure: str
    steps: tuple[tuple[float, Verdict, str], ...]
    otherwise: str

    def verdict(self, value: float | None) -> tuple[Verdict | None, str]:
        """The verdict and what it says; none for what is no number."""
        if value is None or not math.isfinite(value):
            return None, "not measured"
        found = next((step for step in self.steps if value > step[0]), None)
        return ("FALSIFIED", self.otherwise) if found is None else found[1:]


@dataclass(frozen=True, slots=True)
class Plot:
    """How a series is drawn: y against x, both keys of its rows; on logarithmic axes or not."""

    x: str
    y: str
    log: bool = False
    log_x: bool = False

    def points(self, series: Rows) -> list[tuple[Any, float]]:
        """What can be drawn of a series: finite values of y, those above zero where an axis is logarithmic."""
        return [(row[self.x], float(row[self.y])) for row in series if self._drawn(row.get(self.x), row.get(self.y))]

    @staticmethod
    def joined(points: list[tuple[Any, float]]) -> bool:
        """Whether a line joins them: not too many numbers, in order."""
        xs = [x for x, _ in points]
        return 0 < len(xs) <= _MOST_JOINED and not isinstance(xs[0], str) and xs == sorted(xs)

    @property
    def axes(self) -> str:
        """Both axes in words."""
        y, x = (f"{name}{' (logarithmic)' * log}" for name, log in ((self.y, self.log), (self.x, self.log_x)))
        return f"{y} by {x}"

    def _drawn(self, x: object, y: object) -> bool:
        numbers = [(y, self.log)] if isinstance(x, str) else [(x, self.log_x), (y, self.log)]
        return all(isinstance(n, int | float) and math.isfinite(n) and (n > 0 or not log) for n, log in numbers)


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What came out.

    inputs : what was measured on: settings, population, numeric paths, files. series : the whole of it, rows of the
    same keys. value : the number that was published, or its like. figures : further numbers under names of their own.
    against : what the value hides, `vector_rel_rms` and `cancellation` where they exist. verdict : where no ladder says
    it. notes : sentences about these numbers. plot : where the series is another one than usual. unjudged : why there
    can be no verdict, where there cannot. shows, hides : where they are not those of the published input.
    """

    inputs: dict[str, Any]
    series: Rows
    value: float | None
    figures: dict[str, Any] = field(default_factory=dict)
    against: dict[str, float | None] = field(default_factory=dict)
    verdict: Verdict | None = None
    notes: tuple[str, ...] = ()
    plot: Plot | None = None
    unjudged: str = ""
    shows: str = ""
    hides: str = ""


@dataclass(frozen=True, kw_only=True, eq=False)
class Experiment:
    """An experiment, found by its published number or by its word.

    claim : what the verdict is about. shows, hides : what the value says, and what it does not. published, digits : the
    published figure, and an outcome written in the same way. on : whether it runs on made input, on a model, or either.
    both : whether it looks at B, too. ladder : where it decides the verdict.
    """

    id: str
    word: str
    question: str
    claim: str
    shows: str
    hides: str
    plot: Plot
    run: "Callable[[Settings, Subject | None], Outcome]"
    parameters: tuple[Parameter, ...] = ()
    published: str | None = None
    digits: Callable[[Outcome], str] | None = None
    on: Literal["made", "either", "model"] = "made"
    both: bool = False
    ladder: Ladder | None = None

    def to_json(self) -> dict[str, Any]:
        """What there is to know before it is run."""
        return {
            "experiment": self.id,
            "name": self.word,
            "question": self.question,
            "claim": self.claim,
            "shows": self.shows,
            "hides": self.hides,
            "published": self.published,
            "on": self.on,
            "parameters": [known.to_json() for known in self.parameters],
        }

    def settings(self, given: Mapping[str, object], on: Literal["made", "model"] = "made") -> dict[str, Any]:
        """All parameters of a run, those given read; WorkbenchError for unknown ones, wrong values, and no input."""
        if on == "made" and self.on == "model":
            raise WorkbenchError(f"lab {self.id} needs a model; give A, or A and B")
        if on == "model" and self.on == "made":
            raise WorkbenchError(f"lab {self.id} runs on its published input only; leave out A and B")
        known = {parameter.name: parameter for parameter in self.parameters}
        for name in given:
            if name not in known:
                have = did_you_mean(name, known, f"it has {', '.join(known)}" if known else "it has none")
                shown = printable(name, 60)
                raise WorkbenchError(f"--set {shown}: lab {self.id} has no parameter of that name; {have}")
            if known[name].only not in ("", on):
                what = "a model; give A" if on == "made" else "the published input; leave it out"
                raise WorkbenchError(f"--set {name} of lab {self.id} is about {what}")
        used = (parameter for parameter in self.parameters if parameter.only in ("", on))
        return {each.name: each.read(given[each.name]) if each.name in given else each.default for each in used}


@dataclass(frozen=True)
class Result:
    """An experiment with its outcome, the verdict, and whether the published figure came out.

    reproduced : None where nothing was published about these inputs.
    """

    experiment: Experiment
    outcome: Outcome
    verdict: Verdict | None
    says: str
    reproduced: bool | None

    def to_json(self) -> dict[str, Any]:
        """The result as the contract of the command has it; figures, named by `figures`, stand beside the value."""
        made, found = self.experiment, self.outcome
        return {
            "experiment": made.id,
            "name": made.word,
            "question": made.question,
            "claim": made.claim,
            "inputs": found.inputs,
            "series": found.series,
            "value": found.value,
            **found.figures,
            "published": made.published,
            "reproduced": self.reproduced,
            "verdict": self.verdict,
            "says": self.says,
            "shows": found.shows or made.shows,
            "hides": found.hides or made.hides,
            "against": {"vector_rel_rms": None, "cancellation": None, **found.against},
            "notes": list(found.notes),
            "figures": list(found.figures),
            "plot": asdict(found.plot or made.plot),
        }

    def require_answer(self) -> None:
        """Raise WorkbenchError where nothing was measured, or what was measured answers another question."""
        if self.outcome.value is None or not math.isfinite(self.outcome.value):
            raise WorkbenchError(f"lab {self.experiment.id} measured no number here; try other tokens or another cell")

        if self.outcome.unjudged:
            raise WorkbenchError(f"lab {self.experiment.id} has no verdict: {self.outcome.unjudged}")

    def exit_code(self) -> int:
        """0 if the claim is confirmed or there is none, 1 if not, or if a published figure did not come out."""
        return int(self.verdict in ("PARTIAL", "FALSIFIED") or self.reproduced is False)


def perform(experiment: Experiment, given: Mapping[str, object], subject: "Subject | None" = None) -> Result:
    """Run an experiment; WorkbenchError where it needs a model and has none, the other way round, and for settings."""
    settings = experiment.settings(given, "made" if subject is None else "model")
    with np.errstate(all="ignore"):  # damaged weights hold values of any size; what is not finite is shown as such
        outcome = experiment.run(settings, subject)
    if subject is not None and not subject.alone and not experiment.both:
        outcome = replace(outcome, notes=(*outcome.notes, "this is about A alone; B was not looked at"))
    verdict, says = outcome.verdict, ""
    if experiment.ladder is not None:
        figure = experiment.ladder.figure
        verdict, says = experiment.ladder.verdict(outcome.figures.get(figure, outcome.value))
    if outcome.value is None or not math.isfinite(outcome.value):
        verdict, says = None, "not measured"
    if outcome.unjudged:
        verdict, says = None, outcome.unjudged
    return Result(experiment, outcome, verdict, says, _reproduced(experiment, settings, subject, outcome))


def _reproduced(experiment: Experiment, settings: Settings, subject: "Subject | None", outcome: Outcome) -> bool | None:
    if experiment.published is None or experiment.digits is None:
        return None
    usual = all(settings.get(known.name, known.default) == known.default for known in experiment.parameters)
    if not usual or (subject is not None and experiment.on != "model"):
        return None
    came_out = experiment.digits(outcome) == experiment.published
    return came_out if subject is None else came_out or None  # nothing tells whether it is the published model
