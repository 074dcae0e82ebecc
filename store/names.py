"""Canonical tensor names (Hugging Face's for llama and qwen2) and the other spellings they come in."""

import re
from collections.abc import Iterable, Mapping
from functools import cache

from kernels.config import ModelConfig
from kernels.models import called

EMBEDDING = "model.embed_tokens.weight"
FINAL_NORM = "model.norm.weight"
FINAL_NORM_BIAS = "model.norm.bias"
LM_HEAD = "lm_head.weight"
HEAD_BIAS = "lm_head.bias"
ROPE_FREQS = "rope_freqs.weight"
ROPE_SHORT, ROPE_LONG = "rope_factors_short.weight", "rope_factors_long.weight"

_GGUF_MODULES: dict[str, str] = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_qkv": "self_attn.qkv_proj",
    "attn_output": "self_attn.o_proj",
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
    "attn_sinks": "self_attn.sinks",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
    "ffn_gate_inp": "mlp.gate",
    "ffn_gate_exps": "mlp.experts.gate_proj",
    "ffn_up_exps": "mlp.experts.up_proj",
    "ffn_gate_up_exps": "mlp.experts.gate_up_proj",
    "ffn_down_exps": "mlp.experts.down_proj",
    "ffn_gate_inp_shexp": "mlp.shared_expert_gate",
    "ffn_gate_shexp": "mlp.shared_expert.gate_proj",
    "ffn_up_shexp": "mlp.shared_expert.up_proj",
    "ffn_down_shexp": "mlp.shared_expert.down_proj",
}
_GGUF_SELECTION, _SELECTION = "exp_probs_b.bias", "mlp.gate.e_score_correction_bias"
# What one tensor holds several matrices of.
WHOLES: dict[str, tuple[str, ...]] = {
    "mlp.gate_up_proj": ("mlp.gate_proj", "mlp.up_proj"),
    "linear_attn.in_proj_qkv": tuple(f"linear_attn.{part}_proj" for part in "qkv"),
    "linear_attn.in_proj_ba": ("linear_attn.b_proj", "linear_attn.a_proj"),
    **{f"linear_attn.in_proj_{part}": (f"linear_attn.{part}_proj",) for part in "zba"},
    "self_attn.q_proj": ("self_attn.gate_proj",),
}
# GGUF's architectures with norms behind attention and the feed-forward block, where ffn_norm is another one.
FOUR_NORMS = frozenset(("gemma2", "gemma3", "gemma3n", "gemma4", "olmo2", "exaone4"))
_ANOTHER_FFN_NORM = frozenset(("seed_oss",))  # where the norm before the feed-forward block goes by the other name
_GGUF_NORMS: dict[str, str] = {
    "ffn_norm": "pre_feedforward_layernorm",
    "post_attention_norm": "post_attention_layernorm",
    "post_ffw_norm": "post_feedforward_layernorm",
}

_GGUF_WHOLE: dict[str, str] = {
    "token_embd.weight": EMBEDDING,
    "output_norm.weight": FINAL_NORM,
    "output.weight": LM_HEAD,
    "output_norm.bias": FINAL_NORM_BIAS,
    "output.bias": HEAD_BIAS,
}
_HF_WHOLE: dict[str, str] = {hf: gguf for gguf, hf in _GGUF_WHOLE.items()}

# Spellings that converters of other projects have used.
_OTHER_WHOLE: dict[str, str] = {
    "embed_tokens.weight": EMBEDDING,
    "transformer.wte.weight": EMBEDDING,
    "embeddings.word_embeddings.weight": EMBEDDING,
    "tok_embeddings.weight": EMBEDDING,
    "norm.weight": FINAL_NORM,
}

_GGUF_LAYER = re.compile(r"blk\.(0|[1-9][0-9]{0,5})\.([a-z][a-z0-9_]*(?:\.[a-z_]+)?)\.(weight|bias|scale)", re.ASCII)
_GGUF_TENSOR = re.compile(r"blk\.(0|[1-9][0-9]{0,5})\.([a-z][a-z0-9_.]*)", re.ASCII)
# What some families call the parts of layers with experts, and what stands alone: patterns, and what stands for them.
_OF_EXPERTS: dict[str, str] = {
    r"^(?:block_sparse_moe|mlp(?:\.gate)?)\.(?:moe_statics\.)?e_score_correction_bias$": _SELECTION,
    r"^(?:mlp|feed_forward)\.expert_bias$": _SELECTION,
    r"^feed_forward\.router\.": "mlp.gate.",
    r"^feed_forward\.(?=(?:gate_proj|up_proj|down_proj|experts|shared_expert)\.)": "mlp.",
    r"^block_sparse_moe\.(?:router\.layer|gate)\.": "mlp.gate.",
    r"^block_sparse_moe\.input_linear\.weight$": "mlp.experts.gate_up_proj.weight",
    r"^block_sparse_moe\.output_linear\.weight$": "mlp.experts.down_proj.weight",
    r"^block_sparse_moe\.experts\.": "mlp.experts.",
    r"^(mlp\.experts\.\d+)\.w1\.": r"\1.gate_proj.",
    r"^(mlp\.experts\.\d+)\.w3\.": r"\1.up_proj.",
    r"^(mlp\.experts\.\d+)\.w2\.": r"\1.down_proj.",
    r"^(mlp\.experts\.(?:gate_up|down)_proj)$": r"\1.weight",
    r"^(mlp\.experts\.(?:gate_up|down)_proj)_bias$": r"\1.bias",
    r"^self_attn\.sinks$": "self_attn.sinks.weight",
    r"^layer_scalar$": "layer_scalar.weight",
    r"^router\.proj\.": "mlp.gate.",
    r"^router\.scale$": "mlp.gate_norm.weight",
    r"^router\.per_expert_scale$": "mlp.experts.down_proj.output_scale",
    r"^experts\.(gate_up|down)_proj(?:\.weight)?$": r"mlp.experts.\1_proj.weight",
    r"^experts\.(\d+)\.": r"mlp.experts.\1.",
    r"^mlp\.shared_experts\.": "mlp.shared_expert.",
    r"^shared_mlp\.input_linear\.": "mlp.shared_expert.gate_up_proj.",
    r"^shared_mlp\.output_linear\.": "mlp.shared_expert.down_proj.",
}
_ONE_OF_MANY = re.compile(r"(mlp\.experts|self_attn\.[kv]_b_proj)\.\d+\.", re.ASCII)
_NUMBER = re.compile(r"(?:^|\.)(0|[1-9][0-9]{0,5})(?=\.)", re.ASCII)
_KINDS = {"scale": "output_scale"}  # of GGUF, where they have another name here
_HF_LAYER = re.compile(r"(?:model\.)?layers\.(0|[1-9][0-9]{0,5})\.(.+)", re.ASCII | re.DOTALL)


@cache
def _modules(architecture: str | None) -> Mapping[str, str]:
    """What the names of modules in a GGUF file of an architecture stand for."""
    if architecture in _ANOTHER_FFN_NORM:
        without = {gguf: hf for gguf, hf in _GGUF_MODULES.items() if gguf != "ffn_norm"}
        return without | {"post_attention_norm": "post_attention_layernorm"}
    of = None if architecture is None else called(architecture, lambda known: known.gguf == architecture)
    own = {} if of is None else dict(of.gguf_modules)
    return (_GGUF_MODULES | _GGUF_NORMS if architecture in FOUR_NORMS else _GGUF_MODULES) | own


def canonical_name(raw: str, architecture: str | None = None) -> str:
    """Return the Hugging Face name of a tensor stored as `raw`; a name of no known style comes back unchanged.

    architecture : GGUF's name for it, which tells what some of its names stand for.
    """
    if (layer_of(raw) is not None and raw.startswith("blk.")) and raw.split(".", 2)[2] == _GGUF_SELECTION:
        return f"model.layers.{raw.split('.')[1]}.{_SELECTION}"
    if (whole := _GGUF_TENSOR.fullmatch(raw)) and (tail := _modules(architecture).get(whole[2])) is not None:
        return f"model.layers.{whole[1]}.{tail}"
    if gguf := _GGUF_LAYER.fullmatch(raw):
        (layer, module, kind), modules = gguf.groups(), _modules(architecture)
        return f"model.layers.{layer}.{modules[module]}.{_KINDS.get(kind, kind)}" if module in modules else raw
    if hf := _HF_LAYER.fullmatch(raw):
        return f"model.layers.{hf[1]}.{_of_experts(hf[2])}"
    if architecture is not None and (own := _modules(architecture).get(raw.rpartition(".")[0])) is not None:
        return f"{own}.{raw.rpartition('.')[2]}"
    return _GGUF_WHOLE.get(raw) or _OTHER_WHOLE.get(raw) or raw


def _of_experts(module: str) -> str:
    """The name of a tensor of a layer, with what belongs to experts as most families call it."""
    for spelled, plain in _patterns():
        module = spelled.sub(plain, module)
    return module


@cache
def _patterns() -> tuple[tuple[re.Pattern[str], str], ...]:
    """Compiled with the first file that needs them, which no GGUF does."""
    return tuple((re.compile(spelled), plain) for spelled, plain in _OF_EXPERTS.items())


def gguf_name(canonical: str, architecture: str | None = None) -> str:
    """Return the GGUF name of a canonical tensor name; a name that GGUF has no word for comes back unchanged.

    All experts of a layer have one tensor there, and so have all heads of latent attention.
    """
    if (match := _HF_LAYER.fullmatch(canonical)) is None:
        module, _, kind = canonical.rpartition(".")
        if module in (own := {hf: gguf for gguf, hf in _modules(architecture).items()}):
            return f"{own[module]}.{kind}"
        return _HF_WHOLE.get(canonical, canonical)
    if match[2] == _SELECTION:
        return f"blk.{match[1]}.{_GGUF_SELECTION}"
    module, _, kind = _ONE_OF_MANY.sub(r"\1.", match[2]).rpartition(".")
    modules = {hf: gguf for gguf, hf in _modules(architecture).items()}
    if match[2] in modules:
        return f"blk.{match[1]}.{modules[match[2]]}"
    for whole, parts in WHOLES.items():
        if whole in modules:
            modules = dict.fromkeys(parts, modules[whole]) | modules
    kind = next((gguf for gguf, own in _KINDS.items() if own == kind), kind)
    if (of_all := modules.get(f"model.{module}")) is not None:  # one tensor for all layers
        return f"{of_all}.{kind}"
    return f"blk.{match[1]}.{modules[module]}.{kind}" if module in modules else canonical


def module_names(names: Iterable[str], modules: Mapping[str, str]) -> dict[str, str]:
    """Return what the tensors of a family are called canonically, by the names that Hugging Face has for them.

    modules : its own modules by canonical ones, with N for the number of a layer.
    """
    canonical = {own: module for module, own in modules.items()}
    found = {}
    for name in names:
        module, _, kind = name.rpartition(".")
        number = _NUMBER.search(module)
        own = module if number is None else f"{module[: number.start(1)]}N{module[number.end(1) :]}"
        if own in canonical:
            found[name] = f"{canonical[own].replace('.N.', f'.{number[1]}.') if number else canonical[own]}.{kind}"
    return found


def is_gguf_name(raw: str) -> bool:
    """Tell whether `raw` is spelled as GGUF files spell it."""
    return raw in _GGUF_WHOLE or raw.startswith(("blk.", "token_embd_"))


def layer_of(canonical: str) -> int | None:
    """Return the decoder layer that a tensor belongs to, None for tensors of the whole model."""
    if match := _HF_LAYER.fullmatch(canonical) or re.match(r"blk\.(0|[1-9][0-9]{0,5})\.", canonical, re.ASCII):
        return int(match[1])
    return None


def settings_of(config: ModelConfig, canonical: str) -> ModelConfig:
    """Return the settings with the heads of the layer that a tensor belongs to."""
    layer = layer_of(canonical)
    return config if layer is None or layer >= config.num_hidden_layers else config.of_layer(layer)
