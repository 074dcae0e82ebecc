"""What containers and families are known to do to tensors: how often, for every tensor of a file.

Read off the converters of llama.cpp (`conversion/` in llama-cpp-python 0.3.36) and the families of `kernels.models`.
SafeTensors hold what was trained; what is done there is done by who converts.
"""

import re
from typing import NamedTuple

from kernels.models import architecture_of, called
from store.artifact import Artifact
from store.names import is_gguf_name, layer_of
from store.stored_model import NEVER_LESS_ONE, StoredModel, TensorInfo

PLUS_ONE, ROTARY_PAIRS, MINUS_EXP = "plus_one", "rotary_pairs", "minus_exp"
FUSED, STACKED, SPLIT, SQUEEZED, TRANSPOSED, TILED = "fused", "stacked", "split", "squeezed", "transposed", "tiled"
WORDS: dict[str, str] = {
    PLUS_ONE: "+1 added",
    ROTARY_PAIRS: "rows in rotary pairs",
    MINUS_EXP: "-exp taken",
    FUSED: "several matrices in one",
    STACKED: "experts in one tensor",
    SPLIT: "one matrix in several",
    SQUEEZED: "axes of length 1 taken out",
    TRANSPOSED: "rows and columns exchanged",
    TILED: "value heads in tiles",
}

_NORM = re.compile(r".*norm(?:_[a-z0-9]+)?(?:\.weight)?", re.DOTALL)
_Q_OR_K = re.compile(r".*\.self_attn\.([qk])_proj\.(weight|bias)", re.DOTALL)
_LAYER = re.compile(r"blk\.[0-9]+\.(.+)", re.DOTALL)
# Of llama.cpp's architectures that are not run: those whose converters add 1 to norms, and norms that are left out.
_ADDED = {
    **dict.fromkeys(("gemma-embedding", "minimax-m3", "nemotron"), ""),
    "qwen4exp": "ssm_norm",
    "muse-glimmer": "model.norm.weight",
}
_NOT_ADDED = frozenset(("gemma3n", "gemma4"))  # whose relatives do
_LINEAR = frozenset(("qwen35", "qwen35moe", "qwen4exp"))  # value heads of linear attention stand in tiles
_SCANS = frozenset(
    (
        *("qwen3next", "qwen35", "qwen35moe", "jamba", "mamba", "mamba2", "falcon-h1", "granitehybrid"),
        *("nemotron_h", "nemotron_h_moe", "plamo2"),
    )
)
_BY_COLUMNS = frozenset(("gpt2", "jais"))  # whose products Hugging Face keeps as (inputs, outputs)
_TILED = re.compile(
    r"ssm_(?:a|alpha\.weight|beta\.weight|dt\.bias|out\.weight|conv1d\.weight)|attn_(?:qkv|gate)\.weight"
)
_FUSED = re.compile(
    r".*(?:qkv(?:_proj)?|c_attn|query_key_value|gate_up(?:_proj|_exps)?|in_proj_qkvz?|per_layer_model_proj(?:ection)?)(?:\.weight|\.bias)?",
    re.DOTALL,
)


class Said(NamedTuple):
    """What is done to a tensor. times : how often it should have been done; None where that is not known."""

    convention: str
    times: int | None


def architecture(model: StoredModel) -> str | None:
    """What a file calls the architecture of its model; None where it does not say."""
    if isinstance(model, Artifact):
        return model.config.architecture
    keys = ("general.architecture", "architecture", "model_type")
    return next((name for key in keys if isinstance(name := model.metadata.get(key), str)), None)


def said(model: StoredModel, name: str) -> tuple[Said, ...]:
    """Everything that container and family are known to do to a tensor, by its canonical name."""
    info = model.tensors[name]
    found = [_norm(model, info), _rotary(model, info)]
    if model.format == "safetensors":
        found.append(Said(MINUS_EXP, 0) if name.endswith(".A_log") else None)
    else:
        found += _of_gguf(info, architecture(model))
    found.append(Said(FUSED, 1) if _FUSED.fullmatch(info.raw_name) else None)
    return tuple(one for one in found if one is not None)


def is_norm(name: str) -> bool:
    """Whether a tensor is the weight of a norm, by its name."""
    return _NORM.fullmatch(name) is not None


def _norm(model: StoredModel, info: TensorInfo) -> Said | None:
    if not is_norm(info.name) or info.name.endswith(".bias"):
        return None
    if model.format == "safetensors" or model.less_one:
        return Said(PLUS_ONE, 0)
    name = architecture(model)
    known = None if name is None else called(name, lambda of: name in (of.gguf, architecture_of(of)))
    if known is not None:
        return Said(PLUS_ONE, int(known.less_one and not info.name.endswith(NEVER_LESS_ONE)))
    if name in _NOT_ADDED:
        return Said(PLUS_ONE, 0)
    if name not in _ADDED or not any(is_gguf_name(other.raw_name) for other in model.tensors.values()):
        return Said(PLUS_ONE, None)
    left_out = _ADDED[name]
    return Said(PLUS_ONE, int(not left_out or left_out not in info.name))


def _rotary(model: StoredModel, info: TensorInfo) -> Said | None:
    """Rows of q and k: in pairs where a converter has put them so, or where the family has them so from the start."""
    if _Q_OR_K.fullmatch(info.name) is None or layer_of(info.name) is None:
        return None
    if model.permuted(info.name):
        return Said(ROTARY_PAIRS, 1)
    if isinstance(model, Artifact):
        return Said(ROTARY_PAIRS, int(model.config.rope_type == "norm"))
    return Said(ROTARY_PAIRS, None)


def _of_gguf(info: TensorInfo, name: str | None) -> list[Said | None]:
    """What converters to GGUF do, by the names that it has for tensors."""
    match = _LAYER.fullmatch(info.raw_name)
    module = match[1] if match else info.raw_name
    scan = 1 if name in _SCANS else None
    found = [
        Said(MINUS_EXP, scan) if module == "ssm_a" else None,
        Said(SQUEEZED, scan) if module.startswith("ssm_conv1d") and "bias" not in module else None,
        Said(SQUEEZED, 1) if module == "shortconv.conv.weight" else None,
        Said(TILED, 1) if name in _LINEAR and _TILED.fullmatch(module) else None,
        Said(STACKED, 1) if re.fullmatch(r"ffn_(?:gate|up|down|gate_up)_(?:ch)?exps\.weight", module) else None,
        Said(SPLIT, 1) if re.fullmatch(r"attn_[kv]_b\.weight", module) else None,
    ]
    exchanged = module == "attn_k_b.weight" or (
        name in _BY_COLUMNS and re.fullmatch(r"(?:attn|ffn)_[a-z]+\.weight", module)
    )
    return [*found, Said(TRANSPOSED, 1) if exchanged and not is_norm(info.name) else None]
