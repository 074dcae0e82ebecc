"""The screen on a large terminal and a deep model: from a key to the last byte it brings, another build beside it."""

import shutil
import statistics
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.builds import THIS, Build
from benchmarks.processes import ENVIRONMENT, Terminal
from benchmarks.rows import Bench, Measured, Row, Unit
from benchmarks.shapes import DEEP
from workbench.cells.metrics import METRICS

_COLUMNS, _LINES = 200, 60
_ROUNDS = 9  # of which the least says what the screen needs where others use the machine
_QUIET = 0.3  # seconds without a byte, after which none is expected
_INTO_A_LAYER = b"lj"  # from the embedding, where one of the two leads nowhere: whether layers are rows or columns
_MOVES = b"jjljjlkl"
_METRICS = 5  # of each round
_LIST_HEAD = b"chan."  # stands above the elements of a cell, whether they are there already or not
_HELP = b"Move one row"
_WHOLE = b"done in"  # what the map says of a capture that is complete

Figures = dict[str, float]


def rows() -> list[Row]:
    """All rows about the large screen."""
    where = "80 layers, 200x60"
    return [
        Row("screen-paint", f"{where}: first paint", "", 0.6, 0.3, _row("paint", "s")),
        Row("screen-move", f"{where}: cursor move, inspector included", "", 50, 30, _row("move", "ms")),
        Row("screen-move-bytes", f"{where}: bytes of a cursor move", "", 3, 2, _row("bytes", "KB")),
        Row("screen-metric", f"{where}: next metric", "", 50, 30, _row("metric", "ms")),
        Row("screen-help", f"{where}: help", "", 100, 50, _row("help", "ms")),
        Row("screen-open-frame", f"{where}: first cell opened, its frame", "", 50, 30, _row("frame", "ms")),
        Row("screen-open", f"{where}: first cell opened, its elements", "", 500, 250, _row("open", "ms")),
        Row("screen-view", f"{where}: next view, its frame", "", 50, 30, _row("view", "ms")),
    ]


def _row(figure: str, unit: Unit) -> Callable[[Bench], Measured]:
    def measure(bench: Bench) -> Measured:
        mine, others = _measured(bench)
        note = f"least {min(each[figure] for each in mine):.3g}"
        if others:
            note += f" against {min(each[figure] for each in others):.3g}"
        return Measured([each[figure] for each in mine], [], unit, note, before=[each[figure] for each in others])

    return measure


_walks: dict[Bench, tuple[list[Figures], list[Figures]]] = {}


def _measured(bench: Bench) -> tuple[list[Figures], list[Figures]]:
    """Figures of this build and of the other, if one is given, from rounds in turn; taken once for all rows."""
    if bench not in _walks:
        builds = [THIS, *([] if bench.against is None else [bench.against])]
        with TemporaryDirectory() as folder:
            sessions = [_session(bench, each, Path(folder) / str(number)) for number, each in enumerate(builds)]
            found: tuple[list[Figures], list[Figures]] = [], []
            for number in range((bench.rounds if bench.quick else _ROUNDS) + 1):
                for kept, each, session in zip(found, builds, sessions, strict=False):
                    figures = _walk(each, session)
                    if number:
                        kept.append(figures)
        _walks[bench] = found
    return _walks[bench]


def _session(bench: Bench, build: Build, folder: Path) -> Path:
    """A session of a model on two numeric paths, captured and bisected by the build that is to show it."""
    model = bench.models.gguf("deep", DEEP, "Q8_0")
    sides = [str(model), str(bench.models.apr(model)), "--path-a", "ggml", "--path-b", "f32"]
    command = [*build.command, "open", *sides, "--tokens", "1,2,3,4,5,6,7", "--session", str(folder)]
    made = subprocess.run(  # noqa: S603
        command, stdout=subprocess.DEVNULL, check=False, env=ENVIRONMENT | build.environment
    )
    if made.returncode not in (0, 1):  # alike, different
        raise RuntimeError(f"{' '.join(command)} ended with {made.returncode}")
    return folder


def _walk(build: Build, session: Path) -> Figures:
    """Open a copy of a session and press the keys; milliseconds, seconds of the first paint, kilobytes of a move."""
    with TemporaryDirectory() as folder:
        copy = Path(folder) / "session"
        shutil.copytree(session, copy)
        with Terminal([*build.command, "open", str(copy)], _COLUMNS, _LINES, build.environment) as terminal:
            label = METRICS["std_ratio"].label.encode()
            figures = {"paint": terminal.wait_for(lambda text: label in text, 30) - terminal.started}
            terminal.wait_for(lambda text: _WHOLE in text, 60)
            terminal.settle(1)
            terminal.answer(_INTO_A_LAYER, _QUIET)
            moves = [terminal.answer(bytes([key]), _QUIET) for key in _MOVES]
            figures |= {"move": _median(answer.last for answer in moves) * 1e3}
            figures |= {"bytes": _median(len(answer.shown) for answer in moves) / 1e3}
            figures |= {"metric": _median(terminal.answer(b"m", _QUIET).last for _ in range(_METRICS)) * 1e3}
            figures |= {"help": terminal.answer(b"?", _QUIET, _HELP).last * 1e3}
            terminal.answer(b"\x1b", _QUIET)
            opened = terminal.answer(b"\r", 2 * _QUIET, _LIST_HEAD)
            figures |= {"frame": opened.came(_LIST_HEAD) * 1e3, "open": opened.last * 1e3}
            terminal.answer(b"\x1b", _QUIET)
            figures |= {"view": terminal.answer(b"i", 0.05, b"local").came(b"local") * 1e3}
            return figures


def _median(values: Iterator[float]) -> float:
    return statistics.median(values)
