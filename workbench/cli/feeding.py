"""`workbench inspect A B`: all that decides what two models are fed, differences first."""

import shutil
import textwrap
from pathlib import Path

from store.open import open_model
from store.stored_model import StoredModel
from store.text import printable
from store.traces.kind import is_trace
from workbench.cli.options import print_json
from workbench.cli.progress import ProgressLine
from workbench.cli.tables import aligned, echo
from workbench.feeding.comparison import Feeding, compare_feeding
from workbench.feeding.row import Row, Status
from workbench.pair.prompt import Prompt

_MARKS: dict[Status, str] = {"different": "!", "unknown": "?", "explained": "~", "alike": "="}
_LEGEND = "! different   ? not known   ~ differs, and that is explained   = alike"
_WIDEST = 40  # characters of a value


def inspect_two(a: Path, b: Path, prompt: Prompt | None, as_json: bool) -> int:
    """Say whether two models are fed alike; returns the exit code, WorkbenchError where it is not known."""
    models = _model(a), _model(b)
    with ProgressLine() as line:
        feeding = compare_feeding(*models, prompt, lambda done, total, what: line(done, total, f"compare {what}"))
    if as_json:
        print_json(feeding.to_json())
    else:
        echo("\n".join(_lines(feeding)))
    feeding.require_answer()
    return feeding.exit_code


def _model(path: Path) -> StoredModel:
    from kernels.errors import WorkbenchError

    if is_trace(path):
        shown = printable(str(path), 1000)
        raise WorkbenchError(f"{shown} is a trace, which is fed nothing; inspect it alone, or give the model it is of")
    return open_model(path)


def _lines(feeding: Feeding) -> list[str]:
    lines = [feeding.headline, ""]
    for side in (feeding.a, feeding.b):
        lines.append(f"{side.name}  {printable(str(side.model.path), 1000)}  ({side.model.format})")
    ordered = sorted(feeding.rows, key=lambda row: list(_MARKS).index(row.status))
    table = aligned([("", "", "A", "B"), *map(_cells, ordered)])
    lines += ["", table[0]]
    for row, line in zip(ordered, table[1:], strict=True):
        lines += [line, *_words(row)]
    return [*lines, "", _LEGEND]


def _cells(row: Row) -> tuple[str, str, str, str]:
    a, b = (printable(value, _WIDEST) for value in row.shown)
    return _MARKS[row.status], row.what, a, b


def _words(row: Row) -> list[str]:
    """The sentence of a row below it, as wide as the terminal."""
    width = max(min(shutil.get_terminal_size((120, 24)).columns, 120), 40)
    return textwrap.wrap(row.words, width, initial_indent="     ", subsequent_indent="     ")
