"""Read the hyper-parameters of an APR file: its keys and their aliases, and defaults, each of which is told."""

from collections.abc import Mapping
from functools import partial

from kernels.config import FULL, SLIDING, ModelConfig, RopeType
from kernels.errors import UnsupportedModelError
from kernels.family import Keys
from kernels.models import ARCHITECTURES, family
from store import rope
from store.artifact import TensorInfo
from store.errors import ArtifactError, not_run
from store.files.fields import Fields, shortest
from store.files.json_text import parse_object
from store.files.model_file import ModelFile
from store.names import EMBEDDING, LM_HEAD, ROPE_FREQS, is_gguf_name
from store.stored_model import StoredModel
from store.vocabulary import MAX_LAYERS, with_lists

_ADJACENT_PAIRS, _SPLIT_HALVES = 0, 2  # values of rope_type
_FAST = ("qwen2", "qwen3")  # whose rotary base aprender takes to be 1e6 where it is not said
_LAYERS = ("num_layers", "num_hidden_layers", "n_layers", "n_layer")
_UP = "model.layers.0.mlp.up_proj.weight"


def settings_of(file: str, metadata: Mapping[str, object]) -> Mapping[str, object]:
    """Return the metadata over what its `model_config` says, where entrenar keeps the Hugging Face config as text."""
    config = metadata.get("model_config")
    if not isinstance(config, str):
        return metadata
    inner = parse_object(config.encode("utf-8", "surrogateescape"), f"model_config of {file}")
    model_type = inner.pop("model_type", None)  # unlike that of the file it says the architecture
    own = {key: value for key, value in metadata.items() if value is not None and key != "model_config"}
    return {"architecture": model_type} | inner | own


def architecture_of(fields: Fields) -> str:
    """Return the family of a file; UnsupportedModelError for what is not run."""
    name = fields.text("architecture")
    if name is None or name.lower() == "auto":
        name = fields.text("hf_model_type") or fields.needed_text("model_type")
    architecture = name.lower()
    if architecture not in ARCHITECTURES:
        raise not_run(fields.file, "architecture", name)
    return architecture


def row_order(fields: Fields, architecture: str, tensors: Mapping[str, TensorInfo]) -> tuple[bool, RopeType, list[str]]:
    """Decide which q/k channels rotate together.

    Returns whether the stored rows are in the adjacent-pair order of llama GGUF files and must be put back, the
    rope type of the rows after that, and sentences for what had to be guessed.
    """
    stated = fields.integer("rope_type", low=0)
    if stated not in (None, _ADJACENT_PAIRS, _SPLIT_HALVES):
        raise UnsupportedModelError(f"{fields.file} has the rope_type {stated}; supported are 0 and 2.")
    origin = fields.text("original_format")
    from_gguf = origin == "gguf" or any(is_gguf_name(info.raw_name) for info in tensors.values())
    of = family(architecture)
    if of.pairs == "norm":
        return False, *_of_adjacent_pairs(fields, architecture, stated)
    pairs = of.interleaved
    if pairs and from_gguf and stated != _SPLIT_HALVES:
        return True, "neox", []
    if stated != _ADJACENT_PAIRS or (pairs and origin == "safetensors"):
        return False, "neox", []
    doubt = f"{fields.file} says rope_type 0 (adjacent pairs)"
    if pairs:
        return False, "neox", [f"{doubt}, but its Hugging Face names are taken to mean split halves."]
    if origin == "safetensors":
        return False, "neox", [f"{doubt}, but its SafeTensors origin is taken to mean split halves."]
    doubt += f", though every other engine rotates {architecture} by split halves; the file is taken at its word."
    return False, "norm", [doubt]


def _of_adjacent_pairs(fields: Fields, architecture: str, stated: int | None) -> tuple[RopeType, list[str]]:
    """The rotation of a family that turns adjacent pairs in every container, and what is odd about it."""
    if stated != _SPLIT_HALVES:
        return "norm", []
    return "neox", [
        f"{fields.file} says rope_type 2 (split halves), though every other engine rotates adjacent pairs of "
        f"{architecture}; the file is taken at its word."
    ]


def config_of(
    file: ModelFile,
    found: StoredModel,
    fields: Fields,
    architecture: str,
    rope_type: RopeType,
    tensors: Mapping[str, TensorInfo],
    doubts: list[str],
) -> ModelConfig:
    """Read the configuration; a sentence for each default that stands in for a missing key goes to `doubts`."""
    if EMBEDDING not in tensors:
        raise ArtifactError(f"{file.shown} lacks the tensor {EMBEDDING}, which the forward needs; convert it again.")
    config = _stated(found, fields, architecture, rope_type, tensors, doubts)
    rope.check_heads(file.shown, config)
    if fields.flag("use_sliding_window") and fields.integer("sliding_window") is None:
        raise fields.unsupported("sets use_sliding_window and does not say how many tokens sliding_window has.")
    untold = [key for key in family(architecture).told if key not in fields.values]
    if untold:
        raise ArtifactError(f"{fields.file} does not say {untold[0]}; add it, it is needed and cannot be guessed.")
    config = family(architecture).of_hugging_face(config, with_lists(fields))
    doubts += _unsaid(file, fields, config)
    return config


def _stated(
    found: StoredModel,
    fields: Fields,
    architecture: str,
    rope_type: RopeType,
    tensors: Mapping[str, TensorInfo],
    doubts: list[str],
) -> ModelConfig:
    """Return what the keys that all families have say, or what stands in for them."""
    default = partial(_default, fields, doubts)
    hidden = fields.needed_integer("hidden_size", "hidden_dim", "d_model", "n_embd")
    heads = fields.needed_integer("num_heads", "num_attention_heads", "n_heads", "n_head")
    size = rope.head_dim(fields, hidden, heads, "head_dim")
    theta = fields.number("rope_theta") or default("rope_theta", 1e6 if architecture in _FAST else 1e4)
    kv_heads = fields.integer("num_kv_heads", "num_key_value_heads", "n_kv_heads")
    eps = fields.number("rms_norm_eps", family(architecture).key("rms_norm_eps"), "layer_norm_eps", "norm_eps", "eps")
    rotated = rope.hf_rotary_dim(family(architecture), fields, fields, size)
    scaling = _scaling(found, fields, architecture, tensors, theta, rotated or size)
    return ModelConfig(
        architecture=architecture,
        num_hidden_layers=fields.needed_integer(*_LAYERS, high=MAX_LAYERS),
        hidden_size=hidden,
        intermediate_size=_intermediate_size(fields, tensors),
        num_attention_heads=heads,
        num_key_value_heads=kv_heads or int(default("num_kv_heads", heads)),
        head_dim=size,
        vocab_size=_vocab_size(fields, tensors, doubts),
        rms_norm_eps=shortest(eps or default("rms_norm_eps", 1e-6)),
        rope_theta=shortest(theta),
        rope_type=rope_type,
        tie_word_embeddings=LM_HEAD not in tensors,
        max_position_embeddings=fields.integer("max_position_embeddings", "context_length", "max_seq_len", "n_ctx"),
        rotary_dim=rotated,
        rope_factors=scaling.factors,
        rope_long_factors=scaling.long_factors,
        rope_attention_factor=scaling.attention_factor,
        rope_ramp=scaling.ramp,
        length_limit=scaling.limit,
        length_limit_key=scaling.limit_key,
    )


def _default(fields: Fields, doubts: list[str], key: str, value: int | float) -> int | float:
    doubts.append(f"{fields.file} does not say {key}; {value:g} is used, which is a guess.")
    return value


def _vocab_size(fields: Fields, tensors: Mapping[str, TensorInfo], doubts: list[str]) -> int:
    size = tensors[EMBEDDING].shape[0]
    if fields.integer("vocab_size", "n_vocab", low=0) not in (None, 0, size):
        doubts.append(f"{fields.file} claims another vocabulary size than the {size} rows of its embedding.")
    return size


def _intermediate_size(fields: Fields, tensors: Mapping[str, TensorInfo]) -> int:
    """What is said, else the rows of a tensor that has as many."""
    keys = ("intermediate_size", "intermediate_dim", "ffn_dim", "n_inner")
    told = fields.integer(*keys)
    return told or (tensors[_UP].shape[0] if _UP in tensors else fields.needed_integer(*keys))


def _unsaid(file: ModelFile, fields: Fields, config: ModelConfig) -> list[str]:
    """Say so where a family has windows, or a scale of its own, unless a file says otherwise, and it is silent."""
    of = family(config.architecture)
    sentences = []
    if "query_pre_attn_scalar" in of.defaults and fields.number("query_pre_attn_scalar") is None:
        used = f"head_dim, {config.head_dim}, is used"
        sentences.append(f"{file.shown} does not say query_pre_attn_scalar; {used}, which is a guess.")
    switched = "use_sliding_window" in of.keys.get("safetensors", Keys()).used  # and off unless a file turns it on
    said = config.sliding_window is not None or config.layer_types is not None or "sliding_window" in fields.values
    if "sliding_window" in of.defaults and not switched and not said:
        used = f"{config.architecture} is run without windows in any layer"
        sentences.append(f"{file.shown} does not say sliding_window; {used}, which is a guess.")
    return sentences


def _scaling(
    found: StoredModel,
    fields: Fields,
    architecture: str,
    tensors: Mapping[str, TensorInfo],
    theta: float,
    head_dim: int,
) -> rope.Scaling:
    if ROPE_FREQS in tensors:
        return rope.Scaling(rope.stored_factors(found, tensors[ROPE_FREQS], head_dim))
    group, scaling = fields.find("rope_scaling", "rope_parameters")
    if scaling is None:
        return rope.Scaling()
    if not isinstance(scaling, dict) or {FULL, SLIDING} & scaling.keys():
        raise UnsupportedModelError(
            f"{fields.file} gives {group} as something else than an object for all layers, which is not read; correct "
            "the file."
        )
    return rope.hf_scaling(family(architecture), group, Fields(fields.file, scaling), fields, theta, head_dim)
