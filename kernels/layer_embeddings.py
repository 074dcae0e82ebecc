"""Embeddings of their own that every layer has of the tokens, and the block that adds what comes of them.

One table holds those of all layers, and one tensor their projections of what the model embeds.
"""

from collections.abc import Iterator, Mapping

import numpy as np

from kernels.config import ModelConfig
from kernels.family import Tensor
from kernels.graph import Kind, Stage
from kernels.kinds.activation import Activation
from kernels.kinds.elementwise import Add, Multiply, ScaledSum
from kernels.kinds.embed import Embed
from kernels.kinds.norm import RmsNorm
from kernels.kinds.product import Product
from kernels.stages import FIRST_STAGES, Site

NAMES: tuple[str, ...] = (
    *("ple_embedding", "ple_projection", "ple_norm", "ple_input", "ple_gate", "ple_gelu", "ple_gated", "ple_out"),
    *("post_ple_norm", "post_ple_residual"),
)
ELSEWHERE: Mapping[str, Site] = {FIRST_STAGES[0]: Site(None, FIRST_STAGES[0])}
TABLE, NORM = "model.embed_tokens_per_layer.weight", "model.per_layer_projection_norm.weight"
PROJECTION = "per_layer_model_projection"  # in files one tensor, of which every layer has its own rows
MODULES = ("per_layer_input_gate", "per_layer_projection", "post_per_layer_input_norm")
_GATE, _OUT, _AFTER = MODULES


def tensors(c: ModelConfig) -> Iterator[Tensor]:
    """The table, and what every layer has."""
    size, hidden = c.layer_embedding_size, c.hidden_size
    yield Tensor(TABLE, (c.vocab_size, c.num_hidden_layers * size))
    yield Tensor(NORM, (size,))
    for layer in range(c.num_hidden_layers):
        name = f"model.layers.{layer}.".__add__
        yield Tensor(name(f"{PROJECTION}.weight"), (size, hidden))
        yield Tensor(name(f"{_GATE}.weight"), (size, hidden))
        yield Tensor(name(f"{_OUT}.weight"), (hidden, size))
        yield Tensor(name(f"{_AFTER}.weight"), (hidden,))


def stages(c: ModelConfig, layer: int, x: str, activation: Activation) -> Iterator[Stage]:
    """The stages of the block, which reads x beside the embedding of the model, and ends with the sum of x and more."""
    size, hidden, single = c.layer_embedding_size, c.hidden_size, np.float32(1)
    small, half = float(single / np.sqrt(np.float32(hidden))), float(single / np.sqrt(np.float32(2)))
    names = iter(NAMES)

    def stage(kind: Kind, channels: int, reads: tuple[str, ...], used: str | None = None) -> Stage:
        own = f"model.layers.{layer}.{used}.weight"
        tensors = () if used is None else (used if used.startswith("model.") else own,)
        return Stage(Site(layer, next(names)), kind, channels, reads, tensors)

    norm = RmsNorm(c.rms_norm_eps)
    yield stage(Embed(float(np.float32(size**0.5)), layer * size, size), size, (), TABLE)
    yield stage(Product(times=small), size, (FIRST_STAGES[0],), PROJECTION)
    yield stage(norm, size, ("ple_projection",), NORM)
    yield stage(ScaledSum(half), size, ("ple_norm", "ple_embedding"))
    yield stage(Product(), size, (x,), _GATE)
    yield stage(activation, size, ("ple_gate",))
    yield stage(Multiply(), size, ("ple_gelu", "ple_input"))
    yield stage(Product(), hidden, ("ple_gated",), _OUT)
    yield stage(norm, hidden, ("ple_out",), _AFTER)
    yield stage(Add(), hidden, (x, "post_ple_norm"))
