"""A session: the folder that holds everything about one investigation."""

import json
import os
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from kernels.errors import WorkbenchError
from store.files import create_atomically, write_atomically
from store.run import DISTRIBUTION, now
from store.text import printable
from workbench.plain import plain

if TYPE_CHECKING:
    from workbench.hypotheses import Hypothesis

SCHEMA = 1
SPEC_FILE = "session.json"


class SessionError(WorkbenchError, ValueError):
    """A session folder that cannot be made, opened or written."""


@dataclass(frozen=True, slots=True)
class Side:
    """One side of a pair: absolute path of a model or recorded trace, and the numeric path ("" for a trace)."""

    path: str
    numeric_path: str


@dataclass(frozen=True, slots=True)
class SessionSpec:
    """What a session is about, and how its map was left.

    tokens : ids that both sides run; empty where they come from a recorded trace.
    view : what the screen showed, as workbench.view.View.to_json gives it. created : UTC, ISO 8601.
    """

    a: Side
    b: Side
    tokens: tuple[int, ...]
    prompt: str | None = None
    view: dict[str, Any] = field(default_factory=dict)
    created: str = field(default_factory=now)
    name: str = ""


class Session:
    """An opened session folder. Whatever is saved through it is on the disk when the call returns."""

    def __init__(self, folder: Path, spec: SessionSpec) -> None:
        self.folder = folder
        self.spec = spec

    @classmethod
    def create(cls, folder: Path, spec: SessionSpec) -> Self:
        """Make a new session folder; SessionError if there is a session in it already."""
        folder = folder.absolute()
        spec = replace(spec, name=spec.name or folder.name)
        try:
            (folder / "hypotheses").mkdir(parents=True, exist_ok=True)
            create_atomically(folder / SPEC_FILE, _json({"schema": SCHEMA, **_relative(asdict(spec), folder)}))
        except FileExistsError:
            raise SessionError(
                f"{_shown(folder)} holds a session already; open it, or choose another folder."
            ) from None
        except OSError as error:
            raise SessionError(f"The session {_shown(folder)} cannot be made ({error.strerror}).") from error
        return cls(folder, spec)

    @classmethod
    def open(cls, folder: Path) -> Self:
        """Open an existing session; SessionError names the field of session.json that is missing or wrong."""
        folder = folder.absolute()
        return cls(folder, _spec(folder, _read(folder)))

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
        return self.folder / f"{side}.h5"

    @property
    def findings_path(self) -> Path:
        """Where the exported findings go."""
        return self.folder / "findings.md"

    @property
    def hypotheses_folder(self) -> Path:
        """Where the notes are."""
        return self.folder / "hypotheses"

    def save_view(self, view: Mapping[str, Any]) -> None:
        """Keep how the map is left; everything else in session.json stays as it is on the disk."""
        record = _read(self.folder)
        _spec(self.folder, record)
        try:
            write_atomically(self.folder / SPEC_FILE, _json(record | {"view": plain(view)}))
        except OSError as error:
            where = _shown(self.folder / SPEC_FILE)
            raise SessionError(f"{where} cannot be written ({error.strerror}); the view is not saved.") from error
        self.spec = replace(self.spec, view=dict(view))

    def log(self, kind: str, /, **facts: Any) -> None:  # noqa: ANN401
        """Append an entry to the session's log."""
        append_log(self.folder, kind, **facts)

    def entries(self) -> list[dict[str, Any]]:
        """Return the log, oldest first; a line that a crash has torn is left out."""
        try:
            lines = (self.folder / "log.jsonl").read_bytes().splitlines()
        except FileNotFoundError:
            return []
        entries = []
        for line in lines:
            try:
                entry = json.loads(line)
            except (ValueError, RecursionError):
                continue
            if isinstance(entry, dict):
                entries.append(entry)
        return entries

    # Hypotheses: what reads and writes them is loaded here, since opening a session takes none of it

    def hypotheses(self) -> list["Hypothesis"]:
        """Return the readable hypotheses by number."""
        from workbench.hypotheses import load

        return load(self.hypotheses_folder).hypotheses

    def problems(self) -> list[str]:
        """Return a sentence for every hypothesis file that cannot be read."""
        from workbench.hypotheses import load

        return load(self.hypotheses_folder).problems

    def write_hypothesis(self, hypothesis: "Hypothesis") -> "Hypothesis":
        """Write a new or changed hypothesis (see workbench.hypotheses.write) and log it."""
        from workbench.hypotheses import write

        written = write(self.hypotheses_folder, hypothesis)
        kind = "hypothesis" if hypothesis.number == 0 else "hypothesis changed"
        self.log(kind, number=written.number, title=written.title, status=written.status, site=written.site)
        return written


def append_log(folder: Path, kind: str, /, **facts: Any) -> None:  # noqa: ANN401
    """Append one line to a session's log.jsonl and bring it to the disk; other processes may do so at the same time."""
    line = json.dumps(plain({"time": now(), "kind": kind, **facts})).encode() + b"\n"
    path = folder / "log.jsonl"
    try:
        with path.open("ab+", buffering=0) as file:
            if file.seek(0, os.SEEK_END):
                file.seek(-1, os.SEEK_END)
                line = line if file.read(1) == b"\n" else b"\n" + line  # a crash has torn the last one
            file.write(line)
            os.fsync(file.fileno())
    except OSError as error:
        raise SessionError(f"{_shown(path)} cannot be written ({error.strerror}).") from error


def _is_checkout(folder: Path) -> bool:
    import tomllib

    try:
        project = tomllib.loads((folder / "pyproject.toml").read_text())
    except (OSError, ValueError):
        return False
    return (folder / "sessions").is_dir() and project.get("project", {}).get("name") == DISTRIBUTION


def _json(record: Mapping[str, Any]) -> str:
    return json.dumps(plain(record), indent=1) + "\n"


def _relative(record: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Write the paths of files inside of the session folder relative to it, so that the folder can be moved."""
    for side in ("a", "b"):
        path = Path(record[side]["path"])
        if path.is_relative_to(folder):
            record[side]["path"] = path.relative_to(folder).as_posix()
    return record


def _read(folder: Path) -> dict[str, Any]:
    path = folder / SPEC_FILE
    try:
        record = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise SessionError(f"{_shown(folder)} is not a session: it holds no {SPEC_FILE}.") from None
    except OSError as error:
        raise SessionError(f"{_shown(path)} cannot be read ({error.strerror}).") from error
    except (ValueError, RecursionError) as error:
        line = f" at line {error.lineno}" if isinstance(error, json.JSONDecodeError) else ""
        raise SessionError(f"{_shown(path)} is not JSON{line}; correct it by hand.") from None
    if not isinstance(record, dict) or "schema" not in record:
        raise SessionError(f"{_shown(path)} has no schema number; it was not written by this program.")
    if record["schema"] != SCHEMA:
        found = printable(repr(record["schema"]), 40)
        raise SessionError(f"{_shown(path)} has schema {found}; this program reads schema {SCHEMA}.")
    return record


def _spec(folder: Path, record: dict[str, Any]) -> SessionSpec:
    """Check a session.json and return what it says; paths in it are relative to the folder."""

    def wrong(name: str, expected: str) -> SessionError:
        state = "is not" if name in record else "is missing; it must be"
        return SessionError(f"{_shown(folder / SPEC_FILE)}: field {name} {state} {expected}; correct it by hand.")

    def side(name: str) -> Side:
        value = record.get(name)
        fields = value if isinstance(value, dict) else {}
        path, numeric_path = fields.get("path"), fields.get("numeric_path")
        if not isinstance(path, str) or not path or not isinstance(numeric_path, str):
            raise wrong(name, "an object with the texts path and numeric_path")
        return Side(os.path.abspath(folder / path), numeric_path)

    tokens, prompt, view = record.get("tokens"), record.get("prompt"), record.get("view", {})
    if not isinstance(tokens, list) or not all(type(token) is int and token >= 0 for token in tokens):
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
    return SessionSpec(side("a"), side("b"), tuple(tokens), prompt, view, created, name)


def _shown(path: Path) -> str:
    return printable(str(path), 1000)
