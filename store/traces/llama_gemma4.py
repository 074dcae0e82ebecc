"""The stages that only gemma4 has among the nodes of a ggml graph: embeddings of every layer, and norms of experts."""

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from store.errors import StoreError
from store.text import printable
from store.traces.arrays import StoredArray

_ALL = "of all layers"
# (name without its layer, operation) -> stage, or the part of one.
MEANING: dict[tuple[str, str], str] = {
    ("pe_in", "ADD"): "post_ffn_residual",
    ("per_layer_embd_out", "MUL"): "post_ple_norm",
    ("ffn_norm_1", "MUL"): "ffn_norm",
    ("ffn_norm_2", "MUL"): "expert_norm",
    ("ffn_mlp", "MUL"): "shared_norm",
    ("ffn_moe", "MUL"): "expert_sum_norm",
    ("ffn_moe_combined", "ADD"): "ffn_out",
}
_OF_ALL = {
    ("inp_per_layer_selected", "SCALE"): f"ple_embedding.{_ALL}",
    ("per_layer_proj", "MUL"): f"ple_norm.{_ALL}",
    ("inp_per_layer", "SCALE"): f"ple_input.{_ALL}",
}
_PROJECTION = "per_layer_model_proj.weight"
_OF_TENSOR = {
    **{("MUL_MAT", "inp_gate.weight"): "ple_gate", ("MUL_MAT", "proj.weight"): "ple_out"},
    ("MUL", "ffn_gate_inp.scale"): "router_norm",
}
_TENSOR = re.compile(r"blk\.(\d{1,6})\.(.+)", re.ASCII)
_ROTATED = re.compile(r"Qcur_pos-(\d{1,6})", re.ASCII)
_NORMED = re.compile(r"per_layer_embd_out-(\d{1,6})", re.ASCII)
_SUM = "post_ple_residual"
_DOWN = "ffn_out.weight"  # the product of what stands beside experts, which has no name


class Node(Protocol):
    """What is needed of a node of the graph."""

    name: str
    op: str
    sources: tuple[str, ...]
    array: StoredArray | None
    channels: int | None


N = TypeVar("N", bound=Any)
Slots = dict[tuple[int | None, str], list[N]]


def of_gemma4(slots: Slots[N], nodes: Sequence[N]) -> Slots[N]:
    """The slots with those of nodes that have no name, and what holds all layers taken apart."""
    found = dict(slots)
    named: dict[str, tuple[int | None, str]] = {}
    for node in nodes:
        place = _place(node, named)
        if place is None:
            continue
        named[node.name] = place
        if place[1] == _SUM:  # which has the name of another one where nothing is done to it
            before = (place[0], "post_ffn_residual")
            found[before] = [other for other in found.get(before, []) if other.name != node.name]
        if node.array is not None and place[1] != _PROJECTION:
            found.setdefault(place, []).append(node)
    for layer in {layer for layer, stage in slots if stage == "shared_norm"}:
        if (layer, _DOWN) in found:
            found[layer, "shared_out"] = found.pop((layer, _DOWN))
    return _apart(found)


def without_keys(names: Collection[str]) -> frozenset[int]:
    """Layers that have queries only, of the names of all nodes."""
    queries = filter(None, map(_ROTATED.fullmatch, names))
    return frozenset(int(match[1]) for match in queries if f"Kcur_pos-{match[1]}" not in names)


def _place(node: Node, named: Mapping[str, tuple[int | None, str]]) -> tuple[int | None, str] | None:
    """What a node is, by what it is computed from. named : the places of nodes before it."""
    if (node.name, node.op) in _OF_ALL:
        return None, _OF_ALL[node.name, node.op]
    tensor = next(filter(None, map(_TENSOR.fullmatch, node.sources)), None)
    if tensor is not None and (stage := _OF_TENSOR.get((node.op, tensor[2]))) is not None:
        return int(tensor[1]), stage
    if node.op == "MUL_MAT" and _PROJECTION in node.sources:
        return None, _PROJECTION
    layer, stage = next((named[source] for source in node.sources if source in named), (None, ""))
    after = next(filter(None, map(_NORMED.fullmatch, node.sources)), None)
    if node.op == "ADD" and after is not None:
        return int(after[1]), _SUM
    match node.op, stage:
        case "SCALE", "per_layer_model_proj.weight":
            return None, f"ple_projection.{_ALL}"
        case "UNARY" | "GELU", "ple_gate":
            return layer, "ple_gelu"
        case "MUL", "ple_gelu":
            return layer, "ple_gated"
    return None


def _apart(slots: Slots[N]) -> Slots[N]:
    """The slots of each layer in place of those that hold all."""
    whole = {stage.partition(".")[0]: nodes for (_, stage), nodes in slots.items() if stage.endswith(f".{_ALL}")}
    found = {place: nodes for place, nodes in slots.items() if not place[1].endswith(f".{_ALL}")}
    layers = max((layer for layer, _ in found if layer is not None), default=-1) + 1
    alone = [node for stage, nodes in whole.items() if stage != "ple_projection" for node in nodes]
    size = alone[0].array.shape[-1] if alone and alone[0].array.shape else 0  # of one layer
    for stage, nodes in whole.items() if size else ():
        for layer in range(layers):
            found[layer, stage] = [_of_layer(node, layer, layers, size) for node in nodes]
    return found


def _of_layer(node: N, layer: int, layers: int, size: int) -> N:
    """What a node with the values of all layers holds of one, with so many channels."""
    array = node.array
    tokens, rest = divmod(int(np.prod(array.shape)), layers * size)
    if rest or not tokens:
        raise StoreError(f"node {printable(node.name, 80)} does not hold {size} values for each of {layers} layers")
    load = partial(_values, array, (tokens, layers, size), layer)
    return replace(node, array=array._replace(shape=(tokens, size), load=load), channels=size)


def _values(array: StoredArray, shape: tuple[int, ...], layer: int) -> NDArray[Any]:
    return np.ascontiguousarray(array.load().reshape(shape)[:, layer])
