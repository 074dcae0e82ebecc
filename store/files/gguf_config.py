"""Read the hyper-parameters of a GGUF as llama.cpp reads them."""

from collections.abc import Mapping
from dataclasses import replace

from kernels.config import ModelConfig
from kernels.errors import UnsupportedModelError
from kernels.family import Family, Keys
from kernels.models import architecture_of
from store import rope
from store.errors import ArtifactError
from store.files.fields import Fields, shortest
from store.files.model_file import ModelFile
from store.known_settings import LAYER_NORM_EPSILON, RMS_NORM_EPSILON, table
from store.names import EMBEDDING, LM_HEAD, ROPE_FREQS, ROPE_LONG, ROPE_SHORT, layer_of
from store.stored_model import StoredModel, TensorInfo
from store.text import printable
from store.vocabulary import MAX_LAYERS, LazyArray, with_lists

_KEY_HEADS = "attention.head_count_kv"
_HEADS = ("attention.head_count", _KEY_HEADS)
_SHARED = "attention.shared_kv_layers"
_WIDTHS = "feed_forward_length"
_KEYS, _VALUES = "self_attn.k_proj.weight", "self_attn.v_proj.weight"
_PER_LAYER = (
    *(*_HEADS, _WIDTHS, "expert_used_count"),
    "expert_feed_forward_length",
)


def config_of(
    file: ModelFile, of: Family, found: StoredModel, tensors: Mapping[str, TensorInfo]
) -> tuple[ModelConfig, list[str]]:
    """Return the hyper-parameters of a model of a family, and sentences about settings that look as if they mattered.

    tensors : those that count of `found`.

    Raises ArtifactError for what is missing or cannot be, UnsupportedModelError, by name, for what is not computed.
    """
    fields = Fields(file.shown, _uniform(file.shown, found.metadata, of), f"{of.gguf}.")
    problems = table("gguf", of).check(fields, str(of.gguf))
    if EMBEDDING not in tensors:
        raise ArtifactError(f"{file.shown} lacks the tensor token_embd.weight; convert the model again.")
    config = _stated(fields, of, found, tensors)
    if of.norms_differ:
        config = replace(config, normed_heads=any(name.endswith("self_attn.q_norm.weight") for name in tensors))
    if of.two_heads:
        own = config.num_hidden_layers - (fields.integer(_SHARED, low=0) or 0)
        keys = [name for name in tensors if name.endswith(_KEYS) and (layer_of(name) or 0) < own]
        config = replace(config, keys_as_values=any(name.replace(_KEYS, _VALUES) not in tensors for name in keys))
    rope.check_heads(file.shown, config)
    _refuse_what_follows(fields, of, tensors)
    config = of.of_gguf(config, with_lists(fields))
    return config, [*problems, *_odd(fields, of, config)]


def _stated(fields: Fields, of: Family, found: StoredModel, tensors: Mapping[str, TensorInfo]) -> ModelConfig:
    """Return what the keys that all families have say."""
    hidden = fields.needed_integer("embedding_length")
    heads = fields.needed_integer("attention.head_count")
    size, rotated = _head(fields, of, hidden, heads)
    theta = shortest(fields.number("rope.freq_base") or 10000.0)
    epsilon = LAYER_NORM_EPSILON if of.layer_norms else RMS_NORM_EPSILON
    scaling = _scaling(found, of, fields, tensors, theta, rotated or size)
    return ModelConfig(
        architecture=architecture_of(of),
        num_hidden_layers=_layers(fields, of),
        hidden_size=hidden,
        intermediate_size=_width(fields),
        num_attention_heads=heads,
        num_key_value_heads=(None if of.latent or of.two_heads else fields.integer("attention.head_count_kv")) or heads,
        head_dim=size,
        vocab_size=tensors[EMBEDDING].shape[0],
        rms_norm_eps=shortest(fields.needed_number(epsilon)) if of.epsilon_read else 0.0,
        rope_theta=theta,
        rope_type=of.pairs,  # of the canonical rows, see `interleaved_tensors`
        tie_word_embeddings=LM_HEAD not in tensors,
        max_position_embeddings=fields.integer("context_length"),
        rotary_dim=rotated,
        rope_factors=scaling.factors,
        rope_long_factors=scaling.long_factors,
        rope_attention_factor=scaling.attention_factor,
        rope_ramp=scaling.ramp,
        causal=fields.flag("attention.causal") is not False,
        recurrent_layers=_recurrent(found.metadata.get(f"{of.gguf}.{_KEY_HEADS}")) if of.headless else None,
        length_limit=scaling.limit,
        length_limit_key=scaling.limit_key,
    )


def _layers(fields: Fields, of: Family) -> int:
    """Return how many layers are run, without those that predict further tokens."""
    unrun = (fields.integer("nextn_predict_layers", low=0) or 0) if of.predicts else 0
    layers = fields.needed_integer("block_count", high=MAX_LAYERS) - unrun
    if layers < 1:
        raise fields.wrong(f"has nextn_predict_layers {unrun}, which leaves no layer to run; convert the model again.")
    return layers


def _odd(fields: Fields, of: Family, config: ModelConfig) -> list[str]:
    """Return sentences about what is done otherwise than it is said or may be expected."""
    problems = _ignored_scale(fields, of, config)
    if config.length_limit is not None:
        longer = (
            f"{fields.file} has the tensor {ROPE_LONG}, which llama.cpp takes where its context has room for more than "
            f"{config.length_limit} tokens, however long the text is; here texts of more are run with it."
        )
        problems = [longer, *problems]
    stated = fields.integer("vocab_size")
    if stated not in (None, config.vocab_size):
        problems.append(
            f"{fields.file} claims a vocabulary of {stated}, but its embedding has {config.vocab_size} rows; "
            "the rows are used."
        )
    return problems


def _width(fields: Fields) -> int:
    """Return the channels of the feed-forward block, of the first layer where they differ."""
    _, given = fields.find(_WIDTHS)
    widths = given.decode() if isinstance(given, LazyArray) and len(given) <= MAX_LAYERS else []
    return widths[0] if widths and type(widths[0]) is int else fields.needed_integer(_WIDTHS)


def _head(fields: Fields, of: Family, hidden: int, heads: int) -> tuple[int, int | None]:
    """Return channels of a head of q and k, and how many of them rotate, None for all."""
    if of.latent:  # what is said without MLA is of the latents that all heads share, but in old files
        size = fields.integer("attention.key_length_mla", low=0) or fields.needed_integer("attention.key_length")
        turned = fields.needed_integer("rope.dimension_count")
        return rope.latent_head(fields, size, turned, f"{fields.prefix}rope.dimension_count")
    size = rope.head_dim(fields, hidden, heads, "attention.key_length")
    if (values := fields.integer("attention.value_length")) not in (None, size):
        raise fields.unsupported(f"gives values {values} channels a head and keys {size}; only as many are supported.")
    return size, _rotary_dim(fields, of, size)


def _rotary_dim(fields: Fields, of: Family, head_dim: int) -> int | None:
    """Return how many channels of each head rotate, None for all."""
    rotated = fields.integer("rope.dimension_count")
    if of.partly is None and rotated not in (None, head_dim):  # llama.cpp aborts, but where rows are in pairs
        raise fields.unsupported(
            f"rotates {rotated} of {head_dim} channels of each head ({fields.prefix}rope.dimension_count); only whole "
            f"heads are supported in {of.gguf}."
        )
    return rope.rotary_dim(fields, rotated, head_dim, f"{fields.prefix}rope.dimension_count")


def _scaling(
    found: StoredModel,
    of: Family,
    fields: Fields,
    tensors: Mapping[str, TensorInfo],
    theta: float,
    head_dim: int,
) -> rope.Scaling:
    """Return the rotary scaling of the metadata, on top of the divisors that a tensor may hold.

    llama.cpp multiplies q and k by attn_factor whatever the type, and looks for tensors in some families only: for one
    of short texts and one of long ones, of which it takes the second where its context is longer than the original.
    """
    kind = fields.text("rope.scaling.type") or "linear"
    factor = rope.ggml_factor(fields)
    if kind == "none":
        scaling = rope.Scaling()
    elif kind == "linear":
        scaling = rope.Scaling(rope.linear(factor, head_dim))
    elif kind == "yarn":
        original = fields.integer("rope.scaling.original_context_length", low=0)
        original = original or fields.needed_integer("context_length")
        scaling = rope.ggml_yarn(fields, of.keys.get("gguf", Keys()).used, original, theta, head_dim)
    elif kind == "longrope" and of.long_rope:
        scaling = rope.Scaling(rope.linear(factor, head_dim))
    else:
        raise UnsupportedModelError(
            f"{fields.file} scales its rotary embedding by {printable(kind, 80)}; supported are none, linear, yarn and "
            "the frequency tensor of llama3."
        )
    attention_factor = scaling.attention_factor * shortest(fields.number("rope.scaling.attn_factor") or 1.0)
    long = of.long_rope and (kind == "longrope" or not of.rope_freqs)
    name = ROPE_SHORT if long else ROPE_FREQS if of.rope_freqs else None

    def divided(by: str | None) -> rope.Factors:
        """The divisors with those of a tensor, if there is one."""
        if by is None or by not in tensors:
            return scaling.factors
        stored = rope.stored_factors(found, tensors[by], head_dim)
        return tuple(a * b for a, b in zip(stored, scaling.factors or (1.0,) * len(stored), strict=True))

    made = scaling._replace(factors=divided(name), attention_factor=attention_factor)
    if name == ROPE_SHORT and ROPE_LONG in tensors:
        key = "rope.scaling.original_context_length"
        original = fields.integer(key, low=0) or fields.needed_integer("context_length")
        key = f"{ROPE_LONG} and {fields.prefix}{key}"
        return made._replace(long_factors=divided(ROPE_LONG), limit=original, limit_key=key)
    return made


def _refuse_what_follows(fields: Fields, of: Family, tensors: Mapping[str, TensorInfo]) -> None:
    """Refuse what would be done to the logits."""
    for name, what in of.after_head.items():
        if name in tensors:
            raise UnsupportedModelError(
                f"{fields.file} has the tensor {name}, which llama.cpp {what} and this program does not compute; use a "
                "model without it."
            )


def _ignored_scale(fields: Fields, of: Family, config: ModelConfig) -> list[str]:
    """A sentence about another score scale than the usual one, of which llama.cpp takes notice in few families."""
    used = "attention.scale" in of.keys.get("gguf", Keys()).used
    scale = fields.number("attention.scale") if fields.find("attention.scale")[1] and not used else None
    if scale is None or abs(scale * config.head_dim**0.5 - 1) <= 1e-6:
        return []
    return [
        f"{fields.file} sets {fields.prefix}attention.scale to {scale:g}, which llama.cpp ignores for {of.gguf}; "
        "so does this program."
    ]


def _uniform(file: str, metadata: Mapping[str, object], of: Family) -> dict[str, object]:
    """Return the metadata with each per-layer setting that is the same in all layers as a single value.

    Layers without heads do not count in a family that has such; one with two kinds of heads reads itself how many of
    keys there are, and how wide the feed-forward block is.
    """
    own = tuple(f"{of.gguf}.{key}" for key in (_KEY_HEADS, _WIDTHS)) if of.two_heads else ()
    return {
        key: _single(file, key, value, of.headless and key.endswith(_HEADS))
        if key.endswith(_PER_LAYER) and isinstance(value, LazyArray) and key not in own
        else value
        for key, value in metadata.items()
    }


def _single(file: str, key: str, values: LazyArray, without_none: bool) -> object:
    distinct = set(values.decode()) if len(values) <= MAX_LAYERS else set()
    if without_none and len(distinct) > 1:
        distinct.discard(0)
    if len(distinct) != 1:
        raise UnsupportedModelError(
            f"{file} gives {printable(key, 80)} for each layer; only models with the same in all layers are supported."
        )
    return distinct.pop()


def _recurrent(heads: object) -> tuple[bool, ...] | None:
    """Return which layers have no heads of keys; None where all have."""
    counts = heads.decode() if isinstance(heads, LazyArray) and len(heads) <= MAX_LAYERS else []
    return tuple(count == 0 for count in counts) if 0 in counts else None
