"""Read a config.json of Hugging Face's as transformers 5 reads it, defaults of absent keys included."""

from collections.abc import Mapping

from kernels.config import FULL, SLIDING, ModelConfig
from kernels.errors import UnsupportedModelError
from kernels.family import Family
from kernels.models import architecture_of, called
from store import rope
from store.errors import ArtifactError, not_run
from store.files.fields import Fields
from store.known_settings import table
from store.names import HEAD_BIAS, LM_HEAD, layer_of
from store.stored_model import TensorInfo
from store.text import printable
from store.vocabulary import MAX_LAYERS

_THETA = 10000.0
# Of models that are not run, by themselves or with pictures: `1.0 + self.weight` in modeling_*.py of transformers 5.24.
_LESS_ONE = frozenset(
    (
        *("gemma3", "minimax_m3_vl", "muse_glimmer", "qwen3_next", "qwen3_5", "qwen3_5_text", "qwen3_5_moe"),
        *("qwen3_5_moe_text", "qwen4_exp", "recurrent_gemma", "t5gemma", "t5gemma2", "vaultgemma"),
    )
)
_SPOKEN_OF = ("rms_norm_eps", "num_key_value_heads")  # defaults that no tensor would contradict


def family_of(model_type: str) -> Family | None:
    """Return the family of models that transformers calls so; None for one that is not known."""
    return called(model_type, lambda family: model_type in family.model_types)


def norms_less_one(values: Mapping[str, object]) -> bool:
    """Tell whether transformers adds 1 to the norm weights that are stored."""
    model_type = str(values.get("model_type"))
    found = family_of(model_type)
    return model_type in _LESS_ONE if found is None else found.less_one


def _family(fields: Fields) -> Family:
    found = family_of(fields.needed_text("model_type"))
    assert found is not None
    return found


def supported_fields(file: str, values: Mapping[str, object]) -> tuple[Fields, list[str]]:
    """Return the configuration with transformers' defaults filled in, and sentences about what is odd in it.

    Raises UnsupportedModelError, by name, for an architecture or a setting that this program does not compute.
    """
    given = Fields(file, values)
    model_type = given.needed_text("model_type")
    found = family_of(model_type)
    if found is None:
        raise not_run(file, "model_type", model_type)
    key, names = found.activations
    activation = given.text(key)
    if activation is not None and activation not in names:
        raise UnsupportedModelError(
            f"{file} has the activation {printable(activation, 80) or 'of no name'}; only {names[0]} is supported."
        )
    problems = table("safetensors", found).check(given, model_type)
    absent = {key: value for key, value in found.defaults.items() if key not in values}
    problems += [
        f"{file} does not say {key}; {value} is used, as transformers does."
        for key, value in absent.items()
        if key in map(found.key, _SPOKEN_OF)
    ]
    return Fields(file, {**values, **absent}), problems


def config_of(fields: Fields, has_lm_head: bool) -> tuple[ModelConfig, list[str]]:
    """Return the hyper-parameters that filled-in fields give, and sentences about what is odd in them."""
    key = _family(fields).key
    hidden = fields.needed_integer(key("hidden_size"))
    heads = fields.needed_integer(key("num_attention_heads"))
    group, settings, problems = _rope_settings(fields)
    fields = _with_local_base(fields)
    theta = settings.number("rope_theta") or fields.number(key("rope_theta")) or _THETA
    rotated: int | None
    if _family(fields).latent:
        still, turned = fields.needed_integer("qk_nope_head_dim"), fields.needed_integer("qk_rope_head_dim")
        size, rotated = rope.latent_head(fields, still + turned, turned, "qk_rope_head_dim")
    else:
        size = rope.head_dim(fields, hidden, heads, "head_dim")
        rotated = rope.hf_rotary_dim(_family(fields), settings, fields, size)
    scaling = rope.hf_scaling(_family(fields), group, settings, fields, theta, rotated or size)
    tied = bool(fields.flag("tie_word_embeddings"))
    config = ModelConfig(
        architecture=architecture_of(_family(fields)),
        num_hidden_layers=fields.needed_integer(key("num_hidden_layers"), high=MAX_LAYERS),
        hidden_size=hidden,
        intermediate_size=fields.needed_integer(key("intermediate_size")),
        num_attention_heads=heads,
        num_key_value_heads=fields.integer(key("num_key_value_heads")) or heads,
        head_dim=size,
        vocab_size=fields.needed_integer("vocab_size"),
        rms_norm_eps=fields.needed_number(key("rms_norm_eps")),
        rope_theta=theta,
        rope_type=_family(fields).pairs,
        tie_word_embeddings=tied and not has_lm_head,
        max_position_embeddings=fields.integer(key("max_position_embeddings")),
        rotary_dim=rotated,
        rope_factors=scaling.factors,
        rope_long_factors=scaling.long_factors,
        rope_attention_factor=scaling.attention_factor,
        rope_ramp=scaling.ramp,
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
    config = _family(fields).of_hugging_face(config, fields)
    if config.length_limit is not None:
        run = (
            "only up to there the model is run" if config.rope_long_factors is None else "longer texts are run with it"
        )
        problems.append(
            f"{fields.file} sets {config.length_limit_key}, which changes what is computed beyond "
            f"{config.length_limit} tokens; {run}."
        )
    return config, problems


def drop_unused_biases(file: str, tensors: dict[str, TensorInfo], fields: Fields) -> list[str]:
    """Remove the biases that transformers does not load into a model of this configuration; say which."""
    family, of = fields.needed_text("model_type"), _family(fields)
    biased = of.loaded_biases(fields)
    of_layers = {name: name.split(".", 3)[-1] for name in tensors if layer_of(name) is not None}
    dropped = [
        name
        for name, own in of_layers.items()
        if own in of.not_loaded or (own.endswith("_proj.bias") and own not in biased)
    ]
    for name in dropped:
        del tensors[name]
    if HEAD_BIAS not in biased and tensors.pop(HEAD_BIAS, None) is not None:
        head = [f"{file} stores {HEAD_BIAS}, which transformers does not load in {family}; it is not used."]
    else:
        head = []
    if not dropped:
        return head
    key = "mlp_bias" if dropped[0].split(".", 3)[-1].startswith("mlp.") else "attention_bias"
    why = f"without {key}" if key in table("safetensors", _family(fields)).used else f"in {family}"
    return [
        *head,
        f"{file} stores {len(dropped)} biases that transformers does not load {why}, the first is "
        f"{printable(dropped[0], 80)}; they are not used.",
    ]


def _rope_settings(fields: Fields) -> tuple[str, Fields, list[str]]:
    """Return name and content of `rope_scaling`, which counts alone if it is not empty, or of `rope_parameters`."""
    old, new = (fields.find(key)[1] for key in ("rope_scaling", "rope_parameters"))
    key, value = ("rope_scaling", old) if old else ("rope_parameters", new)
    if _family(fields).local_base:
        return _of_full_layers(fields, old, new)
    if not isinstance(value, dict | None):
        raise ArtifactError(f"{fields.file} gives {key} as something else than an object; correct the file.")
    settings = Fields(fields.file, value or _family(fields).rope_usual)
    problems = _partly_rotated(fields, settings)
    for kind in (FULL, SLIDING):
        if kind in settings.values and "rope_type" not in settings.values:
            raise UnsupportedModelError(
                f"{fields.file} gives {key} for each kind of layer; only one for all layers is supported."
            )
    if old and new:
        problems.append(
            f"{fields.file} gives both rope_scaling and rope_parameters; as in transformers, only rope_scaling counts."
        )
    return key, settings, problems


def _of_full_layers(fields: Fields, old: object, new: object) -> tuple[str, Fields, list[str]]:
    """Return the same of a model whose layers rotate by their kind: `rope_scaling` is added to that of full layers."""
    settings = _of_kind(fields, FULL).values or {"rope_type": "default"}
    if isinstance(new, dict) and {FULL, SLIDING} & new.keys() and (more := new.keys() - {FULL, SLIDING}):
        raise ArtifactError(
            f"{fields.file} gives rope_parameters for each kind of layer and {printable(min(more), 80)} beside them, "
            "which is of none; correct the file."
        )
    if old is not None and not isinstance(old, dict):
        raise ArtifactError(f"{fields.file} gives rope_scaling as something else than an object; correct the file.")
    found = Fields(fields.file, {**settings, **(old or {})})
    return "rope_scaling" if old and not new else f"rope_parameters.{FULL}", found, _partly_rotated(fields, found)


def _with_local_base(fields: Fields) -> Fields:
    """Return the settings with the rotary base of sliding layers where older configurations have it."""
    key = _family(fields).local_base
    if not key:
        return fields
    settings = _of_kind(fields, SLIDING)
    if (kind := settings.text("rope_type", "type")) not in (None, "default"):
        raise UnsupportedModelError(
            f"{fields.file} scales the rotary embedding of sliding layers by {printable(str(kind), 80)}; only that of "
            "the others can be scaled."
        )
    if settings.number("partial_rotary_factor") not in (None, 1):
        raise UnsupportedModelError(
            f"{fields.file} gives rope_parameters.{SLIDING}.partial_rotary_factor, by which a part of each head "
            "rotates; only heads that rotate as a whole are supported."
        )
    base, of = settings.number("rope_theta"), _family(fields)
    if base is None and key not in of.keys["safetensors"].used:  # what such a key says is not read
        return Fields(fields.file, {**fields.values, key: of.defaults[key]})
    return fields if base is None else Fields(fields.file, {**fields.values, key: base})


def _of_kind(fields: Fields, kind: str) -> Fields:
    """Return what `rope_parameters` says of the layers of a kind."""
    both = fields.find("rope_parameters")[1]
    if not isinstance(both, dict | None) or (both and not {FULL, SLIDING} & both.keys()):
        raise UnsupportedModelError(
            f"{fields.file} gives rope_parameters for all layers at once; give those of {FULL} and {SLIDING}."
        )
    own = (both or {}).get(kind)
    if not isinstance(own, dict | None):
        raise ArtifactError(f"{fields.file} gives {kind} as something else than an object; correct the file.")
    return Fields(fields.file, own or {})


def _partly_rotated(fields: Fields, settings: Fields) -> list[str]:
    """Say so where a share of each head is asked for: transformers rotates all of it without scaling, else fails."""
    given = (place.number("partial_rotary_factor") for place in (fields, settings))
    if _family(fields).partly or all(share in (None, 1) for share in given):
        return []
    kind = settings.text("rope_type", "type") or "default"
    if kind == "proportional" and kind in (_family(fields).rope_kinds or ()):
        return []
    if kind != "default":
        raise UnsupportedModelError(
            f"{fields.file} has a partial_rotary_factor with scaled rotation; only heads that rotate as a whole are "
            "supported."
        )
    return [
        f"{fields.file} has a partial_rotary_factor, which transformers ignores for {fields.text('model_type')}; "
        "so does this program."
    ]
