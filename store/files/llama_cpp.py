"""Which GGUF files llama.cpp would refuse, though this program can run them.

Its loader asks for the tensors of an architecture by name and refuses a file that holds any more ("wrong number of
tensors", `done_getting_tensors` in llama-model-loader.cpp, 2026-11); which ones it asks for, src/models/ says.
"""

import re
from collections.abc import Iterator, Mapping

from kernels.config import ModelConfig
from store.files.fields import Fields
from store.layout import counted
from store.stored_model import TensorInfo
from store.vocabulary import LazyArray

_WHOLE = {"token_embd.weight", "output_norm.weight", "output.weight"}
_OF_ARCHITECTURE = {"llama": {"rope_freqs.weight"}, "qwen2": {"output.bias"}}
_LAYER = r"attn_norm\.weight|attn_(?:q|k|v|qkv)\.(?:weight|bias)|attn_output\.weight|ffn_(?:norm|gate|up|down)\.weight"
_LLAMA_BIASES = r"|attn_output\.bias|ffn_(?:gate|up|down)\.bias"


def refused_by_llama_cpp(
    file: str, fields: Fields, tensors: Mapping[str, TensorInfo], config: ModelConfig
) -> list[str]:
    """Return a sentence if llama.cpp would refuse a file of llama or qwen2, naming all reasons that are known."""
    reasons = "; ".join(_reasons(fields, tensors, config))
    return [f"llama.cpp would refuse {file}: {reasons}."] if reasons else []


def _reasons(fields: Fields, tensors: Mapping[str, TensorInfo], config: ModelConfig) -> Iterator[str]:
    layers = config.num_hidden_layers
    unused = fields.integer("nextn_predict_layers", low=0) or 0
    if unused:
        yield f"it runs {max(layers - unused, 0)} of the {layers} layers only (nextn_predict_layers is {unused})"
    known = _names(config.architecture)
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
    if config.architecture == "qwen2" and config.q_size != config.hidden_size:
        yield f"its {config.q_size} channels of Q are not the {config.hidden_size} that it takes for granted in qwen2"


def _names(architecture: str) -> re.Pattern[str]:
    whole = "|".join(re.escape(name) for name in sorted(_WHOLE | _OF_ARCHITECTURE[architecture]))
    layer = _LAYER + (_LLAMA_BIASES if architecture == "llama" else "")
    return re.compile(rf"{whole}|blk\.(?P<layer>0|[1-9][0-9]{{0,5}})\.(?:{layer})", re.ASCII)
