"""The nodes of a ggml compute graph, and which of them are the stages of the forward."""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kernels.models import layer_stages
from kernels.stages import FIRST_STAGES, LAST_STAGES, Site
from store.errors import StoreError
from store.text import printable
from store.traces import llama_experts, llama_gemma4, llama_recurrent
from store.traces.arrays import FLOATS, StoredArray
from store.traces.llama_names import MEANING
from store.traces.trace import MAX_LAYERS, StoredStage

NODE = re.compile(r"(\d{5,9})\|(.*)\|([A-Z][A-Z0-9_]*)", re.DOTALL)
_NAME = re.compile(r"(.+)-(\d{1,6})", re.DOTALL)
_LATENT = re.compile(r"blk\.(\d{1,6})\.attn_(q_a|q_b|q|kv_a_mqa)\.weight")
_MADE = re.compile(r"(?:q|kv_cmpr_pe)-\d+")
_OF_LATENT = {"q_a": "q_a", "q_b": "q_matmul", "q": "q_matmul", "kv_a_mqa": "kv_a"}
_ATTN_OUTPUT = re.compile(r"blk\.(\d{1,6})\.attn_output\.(weight|bias|scale)")
_KEYS = re.compile(r"blk\.\d{1,6}\.attn_k\.weight")
_FFN_NORM = re.compile(r"blk\.(\d{1,6})\.ffn_norm\.weight")
_FFN_DOWN = re.compile(r"blk\.(\d{1,6})\.ffn_down\.(weight|bias)")
_OF_OUTPUT = {"weight": "attn_out", "bias": "attn_out.biased", "scale": "attn_out.scaled"}
_TURNED = re.compile(r"(?:model\.layers\.\{\}\.self_attn\.)?([QKqk])(?:cur|_layernorm)-(\d{1,6})\b.*", re.DOTALL)
_QUERY = re.compile(r"Qcur-(\d{1,6})\b.*", re.DOTALL)
_NORMED = re.compile(r"[QKV]cur_(?:norm(?:ed)?|attn_temp_scaled)-\d")
_CONTEXT = re.compile(r"kqv_out-(\d{1,6})\b.*", re.DOTALL)
_SIDES = (64, 128, 256, 512)
_RESHAPED = " (reshaped)"
_TURNS = "attn_inp_{}_rot"  # the Walsh-Hadamard matrix that spreads outliers over the blocks of a quantized cache
_TEMPERATURE = "inp_attn_scale"  # what queries are multiplied by, token by token
_OUT_IDS = ("out_ids", "inp_out_ids")
_HEADED = ("ROPE", "FLASH_ATTN_EXT")  # nodes of shape (tokens, heads, head_dim)
_HEADS_FIRST = re.compile(r"(?:q_nope_absorbed|kqv|fattn_mla)-\d+")  # nodes of shape (heads, tokens, head_dim)
_NORMS_OF_HEADS = ("q_norm", "k_norm", "v_norm", "q_rope_norm", "k_rope_norm")
_ONLY_LATENT = ("latent_attention", "q_latent", "k_latent")  # others have nodes of these names for something else


@dataclass(frozen=True, slots=True)
class Node:
    """One node: its values if they were kept, the ggml type, and the names of what it was computed from.

    channels : values per row where the shape of the node itself does not tell.
    """

    name: str
    op: str
    type: str
    sources: tuple[str, ...]
    array: StoredArray | None
    channels: int | None = None

    @property
    def shape(self) -> tuple[int, int]:
        """(rows, channels) of the values, heads flattened."""
        shape = self.array.shape if self.array is not None else ()
        if self.channels is not None and math.prod(shape) % self.channels == 0:
            return math.prod(shape) // self.channels, self.channels
        headed = self.op in _HEADED or _NORMED.match(self.name) or _TEMPERATURE in self.sources
        if headed and len(shape) == 2:
            shape = (1, *shape)  # the axis of a single token is not written
        if len(shape) == 3 and _HEADS_FIRST.match(self.name):
            shape = (shape[1], shape[0], shape[2])
        if len(shape) not in (2, 3):
            raise StoreError(f"node {printable(self.name, 80)} has shape {shape}, which no stage has")
        return shape[0], math.prod(shape[1:])

    def values(self) -> NDArray[Any]:
        """Read the values as (rows, channels)."""
        assert self.array is not None
        values = self.array.load()
        if values.ndim == 3 and _HEADS_FIRST.match(self.name):
            values = values.swapaxes(0, 1)
        return values.reshape(self.shape)


class Graph:
    """The nodes of a dump in the order of their computation.

    tokens : the number of tokens that ran, None if the dump does not say. Its StoreErrors do not name the file.
    """

    def __init__(self, nodes: Sequence[Node], logits: StoredArray | None, tokens: int | None) -> None:
        self.nodes = nodes
        self.logits = logits
        self.slots = _slots(nodes)
        self.keyless = llama_gemma4.without_keys({node.name for node in nodes})
        embedded = sum(node.shape[0] for node in self.slots.get((None, "embedding"), ()))
        if tokens is not None and embedded not in (0, tokens):
            raise StoreError(f"{embedded} tokens were embedded, but __meta__ names {tokens}")
        self.tokens = tokens or embedded or None
        self.outputs = self._outputs()

    def stages(self) -> dict[Site, StoredStage]:
        """Return every stage whose nodes are there; batches are joined in order, and q, k and v side by side."""
        found: dict[Site, StoredStage] = {}
        layers = {layer for layer, _ in self.slots if layer is not None}
        places = ((None, FIRST_STAGES + LAST_STAGES), *((layer, layer_stages()) for layer in sorted(layers)))
        for layer, stages in places:
            for stage in stages:
                made = self._stage(layer, stage)
                if made is not None and made.count:
                    found[Site(layer, stage)] = made
        return found

    def is_unbiased(self, layer: int) -> bool:
        """Tell whether q, k and v of a layer were multiplied, and nothing was added to any of them."""
        multiplied = any(self.slots.get((layer, slot)) for slot in ("qkv_matmul", "matmul.q"))
        return multiplied and not any(self.slots.get((layer, slot)) for slot in ("qkv_bias", *_BIASES))

    def turned(self, part: str) -> int | None:
        """Return the side of the Walsh-Hadamard matrix that turns K ("k") or V ("v"); None if nothing turns it."""
        turning = (node for node in self.nodes if node.op == "MUL_MAT" and node.sources[:1] == (_TURNS.format(part),))
        sides = (node.array.shape[-1] for node in turning if node.array is not None and node.array.shape)
        return next((side for side in sides if side in _SIDES), None)

    def batches(self) -> tuple[int, ...]:
        """Return how many tokens each batch of the prompt had."""
        return tuple(node.shape[0] for node in self.slots.get((None, "embedding"), ()))

    def _stage(self, layer: int | None, stage: str) -> StoredStage | None:
        slots = self.slots
        if stage == "layer_output" and (layer, stage) not in slots:
            return self._stage(layer, "post_ple_residual") or self._stage(layer, "post_ffn_residual")
        by_flash = slots.get((layer, "attention.of_flash"))
        if stage in _ONLY_LATENT and not by_flash and (layer, "attention.of_latents") not in slots:
            return None
        if by_flash and stage in ("latent_attention", "attention"):
            return self._stacked(by_flash if stage == "attention" else slots[layer, "attention"])
        if llama_experts.has_experts(slots, layer):
            if (made := llama_experts.routed(slots, layer, stage, self._positions)) is not None:
                return made
            slot = llama_experts.slot_of(slots, layer, stage)
            if slot is None:
                return None
            stage = slot
        for later in _LATER:
            if stage == later.partition(".")[0] and (layer, later) in slots:
                return self._stacked(slots[layer, later])
        if stage == "lm_head" and (layer, stage) not in slots and self.logits is not None:
            return self._stacked([Node("logits", "", "f32", (), self.logits)])
        if stage == "attention" and (turned := slots.get((layer, "attention.turned_back"))):
            before = slots.get((layer, "attention"), ())
            channels = before[0].shape[1] if before else None
            return self._stacked([replace(node, channels=channels) for node in turned]) if channels else None
        if stage in _OF_FUSED and (fused := self._fused(layer)) is not None:
            return _columns(fused, _OF_FUSED.index(stage))
        if (layer, stage) in slots:
            return self._stacked(slots[layer, stage])
        for unnamed in _UNNAMED:
            if stage == unnamed.partition(".")[0] and (layer, unnamed) in slots:
                return self._stacked(slots[layer, unnamed])
        if stage == "qkv_clip":
            return self._side_by_side([slots.get((layer, slot)) for slot in _CLIPPED])
        if stage == "qkv_matmul":
            products: tuple[str, ...] = _PRODUCTS[:1] if layer in self.keyless else _PRODUCTS
            products = products if (layer, "matmul.v_of_keys") not in slots else ("matmul.q", "matmul.v_of_keys")
            return self._side_by_side([slots.get((layer, slot)) for slot in products])
        if stage == "qkv_bias" and any((layer, slot) in slots for slot in _BIASES):
            pairs = zip(_BIASES, _PRODUCTS, strict=True)
            return self._side_by_side([slots.get((layer, bias), slots.get((layer, plain))) for bias, plain in pairs])
        return None

    def _fused(self, layer: int | None) -> StoredStage | None:
        """Gate and up in one product, of which the activation makes half as many channels."""
        up, gated = (self.slots.get((layer, slot)) for slot in ("ffn_up", "ffn_swigl"))
        if not up or not gated or (layer, "ffn_gate") in self.slots:
            return None
        return self._stacked(up) if up[0].shape[1] == 2 * gated[0].shape[1] else None

    def _stacked(self, nodes: Sequence[Node]) -> StoredStage:
        """Join the rows of the batches."""
        rows, channels = sum(node.shape[0] for node in nodes), nodes[0].shape[1]
        dtypes = {node.array.dtype for node in nodes if node.array is not None}
        if any(node.shape[1] != channels for node in nodes) or len(dtypes) != 1 or not dtypes <= FLOATS.keys():
            raise StoreError(f"the batches of node {printable(nodes[0].name, 80)} are not alike")
        if self.tokens is not None and rows > self.tokens:
            raise StoreError(f"node {printable(nodes[0].name, 80)} has {rows} rows for {self.tokens} tokens")
        load = partial(_joined, [node.values for node in nodes], 0)
        return StoredStage(rows * channels, dtypes.pop(), load, channels, self._positions(rows))

    def _side_by_side(self, groups: Sequence[Sequence[Node] | None]) -> StoredStage | None:
        parts = [self._stacked(nodes) for nodes in groups if nodes]
        if len(parts) != len(groups):
            return None
        if len({(part.count // (part.channels or 1), part.dtype) for part in parts}) != 1:
            raise StoreError("q, k and v of a layer do not have the same rows")
        load = partial(_joined, [part.load for part in parts], 1)
        count, channels = sum(part.count for part in parts), sum(part.channels or 0 for part in parts)
        return replace(parts[0], count=count, channels=channels, load=load)

    def _positions(self, rows: int) -> tuple[int, ...] | None:
        if rows == self.tokens:
            return tuple(range(rows))
        return self.outputs if self.outputs is not None and rows == len(self.outputs) else None

    def _outputs(self) -> tuple[int, ...] | None:
        """Return the tokens whose logits were asked for: only their rows go through the end of the last layer.

        The ids themselves are no node; the rows that a GET_ROWS took are found again among the rows it took them from.
        """
        found: list[int] = []
        passed = 0
        chosen: str | None = None
        latest: dict[str, Node] = {}
        for node in self.nodes:
            if node.op == "GET_ROWS" and node.array is not None and node.sources[1:2] and node.sources[1] in _OUT_IDS:
                source = latest.get(node.sources[0])
                chosen = chosen or (node.sources[0] if source is not None else None)
                if source is not None and node.sources[0] == chosen:
                    taken = _rows_taken(source, node)
                    if taken is None:
                        return None
                    found += [passed + row for row in taken]
                    passed += source.shape[0]
            if node.array is not None:
                latest[node.name] = node
        return tuple(found) if chosen and passed == self.tokens else None


_UNNUMBERED = ("post_ffn_norm",)  # of a layer, though some graphs do not say of which
# What stands in place of a stage's first node, the last one first.
_LATER = (
    *("embedding.scaled", "attn_out.biased", "attn_out.scaled"),
    *("router.biased", "ffn_gate.scaled", "ffn_gate.biased", "ffn_up.scaled", "ffn_up.biased"),
)
_UNNAMED = (
    "ffn_out.bias",
    "ffn_out.weight",
    "ffn_norm.weight",
)  # what stands for a stage of which no node has the name, as in nemotron
_OF_FUSED = ("ffn_gate", "ffn_up")  # side by side
# What an addition that has no name may be of: the residual stream, and what attention gives.
_FOLLOWED = {
    **dict.fromkeys(("embedding", "embedding.scaled", "post_ffn_residual"), "stream"),
    **dict.fromkeys(_OF_OUTPUT.values(), "attended"),
}
_PRODUCTS = ("matmul.q", "matmul.k", "matmul.v")
_CLIPPED = ("clip.q", "clip.k", "clip.v")
_BIASES = ("bias.q", "bias.k", "bias.v")


def read_nodes(arrays: Mapping[str, StoredArray], index: object) -> list[Node]:
    """Return the nodes of a dump in order: those of the index, with the arrays that were kept, and any others."""
    if not isinstance(index, list):
        raise StoreError("__index__ is JSON, but not a list")
    nodes: dict[tuple[int, str, str], Node] = {}
    for record in index:
        seq, name, op, kind, sources = _checked(record)
        array = arrays.get(f"{seq:05d}|{name}|{op}")
        nodes[seq, name, op] = Node(name, op, kind, sources, array)
    for key, array in arrays.items():
        match = NODE.fullmatch(key)
        if match is not None:
            nodes.setdefault((int(match[1]), match[2], match[3]), Node(match[2], match[3], "", (), array))
    return [nodes[key] for key in sorted(nodes)]


def _checked(record: object) -> tuple[int, str, str, str, tuple[str, ...]]:
    fields = record if isinstance(record, dict) else {}
    seq, sources = fields.get("seq"), fields.get("src")
    texts = tuple(fields.get(name) for name in ("name", "op", "type"))
    well = type(seq) is int and 0 <= seq < 10**9 and all(isinstance(text, str) for text in texts)
    if not well or not isinstance(sources, list) or not all(isinstance(source, str) for source in sources):
        raise StoreError("an entry of __index__ has no seq, name, op, type or src")
    name, op, kind = (str(text) for text in texts)
    return int(str(seq)), name, op, kind, tuple(sources)


def _slots(nodes: Sequence[Node]) -> dict[tuple[int | None, str], list[Node]]:
    """Sort the nodes that have values by layer and meaning."""
    slots: dict[tuple[int | None, str], list[Node]] = {}
    layer = rows = 0
    before: tuple[int | None, str] | None = None
    latest: dict[str, str] = {}
    seen: set[tuple[int | None, str]] = set()  # of this batch
    for node in nodes:
        shape = () if node.array is None else node.array.shape
        meaning = MEANING.get((node.name, node.op))
        if meaning == "embedding":
            rows = shape[0] if shape else 0
        elif rows > 1 and len(shape) == 2 and _NORMED.match(node.name):  # all heads together, not those of one token
            node = replace(node, channels=shape[1])
        named = _NAME.fullmatch(node.name)
        layer = int(named[2]) if named is not None else layer
        place = _place(node, layer)
        if place == (layer, "post_attn_norm") and before == (layer, "post_attn_residual"):
            place = layer, "ffn_norm"  # seed_oss gives the norm before the feed-forward block the name of the other
        if meaning == "embedding":
            seen.clear()
        if place is not None and place[1] in ("matmul.q", "matmul.k") and node.op == "MUL":
            letter = place[1][-1]  # some graphs call norms of heads so too
            if (layer, f"{letter}_post_rope") in seen:
                place = layer, f"{letter}_rope_norm"
            elif (layer, "qkv_matmul") in seen or node.sources[:1] == (f"norm-{layer}",):
                place = layer, f"{letter}_norm"
        if place == (layer, llama_experts.INPUT) and _computed_experts(seen, layer):
            place = None
        if place is not None and _TEMPERATURE in node.sources:
            place = layer, "q_tempered"
        if place is not None and place[1] in _NORMS_OF_HEADS and rows == 1 and len(shape) == 2:
            node = replace(node, channels=math.prod(shape))  # heads of a single token, whose axis is not written
        if place is not None:
            seen.add(place)
        sums = {source.removesuffix(_RESHAPED) for source in node.sources} if node.op == "ADD" else set()
        if place is None and sums and sums == {latest.get("stream"), latest.get("attended")}:
            place = layer, "post_attn_residual"  # of graphs that give it no name
        if node.op == "GET_ROWS" and node.sources:  # the rows whose logits are asked for
            latest |= {part: node.name for part, name in latest.items() if name == node.sources[0]}
        before = place or before
        if place is not None and (part := _FOLLOWED.get(place[1])):
            latest[part] = node.name
        if place is not None and node.array is not None:
            slots.setdefault(place, []).append(node)
    return llama_gemma4.of_gemma4(llama_recurrent.of_recurrences(slots, nodes), nodes)


def _computed_experts(seen: set[tuple[int | None, str]], layer: int) -> bool:
    """Whether any product of experts of a layer is among what was seen."""
    return any(of == layer and stage.startswith(llama_experts.PRODUCTS) for of, stage in seen)


def _place(node: Node, layer: int) -> tuple[int | None, str] | None:
    """Return layer and meaning of a node; `layer` is that of the latest node with a layer in its name."""
    named = _NAME.fullmatch(node.name)
    meaning = MEANING.get((named[1] if named is not None else node.name, node.op))
    whole = meaning is not None and meaning.partition(".")[0] in FIRST_STAGES + LAST_STAGES
    unnumbered = named is None and meaning in _UNNUMBERED
    if meaning == "ffn_norm" and any(map(_ATTN_OUTPUT.fullmatch, node.sources)):
        meaning = None  # llama4 gives what attention gives that name
    if meaning == "matmul.v" and any(map(_KEYS.fullmatch, node.sources)):
        meaning = "matmul.v_of_keys"  # of layers of gemma4 without values of their own
    if meaning == "attn_out.biased" and any(source.startswith("attn_post_norm-") for source in node.sources):
        meaning = "post_attn_residual"  # gemma4 gives its sum with the layer's input that name
    if node.op == "ADD" and meaning == "ffn_out" and node.name in node.sources:
        return None  # gptneox gives its sum with the layer's input the same name
    if meaning is not None and whole == (named is not None) and not unnumbered:
        return None
    if meaning is None and node.op == "FLASH_ATTN_EXT":
        query = _QUERY.match(node.sources[0]) if node.sources else None
        meaning, layer = "attention", int(query[1]) if query is not None else layer
    elif (chosen := llama_experts.softmax_of_chosen(node.op, node.sources)) is not None:
        meaning, layer = llama_experts.SOFTMAX, chosen
    elif meaning is None and node.op == "ROPE" and node.sources and (turned := _TURNED.match(node.sources[0])):
        meaning, layer = f"{turned[1].lower()}_post_rope", int(turned[2])  # some graphs name what follows
    elif meaning is None and node.op == "MUL_MAT" and node.sources[:1] == (_TURNS.format("v"),):
        context = _CONTEXT.match(node.sources[1]) if node.sources[1:] else None
        if context is not None:  # the same matrix turned V before; it is its own inverse
            meaning, layer = "attention.turned_back", int(context[1])
    elif meaning is None and node.op in ("MUL_MAT", "ADD", "MUL"):
        latent = next(filter(None, map(_LATENT.fullmatch, node.sources)), None) if _MADE.match(node.name) else None
        normed = next(filter(None, map(_FFN_NORM.fullmatch, node.sources)), None) if node.op == "MUL" else None
        normed = None if node.name.startswith("norm_w-") else normed  # of which the bias is still to be added
        output = next(filter(None, map(_ATTN_OUTPUT.fullmatch, node.sources)), None)
        down = next(filter(None, map(_FFN_DOWN.fullmatch, node.sources)), None) if named is None else None
        if latent is not None:  # all steps of the queries have one name
            meaning, layer = _OF_LATENT[latent[2]], int(latent[1])
        elif output is not None:  # the node itself has no name in qwen2 graphs
            meaning, layer = _OF_OUTPUT[output[2]], int(output[1])
        elif normed is not None:  # as in layers of llama4 with experts
            meaning, layer = "ffn_norm.weight", int(normed[1])
        elif down is not None:  # as in nemotron graphs
            meaning, layer = f"ffn_out.{down[2]}", int(down[1])
    meaning = meaning or llama_recurrent.unnamed(node.op, node.sources)
    if meaning is None or layer >= MAX_LAYERS:
        return None
    return (None if whole else layer), meaning


def _rows_taken(source: Node, taken: Node) -> list[int] | None:
    """Return which rows of `source` the rows of `taken` are, or None where that is not certain."""
    rows, kept = source.shape[0], taken.shape[0]
    if rows == kept:
        return list(range(rows))
    places = {row.tobytes(): n for n, row in enumerate(source.values())}
    wanted = [places.get(row.tobytes()) for row in taken.values()]
    found = [row for row in wanted if row is not None]
    return found if len(places) == rows and len(found) == kept else None


def _columns(fused: StoredStage, part: int) -> StoredStage:
    """One half of the channels."""
    assert fused.channels is not None
    half, rows = fused.channels // 2, fused.count // fused.channels
    columns = slice(part * half, (part + 1) * half)
    return replace(fused, count=rows * half, channels=half, load=partial(_some, fused.load, columns))


def _some(load: Callable[[], NDArray[Any]], columns: slice) -> NDArray[Any]:
    return np.ascontiguousarray(load()[:, columns])


def _joined(loads: Sequence[Callable[[], NDArray[Any]]], axis: int) -> NDArray[Any]:
    return loads[0]() if len(loads) == 1 else np.concatenate([load() for load in loads], axis=axis)
