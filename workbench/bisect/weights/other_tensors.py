"""Another tensor of the model in this one's place."""

import re
from collections.abc import Iterator

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
)
_EXPERT = re.compile(r"(.+\.experts\.)([0-9]+)(\..+)", re.ASCII)
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
    for other in other_experts(q.name, q.config.num_experts):
        yield from _as_other(q, "expert_order", other)
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


def other_experts(name: str, count: int) -> Iterator[str]:
    """The same tensor of every other expert of a layer; nothing for a tensor of no expert."""
    if (own := _EXPERT.fullmatch(name)) is not None:
        yield from (f"{own[1]}{number}{own[3]}" for number in range(count) if str(number) != own[2])


def _as_other(q: Question, cause: str, name: str) -> Iterator[Prediction]:
    if name not in q.right or q.right.weight(name).shape != q.wrong.shape:
        return
    weight = q.right.weight(name)

    def rows_of(rows: Rows) -> Stored:
        return Stored.of(weight, rows)

    yield Prediction(cause, f"{q.what} holds the values of {name}", rows_of)
