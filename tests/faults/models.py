"""The models that faults are planted in: random ones of several shapes and the trained one that ships."""

from dataclasses import dataclass, replace
from functools import cache

import numpy as np

from kernels.config import ModelConfig
from kernels.dequantize import dequantize
from store.artifact import open_artifact
from tests.memory_model import random_model
from workbench.demo import MODEL


@dataclass(frozen=True, eq=False)
class Plain:
    """A model as plain float32 arrays by canonical name, to be edited and then stored in some format."""

    name: str
    config: ModelConfig
    values: dict[str, np.ndarray]

    def edited(self, **values) -> "Plain":
        """The same with other tensors, by canonical name; None takes one away."""
        merged = {k: v for k, v in {**self.values, **values}.items() if v is not None}
        return replace(self, values=merged)

    def tokens(self, count: int = 7) -> tuple[int, ...]:
        """Token ids that repeat none, in an order that has nothing to do with their size."""
        return tuple((37 * n + 11) % self.config.vocab_size for n in range(count))


SHAPES = {
    # MHA, untied
    "llama-mha": {
        "architecture": "llama",
        "layers": 3,
        "heads": 4,
        "kv_heads": 4,
        "head_dim": 16,
        "hidden": 64,
        "ffn": 96,
        "vocab": 128,
    },
    # 4:1, rows of whole super-blocks
    "qwen2-4to1": {
        "architecture": "qwen2",
        "layers": 3,
        "heads": 8,
        "kv_heads": 2,
        "head_dim": 32,
        "hidden": 256,
        "ffn": 512,
        "vocab": 160,
    },
    # 3:1, head_dim * heads is not the hidden size, tied
    "llama-3to1-tied": {
        "architecture": "llama",
        "layers": 4,
        "heads": 6,
        "kv_heads": 2,
        "head_dim": 32,
        "hidden": 96,
        "ffn": 256,
        "vocab": 144,
        "tied": True,
    },
    # 2:1, tied, wide heads
    "qwen2-2to1-tied": {
        "architecture": "qwen2",
        "layers": 3,
        "heads": 4,
        "kv_heads": 2,
        "head_dim": 64,
        "hidden": 256,
        "ffn": 512,
        "vocab": 192,
        "tied": True,
    },
    # MHA with biases and square projections
    "qwen2-mha": {
        "architecture": "qwen2",
        "layers": 3,
        "heads": 4,
        "kv_heads": 4,
        "head_dim": 32,
        "hidden": 128,
        "ffn": 192,
        "vocab": 96,
    },
    # 4:1, rows of whole super-blocks
    "llama-4to1": {
        "architecture": "llama",
        "layers": 3,
        "heads": 8,
        "kv_heads": 2,
        "head_dim": 32,
        "hidden": 256,
        "ffn": 768,
        "vocab": 112,
    },
}


@cache
def plain(name: str, seed: int = 0) -> Plain:
    """A model of SHAPES, or "trained": the shipped model's values, off the grid that they were quantized to."""
    if name == "trained":
        artifact, rng = open_artifact(MODEL), np.random.default_rng(seed)
        values = {name: dequantize(artifact.weight(name)) for name in artifact.tensors}
        return Plain(name, artifact.config, {name: _off_grid(value, rng) for name, value in values.items()})
    model = random_model(**SHAPES[name], seed=seed)
    return Plain(name if not seed else f"{name} seed {seed}", model.config, model.values())


def _off_grid(values: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Matrices as they may have been before 4 bits were kept of every value."""
    if values.ndim == 1:
        return values
    largest = np.abs(values.reshape(-1, 32)).max(axis=1, keepdims=True)
    noise = rng.uniform(-1 / 16, 1 / 16, (largest.size, 32)) * largest
    return (values + noise.reshape(values.shape)).astype(np.float32)
