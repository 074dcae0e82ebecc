"""The models that faults are planted in: random ones of several shapes and the trained one that ships."""

from dataclasses import dataclass, replace
from functools import cache

import numpy as np

from kernels.config import FULL, SLIDING, ModelConfig
from kernels.rows.dequantize import dequantize
from store.open import open_artifact
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


_FIELDS = ("architecture", "layers", "heads", "kv_heads", "head_dim", "hidden", "ffn", "vocab", "tied")
_ROWS = {
    "llama-mha": ("llama", 3, 4, 4, 16, 64, 96, 128, False),
    "qwen2-4to1": ("qwen2", 3, 8, 2, 32, 256, 512, 160, False),  # rows of whole super-blocks
    "llama-3to1-tied": ("llama", 4, 6, 2, 32, 96, 256, 144, True),  # heads are wider than the hidden size in all
    "qwen2-2to1-tied": ("qwen2", 3, 4, 2, 64, 256, 512, 192, True),
    "qwen2-mha": ("qwen2", 3, 4, 4, 32, 128, 192, 96, False),
    "llama-4to1": ("llama", 3, 8, 2, 32, 256, 768, 112, False),
    "qwen3-2to1": ("qwen3", 3, 4, 2, 32, 128, 192, 96, False),
    "gemma3-4to1-tied": ("gemma3", 3, 4, 1, 64, 256, 512, 160, True),
    "qwen2-small": ("qwen2", 2, 4, 2, 16, 64, 96, 128, False),
}
_LATER_ROWS = {
    "qwen3-small": ("qwen3", 3, 4, 2, 32, 64, 96, 128, False),
    "gemma3-one-key-head": ("gemma3", 3, 4, 1, 32, 64, 96, 128, True),
}
_NEW_FAMILY_ROWS = {
    "smollm3-2to1-tied": ("smollm3", 4, 4, 2, 32, 128, 192, 96, True),
    "olmo2-2to1": ("olmo2", 3, 4, 2, 32, 128, 192, 96, False),
    "gemma-one-key-head": ("gemma", 2, 4, 1, 32, 128, 192, 128, True),
    "gemma2-2to1-tied": ("gemma2", 3, 4, 2, 64, 256, 512, 160, True),
    "granite-4to1-tied": ("granite", 3, 8, 2, 32, 256, 512, 160, True),
    "seed_oss-2to1": ("seed_oss", 3, 4, 2, 32, 128, 192, 96, False),
    "exaone4-2to1": ("exaone4", 2, 4, 2, 32, 128, 192, 96, False),
}
# Of which only a folder of Hugging Face's holds all settings.
_FAMILY_ROWS = {
    "qwen3-windows": ("qwen3", 3, 6, 2, 32, 128, 192, 128, True),
    "gemma3-stretched": ("gemma3", 4, 6, 2, 32, 96, 160, 128, True),  # the root of 96 is no number of bfloat16
    "mistral-2to1": ("mistral", 3, 4, 2, 32, 128, 192, 96, False),
}
_SETTINGS: dict[str, dict[str, object]] = {
    "qwen3-windows": {"sliding_window": 5, "layer_types": (FULL, SLIDING, SLIDING)},
    "gemma3-stretched": {"sliding_window": 16, "attention_scale": 48**-0.5, "rope_factors": (8.0,) * 16},
}
SHAPES, LATER_SHAPES, NEW_FAMILY_SHAPES, FAMILY_SHAPES = (  # apart, so that the cases of the others stay what they are
    {name: dict(zip(_FIELDS, row, strict=True)) for name, row in rows.items()}
    for rows in (_ROWS, _LATER_ROWS, _NEW_FAMILY_ROWS, _FAMILY_ROWS)
)


@cache
def plain(name: str, seed: int = 0) -> Plain:
    """A model of SHAPES, or "trained": the shipped model's values, off the grid that they were quantized to."""
    if name == "trained":
        artifact, rng = open_artifact(MODEL), np.random.default_rng(seed)
        values = {name: dequantize(artifact.weight(name)) for name in artifact.tensors}
        return Plain(name, artifact.config, {name: _off_grid(value, rng) for name, value in values.items()})
    model = random_model(**(SHAPES | LATER_SHAPES | NEW_FAMILY_SHAPES | FAMILY_SHAPES)[name], seed=seed)
    config = replace(model.config, **_SETTINGS.get(name, {}))
    return Plain(name if not seed else f"{name} seed {seed}", config, model.values())


def _off_grid(values: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Matrices as they may have been before 4 bits were kept of every value."""
    if values.ndim == 1:
        return values
    largest = np.abs(values.reshape(-1, 32)).max(axis=1, keepdims=True)
    noise = rng.uniform(-1 / 16, 1 / 16, (largest.size, 32)) * largest
    return (values + noise.reshape(values.shape)).astype(np.float32)
