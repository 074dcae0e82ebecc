"""llama.cpp dumps: every node of the compute graph, as the eval callback hands them out.

Keys are "<sequence number>|<node name>|<operation>". `__index__`, a JSON list, adds type and sources of every node;
`__meta__` holds the settings. One name stands for several nodes, which their operation tells apart, and a prompt that
runs in several batches has every node once per batch. See docs/traces.md.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kernels.family import Family
from kernels.models import ARCHITECTURES, family
from kernels.stages import Site
from store.errors import StoreError
from store.files.model_file import ModelFile
from store.text import printable
from store.traces.arrays import FLOATS, StoredArray, parse_json, widened
from store.traces.channels import rope_pairs
from store.traces.llama_graph import NODE, Graph, Node, read_nodes
from store.traces.stage_dump import read_meta, take_tokens, unsaid
from store.traces.trace import GGML_ORDER, LLAMA_CPP, UNKNOWN_ORDER, Trace

_FLOAT_CACHES = {"f32", "f16", "bf16", "None"}
_FUSED_SILU = "llama.cpp fuses it into ffn_swigl and never stores it"
_UNSAID = {
    "model_sha256": "No checksum of the model is there: that it was this model is your word.",
    "engine_version": "The version of llama.cpp is not there.",
    "system_info": "The processor features that llama.cpp used are not there.",
    "architecture": "The architecture of the model is not there.",
    "repack": "Whether weights were repacked is not there; repacked weights change the last bits of a product.",
    "environment": "Environment variables such as GGML_CPU_TILED_MM, which choose the matmul routine, are not there.",
}


def is_llama_dump(arrays: Mapping[str, StoredArray]) -> bool:
    """Tell whether the arrays are nodes of a ggml graph."""
    return any(NODE.fullmatch(key) for key in arrays)


def trace_of_nodes(
    file: ModelFile, arrays: Mapping[str, StoredArray], meta_text: str | None, index_text: str | None
) -> Trace:
    """Make a trace of the nodes of a dump; StoreError, one sentence, for one that contradicts itself."""
    meta = read_meta(file, meta_text)
    tokens = take_tokens(file, meta)
    index = [] if index_text is None else parse_json(index_text, f"__index__ of {file.shown}")
    try:
        nodes = read_nodes(arrays, index)
        graph = Graph(nodes, arrays.get("logits"), None if tokens is None else len(tokens))
        stages = graph.stages()
        observed = dict(_observed(graph))
    except StoreError as error:
        raise StoreError(f"{file.shown} is no dump of one forward: {error}; record it again.") from None
    if not stages:
        raise StoreError(f"{file.shown} holds no node of a known stage; record it without a filter of names.")
    layers = {site.layer for site in stages if site.layer is not None}
    return Trace(
        path=file.path,
        engine=LLAMA_CPP,
        tokens=tokens,
        settings=meta,
        stages=stages,
        files=(file,),
        observed=observed,
        not_carried=unsaid(tokens, meta, _UNSAID),
        notes=tuple(_notes(meta, observed)),
        remarks={Site(n, "ffn_silu"): _FUSED_SILU for n in layers if Site(n, "ffn_silu") not in stages},
        absent=frozenset(Site(n, "qkv_bias") for n in layers if graph.is_unbiased(n)),
    )


def _observed(graph: Graph) -> Iterator[tuple[str, Any]]:
    """Give what the nodes themselves prove of the settings."""
    operations = {node.op for node in graph.nodes}
    if "FLASH_ATTN_EXT" in operations or "SOFT_MAX" in operations:
        yield "flash_attention", "on" if "FLASH_ATTN_EXT" in operations else "off"
    for part in "kv":
        types = {node.type for node in graph.nodes if node.op == "SET_ROWS" and node.name.startswith(f"cache_{part}_l")}
        if len(types) == 1:
            yield f"type_{part}", types.pop()
        if (side := graph.turned(part)) is not None:
            yield f"turned_{part}", side
    yield "batches", graph.batches()
    if graph.outputs is not None:
        yield "outputs", graph.outputs
    yield from _observed_heads(graph)


def _observed_heads(graph: Graph) -> Iterator[tuple[str, Any]]:
    """Give head_dim, kv_size and which channels rotate together, from the first layer."""
    before = next(filter(None, (graph.slots.get((0, slot)) for slot in ("q_norm", "bias.q", "matmul.q"))), None)
    after, keys = graph.slots.get((0, "q_post_rope")), graph.slots.get((0, "k_post_rope"))
    if not before or not after or not keys or after[0].array is None:
        return
    head_dim = after[0].array.shape[-1]
    yield "head_dim", head_dim
    yield "kv_size", keys[0].shape[1]
    pairs = rope_pairs(_floats(before[0]), _floats(after[0]), head_dim)
    if pairs is not None:
        yield "rope_pairs", pairs


def _names_of(chosen: Callable[[Family], bool]) -> set[str]:
    names = (name for own in ARCHITECTURES if chosen(family(own)) for name in (own, family(own).gguf))
    return {name for name in names if name is not None}


def _interleaved() -> set[str]:
    """Names, ours and GGUF's, of the families whose files store the rows of q and k for adjacent pairs."""
    return _names_of(lambda known: known.interleaved)


def _adjacent_everywhere() -> set[str]:
    """The same of the families that rotate adjacent pairs in every container."""
    return _names_of(lambda known: known.pairs == "norm")


def _floats(node: Node) -> NDArray[np.floating[Any]]:
    if node.array is None or node.array.dtype not in FLOATS:
        raise StoreError(f"node {printable(node.name, 80)} holds no floats")
    return widened(node.values(), node.array.dtype)


def _notes(meta: Mapping[str, Any], observed: Mapping[str, Any]) -> Iterator[str]:
    if observed.get("flash_attention") == "on":
        kept = {str(observed.get(f"type_{part}")) for part in "kv"}
        floats = (
            "K and V entered as float16 whatever the cache holds" if kept <= _FLOAT_CACHES else "K and V were blocks"
        )
        sums = (
            ", and sums over V were kept in float16 for prompts of fewer than 64 tokens"
            if kept <= {"f16", "f32"}
            else ""
        )
        yield f"Flash attention was on: scores and softmax were never stored, {floats}{sums}."
    elif "f16" in (observed.get("type_k"), observed.get("type_v")):
        yield "The KV cache was float16: q, k, v and the probabilities were rounded to float16 inside attention."
    if "turned_k" in observed or "turned_v" in observed:
        yield (
            "Because of its quantized cache the engine turned q, k and v by Walsh-Hadamard matrices before attention "
            "and what came of it back; the stages here are those before and after."
        )
    if meta.get("repack"):
        yield "Weights were repacked: products are summed in another order, and differently for the last rows of four."
    batches, outputs = observed["batches"], observed.get("outputs")
    if len(batches) > 1:
        yield f"The prompt ran in batches of {', '.join(map(str, batches))} tokens, which are joined here."
    pairs = observed.get("rope_pairs")
    if meta.get("architecture") in _adjacent_everywhere():
        pass
    elif pairs == "adjacent" or (pairs is None and meta.get("architecture") in _interleaved()):
        yield GGML_ORDER
    elif pairs is None and "architecture" not in meta:
        yield UNKNOWN_ORDER
    if outputs is not None and len(outputs) < sum(batches):
        places = ", ".join(map(str, outputs))
        yield f"Logits were asked for positions {places} only; the last layer drops all other rows after attention."
