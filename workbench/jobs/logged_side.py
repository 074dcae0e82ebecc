"""A side of a pair as the log of a session names it, so that what was found is never taken for another file's."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from store.artifact import Artifact
from store.traces import Trace
from store.traces.run import RunRecord
from store.typed_fields import typed_fields
from workbench.pair.fingerprints import sha256_of
from workbench.pair.pair import Pair
from workbench.pair.recorded import of_other_engine
from workbench.session.session import Session, relative_to

Runs = Mapping[str, RunRecord]  # by side, "a" and "b"


@dataclass(frozen=True, slots=True)
class LoggedSide:
    """What a side was. created : when a trace of ours was made, which tells it from a later one."""

    path: str
    format: str
    sha256: str
    created: str | None = None

    def is_of(self, run: RunRecord) -> bool:
        """Whether this side is what was run."""
        if self.format == "trace" and not of_other_engine(run):
            return self.created == run.created
        return self.sha256 == run.sha256


def sides_of(session: Session, pair: Pair) -> dict[str, LoggedSide]:
    """Return both sides of an opened pair as the log names them."""
    found = {}
    for name, source in (("a", pair.a), ("b", pair.b)):
        kind = source.format if isinstance(source, Artifact) else "trace"
        created = source.record.created if isinstance(source, Trace) and source.record is not None else None
        found[name] = LoggedSide(relative_to(session.folder, source.path), kind, sha256_of(source), created)
    return found


def sides_json(sides: Mapping[str, LoggedSide]) -> dict[str, Any]:
    """Return both sides as JSON values."""
    return {name: asdict(side) for name, side in sides.items()}


def read_sides(record: Mapping[str, Any], what: str) -> dict[str, LoggedSide]:
    """Rebuild both sides of an entry; StoreError if nobody can have written them."""
    return {
        name: LoggedSide(**typed_fields(LoggedSide, record.get(name), f"side {name} of {what}")) for name in ("a", "b")
    }


def are_of(sides: Mapping[str, LoggedSide], runs: Runs) -> bool:
    """Whether an entry is about the files of these runs."""
    return all(sides[name].is_of(run) for name, run in runs.items())
