"""Work on tensors without a forward: comparing the weights of two files, comparing two stage tensors."""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.forward_rows import some_tokens
from benchmarks.limits import Work
from benchmarks.rows import Bench, Measured, Row, alternate, threads
from benchmarks.shapes import QWEN_3B, QWEN_7B, shortened
from kernels.config import ModelConfig
from kernels.stages import SPINE, Site
from store.open import open_artifact
from workbench.cells.compare import StageTensor, compare_stage
from workbench.tensors.sweep import sweep


def rows() -> list[Row]:
    """All rows about tensors."""
    sweep_title = "weights sweep, 3B BF16 SafeTensors and Q4_K"
    found = [Row("weights", sweep_title, "np.memmap(file).sum() of both", 2.0, 1.2, _sweep)]
    for count in (7, 64):
        title = f"all metrics of a layer's cells, 7B, {count} tokens"
        found.append(Row(f"metrics-{count}", title, "numpy mean and std of both", 1.0, 0.7, _metrics(count)))
    return found


def _sweep(bench: Bench) -> Measured:
    config = shortened(QWEN_3B, 4) if bench.quick else QWEN_3B
    quantized = bench.models.gguf("3b", config, "Q4_K")
    folder = bench.models.bfloat16_copy(quantized)
    files = quantized, folder / "model.safetensors"

    def product() -> None:
        for difference in sweep(open_artifact(folder), open_artifact(quantized)):
            assert difference.status == "ok"

    def peer() -> None:
        for file in files:
            np.memmap(file, mode="r").sum()

    size = sum(file.stat().st_size for file in files)
    with threads(bench.threads):
        note, work = f"{size / 1e9:.1f} GB of input", Work(bench.threads, size)
        return alternate(product, peer, min(bench.rounds, 3), note, work, processor=bench.processor)


def read_once(file: Path) -> int:
    """Sum a file's 8-byte words through a memory map."""
    words = file.stat().st_size // 8
    return int(np.memmap(file, np.uint64, "r", shape=(words,)).sum())


def layer_tensors(config: ModelConfig, count: int, seed: int) -> Iterator[tuple[str, NDArray[np.float32]]]:
    """Stage tensors of one layer, in shape and order those of a forward over `count` tokens."""
    rng = np.random.default_rng(seed)
    qkv, hidden = config.q_size + 2 * config.kv_size, config.hidden_size
    wide = {"qkv_matmul": qkv, "qkv_bias": qkv, "q_post_rope": config.q_size, "k_post_rope": config.kv_size}
    wide |= {"attention": config.q_size}
    wide |= dict.fromkeys(("ffn_gate", "ffn_up", "ffn_silu", "ffn_swigl"), config.intermediate_size)
    for stage in SPINE:
        yield stage, rng.standard_normal((count, wide.get(stage, hidden)), np.float32)


def _metrics(count: int) -> Callable[[Bench], Measured]:
    def measure(bench: Bench) -> Measured:
        positions = some_tokens(count)
        sides = [
            [StageTensor(Site(0, stage), values, positions) for stage, values in layer_tensors(QWEN_7B, count, seed)]
            for seed in (0, 1)
        ]

        def product() -> None:
            for a, b in zip(*sides, strict=True):
                compare_stage(a.site, a, b, lambda _side: False).measures()

        def peer() -> None:
            for side in sides:
                for tensor in side:
                    tensor.values.mean()
                    tensor.values.std()

        size = sum(tensor.values.nbytes for side in sides for tensor in side)
        with threads(bench.threads):
            return alternate(product, peer, bench.rounds, work=Work(bench.threads, size), processor=bench.processor)

    return measure
