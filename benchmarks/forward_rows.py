"""Traced forwards: all stages to memory, beside the engine that the numeric path stands for."""

import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.limits import Operation, forward_work
from benchmarks.peer import Peer
from benchmarks.rows import Bench, Measured, Row, alternate, threads
from benchmarks.shapes import TINYLLAMA, shortened
from kernels.config import ModelConfig
from kernels.forward import forward
from kernels.graph import Array
from kernels.paths import numeric_path
from kernels.stages import Site
from store.open import open_artifact

_QUICK_LAYERS = 4
_SHORT = 64  # tokens up to which attention is a small part
_PRODUCTS: dict[str, Operation] = {"ggml": "int8", "f32": "f32", "f64": "f64"}  # what a path multiplies


def rows() -> list[Row]:
    """All rows of forwards."""
    llama, hugging_face = "llama.cpp, every node copied", "transformers {}, hooks"
    found = []
    for type in ("Q4_K", "Q6_K", "Q8_0"):
        for count in (7, 64):
            must = 0.5 if count > 7 else 0.45
            title = f"ggml forward, 1.1B {type}, {count} tokens"
            found.append(
                Row(
                    f"ggml-{type}-{count}",
                    title,
                    llama,
                    must,
                    0.3 if count == 7 else 0.35,
                    _beside_llama_cpp(type, count),
                )
            )
    for type, counts, must, aim in (("Q4_K", (7, 64, 300, 1000), 0.8, 0.5), ("Q8_0", (7, 64, 300), 0.6, 0.45)):
        for count in counts:
            most = 0.7 if type == "Q4_K" and count <= _SHORT else must
            title, measure = f"ggml forward, 1.1B {type}, {count} tokens", _beside_llama_cpp(type, count, plain=True)
            found.append(Row(f"plain-{type}-{count}", title, "llama.cpp, nothing copied", most, aim, measure))
    for path, count, must in (("f32", 7, 0.8), ("f32", 64, 0.5), ("f64", 7, 1.0)):
        measure = _beside_transformers(path, count)
        peer = hugging_face.format({"f32": "float32", "f64": "float64"}[path])
        found.append(Row(f"{path}-{count}", f"{path} forward, 1.1B F16, {count} tokens", peer, must, 0.3, measure))
    return found


def tiny_llama(bench: Bench) -> ModelConfig:
    """The 1.1B shape."""
    return shortened(TINYLLAMA, _QUICK_LAYERS) if bench.quick else TINYLLAMA


def some_tokens(count: int) -> tuple[int, ...]:
    """Token ids of any of the models."""
    return tuple(range(100, 100 + count))


def _beside_llama_cpp(type: str, count: int, *, plain: bool = False) -> Callable[[Bench], Measured]:
    def measure(bench: Bench) -> Measured:
        model, tokens = bench.models.gguf("1.1b", tiny_llama(bench), type), some_tokens(count)
        job = {"model": str(model), "tokens": tokens, "plain": plain, "processor": bench.processor}
        with Peer(bench.peer_python, "llama_cpp_traced", bench.threads, **job) as peer:
            return _alternate(bench, model, "ggml", tokens, peer)

    return measure


def _beside_transformers(path: str, count: int) -> Callable[[Bench], Measured]:
    dtype = {"f32": "float32", "f64": "float64"}[path]

    def measure(bench: Bench) -> Measured:
        model, tokens = bench.models.safetensors("1.1b", tiny_llama(bench), "F16"), some_tokens(count)
        job = {"model": str(model), "dtype": dtype, "tokens": tokens, "processor": bench.processor}
        with Peer(bench.peer_python, "transformers_traced", bench.threads, **job) as peer:
            return _alternate(bench, model, path, tokens, peer)

    return measure


def _alternate(bench: Bench, model: Path, path: str, tokens: tuple[int, ...], peer: Peer) -> Measured:
    artifact, arithmetic = open_artifact(model), numeric_path(path)
    work = forward_work(bench.threads, artifact, len(tokens), _PRODUCTS[path])
    stages: list[tuple[Site, Array]] = []

    clock = time.process_time if bench.processor else time.perf_counter

    def run() -> float:
        stages.clear()  # not before its next turn, as the peers keep their copies
        start = clock()
        stages.extend(forward(artifact, tokens, arithmetic))
        return clock() - start

    with threads(bench.threads):
        return alternate(run, peer.run, bench.rounds, work=work, processor=bench.processor)
