"""The stages of layers with experts among the nodes of a ggml graph.

The engine has the experts of a token in the order of their scores; here they stand in ascending order, and what they
count stands in a row of all experts.
"""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from kernels.kinds.choice import LEAST
from store.errors import StoreError
from store.text import printable
from store.traces.arrays import FLOATS, StoredArray, widened
from store.traces.trace import StoredStage

CHOICE = "expert_weights"
_ORDER = f"{CHOICE}.order"
_COUNTS = tuple(f"{CHOICE}.{step}" for step in ("scaled", "normed", "softmax", "plain"))  # the last that is there
PRODUCTS = ("expert_gate", "expert_up", "expert_out")
_FUSED = "expert_gate_up"
_ACTIVATED = ("expert_silu", "expert_swigl")
_SUM = "expert_sum"
INPUT = "expert_input"  # where weights multiply what experts read; other graphs call what they give so
# Of dense layers, that stand for what is computed beside the experts where there are any.
_BESIDE = {"shared_gate": "ffn_gate", "shared_up": "ffn_up", "shared_silu": "ffn_silu", "shared_swigl": "ffn_swigl"}

MEANING: dict[tuple[str, str], str] = {
    ("ffn_moe_logits", "MUL_MAT"): "router",
    **{(name, "ADD"): "router.biased" for name in ("ffn_moe_logits_biased", "ffn_moe_probs")},  # both names of one node
    ("ffn_moe_argsort", "ARGSORT"): _ORDER,
    ("ffn_moe_weighted", "MUL"): INPUT,
    ("ffn_moe_out_merged", "ADD"): "ffn_out",
    ("ffn_moe_shexp", "MUL_MAT"): "shared_out",
    ("ffn_moe_weights", "GET_ROWS"): _COUNTS[3],
    ("ffn_moe_weights_norm", "DIV"): _COUNTS[1],
    ("ffn_moe_weights_scaled", "SCALE"): _COUNTS[0],
    **{
        (f"ffn_moe_{name}{step}", op): stage if op == "MUL_MAT_ID" else f"{stage}{step.replace('_', '.')}"
        for name, stage in (("gate", "expert_gate"), ("up", "expert_up"), ("gate_up", _FUSED), ("down", "expert_out"))
        for step, op in (("", "MUL_MAT_ID"), ("_scaled", "MUL"), ("_biased", "ADD_ID"))
    },
    **{(f"ffn_moe_{name}", name.upper()): "expert_swigl" for name in ("swiglu", "geglu", "reglu", "swiglu_oai")},
    **{("ffn_moe_out", op): _SUM for op in ("ADD", "CONT")},
    **{(name, "MUL_MAT"): "shared_out" for name in ("ffn_shexp", "ffn_shexp_out", "ffn_mlp")},
    ("ffn_shexp", "MUL"): "shared_out",
    ("ffn_shexp_gate_inp", "MUL_MAT"): "shared_router",
    ("ffn_shexp_out", "MUL"): "shared_gated",
}


SOFTMAX = _COUNTS[2]  # of the chosen, which has no name of its own
_OF_SOFTMAX = re.compile(r"ffn_moe_weights-(\d{1,6})\b.*", re.DOTALL)  # what it reads


class Node(Protocol):
    """What is needed of a node of the graph."""

    @property
    def name(self) -> str:
        """Its name."""

    @property
    def array(self) -> StoredArray | None:
        """Its values."""


Slots = Mapping[tuple[int | None, str], Sequence[Node]]


def softmax_of_chosen(op: str, sources: Sequence[str]) -> int | None:
    """The layer in which a node is the softmax of what was chosen; None for another node."""
    read = _OF_SOFTMAX.fullmatch(sources[0]) if op == "SOFT_MAX" and sources else None
    return None if read is None else int(read[1])


def has_experts(slots: Slots, layer: int | None) -> bool:
    """Whether a layer was computed with experts."""
    return (layer, _ORDER) in slots


def slot_of(slots: Slots, layer: int | None, stage: str) -> str | None:
    """The slot of a stage that has one row a token, in a layer with experts; None for one that is not there."""
    beside = (layer, "shared_out") in slots
    if stage in _BESIDE:
        return _BESIDE[stage] if beside else None
    if stage in _BESIDE.values() or (stage == _SUM and not beside):
        return None
    return _SUM if stage == "ffn_out" and not beside else stage


def routed(
    slots: Slots, layer: int | None, stage: str, positions: Callable[[int], tuple[int, ...] | None]
) -> StoredStage | None:
    """A stage of the pairs of a token and an expert, or what the experts count; None for another one.

    positions : of so many rows.
    """
    orders = slots[layer, _ORDER]
    rows = sum(_shape(node)[0] for node in orders)
    counts = next((slots[layer, slot] for slot in _COUNTS if (layer, slot) in slots), None)
    if counts is None:
        return None
    used = sum(math.prod(_shape(node)) for node in counts) // max(rows, 1)
    if stage == CHOICE:
        load = partial(_weights, orders, counts, used)
        return StoredStage(rows * _shape(orders[0])[-1], "float32", load, _shape(orders[0])[-1], positions(rows))
    nodes, part = _nodes(slots, layer, stage)
    if nodes is None:
        return None
    count = sum(math.prod(_shape(node)) for node in nodes) // (2 if part is not None else 1)
    dtypes = {node.array.dtype for node in nodes if node.array is not None}
    if not rows or not used or count % (rows * used) or len(dtypes) != 1 or not dtypes <= FLOATS.keys():
        raise StoreError(f"node {printable(nodes[0].name, 80)} does not hold what {used} experts of {rows} tokens give")
    load = partial(_runs, orders, nodes, used, part)
    return StoredStage(count, dtypes.pop(), load, count // rows, positions(rows))


def _nodes(slots: Slots, layer: int | None, stage: str) -> tuple[Sequence[Node] | None, int | None]:
    """The nodes of a stage, and which half of their channels it is; None for all of them."""
    if stage in (*_ACTIVATED, INPUT):
        return slots.get((layer, stage)), None
    for step in (".biased", ".scaled", "") if stage in PRODUCTS else ():
        if (nodes := slots.get((layer, f"{stage}{step}"))) is not None:
            return nodes, None
        if stage != PRODUCTS[2] and (nodes := slots.get((layer, f"{_FUSED}{step}"))) is not None:
            return nodes, PRODUCTS.index(stage)
    return None, None


def _shape(node: Node) -> tuple[int, ...]:
    if node.array is None or not node.array.shape:
        raise StoreError(f"node {printable(node.name, 80)} has no values")
    return node.array.shape


def _experts(order: Node, used: int) -> NDArray[np.int64]:
    """The experts of every token, the best first, (rows, used)."""
    assert order.array is not None
    ids = np.asarray(order.array.load())[..., :used]
    if (
        ids.dtype != np.int32
        or ids.ndim != 2
        or ids.shape[1] != used
        or ids.min() < 0
        or ids.max() >= order.array.shape[-1]
    ):
        raise StoreError(f"node {printable(order.name, 80)} does not name {used} experts for each token")
    if (np.diff(np.sort(ids, axis=1), axis=1) == 0).any():
        raise StoreError(f"node {printable(order.name, 80)} names an expert twice")
    return ids.astype(np.int64)


def _weights(orders: Sequence[Node], counts: Sequence[Node], used: int) -> NDArray[np.float32]:
    """What all experts count for every token."""
    parts = []
    for order, count in zip(orders, counts, strict=True):
        assert count.array is not None
        ids, values = _experts(order, used), widened(count.array.load(), count.array.dtype)
        if values.size != ids.size:
            raise StoreError(f"node {printable(count.name, 80)} does not hold {used} weights for each token")
        row = np.zeros((len(ids), _shape(order)[-1]), np.float32)
        np.put_along_axis(row, ids, np.maximum(values.reshape(ids.shape), np.float32(LEAST)), axis=1)
        parts.append(row)
    return np.concatenate(parts)


def _runs(orders: Sequence[Node], nodes: Sequence[Node], used: int, part: int | None) -> NDArray[Any]:
    """What the experts of every token give, in ascending order of the experts."""
    parts = []
    for order, node in zip(orders, nodes, strict=True):
        assert node.array is not None
        ids = _experts(order, used)
        values = node.array.load()
        if values.size % ids.size:
            raise StoreError(f"node {printable(node.name, 80)} does not hold what {used} experts of a token give")
        values = values.reshape(*ids.shape, -1)
        if part is not None:
            half = values.shape[2] // 2
            values = values[:, :, part * half : (part + 1) * half]
        parts.append(np.take_along_axis(values, np.argsort(ids, axis=1)[:, :, None], axis=1).reshape(len(ids), -1))
    return np.concatenate(parts)
