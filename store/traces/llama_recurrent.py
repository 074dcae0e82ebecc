"""The stages of layers without attention among the nodes of a ggml graph."""

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from store.traces.arrays import StoredArray

# (name without its layer, operation) -> stage, or the part of one.
MEANING: dict[tuple[str, str], str] = {
    ("model.layers.{}.operator_norm", "MUL"): "attn_norm",
    ("model.layers.{}.self_attn.q_layernorm", "MUL"): "q_norm",
    ("model.layers.{}.self_attn.k_layernorm", "MUL"): "k_norm",
    ("model.layers.{}.self_attn.out_proj", "MUL_MAT"): "attn_out",
    ("model.layers.{}.conv.in_proj", "MUL_MAT"): "conv_in",
    ("model.layers.{}.conv.conv", "SSM_CONV"): "convolved",
    ("model.layers.{}.conv.out_proj", "MUL_MAT"): "attn_out",
    ("model.layers.{}.ffn_norm", "MUL"): "ffn_norm",
    ("model.layers.{}.ffn_out", "MUL"): "ffn_norm",  # so it is called
    **{(f"model.{name}", "GET_ROWS"): "embedding" for name in ("embed_tokens", "input_embed")},
    ("shared_expert_gate", "MUL_MAT"): "shared_router",
    ("ffn_shexp_gated", "MUL"): "shared_gated",
}
_LAYER = re.compile(r"-\d{1,6}( \([a-z]+\))*\Z")
# What has no name, by operation and the names of what it is computed from.
_UNNAMED: dict[tuple[str, tuple[str, ...]], str] = {
    ("MUL", ("model.layers.{}.conv.in_proj", "model.layers.{}.conv.in_proj")): "conv_gated",
    ("MUL", ("model.layers.{}.conv.in_proj", "model.layers.{}.conv.conv")): "conv_out",
}


def unnamed(op: str, sources: Sequence[str]) -> str | None:
    """The stage of a node without a name; None for one that is none."""
    return _UNNAMED.get((op, tuple(_LAYER.sub("", source) for source in sources)))


class Node(Protocol):
    """What is needed of a node of the graph."""

    name: str
    op: str
    sources: tuple[str, ...]
    array: StoredArray | None
    channels: int | None


N = TypeVar("N", bound=Any)
Slots = dict[tuple[int | None, str], list[Any]]
_RULE, _SCAN = "GATED_DELTA_NET", "SSM_SCAN"
_OF_LAYER = re.compile(r"blk\.(\d{1,6})\.([a-z0-9_.]+)|.*-(\d{1,6})(?: \([a-z]+\))*", re.DOTALL)
_PLACES = {
    **{"attn_qkv": "delta_qkv", "attn_gate": "delta_z", "ssm_alpha": "delta_a", "ssm_beta": "delta_b"},
    **{"ssm_ba": "both.ba", "ssm_out": "attn_out", "attn_output": "attn_out", "attn_q": "both.q"},
    **{"attn_k": "matmul.k", "attn_v": "matmul.v"},
}
_BIASED = {"both.q": "both.biased", "matmul.k": "bias.k", "matmul.v": "bias.v"}
_OF_SCAN = {"ssm_in": "scan_in", "ssm_out": "attn_out"}
# Slots of other graphs, where the same names stand for something else.
_OTHERS = ("post_attn_norm", "attn_out", "matmul", "bias", "attention", "final_norm")
_NAMED = {
    **{("conv_output_raw", "SSM_CONV"): "convolved", ("conv_output_silu", "SILU"): "conv_silu"},
    **{("attn_pregate", "CONT"): "attention", ("attn_gated", "MUL"): "attn_gated"},
    **{("attn_residual", "ADD"): "post_attn_residual", ("attn_post_norm", "MUL"): "ffn_norm"},
    ("Qcur", "ROPE"): "norm.heads",
}


def of_recurrences(slots: dict[tuple[int | None, str], list[N]], nodes: Sequence[N]) -> Slots:
    """The slots of a graph with those of gated delta nets or state spaces, told by what a node is computed from."""
    operations = {node.op for node in nodes}
    if _RULE in operations:
        own = {key: of for key, of in slots.items() if key[1].partition(".")[0] not in _OTHERS}
        return own | _recurrent(nodes, _of_delta_net)
    if _SCAN not in operations:
        return slots
    beside = {(layer, "attn_out") for layer, slot in slots if slot == "k_post_rope"}
    found = _recurrent(nodes, _of_scan).items()
    return slots | {(key[0], "scan_out") if key in beside else key: of for key, of in found}


def _recurrent(nodes: Sequence[N], place_of: Callable[[Node, dict[str, str]], str | None]) -> Slots:
    """What the nodes of a graph are by `place_of`, which is told what those before it were."""
    found: dict[tuple[int | None, str], list[N]] = {}
    layer = rows = 0
    named: dict[str, str] = {}  # nodes of the latest layer by what they are
    for node in nodes:
        if node.array is None:
            continue
        if node.op == "GET_ROWS" and node.sources[:1] == ("token_embd.weight",):
            rows = node.array.shape[0]
        layer = next(_layers((node.name, *node.sources)), layer)
        if (node.name, node.op) == ("h_nextn", "MUL"):
            found.setdefault((None, "final_norm"), []).append(node)
            continue
        place = place_of(node, named)
        if place is None or not rows:
            continue
        named[node.name] = place
        made = replace(node, channels=int(np.prod(node.array.shape)) // rows)
        if place == "delta":
            made = _changed(made, (rows, node.array.shape[-1]), partial(_first, rows))
        slot = found.setdefault((layer, place), [])
        later = {"MUL": ".scale", "ADD": "ssm_conv1d.bias"}.get(node.op)
        if later and any(source.endswith(later) for source in node.sources) and slot:
            slot.pop()  # before it was multiplied by its factor, or its bias was added
        slot.append(made)
    return dict(_parted(found))


def _layers(names: Iterable[str]) -> Iterator[int]:
    """The layer of a node by its name, or by what it is computed from."""
    for name in names:
        if (match := _OF_LAYER.fullmatch(name)) is not None:
            yield int(match[1] or match[3])


def _of_scan(node: Node, named: dict[str, str]) -> str | None:
    """What a node of a layer with a state space is."""
    if _LAYER.sub("", node.name) == "mamba2_y_add_d" and node.op == "ADD":
        return "scan"
    tensors = [match[2] for source in node.sources if (match := _OF_LAYER.fullmatch(source)) and match[2]]
    module, _, kind = tensors[0].rpartition(".") if tensors else ("", "", "")
    if module in _OF_SCAN and (node.op, kind) in (("MUL_MAT", "weight"), ("MUL", "scale")):
        return _OF_SCAN[module]
    of_tensor = {
        **{("SSM_CONV", "ssm_conv1d.weight"): "convolved", ("ADD", "ssm_conv1d.bias"): "convolved"},
        **{("ADD", "ssm_dt.bias"): "scan_dt", ("MUL", "ssm_norm.weight"): "scan_norm"},
    }
    if tensors:
        return of_tensor.get((node.op, tensors[0]))
    places = {named.get(source) for source in node.sources}
    if node.op in ("SILU", "UNARY") and "convolved" in places:
        return "conv_silu"
    return "scan_gated" if node.op == "SWIGLU" and "scan" in places else None


def _of_delta_net(node: Node, named: dict[str, str]) -> str | None:
    """What a node of a layer with a delta net is, or of its attention."""
    own = _LAYER.sub("", node.name)
    if (place := _NAMED.get((own, node.op))) is not None:
        return place
    if node.op == _RULE:
        return "delta"
    tensors = [match[2] for source in node.sources if (match := _OF_LAYER.fullmatch(source)) and match[2]]
    module, _, kind = tensors[0].rpartition(".") if tensors else ("", "", "")
    if module in _PLACES and (node.op, kind) in (("MUL_MAT", "weight"), ("MUL", "scale")):
        return _PLACES[module]
    if module in _PLACES and (node.op, kind) == ("ADD", "bias"):
        return _BIASED.get(_PLACES[module])
    if node.op == "MUL" and tensors:
        return {"ssm_a": "delta_decay", "ssm_norm.weight": "delta_norm"}.get(tensors[0])
    plain = [_LAYER.sub("", source) for source in node.sources]
    if node.op == "RMS_NORM" and plain[0] in ("q_conv", "k_conv"):
        return f"norm.{plain[0][0]}"
    places = [named.get(re.sub(r"( \([a-z]+\))+\Z", "", source), "") for source in node.sources]
    if node.op == "SCALE" and places[0].startswith("norm."):
        return f"delta_{places[0][-1]}"
    if node.op == "SIGMOID" and (own == "beta_sigmoid" or plain[0] == "b"):
        return "delta_beta"
    if node.op in ("SILU", "UNARY") and plain[0] == "z":
        return "delta_silu"
    return "delta_gated" if node.op == "MUL" and set(places) == {"delta_norm", "delta_silu"} else None


def _parted(found: dict[tuple[int | None, str], list[N]]) -> Iterable[tuple[tuple[int | None, str], list[N]]]:
    """The slots, those of two things at once taken apart: queries and gates by heads, b and a by heads of keys."""
    for (layer, place), nodes in found.items():
        if place == "both.ba":
            heads = _heads(found.get((layer, "norm.q")))
            for part, name in enumerate(("delta_b", "delta_a")):
                yield (layer, name), [_half(node, heads, part) for node in nodes]
        elif place in ("both.q", "both.biased"):
            heads = _heads(found.get((layer, "norm.heads")))
            yield (layer, "matmul.q" if place == "both.q" else "bias.q"), [_half(node, heads, 0) for node in nodes]
            if place == "both.biased" or (layer, "both.biased") not in found:
                yield (layer, "attn_gate"), [_half(node, heads, 1) for node in nodes]
        elif not place.startswith("norm."):
            yield (layer, place), nodes


def _heads(nodes: Sequence[Any] | None) -> int:
    """How many heads the values of a node have."""
    return int(nodes[0].array.shape[-2]) if nodes else 1


def _half(node: N, heads: int, part: int) -> N:
    channels = node.channels // 2
    rows = int(np.prod(node.array.shape)) // node.channels
    return replace(_changed(node, (rows, channels), partial(_of_heads, heads, part)), channels=channels)


def _changed(node: N, shape: tuple[int, ...], change: Callable[[NDArray[Any]], NDArray[Any]]) -> N:
    """A node with what becomes of its values."""
    array = node.array
    made = array._replace(shape=shape, load=lambda: change(array.load()).reshape(shape))
    return replace(node, array=made, channels=shape[-1])


def _first(rows: int, values: NDArray[Any]) -> NDArray[Any]:
    return values.reshape(-1, values.shape[-1])[:rows]


def _of_heads(heads: int, part: int, values: NDArray[Any]) -> NDArray[Any]:
    return np.ascontiguousarray(values.reshape(-1, heads, 2, values.shape[-1] // heads // 2)[:, :, part])
