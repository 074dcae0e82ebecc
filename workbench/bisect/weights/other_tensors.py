"""Another tensor of the model in this one's place."""

import re
from collections.abc import Iterator
from functools import partial

import numpy as np

from kernels.config import ModelConfig
from kernels.rows.dequantize import dequantize
from kernels.weight import TensorType, Weight
from workbench.bisect.weights.question import Prediction, Question, Rows
from workbench.bisect.weights.steps import Stored

_EXCHANGED = {
    frozenset(("mlp.gate_proj", "mlp.up_proj")): "gate_up_swapped",
    frozenset(("self_attn.q_proj", "self_attn.k_proj")): "qk_swapped",
    frozenset(("self_attn.k_proj", "self_attn.v_proj")): "qk_swapped",
    frozenset(("self_attn.q_proj", "self_attn.v_proj")): "qk_swapped",
}
_MODULES = (
    *("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj"),
    *("mlp.gate_proj", "mlp.up_proj", "mlp.down_proj", "input_layernorm", "post_attention_layernorm"),
    *("self_attn.q_norm", "self_attn.k_norm", "pre_feedforward_layernorm", "post_feedforward_layernorm"),
    *("pre_feedforward_layernorm_2", "post_feedforward_layernorm_1", "post_feedforward_layernorm_2", "mlp.gate_norm"),
    *("per_layer_input_gate", "per_layer_model_projection", "post_per_layer_input_norm"),
)
_EXPERT = re.compile(r"(.+\.experts\.)([0-9]+)(\..+)", re.ASCII)
_HEAD = re.compile(r"(.+\.self_attn\.[kv]_b_proj\.)([0-9]+)(\..+)", re.ASCII)
_OF_MODEL = ("lm_head.weight", "model.embed_tokens.weight")


def other_tensors(q: Question) -> Iterator[Prediction]:
    """Every tensor of the right side that has this one's shape: of the same layer, then of the others."""
    if q.layer is None:
        for other in _OF_MODEL:
            if q.name in _OF_MODEL and other != q.name:
                yield from _as_other(q, "tied_embedding", other)
        if q.name == "model.norm.weight":
            for layer in range(q.config.num_hidden_layers):
                yield from _as_other(q, "wrong_layer", f"model.layers.{layer}.input_layernorm.weight")
        return
    stem, _, kind = q.suffix.rpartition(".")
    for cause, other in of_others(q.name, q.config):
        yield from _as_other(q, cause, other)
    yield from _split_otherwise(q)
    for one, two in (("gate_proj", "up_proj"), ("up_proj", "gate_proj")):
        if "expert" in stem and stem.endswith(one):
            yield from _as_other(q, "gate_up_swapped", q.name.replace(one, two))
    for module in _MODULES:
        if module != stem:
            cause = _EXCHANGED.get(frozenset((stem, module)), "wrong_layer")
            yield from _as_other(q, cause, f"model.layers.{q.layer}.{module}.{kind}")
    for layer in range(q.config.num_hidden_layers):
        if layer != q.layer:
            yield from _as_other(q, "wrong_layer", f"model.layers.{layer}.{q.suffix}")


def of_others(name: str, config: ModelConfig) -> Iterator[tuple[str, str]]:
    """The same tensor of every other expert, or head, of a layer, and the cause that it is; nothing for another one."""
    numbered = (_EXPERT, config.num_experts, "expert_order"), (_HEAD, config.num_attention_heads, "rows_permuted")
    for pattern, count, cause in numbered:
        if (own := pattern.fullmatch(name)) is not None:
            yield from ((cause, f"{own[1]}{number}{own[3]}") for number in range(count) if str(number) != own[2])


def _split_otherwise(q: Question) -> Iterator[Prediction]:
    """Rows of values where those of keys of a head should be, or the other way round."""
    if (own := _HEAD.fullmatch(q.name)) is None:
        return
    one, two = ("k_b", "v_b") if ".k_b_proj." in own[1] else ("v_b", "k_b")
    for head in range(q.config.num_attention_heads):
        name = f"{own[1].replace(one, two)}{head}{own[3]}"
        if name not in q.right or q.right.weight(name).shape[::-1] != q.wrong.shape:
            continue
        values = np.ascontiguousarray(dequantize(q.right.weight(name)).T)
        turned = Weight(name, TensorType["F32"], values.shape, values.view(np.uint8))
        words = f"{q.what} holds the values of {name} turned: keys and values were not split head by head"
        yield Prediction("rows_permuted", words, partial(Stored.of, turned))


def _as_other(q: Question, cause: str, name: str) -> Iterator[Prediction]:
    if name not in q.right or q.right.weight(name).shape != q.wrong.shape:
        return
    weight = q.right.weight(name)

    def rows_of(rows: Rows) -> Stored:
        return Stored.of(weight, rows)

    yield Prediction(cause, f"{q.what} holds the values of {name}", rows_of)
