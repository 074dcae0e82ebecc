"""Read a config.json of Hugging Face's as transformers 5 reads it, defaults of absent keys included."""

from collections.abc import Mapping
from dataclasses import replace

from kernels.config import ModelConfig
from kernels.errors import UnsupportedModelError
from store import rope
from store.errors import ArtifactError
from store.files.fields import Fields
from store.known_settings import TABLES
from store.names import LM_HEAD, layer_of
from store.stored_model import TensorInfo
from store.text import printable

# What a model_type is in the terms of kernels.config.ARCHITECTURES: within its window a mistral is a llama.
FAMILIES = {"llama": "llama", "qwen2": "qwen2", "mistral": "llama"}
# What LlamaConfig, Qwen2Config and MistralConfig of transformers 5.23 take for an absent key; null is not absent.
DEFAULTS: dict[str, dict[str, object]] = {
    "llama": {
        "vocab_size": 32000,
        "hidden_size": 4096,
        "intermediate_size": 11008,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "max_position_embeddings": 2048,
        "rms_norm_eps": 1e-6,
    },
    "qwen2": {
        "vocab_size": 151936,
        "hidden_size": 4096,
        "intermediate_size": 22016,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 32,
        "max_position_embeddings": 32768,
        "rms_norm_eps": 1e-6,
        "sliding_window": 4096,
        "max_window_layers": 28,
    },
    "mistral": {
        "vocab_size": 32000,
        "hidden_size": 4096,
        "intermediate_size": 14336,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "max_position_embeddings": 131072,
        "rms_norm_eps": 1e-6,
        "sliding_window": 4096,
    },
}
_THETA = 10000.0
_SILU = ("silu", "swish")  # two names of one function in transformers
_SPOKEN_OF = ("rms_norm_eps", "num_key_value_heads")  # defaults that no tensor would contradict


def supported_fields(file: str, values: Mapping[str, object]) -> tuple[Fields, list[str]]:
    """Return the configuration with transformers' defaults filled in, and sentences about what is odd in it.

    Raises UnsupportedModelError, by name, for an architecture or a setting that this program does not compute.
    """
    given = Fields(file, values)
    family = given.needed_text("model_type")
    if family not in FAMILIES:
        raise UnsupportedModelError(
            f"{file} has the model_type {printable(family, 80)}; supported are {', '.join(FAMILIES)}."
        )
    if isinstance(packed := given.find("quantization")[1], dict):
        raise UnsupportedModelError(
            f"{file} describes an MLX model of {printable(str(packed.get('bits')), 20)} bits, whose weights are packed "
            "beside scales and biases; undo that with `mlx_lm.convert --dequantize`, or give the original model."
        )
    if (quantization := given.find("quantization_config")[1]) is not None:
        method = quantization.get("quant_method") if isinstance(quantization, dict) else None
        raise UnsupportedModelError(
            f"{file} has a quantization_config ({printable(str(method), 80)}); supported are plain F32, F16 and "
            "BF16 tensors, or a GGUF or APR file."
        )
    if (activation := given.text("hidden_act") or "silu") not in _SILU:
        raise UnsupportedModelError(f"{file} has the activation {printable(activation, 80)}; only silu is supported.")
    problems = TABLES["safetensors"][family].check(given, family)
    absent = {key: value for key, value in DEFAULTS[family].items() if key not in values}
    problems += [
        f"{file} does not say {key}; {value} is used, as transformers does."
        for key, value in absent.items()
        if key in _SPOKEN_OF
    ]
    return Fields(file, {**values, **absent}), problems


def config_of(fields: Fields, has_lm_head: bool) -> tuple[ModelConfig, list[str]]:
    """Return the hyper-parameters that filled-in fields give, and sentences about what is odd in them."""
    hidden = fields.needed_integer("hidden_size")
    heads = fields.needed_integer("num_attention_heads")
    size = rope.head_dim(fields, hidden, heads, "head_dim")
    group, settings, problems = _rope_settings(fields)
    theta = settings.number("rope_theta") or fields.number("rope_theta") or _THETA
    scaling = rope.hf_scaling(group, settings, fields, theta, size)
    tied = bool(fields.flag("tie_word_embeddings"))
    config = ModelConfig(
        architecture=FAMILIES[fields.needed_text("model_type")],
        num_hidden_layers=fields.needed_integer("num_hidden_layers"),
        hidden_size=hidden,
        intermediate_size=fields.needed_integer("intermediate_size"),
        num_attention_heads=heads,
        num_key_value_heads=fields.integer("num_key_value_heads") or heads,
        head_dim=size,
        vocab_size=fields.needed_integer("vocab_size"),
        rms_norm_eps=fields.needed_number("rms_norm_eps"),
        rope_theta=theta,
        rope_type="neox",
        tie_word_embeddings=tied and not has_lm_head,
        max_position_embeddings=fields.integer("max_position_embeddings"),
        rope_factors=scaling.factors,
        rope_attention_factor=scaling.attention_factor,
        causal="is_causal" not in fields.values or fields.flag("is_causal") is True,  # null is false there
        length_limit=scaling.limit,
        length_limit_key=scaling.limit_key,
    )
    rope.check_heads(fields.file, config)
    if tied and has_lm_head:
        problems.append(
            f"{fields.file} says tie_word_embeddings, but {LM_HEAD} is stored; the stored tensor is used "
            "(older transformers use the embedding instead)."
        )
    config = _windowed(fields, config)
    if config.length_limit is not None:
        problems.append(
            f"{fields.file} sets {config.length_limit_key}, which changes what is computed beyond "
            f"{config.length_limit} tokens; only up to there the model is run."
        )
    return config, problems


def drop_unused_biases(file: str, tensors: dict[str, TensorInfo], fields: Fields) -> list[str]:
    """Remove the biases that transformers does not load into a model of this configuration; say which.

    llama has them on all projections that attention_bias and mlp_bias name, qwen2 always on q, k and v only, mistral on
    none.
    """
    family = fields.needed_text("model_type")
    llama = family == "llama"
    biased = {f"self_attn.{part}_proj.bias" for part in ("q", "k", "v", "qkv", *("o" if llama else ""))}
    if family == "mistral" or (llama and not fields.flag("attention_bias")):
        biased = set()
    if llama and fields.flag("mlp_bias"):
        biased |= {f"mlp.{part}_proj.bias" for part in ("gate", "up", "down")}
    dropped = [
        name
        for name in tensors
        if layer_of(name) is not None and name.endswith("_proj.bias") and name.split(".", 3)[-1] not in biased
    ]
    for name in dropped:
        del tensors[name]
    if not dropped:
        return []
    key = "mlp_bias" if dropped[0].split(".", 3)[-1].startswith("mlp.") else "attention_bias"
    why = f"without {key}" if llama else f"in {family}"
    return [
        f"{file} stores {len(dropped)} biases that transformers does not load {why}, the first is "
        f"{printable(dropped[0], 80)}; they are not used."
    ]


def _rope_settings(fields: Fields) -> tuple[str, Fields, list[str]]:
    """Return name and content of `rope_scaling`, which counts alone if it is not empty, or of `rope_parameters`."""
    old, new = (fields.find(key)[1] for key in ("rope_scaling", "rope_parameters"))
    key, value = ("rope_scaling", old) if old else ("rope_parameters", new)
    if not isinstance(value, dict | None):
        raise ArtifactError(f"{fields.file} gives {key} as something else than an object; correct the file.")
    settings = Fields(fields.file, value or {})
    problems = _partly_rotated(fields, settings)
    for kind in ("full_attention", "sliding_attention"):
        if kind in settings.values and "rope_type" not in settings.values:
            raise UnsupportedModelError(
                f"{fields.file} gives {key} for each kind of layer; only one for all layers is supported."
            )
    if old and new:
        problems.append(
            f"{fields.file} gives both rope_scaling and rope_parameters; as in transformers, only rope_scaling counts."
        )
    return key, settings, problems


def _partly_rotated(fields: Fields, settings: Fields) -> list[str]:
    """Say so where a share of each head is asked for: transformers rotates all of it without scaling, else fails."""
    if all(place.number("partial_rotary_factor") in (None, 1) for place in (fields, settings)):
        return []
    if (settings.text("rope_type", "type") or "default") != "default":
        raise UnsupportedModelError(
            f"{fields.file} has a partial_rotary_factor with scaled rotation; only heads that rotate as a whole are "
            "supported."
        )
    return [
        f"{fields.file} has a partial_rotary_factor, which transformers ignores for {fields.text('model_type')}; "
        "so does this program."
    ]


def _windowed(fields: Fields, config: ModelConfig) -> ModelConfig:
    """Return the configuration limited to as many tokens as fit into the sliding window of its layers, if any has one.

    transformers' llama has no windows, whatever the keys say; a mistral has one in all layers.
    """
    family = fields.needed_text("model_type")
    if family == "llama":
        return config
    window = fields.integer("sliding_window") if family == "mistral" or fields.flag("use_sliding_window") else None
    kinds = fields.find("layer_types")[1] if family == "qwen2" else None
    if family == "mistral":
        slides = window is not None
    elif kinds is None:
        full = fields.integer("max_window_layers", low=0) or 0
        slides = window is not None and full < config.num_hidden_layers
    elif isinstance(kinds, list) and all(kind in ("full_attention", "sliding_attention") for kind in kinds):
        slides = "sliding_attention" in kinds[: config.num_hidden_layers]
    else:
        raise UnsupportedModelError(f"{fields.file} has layer_types other than full_attention and sliding_attention.")
    if not slides:
        return config
    if window is None:
        raise ArtifactError(
            f"{fields.file} has layer_types with sliding_attention, but no sliding_window that is in use; correct it."
        )
    if config.length_limit is not None and config.length_limit <= window:
        return config
    return replace(config, length_limit=window, length_limit_key="sliding_window")
