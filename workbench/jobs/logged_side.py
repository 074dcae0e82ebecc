"""A side of a pair as the log of a session names it, so that what was found is never taken for another file's."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from store.stored_model import StoredModel
from store.traces.run import RunRecord
from store.traces.trace import Trace
from store.typed_fields import typed_fields
from workbench.lab.bindings import TOKENS, changed, path_key
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
    return {"a": side_of(session, pair.a), "b": side_of(session, pair.b)}


def side_of(session: Session, source: StoredModel | Trace) -> LoggedSide:
    """Return a side that was opened as the log names it."""
    kind = "trace" if isinstance(source, Trace) else source.format
    created = source.record.created if isinstance(source, Trace) and source.record is not None else None
    return LoggedSide(relative_to(session.folder, source.path), kind, sha256_of(source), created)


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


@dataclass(frozen=True, slots=True)
class Basis:
    """What a result was measured on: both sides, and, if anything was run, their numeric paths and the tokens."""

    a: LoggedSide
    b: LoggedSide
    path_a: str | None
    path_b: str | None
    tokens: tuple[int, ...] | None

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON values; `read_basis` is the inverse."""
        return asdict(self)

    def changed_since(self, session: Session, runs: Runs) -> str | None:
        """Why what was measured is not about these runs of a session, in a sentence; None if it is."""
        spec = session.spec
        sides = (("a", self.a, self.path_a, spec.a), ("b", self.b, self.path_b, spec.b))
        for name, then, path, now in sides:
            if name in runs and not then.is_of(runs[name]):
                return changed(name)
            if path is not None and now.numeric_path and path != now.numeric_path:
                return changed(path_key(name))
        if self.tokens is not None and spec.tokens and self.tokens != spec.tokens:
            return changed(TOKENS)
        return None


def read_basis(record: Mapping[str, Any], what: str) -> Basis:
    """Rebuild what an entry is about; StoreError if nobody can have written that."""
    return Basis(**typed_fields(Basis, dict(record) | read_sides(record, what), what))
