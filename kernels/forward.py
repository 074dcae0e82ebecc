"""The forward of a llama or qwen2 decoder, from top to bottom, one function per stage.

The parameters of a stage function are the stages it reads, so the list below is both the forward (run in order) and
the means to re-run one stage alone with any of its inputs, weights or arithmetic exchanged (`evaluate`).
All arrays are (tokens, channels) in the dtype of the numeric path, heads flattened in order.
"""

import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from kernels.config import ModelConfig
from kernels.errors import UnsupportedModelError, WorkbenchError
from kernels.matmul.activations import Codes
from kernels.ops import elementwise, rotate
from kernels.paths import Array, F32Path
from kernels.stages import LAYER_STAGES, Site
from kernels.weight import Weight


class Model(Protocol):
    """What the forward needs of an artifact."""

    @property
    def config(self) -> ModelConfig:
        """Hyper-parameters."""

    def weight(self, name: str) -> Weight:
        """A tensor by its canonical name; MissingTensorError if there is none."""

    def __contains__(self, name: str) -> bool: ...


@dataclass(frozen=True, slots=True)
class At:
    """Where a stage is evaluated: the model, its arithmetic, the layer and the tokens."""

    model: Model
    path: F32Path
    tokens: tuple[int, ...]
    layer: int | None = None

    @property
    def config(self) -> ModelConfig:
        """Hyper-parameters of the model."""
        return self.model.config

    def positions(self) -> NDArray[np.int64]:
        """Rotary position of every token."""
        return np.arange(len(self.tokens), dtype=np.int64)

    def name(self, suffix: str) -> str:
        """Canonical name of a tensor of this layer."""
        return f"model.layers.{self.layer}.{suffix}"

    def weight(self, suffix: str) -> Weight:
        """A tensor of this layer."""
        return self.model.weight(self.name(suffix))

    def norm(self, x: Array, weight: Weight) -> Array:
        """RMS norm with the model's epsilon."""
        return self.path.rms_norm(x, weight, self.config.rms_norm_eps)

    def has(self, suffix: str) -> bool:
        """Whether the model has that tensor in this layer."""
        return self.name(suffix) in self.model

    def rotated(self, x: Array, columns: slice) -> Array:
        """Heads in some columns of x (tokens, channels), turned by the tokens' positions."""
        return rotate(x, self.path.rope_angles(self.positions(), self.config), self.config, columns)


def embedding(at: At) -> Array:  # noqa: D103 - the stage functions are described by the table in docs/stages.md
    return at.path.embed(at.model.weight("model.embed_tokens.weight"), np.array(at.tokens, dtype=np.int64))


def attn_norm(at: At, layer_input: Array) -> Array:  # noqa: D103
    return at.norm(layer_input, at.weight("input_layernorm.weight"))


def qkv_matmul(at: At, attn_norm: Array) -> Array:  # noqa: D103
    return at.path.matmul(attn_norm, *(at.weight(f"self_attn.{p}_proj.weight") for p in "qkv"))  # Q|K|V of every token


def qkv_bias(at: At, qkv_matmul: Array) -> Array | None:  # noqa: D103
    if not any(at.has(f"self_attn.{p}_proj.bias") for p in "qkv"):
        return None
    biases = [at.path.vector(at.weight(f"self_attn.{p}_proj.bias")) for p in "qkv"]
    biased: Array = qkv_matmul + np.concatenate(biases)
    return biased


def q_post_rope(at: At, qkv_bias: Array) -> Array:  # noqa: D103
    return at.rotated(qkv_bias, slice(at.config.q_size))


def k_post_rope(at: At, qkv_bias: Array) -> Array:  # noqa: D103
    return at.rotated(qkv_bias, slice(at.config.q_size, at.config.q_size + at.config.kv_size))


def attention(at: At, q_post_rope: Array, k_post_rope: Array, qkv_bias: Array) -> Array:  # noqa: D103
    v = qkv_bias[:, at.config.q_size + at.config.kv_size :]
    return at.path.attention(q_post_rope, k_post_rope, v, at.config)


def attn_out(at: At, attention: Array) -> Array:  # noqa: D103
    projected = at.path.matmul(attention, at.weight("self_attn.o_proj.weight"))
    if at.has("self_attn.o_proj.bias"):
        projected = projected + at.path.vector(at.weight("self_attn.o_proj.bias"))
    return projected


def post_attn_residual(at: At, layer_input: Array, attn_out: Array) -> Array:  # noqa: ARG001, D103
    return elementwise(np.add, layer_input, attn_out)


def ffn_norm(at: At, post_attn_residual: Array) -> Array:  # noqa: D103
    return at.norm(post_attn_residual, at.weight("post_attention_layernorm.weight"))


def ffn_gate(at: At, ffn_norm: Array) -> Array:  # noqa: D103
    return at.path.matmul(ffn_norm, at.weight("mlp.gate_proj.weight"))


def ffn_up(at: At, ffn_norm: Array) -> Array:  # noqa: D103
    return at.path.matmul(ffn_norm, at.weight("mlp.up_proj.weight"))


def ffn_silu(at: At, ffn_gate: Array) -> Array:  # noqa: D103
    return at.path.silu(ffn_gate)


def ffn_swigl(at: At, ffn_silu: Array, ffn_up: Array) -> Array:  # noqa: ARG001, D103
    return elementwise(np.multiply, ffn_silu, ffn_up)


def ffn_out(at: At, ffn_swigl: Array) -> Array:  # noqa: D103
    return at.path.matmul(ffn_swigl, at.weight("mlp.down_proj.weight"))


def post_ffn_residual(at: At, post_attn_residual: Array, ffn_out: Array) -> Array:  # noqa: ARG001, D103
    return elementwise(np.add, post_attn_residual, ffn_out)


def layer_output(at: At, post_ffn_residual: Array) -> Array:  # noqa: ARG001, D103
    return post_ffn_residual


def final_norm(at: At, layer_output: Array) -> Array:  # noqa: D103
    return at.norm(layer_output, at.model.weight("model.norm.weight"))


def lm_head(at: At, final_norm: Array) -> Array:  # noqa: D103
    return at.path.matmul(final_norm, at.model.weight("lm_head.weight"))


_FUNCTIONS: dict[str, Callable[..., Array | None]] = {
    function.__name__: function
    for function in (
        *(embedding, attn_norm, qkv_matmul, qkv_bias, q_post_rope, k_post_rope, attention, attn_out),
        *(post_attn_residual, ffn_norm, ffn_gate, ffn_up, ffn_silu, ffn_swigl, ffn_out),
        *(post_ffn_residual, layer_output, final_norm, lm_head),
    )
}
_INPUTS: dict[str, tuple[str, ...]] = {
    stage: tuple(inspect.signature(function).parameters)[1:] for stage, function in _FUNCTIONS.items()
}


def inputs_of(stage: str) -> tuple[str, ...]:
    """The stages that a stage reads, in the order of its arguments; "layer_input" is the previous layer's output.

    In a model without q/k/v biases whoever reads "qkv_bias" reads "qkv_matmul".
    """
    return _INPUTS[stage]


def evaluate(stage: str, at: At, inputs: Mapping[str, Array]) -> Array | None:
    """One stage on given inputs (by stage name), or None if the model does not have the stage.

    Inputs that are read-only or not contiguous are copied: kernels are compiled for the other kind only.
    """
    ready = (np.require(inputs[name], requirements=("C", "W")) for name in _INPUTS[stage])
    return _FUNCTIONS[stage](at, *ready)


def forward(
    model: Model,
    tokens: tuple[int, ...],
    path: F32Path,
    start_layer: int = 0,
    x: Array | None = None,
) -> Iterator[tuple[Site, Array]]:
    """Every stage of the model over all tokens, in execution order, each as soon as it is computed.

    tokens : ids in range(vocab_size), at least one; WorkbenchError otherwise.
    start_layer, x : go on after layer start_layer - 1, whose layer_output is x (path dtype).
    Yields (site, array), array (tokens, channels) in path.dtype. Layer weights are dequantized row by row inside the
    matmuls, never as a whole.
    """
    check_tokens(tokens, model.config)
    if x is None:
        x = embedding(At(model, path, tokens))
        yield Site(None, "embedding"), x
    for layer in range(start_layer, model.config.num_hidden_layers):
        at, values = At(model, path, tokens, layer), {"layer_input": x}
        for stage in LAYER_STAGES:
            value = evaluate(stage, at, values)
            if value is None:  # no biases: the readers of qkv_bias read the product itself
                values[stage] = values["qkv_matmul"]
                continue
            values[stage] = value
            yield Site(layer, stage), value
        x = values["layer_output"]
    at = At(model, path, tokens)
    x = final_norm(at, x)
    yield Site(None, "final_norm"), x
    yield Site(None, "lm_head"), lm_head(at, x)


# The weight that first multiplies a stage's values, for the stages that are inputs of quantized matmuls.
_MULTIPLIED_BY = {
    "attn_norm": "self_attn.q_proj.weight",
    "attention": "self_attn.o_proj.weight",
    "ffn_norm": "mlp.gate_proj.weight",
    "ffn_swigl": "mlp.down_proj.weight",
    "final_norm": "lm_head.weight",
}


def activation_codes(at: At, stage: str, x: Array) -> Codes | None:
    """The 8-bit codes that the next matmul makes of a stage's values, or None where nothing is rounded to 8 bits."""
    suffix = _MULTIPLIED_BY.get(stage)
    if suffix is None:
        return None
    return at.path.round_activations(x, at.weight(suffix) if at.layer is not None else at.model.weight(suffix))


def check_tokens(tokens: tuple[int, ...], config: ModelConfig) -> None:
    """Raise WorkbenchError unless all token ids are in the vocabulary, and there are neither none nor too many."""
    if not tokens:
        raise WorkbenchError("there are no tokens to run; give --tokens or a --prompt that is not empty")
    wrong = [token for token in tokens if not 0 <= token < config.vocab_size]
    if wrong:
        raise WorkbenchError(
            f"token {wrong[0]} is not in the vocabulary of {config.vocab_size} entries; check --tokens"
        )
    if config.length_limit is not None and len(tokens) > config.length_limit:
        raise UnsupportedModelError(
            f"{len(tokens)} tokens are given, but {config.length_limit_key} changes what the model computes beyond "
            f"{config.length_limit}, and only up to there it is computed; give at most {config.length_limit} tokens"
        )
