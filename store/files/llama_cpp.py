"""Which GGUF files llama.cpp would refuse, though this program can run them.

Its loader asks for the tensors of an architecture by name and refuses a file that holds any more ("wrong number of
tensors", `done_getting_tensors` in llama-model-loader.cpp, 2026-11); which ones it asks for, src/models/ says.
"""

import re
from collections.abc import Iterator, Mapping
from functools import cache

from kernels.config import ModelConfig
from kernels.models import family
from store.files.fields import Fields
from store.layout import counted
from store.names import ROPE_FREQS, ROPE_LONG, ROPE_SHORT, gguf_name
from store.stored_model import TensorInfo
from store.vocabulary import LazyArray

_OF_LAYERS = ("attn_", "ffn_")
_WHOLE = {"token_embd.weight", "output_norm.weight", "output.weight"}
_FUSED = r"attn_qkv\.(?:weight|bias)"
# What the forward adds where it is there, and llama.cpp knows in some families.
_NOT_ASKED_FOR = r"attn_output\.bias|ffn_(?:gate|up|down)\.bias"
_FACTORS = (
    r"(?:attn_(?:q|k|v|qkv|output)|ffn_(?:gate|up|down)(?:_exps|_shexp)?)\.(?:input_)?scale"  # loaded in all families
)


def refused_by_llama_cpp(
    file: str, fields: Fields, tensors: Mapping[str, TensorInfo], config: ModelConfig
) -> list[str]:
    """Return a sentence if llama.cpp would refuse a file, naming all reasons that are known."""
    reasons = "; ".join(_reasons(fields, tensors, config))
    return [f"llama.cpp would refuse {file}: {reasons}."] if reasons else []


def _reasons(fields: Fields, tensors: Mapping[str, TensorInfo], config: ModelConfig) -> Iterator[str]:
    layers = config.num_hidden_layers
    unused = fields.integer("nextn_predict_layers", low=0) or 0
    if family(config.architecture).predicts:
        layers, unused = layers + unused, 0
    if unused:
        yield f"it runs {max(layers - unused, 0)} of the {layers} layers only (nextn_predict_layers is {unused})"
    known = _names(config)
    left = [
        info.raw_name
        for info in tensors.values()
        if (match := known.fullmatch(info.raw_name)) is None
        or (match["layer"] is not None and int(match["layer"]) >= layers - unused)
    ]
    if left:
        yield f"it holds {counted(left)} that {config.architecture} models are not made of there"
    tokens = fields.values.get("tokenizer.ggml.tokens")
    if isinstance(tokens, LazyArray) and len(tokens) != config.vocab_size:
        yield f"its vocabulary has {len(tokens)} tokens and its embedding {config.vocab_size} rows"
    if not isinstance(tokens, LazyArray) and fields.integer("vocab_size") not in (None, config.vocab_size):
        yield f"it says vocab_size {fields.integer('vocab_size')} and its embedding has {config.vocab_size} rows"
    if not config.num_experts:
        counts = (key for key in ("expert_used_count", "expert_group_count") if fields.integer(key, low=0))
        yield from (f"it says {key} without expert_count" for key in counts)
    yield from family(config.architecture).refused_by_llama_cpp(config)


@cache  # two files of a pair mostly ask for the same
def _names(config: ModelConfig) -> re.Pattern[str]:
    """The names that tensors of a family have there, with the number of a layer where they belong to one."""
    of = family(config.architecture)
    used = {gguf_name(tensor.name, of.gguf) for tensor in of.tensors(config)}
    inner = {match[1] for name in used if (match := re.fullmatch(r"blk\.[0-9]+\.(.+)", name))}  # layers may differ
    unused = {name for name in of.gguf_unused if not name.startswith(_OF_LAYERS)}
    if not of.more:
        inner = {name for name in inner if not re.fullmatch(_NOT_ASKED_FOR, name)}
    own = {name for name in used if not name.startswith("blk.")}
    divisors = [*([ROPE_FREQS] if of.rope_freqs else []), *([ROPE_SHORT, ROPE_LONG] if of.long_rope else [])]
    whole = {*_WHOLE, *own, *divisors, *of.after_head, *unused} - {"output.scale"}
    inner |= set(of.gguf_unused) - unused
    layer = "|".join([*map(re.escape, sorted(inner)), _FUSED, _FACTORS, *([of.more] if of.more else [])])
    return re.compile(
        rf"{'|'.join(map(re.escape, sorted(whole)))}|blk\.(?P<layer>0|[1-9][0-9]{{0,5}})\.(?:{layer})", re.ASCII
    )
