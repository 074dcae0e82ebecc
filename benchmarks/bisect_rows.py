"""Bisections as their user waits for them, beside the command that does what cannot be left out."""

import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path

from benchmarks.forward_rows import some_tokens
from benchmarks.peer import PeerError
from benchmarks.processes import WORKBENCH, Watched, run_watched
from benchmarks.rows import Bench, Measured, Row
from benchmarks.shapes import QWEN_HALF, shortened

_MIX = "Q4_K_M"
_FEW, _MANY = 6, 200  # tokens
_MOST_ROUNDS = 3


def rows() -> list[Row]:
    """All rows about bisections."""
    pair = "bisect of a healthy pair, 0.5B Q4_K_M, ggml and f32"
    found = [
        Row(f"bisect-{count}", f"{pair}, {count} tokens", "compare of the pair", must, 1.2, _healthy(count))
        for count, must in ((7, 1.3), (64, 1.5), (_MANY, 1.5))
    ]
    title = f"bisect of two quantizations, 0.5B Q4_K_M and Q8_0 of it, {_FEW} tokens"
    recorded = f"bisect of a llama.cpp recording, 0.5B, {_MANY} tokens"
    return [
        *found,
        Row("bisect-types", title, "weights of the pair", 4, 2, _two_types),
        Row("bisect-recorded", recorded, "record", 0.4, 0.2, _recorded),
        Row("bisect-memory", f"{pair}, {_MANY} tokens: memory beyond mapped pages", "", 0.5, 0.3, _memory("bisect")),
        Row("compare-memory", f"compare of it, {_MANY} tokens: the same", "", 0.5, 0.3, _memory("compare")),
    ]


def _model(bench: Bench) -> Path:
    config = shortened(QWEN_HALF, 2) if bench.quick else QWEN_HALF
    return bench.models.gguf("0.5b", config, _MIX)


def _tokens(count: int) -> tuple[str, str]:
    return "--tokens", ",".join(map(str, some_tokens(count)))


def _run(bench: Bench, *words: str) -> Watched:
    return run_watched([*WORKBENCH, *words], {"WORKBENCH_THREADS": str(bench.threads)})


def _seconds(bench: Bench, *words: str) -> float:
    run = _run(bench, *words)
    return run.processor if bench.processor else run.seconds


def _in_turn(bench: Bench, product: tuple[str, ...], peer: tuple[str, ...]) -> Measured:
    """Two commands in turn, after one run of each that does not count."""
    figures: tuple[list[float], list[float]] = [], []
    for number in range(min(bench.rounds, _MOST_ROUNDS) + 1):
        for kept, words in zip(figures, (product, peer), strict=True):
            seconds = _seconds(bench, *words)
            if number:
                kept.append(seconds)
    return Measured(*figures, processor=bench.processor)


def _pair(bench: Bench, command: str, count: int) -> tuple[str, ...]:
    model = str(_model(bench))
    return command, model, model, "--path-b", "f32", *_tokens(count)


def _healthy(count: int) -> Callable[[Bench], Measured]:
    return lambda bench: _in_turn(bench, *(_pair(bench, command, count) for command in ("bisect", "compare")))


def _two_types(bench: Bench) -> Measured:
    one = _model(bench)
    models = str(one), str(bench.models.requantized(one, "Q8_0"))
    return _in_turn(bench, ("bisect", *models, *_tokens(_FEW)), ("weights", *models))


def _recorded(bench: Bench) -> Measured:
    if not bench.peer_python.exists():
        raise PeerError(f"{bench.peer_python} is not there; run `make bench-peers`, or give PEER_PYTHON=")
    model = str(_model(bench))
    with tempfile.TemporaryDirectory(dir=bench.models.folder) as folder:
        trace = str(Path(folder) / "trace.npz")
        engine = "--python", str(bench.peer_python), "--threads", str(bench.threads)
        record = "record", model, "-o", trace, *_tokens(_MANY), *engine
        _run(bench, *record)
        figures = []
        for _ in range(min(bench.rounds, _MOST_ROUNDS)):
            bisected = _seconds(bench, "bisect", trace, model)
            Path(trace).unlink()
            figures.append((bisected, _seconds(bench, *record)))
    product, peer = map(list, zip(*figures, strict=True))
    return Measured(product, peer, processor=bench.processor)


def _memory(command: str) -> Callable[[Bench], Measured]:
    return lambda bench: Measured([_held(bench, command) / 1e9], unit="GB")


@cache
def _held(bench: Bench, command: str) -> float:
    """Bytes beyond mapped file pages, at most."""
    return _run(bench, *_pair(bench, command, _MANY)).memory
