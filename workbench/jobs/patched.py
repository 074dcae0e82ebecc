"""An exchange between A and B as a session's log keeps it, written once and read back with its types."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from kernels.stages import Site
from store.errors import StoreError
from store.typed_fields import typed_fields
from workbench.bisect.models.told_together import CONVENTIONS
from workbench.bisect.verdict import Bisection, Culprit
from workbench.cells.sites import read_site, site_json
from workbench.jobs.logged_side import LoggedSide, Runs, are_of, read_sides
from workbench.lab.retractions import standing_entries
from workbench.session.session import Session

_KIND = "patched"
Exchanged = Literal["stage", "tensors", "settings", "paths"]


@dataclass(frozen=True, slots=True)
class Part:
    """What is to be exchanged at a stage. tensors : by canonical name, for `exchanged` tensors only."""

    site: Site
    exchanged: Exchanged
    tensors: tuple[str, ...] = ()


def accused_part(found: Bisection) -> Part | None:
    """The part that a bisection accuses: wrong tensors, the settings, or what the culprit's stage gives on.

    The tensors are those of the culprit's stage, and those of its layer with the same mistake: of gate and up that were
    exchanged, putting one back alone makes two of the other. Of a convention that was applied too often or not at all
    they are those of all layers.
    """
    culprit = found.culprit
    if culprit is None:
        return None
    if culprit.factor == "config":
        return Part(culprit.site, "settings")

    def together(other: Culprit) -> bool:
        same_place = other.site.layer == culprit.site.layer or culprit.cause in CONVENTIONS
        alike = same_place and other.cause == culprit.cause
        return other.factor == "weights" and (alike or other.site == culprit.site)

    tensors = {other.tensor: None for other in (culprit, *found.others) if other.tensor and together(other)}
    if culprit.factor == "weights" and tensors:
        return Part(culprit.site, "tensors", tuple(name for name in tensors if name is not None))
    return Part(culprit.site, "stage")


@dataclass(frozen=True, slots=True)
class Patched:
    """What exchanging a part has done to the output, and of which files.

    site : the stage that the question was about. part : what was exchanged, in words; tensors : by name, if any were.
    left, brought : shares of KL(B‖A), as in workbench.bisect.models.patch.Experiment.
    kl, kl_left : KL to A in nats, mean over the tokens, of B and of B with A's part.
    top1, top1_left : tokens whose most likely successor is not A's, likewise.
    """

    time: str
    a: LoggedSide
    b: LoggedSide
    site: Site
    exchanged: Exchanged
    tensors: tuple[str, ...]
    part: str
    conclusion: str
    tokens: int
    left: float | None
    brought: float | None
    kl: float | None
    kl_left: float | None
    top1: int
    top1_left: int

    def to_json(self) -> dict[str, Any]:
        """Return it as an entry of the log; `from_json` is the inverse."""
        record = asdict(self) | {"site": site_json(self.site)}
        del record["time"]
        return record

    @classmethod
    def from_json(cls, entry: Mapping[str, Any]) -> "Patched":
        """Rebuild it from an entry of the log; StoreError if nobody can have written that."""
        parts = dict(entry) | {"site": read_site(entry.get("site"))} | read_sides(entry, "an exchange")
        return cls(**typed_fields(cls, parts, "exchange"))


def keep_patch(session: Session, patched: Patched) -> None:
    """Keep an exchange in a session's log; SessionError if it cannot be written."""
    session.log(_KIND, **patched.to_json())


def patches(session: Session, runs: Runs) -> list[Patched]:
    """Return the exchanges of a session that were made with the files of these runs, oldest first, each once.

    What was taken back is left out, and an entry that somebody has changed by hand into what nobody can have written.
    """
    found: dict[tuple[Site, str, tuple[str, ...]], Patched] = {}
    for entry in standing_entries(session).values():
        try:
            made = Patched.from_json(entry) if entry.get("kind") == _KIND else None
        except StoreError:
            continue
        if made is not None and are_of({"a": made.a, "b": made.b}, runs):
            found[made.site, made.exchanged, made.tensors] = made
    return list(found.values())


def standing_patch(session: Session, part: Part, runs: Runs) -> Patched | None:
    """Return the last exchange of a part that was made with the files of these runs."""
    made = (found for found in patches(session, runs) if (found.site, found.exchanged) == (part.site, part.exchanged))
    return next((found for found in made if set(found.tensors) == set(part.tensors)), None)
