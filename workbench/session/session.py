"""A session: the folder that holds everything about one investigation."""

import json
import os
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Self

from store.text import printable
from store.traces.run import DISTRIBUTION, now
from store.whole_files import remove_leftovers, write_atomically
from workbench.session.files import (
    FINDINGS,
    HYPOTHESES,
    KEPT_CELLS,
    SPEC_FILE,
    STORES,
    SessionError,
    append_log,
    read_log,
    read_numbered_log,
    read_spec,
    require_free,
    require_not_own,
    require_plain,
    shown,
)
from workbench.session.plain import plain

SCHEMA = 1
MAX_TOKEN = 2**31 - 1  # engines keep token ids in 32 bits


@dataclass(frozen=True, slots=True)
class Side:
    """One side of a pair: absolute path of a model or recorded trace, and the numeric path ("" for a trace)."""

    path: str
    numeric_path: str


@dataclass(frozen=True, slots=True)
class SessionSpec:
    """What a session is about, and how its map was left.

    tokens : ids that both sides run; empty where they come from a recorded trace.
    view : what the screen showed, as workbench.cells.view.View.to_json gives it. created : UTC, ISO 8601.
    statistics_only : cells are kept with the elements that differ most, and no tensors.
    """

    a: Side
    b: Side
    tokens: tuple[int, ...]
    prompt: str | None = None
    view: dict[str, Any] = field(default_factory=dict)
    created: str = field(default_factory=now)
    name: str = ""
    statistics_only: bool = False


class Session:
    """An opened session folder. Whatever is saved through it is on the disk when the call returns."""

    def __init__(self, folder: Path, spec: SessionSpec) -> None:
        self.folder = folder
        self.spec = spec

    @classmethod
    def create(cls, folder: Path, spec: SessionSpec) -> Self:
        """Make a new session folder; SessionError if a session is in it already, or files that one would replace."""
        folder = folder.absolute()
        spec = replace(spec, name=spec.name or folder.name)
        try:
            if not os.path.lexists(folder / SPEC_FILE):
                require_free(folder)
            (folder / HYPOTHESES).mkdir(parents=True, exist_ok=True)
            record = _json({"schema": SCHEMA, **_relative(asdict(spec), folder)})
            write_atomically(folder / SPEC_FILE, record, replace=False)
        except FileExistsError:
            raise SessionError(f"{shown(folder)} holds a session already; open it, or choose another folder.") from None
        except OSError as error:
            raise SessionError(f"The session {shown(folder)} cannot be made ({error.strerror}).") from error
        return cls(folder, spec)

    @classmethod
    def open(cls, folder: Path) -> Self:
        """Open an existing session; SessionError names the file in it that is none, or the field that is wrong.

        What a process that was killed has left unfinished in it is removed.
        """
        folder = folder.absolute()
        require_plain(folder)
        spec = _spec(folder, _read(folder))
        require_not_own(folder, (("a", spec.a.path), ("b", spec.b.path)))
        remove_leftovers(folder)
        remove_leftovers(folder / HYPOTHESES)
        return cls(folder, spec)

    @staticmethod
    def default_folder(name: str) -> Path:
        """Return where a session of that name belongs: the checkout's sessions/, or the user's data folder."""
        name = re.sub(r"[^\w.+-]+", "-", name).strip("-.") or "session"
        here = Path.cwd()
        checkout = next((place for place in (here, *here.parents) if _is_checkout(place)), None)
        if checkout is not None:
            return checkout / "sessions" / name
        from platformdirs import user_data_path

        return user_data_path(DISTRIBUTION) / "sessions" / name

    def trace_path(self, side: str) -> Path:
        """Return where the trace of side "a" or "b" lies once it is complete."""
        return self.folder / STORES[side]

    @property
    def cells_path(self) -> Path:
        """Where the cells lie if they are kept in place of tensors."""
        return self.folder / KEPT_CELLS

    @property
    def findings_path(self) -> Path:
        """Where the exported findings go."""
        return self.folder / FINDINGS

    @property
    def hypotheses_folder(self) -> Path:
        """Where the notes are."""
        return self.folder / HYPOTHESES

    def save_view(self, view: Mapping[str, Any]) -> None:
        """Keep how the map is left; everything else in session.json stays as it is on the disk."""
        record = _read(self.folder)
        _spec(self.folder, record)
        try:
            write_atomically(self.folder / SPEC_FILE, _json(record | {"view": plain(view)}))
        except OSError as error:
            where = shown(self.folder / SPEC_FILE)
            raise SessionError(f"{where} cannot be written ({error.strerror}); the view is not saved.") from error
        self.spec = replace(self.spec, view=dict(view))

    def log(self, kind: str, /, **facts: Any) -> None:  # noqa: ANN401
        """Append an entry to the session's log."""
        append_log(self.folder, kind, **facts)

    def entries(self) -> list[dict[str, Any]]:
        """Return the log, oldest first; a line that a crash has torn is left out."""
        return read_log(self.folder)

    def numbered_entries(self) -> dict[int, dict[str, Any]]:
        """Return the log by the number of its lines, from 1."""
        return read_numbered_log(self.folder)


def _is_checkout(folder: Path) -> bool:
    import tomllib

    try:
        project = tomllib.loads((folder / "pyproject.toml").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return (folder / "sessions").is_dir() and project.get("project", {}).get("name") == DISTRIBUTION


def _json(record: Mapping[str, Any]) -> str:
    return json.dumps(plain(record), indent=1) + "\n"


def _relative(record: dict[str, Any], folder: Path) -> dict[str, Any]:
    for side in ("a", "b"):
        record[side]["path"] = relative_to(folder, record[side]["path"])
    return record


def relative_to(folder: Path, name: str | Path) -> str:
    """Return a path relative to the session folder it lies in, so that the folder can be moved; others as given."""
    path = Path(name)
    return path.relative_to(folder).as_posix() if path.is_relative_to(folder) else str(name)


def _read(folder: Path) -> dict[str, Any]:
    path = folder / SPEC_FILE
    content = read_spec(folder)
    try:
        record = json.loads(content)
    except (ValueError, RecursionError) as error:
        line = f" at line {error.lineno}" if isinstance(error, json.JSONDecodeError) else ""
        raise SessionError(f"{shown(path)} is not JSON{line}; correct it by hand.") from None
    if not isinstance(record, dict) or "schema" not in record:
        raise SessionError(f"{shown(path)} has no schema number; it was not written by this program.")
    if record["schema"] != SCHEMA:
        found = printable(repr(record["schema"]), 40)
        raise SessionError(f"{shown(path)} has schema {found}; this program reads schema {SCHEMA}.")
    return record


def _spec(folder: Path, record: dict[str, Any]) -> SessionSpec:
    """Check a session.json and return what it says; paths in it are relative to the folder."""

    def wrong(name: str, expected: str) -> SessionError:
        state = "is not" if name in record else "is missing; it must be"
        return SessionError(f"{shown(folder / SPEC_FILE)}: field {name} {state} {expected}; correct it by hand.")

    def side(name: str) -> Side:
        value = record.get(name)
        fields = value if isinstance(value, dict) else {}
        path, numeric_path = fields.get("path"), fields.get("numeric_path")
        if not isinstance(path, str) or not _can_be_a_path(path) or not isinstance(numeric_path, str):
            raise wrong(name, "an object with the texts path and numeric_path")
        return Side(os.path.abspath(folder / path), numeric_path)

    tokens, prompt, view = record.get("tokens"), record.get("prompt"), record.get("view", {})
    if not isinstance(tokens, list) or not all(type(t) is int and 0 <= t <= MAX_TOKEN for t in tokens):
        raise wrong("tokens", "a list of token ids")
    if not isinstance(prompt, str | None):
        raise wrong("prompt", "a text or null")
    if not isinstance(view, dict):
        raise wrong("view", "an object")
    created, name = record.get("created", ""), record.get("name", folder.name)
    if not isinstance(created, str):
        raise wrong("created", "a text")
    if not isinstance(name, str):
        raise wrong("name", "a text")
    statistics_only = record.get("statistics_only", False)
    if not isinstance(statistics_only, bool):
        raise wrong("statistics_only", "true or false")
    return SessionSpec(side("a"), side("b"), tuple(tokens), prompt, view, created, name, statistics_only)


def _can_be_a_path(text: str) -> bool:
    try:
        return bool(text) and b"\0" not in os.fsencode(text)
    except UnicodeEncodeError:  # surrogates that stand for no byte
        return False
