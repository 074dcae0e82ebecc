"""What a verdict depends on, by name, and the hash that each of it has now."""

import hashlib
import json
import re
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kernels.errors import WorkbenchError
from store.text import printable
from store.whole_files import read_bounded
from workbench.session.files import KEPT_CELLS, STORES
from workbench.session.session import Session, Side

if TYPE_CHECKING:
    from store.traces.run import RunRecord

Show = Callable[[int, int, str], object]  # done, total, what

SIDES = ("a", "b")
CAPTURE, TOKENS = "capture", "tokens"
_PATH, _CONTRACT, _LINE = "numeric_path_", "contract ", "line "
UNREADABLE = "unreadable"
MAX_CONTRACT = 1 << 18  # bytes
_FILE_NAME = re.compile(r"[^A-Za-z0-9_-]")
_CHANGED = {
    "a": "the file of A is not the one that was measured",
    "b": "the file of B is not the one that was measured",
    f"{_PATH}a": "A is computed on another numeric path",
    f"{_PATH}b": "B is computed on another numeric path",
    TOKENS: "other tokens are run",
    CAPTURE: "the capture is another one",
}


def contract_key(name: str) -> str:
    """The name of a contract among what a verdict depends on."""
    return f"{_CONTRACT}{name}"


def line_key(number: int) -> str:
    """The name of a line of the log."""
    return f"{_LINE}{number}"


def path_key(side: str) -> str:
    """The name of the numeric path of side "a" or "b"."""
    return f"{_PATH}{side}"


def changed(key: str) -> str:
    """What to say where something has another hash than when it was used."""
    if key.startswith(_LINE):
        return f"{key} of the log was changed"
    return _CHANGED.get(key, f"the {key} was changed")


class Bindings:
    """The hashes of what a session holds now; each is found when it is first asked for.

    show : is told how far a file of a side is hashed.
    """

    def __init__(self, session: Session, show: Show = lambda *_: None) -> None:
        self.session, self._show = session, show
        self._known: dict[str, str | None] = {}

    def of(self, key: str) -> str | None:
        """The hash of something now; None where it is not there, or nobody knows what it is."""
        if key not in self._known:
            self._known[key] = self._found(key)
        return self._known[key]

    def of_all(self, *keys: str) -> dict[str, str]:
        """The hashes of what is there."""
        found = {key: self.of(key) for key in keys}
        return {key: digest for key, digest in found.items() if digest is not None}

    @cached_property
    def captured(self) -> str | None:
        """When both traces of the session were recorded, which tells one capture from the next; None without one."""
        runs = self._runs
        return None if runs is None else " ".join(run.created for run in runs)

    def _found(self, key: str) -> str | None:
        spec = self.session.spec
        sides = {"a": spec.a, "b": spec.b}
        if key in sides:
            return _of_file(sides[key], self._show)
        if key == TOKENS:
            return digest(list(spec.tokens))
        if key == CAPTURE:
            runs = self._runs
            return None if runs is None else digest([run.identity for run in runs])
        if key.startswith(_PATH):
            side = sides.get(key.removeprefix(_PATH))
            return None if side is None else side.numeric_path
        if key.startswith(_LINE) and key.removeprefix(_LINE).isdecimal():
            entry = self.session.numbered_entries().get(int(key.removeprefix(_LINE)[:12]))
            return None if entry is None else digest(entry)
        return self._of_contract(key.removeprefix(_CONTRACT)) if key.startswith(_CONTRACT) else None

    @cached_property
    def _runs(self) -> "list[RunRecord] | None":
        from workbench.pair.sources import open_captured

        kept = self.session.spec.statistics_only
        paths = [self.session.folder / name for name in ((KEPT_CELLS,) if kept else STORES.values())]
        if not all(path.is_file() for path in paths):
            return None
        try:
            return list(open_captured(self.session).runs.values())
        except WorkbenchError:
            return None

    def _of_contract(self, name: str) -> str | None:
        try:
            return hashlib.sha256(read_bounded(contract_file(self.session, name), MAX_CONTRACT)).hexdigest()
        except (OSError, ValueError):
            return None


def contract_file(session: Session, name: str) -> Path:
    """Where a contract belongs: with the program if it ships with it, else in the session's folder, as NAME.yaml."""
    from workbench.lab.contracts.reading import SHIPPED

    return SHIPPED.get(name) or session.folder / f"{_FILE_NAME.sub('-', name)}.yaml"


def digest(value: Any) -> str:  # noqa: ANN401
    """SHA-256 of a value as JSON writes it."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def _of_file(side: Side, show: Show) -> str | None:
    from store.open import open_model
    from store.traces.kind import is_trace
    from store.traces.open import open_trace
    from workbench.pair.fingerprints import sha256_of

    path = Path(side.path)
    if not path.exists():
        return None

    def hashing(done: int, total: int) -> None:
        show(done, total, f"hash {printable(path.name)}")

    try:
        return sha256_of(open_trace(path) if is_trace(path) else open_model(path), hashing)
    except (WorkbenchError, OSError):
        return UNREADABLE
