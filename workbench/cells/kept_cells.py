"""Cells that are kept on disk in place of tensors, each with the elements that differ most: cells.jsonl of a session.

One JSON line for the two runs and one for every cell, in execution order. Tables are float64, little-endian, in base64;
numbers that JSON has not are texts.
"""

import base64
import json
import math
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, get_args

import numpy as np
from numpy.typing import NDArray

from kernels.errors import WorkbenchError
from kernels.measures import COL, LogitAgreement
from kernels.models import ARCHITECTURES, execution_order
from kernels.stages import Site
from store.errors import StoreError
from store.text import printable
from store.traces.run import RunRecord
from store.whole_files import bounded, give_name, temporary_beside
from workbench.cells.cell import Cell, Status, cell_to_wire
from workbench.cells.elements import WORST, Element, WorstElements
from workbench.cells.flips import Flips
from workbench.cells.view import TokenScope

MOST_BYTES = 1 << 30
_LONGEST_HEAD, _LONGEST_LINE = 4 << 20, 64 << 20  # bytes; JSON can take twenty times as much memory
NOT_KEPT = "keeps cells and the elements of each that differ most, and no tensors (--statistics-only)"
_SCHEMA = 1
_MOST_CHANNELS = 1 << 31
_LARGEST = float(np.finfo(np.float32).max)
_PERCENTILES = ("p50", "p90", "p99")
_WITH_NUMBERS = ("ok", "identical")
_TEXTS = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}


@dataclass(frozen=True, eq=False)
class KeptCells:
    """The runs of both sides, and their cells in execution order."""

    path: Path
    a: RunRecord
    b: RunRecord
    cells: tuple[Cell, ...]

    @property
    def runs(self) -> dict[str, RunRecord]:
        """Both runs by side."""
        return {"a": self.a, "b": self.b}

    def elements(self, cell: Cell, scope: TokenScope) -> WorstElements:
        """The elements of a cell that differ most, as far as they are of the tokens of a scope.

        WorkbenchError, one sentence, where that leaves none.
        """
        row = scope.row(cell, len(self.a.tokens))
        known = next((own for own in self.cells if own.site == cell.site), cell).worst
        there = set(cell.positions if row is None else cell.positions[row : row + 1])
        found = tuple(element for element in known if element.token in there)
        if not found:
            what = "no element of it differs in value" if not known else "none of those is of the tokens that are shown"
            raise WorkbenchError(f"of {cell.site} the session {NOT_KEPT}; {what}")
        rows, channels = cell.shape or (0, 0)
        return WorstElements.those(found, channels * (rows if row is None else 1))


def tensors_not_kept(session: str) -> StoreError:
    """What to say where tensors are needed. session : its folder."""
    where = printable(session, 1000)
    return StoreError(f"{where} {NOT_KEPT}; open the pair without that option in another --session to have them.")


@contextmanager
def keeping(path: Path, a: RunRecord, b: RunRecord) -> Iterator[Callable[[Cell], None]]:
    """Write the cells of two runs, each as it comes, in execution order; the file appears when the block has ended.

    StoreError if it cannot be written, or becomes too long to be read.
    """
    with ExitStack() as stack:
        with _writing(path):
            temporary, file = stack.enter_context(temporary_beside(path))
            head = json.dumps({"schema": _SCHEMA, "a": a.to_json(), "b": b.to_json()}).encode() + b"\n"
            require_readable(path, len(head), _LONGEST_HEAD)
            file.write(head)

        def keep(cell: Cell) -> None:
            with _writing(path):
                line = _line(cell)
                require_readable(path, len(line), _LONGEST_LINE)
                file.write(line)
                require_readable(path, file.tell())

        yield keep
        with _writing(path):
            give_name(file, temporary, path)


def require_readable(path: Path, size: int, most: int | None = None) -> None:
    """Raise StoreError if so many bytes of cells, or of a line, are more than are read again (MOST_BYTES of cells)."""
    most = MOST_BYTES if most is None else most
    if size > most:
        what = f"would have {size:,} bytes, and at most {most:,} are read"
        raise StoreError(f"{printable(str(path), 1000)} {what}; give fewer tokens.")


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        where = printable(str(path), 1000)
        raise StoreError(f"{where} cannot be written ({error.strerror}); make room.") from error


def read_kept(path: Path) -> KeptCells:
    """Read what `keeping` wrote; StoreError, one sentence, names the line that is none of it."""
    name = printable(str(path), 1000)
    try:
        with bounded(path, MOST_BYTES) as file:
            return _read(path, file, name)
    except OSError as error:
        raise StoreError(f"{name} cannot be read ({error.strerror}).") from None


def _read(path: Path, file: BinaryIO, name: str) -> KeptCells:
    head = _record(file.readline(_LONGEST_HEAD))
    if head is None or head.get("schema") != _SCHEMA:
        raise _damaged(name, 1)
    a, b = (RunRecord.from_json(head.get(side)) for side in "ab")
    if a.tokens != b.tokens or not {a.config.architecture, b.config.architecture} <= set(ARCHITECTURES):
        raise _damaged(name, 1)
    cells = list[Cell]()
    for number, site in enumerate(execution_order(a.config, b.config), 2):
        record = _record(file.readline(_LONGEST_LINE))
        try:
            cells.append(_cell(record, site, len(a.tokens)))
        except (KeyError, TypeError, ValueError, OverflowError):
            raise _damaged(name, number) from None
    if file.readline(1):
        raise _damaged(name, len(cells) + 2)
    return KeptCells(path, a, b, tuple(cells))


def _damaged(name: str, line: int) -> StoreError:
    return StoreError(f"{name}, line {line}, is damaged; remove the file and open the session to run the pair again.")


def _record(line: bytes) -> dict[str, Any] | None:
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _line(cell: Cell) -> bytes:
    record = cell_to_wire(cell)
    if cell.profile is not None:
        record["profile"] = _packed(cell.profile)
    if cell.logits is not None:
        record["logits"] = [_packed(np.asarray(column, dtype=np.float64)) for column in cell.logits]
    if cell.flipped is not None:
        record["flipped"] = [None if value is None else _number(value) for value in cell.flipped]
    record["worst"] = [[e.token, e.channel, _number(e.a), _number(e.b)] for e in cell.worst]
    return json.dumps(record, allow_nan=False).encode() + b"\n"


def _packed(values: NDArray[np.float64]) -> str:
    return base64.b64encode(values.astype("<f8").tobytes()).decode()


def _number(value: float) -> float | str:
    return value if math.isfinite(value) else str(value)


def _cell(record: dict[str, Any] | None, site: Site, tokens: int) -> Cell:
    """The cell of a site, of at most so many tokens; ValueError, KeyError or TypeError for anything else."""
    _require(record is not None and [record["layer"], record["stage"]] == list(site))
    assert record is not None
    status, note, positions, shape = (record[name] for name in ("status", "note", "positions", "shape"))
    _require(status in get_args(Status) and isinstance(note, str | None))
    if status not in _WITH_NUMBERS:
        _require(not positions and shape is record["profile"] is record["logits"] is None and not record["worst"])
        return Cell(site, status, note)
    rows, channels = map(_whole, shape)
    _require(0 < rows == len(set(map(_whole, positions))) == len(positions) and max(positions) < tokens)
    _require(0 < channels < _MOST_CHANNELS)
    return Cell(
        site,
        status,
        note,
        (rows, channels),
        _sums(record["profile"], rows, channels),
        tuple(positions),
        _agreement(record["logits"], rows),
        _flips(record["flipped"]),
        {key: _size(record["percentiles"][key]) for key in _PERCENTILES if key in record["percentiles"]},
        _worst(record["worst"], frozenset(positions), channels),
    )


def _sums(packed: object, rows: int, channels: int) -> NDArray[np.float64]:
    """A profile, whose columns are what `kernels.measures` takes them for."""
    table = _unpacked(packed, rows, len(COL))
    finite = np.delete(table, [COL.max_a, COL.max_b], axis=1)
    sizes = np.delete(table, [COL.mean_a, COL.mean_b, COL.skew, COL.max_a, COL.max_b], axis=1)
    _require(bool(np.isfinite(finite).all() and (sizes >= 0).all() and (table[:, COL.max_channel] < channels).all()))
    return table


def _agreement(record: Any, rows: int) -> LogitAgreement | None:  # noqa: ANN401
    if record is None:
        return None
    kl, top1, top5 = (_unpacked(column, rows, 1)[:, 0] for column in record)
    return LogitAgreement(kl, top1 == 1, top5)


def _flips(record: Any) -> Flips | None:  # noqa: ANN401
    if record is None:
        return None
    flipped, of, median, largest = record
    _require(0 <= _whole(flipped) <= _whole(of))
    return Flips(flipped, of, *(None if far is None else _any_number(far) for far in (median, largest)))


def _worst(record: Any, positions: frozenset[int], channels: int) -> tuple[Element, ...]:  # noqa: ANN401
    _require(len(record) <= WORST)
    found = [Element.of(_whole(token), _whole(channel), _value(a), _value(b)) for token, channel, a, b in record]
    _require(all(element.token in positions and element.channel < channels for element in found))
    return tuple(found)


def _unpacked(text: object, rows: int, columns: int) -> NDArray[np.float64]:
    _require(isinstance(text, str) and len(text) == -(-rows * columns * 8 // 3) * 4)
    assert isinstance(text, str)
    return np.frombuffer(base64.b64decode(text, validate=True), "<f8").astype(np.float64).reshape(rows, columns)


def _whole(value: Any) -> int:  # noqa: ANN401
    _require(type(value) is int and value >= 0)
    return int(value)


def _size(value: Any) -> float:  # noqa: ANN401
    _require(type(value) in (int, float) and math.isfinite(value) and value >= 0)
    return float(value)


def _any_number(value: Any) -> float:  # noqa: ANN401
    """What `_number` has written."""
    if isinstance(value, str):
        return _TEXTS[value]
    _require(type(value) in (int, float) and math.isfinite(value))
    return float(value)


def _value(value: Any) -> float:  # noqa: ANN401
    """A float32."""
    number = _any_number(value)
    _require(not math.isfinite(number) or abs(number) <= _LARGEST)
    return float(np.float32(number))


def _require(right: bool) -> None:
    if not right:
        raise ValueError
