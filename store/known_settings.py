"""The keys that each container has, and what its engine makes of them; what a family adds stands in its own file.

Read from transformers 5.23 (configuration_{llama,qwen2}.py, modeling_rope_utils.py, masking_utils.py) and llama.cpp as
in llama-cpp-python 0.3.36 (llama-model.cpp, llama-context.cpp, models/{llama,qwen2}.cpp). A key that stands nowhere is
listed as not understood.
"""

from collections.abc import Iterator, Mapping

from kernels.family import OF_SLIDING, Family, Keys
from store.files.fields import show_value
from store.settings import Setting, Table
from store.text import printable

RMS_NORM_EPSILON, LAYER_NORM_EPSILON = "attention.layer_norm_rms_epsilon", "attention.layer_norm_epsilon"

# Scales, caps and parts that other families have: values under which they do nothing.
_OTHER_FAMILIES: dict[str, tuple[object, ...]] = {
    "attn_logit_softcapping": (),
    "final_logit_softcapping": (),
    "logit_scale": (1,),
}

_ROPE_KEYS = (
    *("rope_type", "type", "rope_theta", "factor", "original_max_position_embeddings", "attention_factor"),
    *("low_freq_factor", "high_freq_factor", "beta_fast", "beta_slow", "mscale", "mscale_all_dim", "truncate"),
    *("short_factor", "long_factor", "partial_rotary_factor"),
)
_ROPE = tuple(f"{group}.{key}" for group in ("rope_parameters", "rope_scaling") for key in _ROPE_KEYS)

_HF = Table(
    engine="transformers",
    used=frozenset(
        (
            *("model_type", "hidden_size", "intermediate_size", "num_hidden_layers", "vocab_size", "head_dim"),
            *("num_attention_heads", "num_key_value_heads", "rms_norm_eps", "hidden_act", "tie_word_embeddings"),
            *("max_position_embeddings", "rope_theta", "rope_parameters", "rope_scaling", *_ROPE),
            *("original_max_position_embeddings", "partial_rotary_factor", "is_causal", "quantization_config"),
            "transformers_weights",
        )
    ),
    refused=_OTHER_FAMILIES
    | {
        "attention_multiplier": (),
        "embedding_multiplier": (1,),
        "residual_multiplier": (1,),
        "logits_scaling": (1,),
        "clip_qkv": (),
        "qk_norm": (),
        "use_qk_norm": (),
        "alibi": (),
        "attention_chunk_size": (),
        "no_rope_layers": (),
        "num_experts": (),
        "num_local_experts": (),
        "n_routed_experts": (),
        "per_layer_config": (),
    },
    ignored={"rope_interleaved": ()},
    irrelevant=(
        *("architectures", "transformers_version", "torch_dtype", "dtype", "auto_map", "_name_or_path", "name_or_path"),
        *("_attn_implementation*", "attn_implementation", "use_cache", "cache_implementation", "pretraining_tp"),
        *("initializer_range", "attention_dropout", "hidden_dropout*", "resid_pdrop", "embd_pdrop", "layerdrop"),
        *("gradient_checkpointing*", "chunk_size_feed_forward", "output_*", "return_dict*", "use_bfloat16"),
        *("*bos_token_id", "*eos_token_id", "*pad_token_id", "*sep_token_id", "unk_token_id", "decoder_start_token_id"),
        *("tokenizer_class", "prefix", "suppress_tokens*", "begin_suppress_tokens*", "task_specific_params*"),
        *("id2label*", "label2id*", "num_labels", "problem_type", "finetuning_task", "is_llama_config"),
        *("is_decoder", "is_encoder_decoder", "add_cross_attention", "cross_attention_hidden_size"),
        *("tie_encoder_decoder", "pruned_heads*", "torchscript", "tf_legacy_loss", "use_return_dict"),
        *("max_length", "min_length", "do_sample", "early_stopping", "num_beams", "num_beam_groups", "temperature"),
        *("top_k", "top_p", "typical_p", "repetition_penalty", "length_penalty", "no_repeat_ngram_size"),
        *("encoder_no_repeat_ngram_size", "bad_words_ids", "num_return_sequences", "diversity_penalty"),
        *("exponential_decay_length_penalty", "forced_*_token_id", "remove_invalid_values", "num_logits_to_keep"),
        *("transformers.js_config*", "unsloth_*", "rope_parameters.finetuned", "rope_scaling.finetuned"),
    ),
)

_GGUF = Table(
    engine="llama.cpp",
    used=frozenset(
        (
            *("general.architecture", "general.alignment", "split.count", "context_length", "embedding_length"),
            *("block_count", "feed_forward_length", "vocab_size", "nextn_predict_layers"),
            *("attention.head_count", "attention.head_count_kv", "attention.key_length", "attention.value_length"),
            "attention.causal",
            *("rope.dimension_count", "rope.freq_base", "rope.scale_linear", "rope.scaling.type"),
            *("rope.scaling.factor", "rope.scaling.attn_factor", "rope.scaling.original_context_length"),
        )
    ),
    refused={"expert_count": (), "expert_used_count": (), "expert_group_count": (1,), "expert_shared_count": ()},
    ignored=_OTHER_FAMILIES
    | {
        "residual_scale": (1,),
        "embedding_scale": (1,),
        "attention.clamp_kqv": (),
        "attention.max_alibi_bias": (),
        "attention.output_scale": (1,),
        "attention.value_scale": (1,),
        "attention.temperature_scale": (),
        "attention.shared_kv_layers": (0,),
        "use_parallel_residual": (),
        "attention.sliding_window": (),
        "attention.sliding_window_pattern": (),
        "hidden_activation": ("silu", "swish"),
        "rope.scaling.alpha": (),
        "rope.scaling.yarn_ext_factor": (1,),
        "rope.scaling.yarn_attn_factor": (1,),
        "rope.scaling.yarn_beta_fast": (32,),
        "rope.scaling.yarn_beta_slow": (1,),
        "rope.scaling.yarn_log_multiplier": (),
    },
    irrelevant=(
        *("general.*", "tokenizer.*", "quantize.*", "split.no", "split.tensors.count", "GGUF.*"),
        *("rope.scaling.finetuned", "pooling_type", "tensor_data_layout", "embedding_length_out", *OF_SLIDING),
        "attention.scale",
    ),
)

_APR = Table(
    engine="APR",
    used=frozenset(
        (
            *("architecture", "model_type", "original_format", "hidden_size", "hidden_dim", "d_model", "n_embd"),
            *("num_layers", "num_hidden_layers", "n_layers", "n_layer", "num_heads", "num_attention_heads", "n_heads"),
            *("n_head", "num_kv_heads", "num_key_value_heads", "n_kv_heads", "intermediate_size", "intermediate_dim"),
            *("ffn_dim", "n_inner", "head_dim", "vocab_size", "n_vocab", "rope_theta", "rope_type", "rms_norm_eps"),
            *("layer_norm_eps", "norm_eps", "eps", "max_position_embeddings", "context_length", "max_seq_len", "n_ctx"),
            *("rope_scaling", "rope_parameters", *_ROPE, "sharding", "sharding.shard_count"),
        )
    ),
    refused=_OTHER_FAMILIES
    | {
        "hidden_act": ("silu", "swish"),
        "partial_rotary_factor": (1,),
        "use_sliding_window": (),
        "num_experts": (),
        "num_local_experts": (),
    },
    irrelevant=(
        *("name", "version", "description", "author", "license", "data_source", "data_license", "source", "created_at"),
        *("total_size", "param_count", "quantization*", "tokenizer.*", "tied_embeddings", "custom*"),
        *("sharding.*", "sliding_window", "max_window_layers"),
        *("provenance*", "training*", "chat_template*", "special_tokens*", "bos_token_id", "eos_token_id"),
    ),
)

_BASE = {"safetensors": _HF, "gguf": _GGUF, "apr": _APR}


def table(format: str, of: Family) -> Table:
    """What the keys of a container mean for models of a family; APR spells them as Hugging Face does."""
    base, more = _BASE[format], of.keys.get(format, Keys())
    if format == "apr" and "safetensors" in of.keys:
        more = more._replace(used=more.used | of.keys["safetensors"].used)
    own, others = frozenset(of.spelled.values()), frozenset(of.spelled if format == "safetensors" else ())
    if format == "gguf":
        norms = (LAYER_NORM_EPSILON, RMS_NORM_EPSILON) if of.layer_norms else (RMS_NORM_EPSILON, LAYER_NORM_EPSILON)
        own, more = frozenset(norms[:1]), more._replace(irrelevant=(*more.irrelevant, norms[1]))
    if of.partly and format != "gguf":
        more = more._replace(used=more.used | {of.partly[0]})
    refused = {key: values for key, values in base.refused.items() if key not in more.used | more.ignored.keys()}
    if format == "apr":
        refused[of.activations[0]] = of.activations[1]
    return base._replace(
        used=(base.used - others) | own | more.used,
        refused=refused,
        ignored={key: values for key, values in {**base.ignored, **more.ignored}.items() if key not in more.used},
        irrelevant=(*base.irrelevant, *more.irrelevant),
    )


def settings_of(format: str, of: Family, metadata: Mapping[str, object]) -> list[Setting]:
    """Return every key of a model's metadata in the file's own order; keys within objects as outer.inner."""
    keys, prefix = table(format, of), f"{of.gguf}." if format == "gguf" else ""
    flat = _flat(metadata) if format != "gguf" else metadata.items()
    return [Setting(printable(key, 200), show_value(value), keys.use(key.removeprefix(prefix))) for key, value in flat]


def _flat(metadata: Mapping[str, object]) -> Iterator[tuple[str, object]]:
    for key, value in metadata.items():
        if isinstance(value, dict) and value:
            yield from ((f"{key}.{inner}", item) for inner, item in value.items())
        else:
            yield key, value
