"""Questions about a session's pair that take models and a compiler: what is asked, what is answered, in which process.

Nothing heavy is imported here, so that the screen can use it; the work itself is in workbench.jobs.answering.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

from kernels.stages import Site
from workbench.cells.decomposition import Checked, Decomposition
from workbench.cells.flips import Flips
from workbench.machine.child_process import ChildProcess

Kind = Literal["bisect", "views", "patch", "parts", "bytes", "examine", "lab", "test"]


@dataclass(frozen=True, slots=True)
class Inquiry:
    """A question about the pair of a session.

    bisect : which cell is the first wrong one. views : every cell's local and inherited difference. patch : what
    exchanging the stage `site` does. parts : where in `site` its local error sits. bytes : what the element at
    `token` and `channel` of `site` was computed from. examine : whatever the findings lack; answered with what cannot
    be had. lab : what an `experiment` gives at `site`, on its published input where there is no site; without an
    experiment, which ones there are; settings : its parameters that are given, as texts. test : what becomes of
    hypothesis `number`, or of all.
    """

    folder: Path
    kind: Kind
    site: Site | None = None
    token: int = 0
    channel: int = 0
    experiment: str = ""
    settings: Mapping[str, str] = field(default_factory=dict, hash=False)
    number: int | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the question as JSON values."""
        return asdict(self) | {"folder": str(self.folder.absolute()), "site": self.site}

    @classmethod
    def from_json(cls, record: dict[str, Any]) -> "Inquiry":
        """Rebuild a question from `to_json`."""
        site = record["site"]
        return cls(**record | {"folder": Path(record["folder"]), "site": None if site is None else Site(*site)})


class Doing(NamedTuple):
    """How far the work is: `done` of `total` layers, cells or kernels."""

    done: int
    total: int
    text: str


class Answered(NamedTuple):
    """The answer in words, lines of any length; for a bisection also the cell to go to."""

    text: str
    site: Site | None = None


class Refused(NamedTuple):
    """There is no answer, for the reason that the sentence gives."""

    message: str


class Found(NamedTuple):
    """What the lab answers: the record of a result, or `experiments`, the records of all there are."""

    record: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Logged:
    """The session's log holds more of what was asked for; the work goes on."""


InquiryEvent = Doing | Checked | Logged | Answered | Found | Refused


def event_to_wire(event: InquiryEvent) -> dict[str, Any]:
    """Return an event as JSON values; `event_from_wire` is the inverse."""
    facts = asdict(event) if isinstance(event, Checked | Logged) else event._asdict()
    return {"event": type(event).__name__, **facts}


def event_from_wire(record: dict[str, Any]) -> InquiryEvent:
    """Rebuild an event from `event_to_wire`."""
    facts = {name: value for name, value in record.items() if name != "event"}
    match record["event"]:
        case "Doing":
            return Doing(**facts)
        case "Checked":
            cell = facts["cell"] | {"site": Site(*facts["cell"]["site"])}
            cell["flipped"] = None if cell["flipped"] is None else Flips(*cell["flipped"])
            return Checked(**facts | {"cell": Decomposition(**cell)})
        case "Answered":
            return Answered(facts["text"], None if facts["site"] is None else Site(*facts["site"]))
        case "Logged":
            return Logged()
        case "Found":
            return Found(**facts)
        case "Refused":
            return Refused(**facts)
    raise ValueError(f"unknown event {record['event']!r}")


class InquiryProcess(ChildProcess[InquiryEvent]):
    """A question at work in a process of its own, whose last event is Answered or Refused."""

    def __init__(self, inquiry: Inquiry) -> None:
        super().__init__(
            "workbench.jobs.process",
            inquiry.to_json(),
            what=inquiry.kind,
            advice="ask again",
            decode=event_from_wire,
            concludes=lambda event: isinstance(event, Answered | Found | Refused),
            failed=Refused,
            log_folder=inquiry.folder,
        )
