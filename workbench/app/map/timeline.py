"""What was done in a session, one line an entry of its log."""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path, PurePath
from typing import Any

from kernels.errors import WorkbenchError
from store.text import printable
from workbench.cells.metrics import format_value
from workbench.session.files import read_log

Entry = Mapping[str, Any]


def done(folder: Path) -> list[str]:
    """Return what was done in a session's folder, oldest first; a log that cannot be read says so."""
    try:
        return lines(read_log(folder))
    except WorkbenchError as error:
        return [printable(str(error), 400)]


def lines(entries: Iterable[Entry]) -> list[str]:
    """Return a line for every entry: month, day and time in UTC, as the log has them, and what was done."""
    return [f"{_when(entry)}  {_what(entry)}" for entry in entries]


def _when(entry: Entry) -> str:
    time = printable(str(entry.get("time", "")), 40)
    return f"{time[5:10]} {time[11:16]}"


def _what(entry: Entry) -> str:
    kind = entry.get("kind")
    say = _WORDS.get(kind) if isinstance(kind, str) else None
    try:
        words = str(kind) if say is None else say(entry)
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError):  # somebody has changed it by hand
        words = str(kind)
    return printable(words, 300)


def _compared(entry: Entry) -> str:
    cells, tokens = sum(entry["cells"].values()), len(entry["tokens"])
    return f"compared {cells} cells over {tokens} token{'s' * (tokens != 1)}"


def _exchanged(entry: Entry) -> str:
    left = (
        f": KL {format_value(entry['kl'])} → {format_value(entry['kl_left'])}" if entry["kl_left"] is not None else ""
    )
    return f"exchanged {entry['part']}{left}"


def _place(entry: Entry) -> str:
    layer = entry["site"][0] if isinstance(entry["site"], list) else entry["site"]["layer"]
    stage = entry["site"][1] if isinstance(entry["site"], list) else entry["site"]["stage"]
    return stage if layer is None else f"layer {layer} {stage}"


def _hypothesis(entry: Entry) -> str:
    where = f" at {_place(entry)}" if entry.get("site") else ""
    return f"{entry['kind']} {entry['number']}{where}: {entry['title']}"


_WORDS: dict[str, Callable[[Entry], str]] = {
    "demo": lambda entry: f"made the copy: {entry['fault'] or 'healthy'}, layer {entry['layer']}",
    "compared": _compared,
    "bisected": lambda entry: f"bisected: {entry.get('headline') or entry['verdict']}",
    "patched": _exchanged,
    "run again": lambda entry: f"ran {len(entry['cells'])} cells again on one input",
    "exported": lambda entry: f"exported {PurePath(entry['report']).name}",
    "hypothesis": _hypothesis,
    "hypothesis changed": _hypothesis,
    "tested": lambda entry: f"tested hypothesis {entry['number']}: {entry['status'] or entry['why']}",
    "retracted": lambda entry: f"took back {entry['what']}: {entry['why']}",
    "experiment": lambda entry: f"ran the experiment {entry['experiment']}",
}
