"""Tiny models on disk in all three formats; the model in memory that each function returns is what a reader must find.

`tiny_gguf(path)`, `tiny_safetensors(folder)`, `tiny_apr(path)` and `tiny_realizar_apr(path)` share their arguments,
those of `tiny_model`; equal arguments give equal weights, so the files are copies of one model.
"""

import json
import struct
from collections.abc import Mapping
from pathlib import Path

import gguf
import numpy as np

from kernels.config import FULL, SLIDING, ModelConfig
from kernels.models import ARCHITECTURES, family
from kernels.rows.dequantize import dequantize
from kernels.weight import TensorType, Weight
from store.files.apr_writer import AprTensor, write_apr
from store.names import gguf_name
from store.stored_model import NORM
from tests.delta_files import gguf_delta, hf_delta, unsqueezed
from tests.expert_stacks import STACKED
from tests.memory_model import YARN, MemoryModel, random_model
from tests.scan_files import MULTIPLIERS, without_multipliers


def tiny_model(arch: str = "qwen2", type: str | TensorType = "F32", **sizes) -> MemoryModel:
    """A random model, wide enough for whole blocks of `type`; `sizes` are those of random_model."""
    stored = TensorType[type] if isinstance(type, str) else type
    if stored.block.elements > 32:
        sizes = {"hidden": 256, "head_dim": 256 // sizes.get("heads", 4), "ffn": 512} | sizes
    return random_model(arch, stored, **sizes)


def tiny_gguf(
    path: Path, arch: str = "qwen2", type: str = "F32", vocabulary: str | None = None, **sizes
) -> MemoryModel:
    model = tiny_model(arch, type, **sizes)
    write_gguf(path, model, vocabulary)
    return model


def tiny_safetensors(folder: Path, arch: str = "qwen2", type: str = "F32", shards: int = 1, **sizes) -> MemoryModel:
    model = tiny_model(arch, type, **sizes)
    write_safetensors(folder, model, shards)
    return model


def tiny_apr(path: Path, arch: str = "qwen2", type: str = "F32", **sizes) -> MemoryModel:
    model = tiny_model(arch, type, **sizes)
    write_apr(path, apr_metadata(model), apr_tensors(model))
    return model


def tiny_realizar_apr(path: Path, arch: str = "qwen2", type: str = "Q4_K", **sizes) -> MemoryModel:
    model = tiny_model(arch, type, **sizes)
    write_realizar_apr(path, model)
    return model


def interleaved_rows(weight: Weight, heads: int) -> np.ndarray:
    """The rows of a q or k tensor as llama GGUF files order them: old row s*head_dim/2+i becomes row 2i+s."""
    rows = weight.rows.reshape(weight.shape[0], -1)
    size = len(rows) // heads
    return np.concatenate(
        [rows[head * size + s * size // 2 + i][None] for head in range(heads) for i in range(size // 2) for s in (0, 1)]
    ).reshape(weight.rows.shape)


def gguf_rows(model: MemoryModel, name: str) -> np.ndarray:
    """The rows of a tensor as a GGUF file of the model stores them."""
    heads = {"q_proj": model.config.num_attention_heads, "k_proj": model.config.num_key_value_heads}
    module = name.split(".")[-2]
    known = model.config.architecture in ARCHITECTURES
    several = model.weights[name].shape[0] > 1
    if known and interleaved(model.config.architecture) and module in heads and several:
        return interleaved_rows(model.weights[name], heads[module])
    return model.weights[name].rows


# What the gguf package, 0.19.0, can write, and what it can give the values of.
KNOWN_TO_GGUF = [type for type in TensorType if type in list(gguf.GGMLQuantizationType)]
READ_BY_GGUF = [type for type in KNOWN_TO_GGUF if type not in (TensorType.Q1_0, TensorType.F64)]


def gguf_architecture(model: MemoryModel) -> str:
    """What GGUF calls a model."""
    return gguf_architecture_of(model.config)


def gguf_architecture_of(c: ModelConfig) -> str:
    architecture = c.architecture
    if architecture == "deepseek3":
        return "deepseek2"
    return (family(architecture).gguf or "llama") if architecture in ARCHITECTURES else architecture


def interleaved(architecture: str) -> bool:
    """Whether GGUF files of a family store rows of q and k for the rotation of adjacent pairs."""
    return family(architecture).interleaved or family(architecture).gguf is None


def write_gguf(
    path: Path, model: MemoryModel, vocabulary: str | dict[str, object] | None = None, part: int = 0, **more: object
) -> None:
    """`more`: further metadata, a dot in a key written as two underscores, without the architecture prefix.

    `vocabulary`: of single bytes, "bpe" or "spm", or the keys of a whole tokenizer. `part`: tensors of each of several
    files; 0 for one file of all.
    """
    c, architecture = model.config, gguf_architecture(model)
    writer = gguf.GGUFWriter(path, architecture, split_max_tensors=part)
    writer.add_context_length(c.max_position_embeddings)
    writer.add_embedding_length(c.hidden_size)
    writer.add_block_count(c.num_hidden_layers)
    widths = c.intermediate_size * (2 if c.architecture == "qwen" else 1)
    writer.add_feed_forward_length(widths if c.intermediate_sizes is None else list(c.intermediate_sizes))
    writer.add_head_count(c.num_attention_heads)
    if c.kv_lora_rank:
        _add_latent(writer, c)
    else:
        counts = [0 if c.recurs(n) else c.of_layer(n).num_key_value_heads for n in range(c.num_hidden_layers)]
        differ = (0 in counts and known_headless(c)) or c.full_head_dim is not None
        writer.add_head_count_kv(counts if differ else c.num_key_value_heads)
        writer.add_key_length(c.full_head_dim or c.head_dim)
        writer.add_value_length(c.full_head_dim or c.head_dim)
    known = family(c.architecture) if c.architecture in ARCHITECTURES else None
    if known is not None and known.layer_norms:
        writer.add_layer_norm_eps(c.rms_norm_eps)
    else:
        writer.add_layer_norm_rms_eps(c.rms_norm_eps)
    writer.add_rope_freq_base(c.rope_theta)
    writer.add_rope_dimension_count(c.full_head_dim or c.rotary_dim or c.head_dim)
    if c.layer_types is not None and c.sliding_window is not None:
        writer.add_sliding_window(c.sliding_window)
        writer.add_sliding_window_pattern([c.slides(n) for n in range(c.num_hidden_layers)])
    if c.architecture == "granite_swa":
        writer.add_array(
            f"{architecture}.attention.rope_pattern", [int(c.rotates(n)) for n in range(c.num_hidden_layers)]
        )
    if c.rope_local_theta is not None:
        writer.add_rope_freq_base_swa(c.rope_local_theta)
    if c.attention_cap is not None:
        writer.add_attn_logit_softcapping(c.attention_cap)
        writer.add_final_logit_softcapping(c.logits_cap)
    if c.full_head_dim is not None:
        writer.add_final_logit_softcapping(c.logits_cap)
        writer.add_key_length_swa(c.head_dim)
        writer.add_value_length_swa(c.head_dim)
        writer.add_rope_dimension_count_swa(c.head_dim)
        writer.add_embedding_length_per_layer_input(c.layer_embedding_size)
        writer.add_shared_kv_layers(c.shared_kv_layers)
    if c.architecture in YARN:
        _add_yarn(writer, architecture, YARN[c.architecture])
    if c.temperature is not None and c.architecture != "llama4":
        writer.add_attn_temperature_scale(c.temperature)
    if c.clip_qkv is not None:
        writer.add_clamp_kqv(c.clip_qkv)
    if c.architecture in ("qwen3vl", "qwen2vl", "paddleocr"):  # of text all sections turn alike
        writer.add_rope_dimension_sections([(c.head_dim // 2 + more) // 3 for more in (2, 1, 0)] + [0])
    if c.architecture == "gpt_neox":
        writer.add_parallel_residual(c.parallel)
    if c.architecture.startswith("cohere"):
        writer.add_logit_scale(c.logits_scale)
    if c.architecture == "granitehybrid":
        writer.add_rope_scaling_finetuned(c.rotated_layers is None)
    if c.architecture.startswith(("granite", "minicpm")):
        writer.add_embedding_scale(c.embedding_scale)
        writer.add_residual_scale(c.residual_scale)
        if c.architecture.startswith("granite"):
            writer.add_attention_scale(c.attention_scale or c.head_dim**-0.5)
        writer.add_logit_scale(1 / c.logits_scale)
    if c.num_experts:
        _add_experts(writer, c)
    if c.recurrence is not None:
        _add_recurrence(writer, c)
    keys = {f"{architecture}.{key.replace('__', '.')}": value for key, value in more.items()}
    if isinstance(vocabulary, dict):
        keys |= vocabulary
    else:
        _add_vocabulary(writer, vocabulary, c.vocab_size)
    add = {
        bool: writer.add_bool,
        int: writer.add_uint32,
        float: writer.add_float32,
        str: writer.add_string,
        list: writer.add_array,
    }
    for name, value in keys.items():
        add[type(value)](name, value)
    if c.full_head_dim is not None:
        writer.add_tensor("rope_freqs.weight", np.array(c.rope_factors, np.float32))
    stored: dict[str, list[np.ndarray]] = {}
    types: dict[str, TensorType] = {}
    for name, weight in fused(model).items():
        rows, own = (
            gguf_rows(model, name) if weight is model.weights.get(name) else weight.rows,
            gguf_name(name, architecture),
        )
        if weight.type.block.elements == 1:  # of the others the writer derives the shape from the bytes of a row
            rows = rows.view(f"f{weight.type.block.bytes}").reshape(weight.shape)
        stored.setdefault(own, []).append(rows)
        types[own] = weight.type
    for name, parts in stored.items():
        values = (
            np.stack(parts) if "_exps." in name or name.endswith(("attn_k_b.weight", "attn_v_b.weight")) else parts[0]
        )
        if name.startswith("per_layer_model_proj"):
            values = np.concatenate(parts)
        if name.endswith((".ssm_a", ".ssm_d")) and c.architecture in _SCANS:
            values = values.reshape(-1, 1)
        if name.endswith("ssm_norm.weight") and c.architecture in _SCANS:
            values = values.reshape(c.recurrence.groups, -1)
        if name.endswith(("exps.scale", "gate_inp_shexp.weight")):
            values = values.reshape(-1)
        if types[name] in KNOWN_TO_GGUF:
            writer.add_tensor(name, values, raw_dtype=gguf.GGMLQuantizationType(types[name]))
        else:  # the writer, which cannot derive its shape, takes it as given with bytes that are signed
            block = types[name].block
            shape = (*values.shape[:-1], values.shape[-1] // block.bytes * block.elements)
            writer.add_tensor(name, values.view(np.int8), raw_shape=shape, raw_dtype=types[name])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _add_experts(writer: gguf.GGUFWriter, c: ModelConfig) -> None:
    if c.architecture == "qwen3vlmoe":
        writer.add_rope_dimension_sections([c.head_dim // 6 + 1] * 3 + [0])
    writer.add_expert_count(c.num_experts)
    writer.add_expert_used_count(c.num_experts_per_tok)
    if c.moe_intermediate_size != c.intermediate_size or c.architecture in ("gpt_oss", "hunyuan_moe", "minimax_m2"):
        writer.add_expert_feed_forward_length(c.moe_intermediate_size)
    if c.architecture == "llama4":
        writer.add_interleave_moe_layer_step(2)
        return
    if c.architecture == "ernie4_5_moe":
        writer.add_interleave_moe_layer_step(1)
    own = (
        "granitemoe",
        "granitehybrid",
        "qwen2moe",
        "ernie4_5_moe",
        "hunyuan_moe",
        "exaone_moe",
        "qwen35moe",
        "qwen3next",
    )
    sized = c.architecture in own
    if sized:
        writer.add_expert_shared_feed_forward_length(c.shared_intermediate_size)
    elif c.shared_intermediate_size and c.architecture != "gemma4":
        writer.add_expert_shared_count(c.shared_intermediate_size // c.moe_intermediate_size)
    if (c.shared_intermediate_size and not sized and c.architecture != "gemma4") or c.architecture == "exaone_moe":
        writer.add_expert_weights_norm(c.norm_topk_prob)
        writer.add_expert_weights_scale(c.routed_scaling_factor)
    if c.expert_layers is not None:
        writer.add_leading_dense_block_count(c.expert_layers.index(True))
    if c.n_group > 1:
        writer.add_expert_group_count(c.n_group)
        writer.add_expert_group_used_count(c.topk_group)
    if c.expert_scoring == "sigmoid":
        writer.add_expert_gating_func(gguf.ExpertGatingFuncType.SIGMOID)


def _add_yarn(writer: gguf.GGUFWriter, architecture: str, yarn: Mapping[str, object]) -> None:
    writer.add_rope_scaling_type(gguf.RopeScalingType.YARN)
    writer.add_rope_scaling_factor(yarn["factor"])
    writer.add_rope_scaling_orig_ctx_len(yarn["original_max_position_embeddings"])
    if "beta_fast" in yarn:
        writer.add_rope_scaling_yarn_beta_fast(yarn["beta_fast"])
        writer.add_rope_scaling_yarn_beta_slow(yarn["beta_slow"])
    writer.add_rope_scaling_yarn_log_mul(yarn["mscale_all_dim"] * (0.1 if architecture == "deepseek2" else 1))


def _add_latent(writer: gguf.GGUFWriter, c: ModelConfig) -> None:
    """What files say of the latents that all heads share, and of heads."""
    writer.add_head_count_kv(1)
    writer.add_key_length(c.kv_lora_rank + c.rotary_dim)
    writer.add_value_length(c.kv_lora_rank)
    writer.add_key_length_mla(c.head_dim)
    writer.add_value_length_mla(c.v_head_dim)
    writer.add_kv_lora_rank(c.kv_lora_rank)
    writer.add_q_lora_rank(c.q_lora_rank or 0)


_SCANS = ("granitehybrid", "falcon_h1")


def known_headless(c: ModelConfig) -> bool:
    """Whether GGUF shows by no heads of keys that a layer has no attention."""
    return family(c.architecture).headless


def _add_recurrence(writer: gguf.GGUFWriter, c: ModelConfig) -> None:
    if c.architecture.startswith("lfm2"):
        writer.add_shortconv_l_cache(c.recurrence.kernel)
        return
    writer.add_ssm_conv_kernel(c.recurrence.kernel)
    writer.add_ssm_inner_size(c.recurrence.values)
    writer.add_ssm_state_size(c.recurrence.state)
    writer.add_ssm_time_step_rank(c.recurrence.heads)
    writer.add_ssm_group_count(c.recurrence.groups)
    if c.architecture not in _SCANS:
        recurrent = [c.recurs(n) for n in range(c.num_hidden_layers)]
        writer.add_array(f"{gguf_architecture_of(c)}.attention.recurrent_layers", recurrent)
    if c.architecture.startswith("qwen35"):
        writer.add_rope_dimension_sections([(c.rotary_dim // 2 + more) // 3 for more in (2, 1, 0)] + [0])


def byte_tokens(kind: str, size: int) -> list[str]:
    """Tokens that can spell any text: special ones, one for each byte, fillers up to `size`."""
    if kind == "spm":
        tokens = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    else:
        plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
        tokens = ["<|endoftext|>", *map(chr, plain), *map(chr, range(256, 256 + 256 - len(plain)))]
    assert size >= len(tokens), f"a {kind} vocabulary needs vocab={len(tokens)}"
    return tokens + [f"filler{n}" for n in range(size - len(tokens))]


def _add_vocabulary(writer: gguf.GGUFWriter, kind: str | None, size: int) -> None:
    writer.add_tokenizer_model({"bpe": "gpt2", "spm": "llama"}.get(kind, "none"))
    writer.add_vocab_size(size)
    if kind is None:
        return
    tokens = byte_tokens(kind, size)
    writer.add_token_list(tokens)
    writer.add_bos_token_id(1 if kind == "spm" else 0)
    if kind == "spm":
        writer.add_token_scores([0.0] * size)
        writer.add_token_types([2, 3, 3] + [6] * 256 + [1] * (size - 259))
    else:
        writer.add_tokenizer_pre("gpt-2")
        writer.add_token_types([3] + [1] * (size - 1))
        writer.add_token_merges(["h e", "l l"])


def hf_config(model: MemoryModel, transformers: int = 5) -> dict[str, object]:
    """config.json as transformers 4 or 5 spells it."""
    c = model.config
    of = family(c.architecture)
    rope = {"rope_type": "default", "rope_theta": c.rope_theta}
    if c.architecture in YARN:
        rope |= YARN[c.architecture] | ({} if c.temperature is None else {"llama_4_scaling_beta": c.temperature})
    elif c.full_head_dim is not None:
        rope |= {"rope_type": "proportional", "partial_rotary_factor": c.rope_factors.count(1.0) / c.full_head_dim * 2}
    elif c.rope_factors is not None:
        assert len(set(c.rope_factors)) == 1, "only linear scaling is written"
        rope |= {"rope_type": "linear", "factor": c.rope_factors[0]}
    if c.rope_local_theta is not None:
        rope = {FULL: rope, SLIDING: {"rope_type": "default", "rope_theta": c.rope_local_theta}}
    return {
        "architectures": [f"{c.architecture.capitalize()}ForCausalLM"],
        "model_type": of.model_types[0],
        of.activations[0]: of.activations[1][0],
        "hidden_size": c.hidden_size,
        "intermediate_size": c.intermediate_size,
        "num_hidden_layers": c.num_hidden_layers,
        "num_attention_heads": c.num_attention_heads,
        "num_key_value_heads": c.num_key_value_heads,
        "head_dim": c.rotary_dim if of.latent else c.head_dim,
        "vocab_size": c.vocab_size,
        of.key("rms_norm_eps"): c.rms_norm_eps,
        "tie_word_embeddings": c.tie_word_embeddings,
        "max_position_embeddings": c.max_position_embeddings,
        **rotary_share(model),
        "pad_token_id": None,  # that some families have by default lies beyond a small vocabulary
        **of.to_hugging_face(c),
        **(MULTIPLIERS if c.architecture == "falcon_h1" else {}),
        **({"attention_bias": True} if of.defaults.get("attention_bias") is False and _BIAS in model.weights else {}),
        **({"rope_parameters": rope} if transformers >= 5 else {"rope_theta": c.rope_theta, "rope_scaling": None}),
    }


def rotary_share(model: MemoryModel) -> dict[str, object]:
    """The key that says which share of each head rotates."""
    c, of = model.config, family(model.config.architecture)
    return {of.partly[0]: (c.rotary_dim or c.head_dim) / c.head_dim} if of.partly else {}


_BIAS = "model.layers.0.self_attn.q_proj.bias"
# Parts of a layer that containers store one above the other, by the name of the whole.
_QKV = {"self_attn.qkv_proj": tuple(f"self_attn.{part}_proj" for part in "qkv")}
_GATE_UP = {"mlp.gate_up_proj": ("mlp.gate_proj", "mlp.up_proj")}
FUSED = {
    **{"glm4": _GATE_UP, "phi3": _QKV | _GATE_UP, "chatglm": _QKV | _GATE_UP, "qwen": _QKV},
    **{"gpt_neox": _QKV, "openelm": _QKV, "bailingmoe2": _QKV, "dbrx": _QKV},
}
_BY_GROUP = ("gpt_neox",)  # whose folders have the rows of each key head together


def family_has_gates(c: ModelConfig) -> bool:
    """Whether its attention has gates, and other layers delta nets."""
    of = family(c.architecture) if c.architecture in ARCHITECTURES else None
    return of is not None and of.output_gate and not of.gates_apart


def fused(model: MemoryModel) -> dict[str, Weight]:
    """The tensors with those in one that both engines' files have in one."""
    if family_has_gates(model.config):
        return gguf_delta(model)
    weights, whole = dict(model.weights), FUSED.get(model.config.architecture, {})
    for layer in range(model.config.num_hidden_layers):
        for module, parts in whole.items():
            for kind in ("weight", "bias"):
                names = [f"model.layers.{layer}.{part}.{kind}" for part in parts]
                if names[0] in weights:
                    joined = [weights.pop(name) for name in names]
                    rows = np.concatenate([weight.rows for weight in joined], axis=0 if kind == "weight" else 1)
                    count = sum(weight.shape[0] for weight in joined)
                    name = f"model.layers.{layer}.{module}.{kind}"
                    weights[name] = Weight(name, joined[0].type, (count, *joined[0].shape[1:]), rows)
    return weights


def hf_weights(model: MemoryModel) -> dict[str, Weight]:
    """The tensors as Hugging Face stores them: of some families norms less 1, in the type of the matrices."""
    of = family(model.config.architecture)
    if model.config.architecture == "mixtral":
        return {_of_mixtral(name): weight for name, weight in model.weights.items()}
    if model.config.kv_lora_rank:
        return _of_latents(model)
    if model.config.architecture == "llama4":
        return _of_llama4(model)
    if model.config.architecture in STACKED:
        return STACKED[model.config.architecture](model)
    if model.config.architecture in ("dots1", "glm4_moe"):
        return {name.replace("shared_expert.", "shared_experts."): w for name, w in model.weights.items()}
    weights = hf_delta(model) if family_has_gates(model.config) else fused(model)
    weights = without_multipliers(model) if model.config.architecture == "falcon_h1" else weights
    weights = {name: unsqueezed(weight) for name, weight in weights.items()}
    if model.config.architecture in _BY_GROUP:
        weights = {name.replace("qkv_proj", "qkv_by_group_proj"): weight for name, weight in weights.items()}
        weights = {n: by_group(w, model.config) if "qkv_by_group" in n else w for n, w in weights.items()}
    own = {name: hf_name(name, of.modules) for name in weights}
    if not of.less_one:
        return {own[name]: weight for name, weight in weights.items()}
    type = model.weights["model.embed_tokens.weight"].type
    return {
        own[name]: less_one(weight, type if type.block.elements == 1 else TensorType.F32)
        if name.endswith(NORM) and ".linear_attn." not in name
        else weight
        for name, weight in weights.items()
    }


def by_group(weight: Weight, c: ModelConfig) -> Weight:
    """The rows of q, k and v as those of each key head: of its query heads, of itself, of its value head."""
    rows = weight.rows.reshape(weight.shape[0], -1)
    parts = np.split(rows, (c.q_size, c.q_size + c.kv_size))
    heads = [part.reshape(c.num_key_value_heads, -1, rows.shape[1]) for part in parts]
    stored = np.concatenate(heads, axis=1).reshape(weight.rows.shape)
    return Weight(weight.name, weight.type, weight.shape, stored)


def hf_name(name: str, modules: Mapping[str, str]) -> str:
    """What Hugging Face calls a tensor of a family whose modules have other names."""
    module, _, kind = name.rpartition(".")
    number = next((part for part in module.split(".") if part.isdigit()), "N")
    own = modules.get(module.replace(f".{number}.", ".N."))
    return name if own is None else f"{own.replace('.N.', f'.{number}.')}.{kind}"


def _of_mixtral(name: str) -> str:
    """The name of a tensor in the files of mixtral."""
    for plain, spelled in (("mlp.", "block_sparse_moe."), ("gate_proj", "w1"), ("down_proj", "w2"), ("up_proj", "w3")):
        name = name.replace(plain, spelled)
    return name


def _of_latents(model: MemoryModel) -> dict[str, Weight]:
    """The tensors with the rows of keys and of values of every head in turn."""
    found, c = {}, model.config
    for name, weight in model.weights.items():
        if "_b_proj." not in name or "q_b_proj" in name:
            found[name.replace("shared_expert.", "shared_experts.")] = weight
    for layer in range(c.num_hidden_layers):
        p, rows = f"model.layers.{layer}.self_attn.", []
        for head in range(c.num_attention_heads):
            keys, values = (model.weights[f"{p}{part}_b_proj.{head}.weight"] for part in "kv")
            size = np.float32 if keys.type == TensorType.F32 else np.uint16
            rows += [np.ascontiguousarray(keys.rows.view(size).T).view(np.uint8), values.rows]
        stored = np.concatenate(rows)
        name = f"{p}kv_b_proj.weight"
        found[name] = Weight(name, keys.type, (len(stored), c.kv_lora_rank), stored)
    return found


def _of_llama4(model: MemoryModel) -> dict[str, Weight]:
    """The tensors with experts stacked, rows and columns exchanged, and gate and up as columns of one."""
    found = {name.replace("mlp.", "feed_forward."): w for name, w in model.weights.items() if ".experts." not in name}
    found = {name.replace("feed_forward.gate.", "feed_forward.router."): w for name, w in found.items()}
    for layer in filter(model.config.has_experts, range(model.config.num_hidden_layers)):
        for stored, parts in (("gate_up_proj", ("gate", "up")), ("down_proj", ("down",))):
            stack = []
            for number in range(model.config.num_experts):
                own = [model.weights[f"model.layers.{layer}.mlp.experts.{number}.{part}_proj.weight"] for part in parts]
                size = np.float32 if own[0].type == TensorType.F32 else np.uint16
                stack.append(np.concatenate([weight.rows.view(size) for weight in own]).T)
            values = np.ascontiguousarray(np.stack(stack))
            name = f"model.layers.{layer}.feed_forward.experts.{stored}"
            rows = values.reshape(-1, values.shape[2]).view(np.uint8)
            found[name] = Weight(name, own[0].type, values.shape, rows)
    return found


def less_one(weight: Weight, type: TensorType) -> Weight:
    """A norm weight less 1 in a float type."""
    values = (dequantize(weight) - np.float32(1)).reshape(1, -1)
    rows = gguf.quants.quantize(values, gguf.GGMLQuantizationType(type)).view(np.uint8)
    return Weight(weight.name, type, weight.shape, rows)


def write_safetensors(folder: Path, model: MemoryModel, shards: int = 1, transformers: int = 5) -> None:
    """A Hugging Face folder; with more than one shard, an index and that many files."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(hf_config(model, transformers)))
    weights = hf_weights(model)
    if shards == 1:
        write_safetensors_file(folder / "model.safetensors", weights)
        return
    files = [f"model-{n + 1:05d}-of-{shards:05d}.safetensors" for n in range(shards)]
    weight_map = {name: files[n % shards] for n, name in enumerate(weights)}
    for file in files:
        write_safetensors_file(folder / file, {name: w for name, w in weights.items() if weight_map[name] == file})
    index = {"metadata": {"total_size": 0}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def change_type(path: Path, tensor: str, code: int) -> None:
    """Give a two-dimensional tensor of a GGUF file another type id."""
    data = bytearray(path.read_bytes())
    at = data.index(tensor.encode()) + len(tensor) + 4 + 2 * 8
    data[at : at + 4] = struct.pack("<I", code)
    path.write_bytes(data)


def float_tensor(name: str, values: np.ndarray) -> Weight:
    """A float32 tensor in memory, a vector or a matrix."""
    rows = np.ascontiguousarray(values, np.float32).reshape(len(values) if values.ndim == 2 else 1, -1)
    return Weight(name, TensorType.F32, values.shape, rows.view(np.uint8))


def write_safetensors_file(path: Path, weights: dict[str, Weight]) -> None:
    write_safetensors_entries(path, entries_of(weights))


def entries_of(weights: dict[str, Weight]) -> dict[str, tuple[str, tuple[int, ...], bytes]]:
    return {name: (weight.type.name, weight.shape, weight.rows.tobytes()) for name, weight in weights.items()}


def write_safetensors_entries(path: Path, entries: dict[str, tuple[str, tuple[int, ...], bytes]]) -> None:
    """Tensors by dtype, shape and bytes: the functions of the safetensors package cannot write BF16 without torch."""
    header, data = {"__metadata__": {"format": "pt"}}, b""
    for name, (dtype, shape, raw) in entries.items():
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [len(data), len(data) + len(raw)]}
        data += raw
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)


def apr_metadata(model: MemoryModel, **more: object) -> dict[str, object]:
    c = model.config
    return {
        "model_type": c.architecture,
        "license": None,
        "data_source": None,
        "data_license": None,
        "original_format": "safetensors",
        "architecture": c.architecture,
        "hidden_size": c.hidden_size,
        "num_layers": c.num_hidden_layers,
        "num_heads": c.num_attention_heads,
        "num_kv_heads": c.num_key_value_heads,
        "vocab_size": c.vocab_size,
        "intermediate_size": c.intermediate_size,
        "max_position_embeddings": c.max_position_embeddings,
        "head_dim": c.head_dim,
        "rope_theta": c.rope_theta,
        "rope_type": 2 if c.rope_type == "neox" else 0,
        "rms_norm_eps": c.rms_norm_eps,
        **rotary_share(model),
        **family(c.architecture).to_hugging_face(c),
    } | more


def apr_tensors(model: MemoryModel) -> list[AprTensor]:
    return [AprTensor(name, w.type, w.shape, w.rows.reshape(-1)) for name, w in hf_weights(model).items()]


def write_realizar_apr(path: Path, model: MemoryModel, **more: object) -> None:
    """As realizar's Q4_K converter writes: GGUF's names, order, type ids and rows; no checksum, no footer."""
    c = model.config
    metadata = {
        "model_type": "transformer_lm_q4k",
        "architecture": c.architecture,
        "hidden_size": c.hidden_size,
        "num_hidden_layers": c.num_hidden_layers,
        "num_attention_heads": c.num_attention_heads,
        "num_key_value_heads": c.num_key_value_heads,
        "vocab_size": c.vocab_size,
        "intermediate_size": c.intermediate_size,
        "max_position_embeddings": c.max_position_embeddings,
        "rope_theta": c.rope_theta,
        "rope_type": 0 if c.architecture == "llama" else 2,
        "rms_norm_eps": c.rms_norm_eps,
        "quantization": "Q4_K_M",
        **family(c.architecture).to_hugging_face(c),
    } | more
    text = json.dumps(metadata).encode()
    index, data = b"", b""
    for name, weight in model.weights.items():
        raw, name_bytes = gguf_rows(model, name).tobytes(), gguf_name(name, family(c.architecture).gguf).encode()
        index += struct.pack(f"<H{len(name_bytes)}sBB", len(name_bytes), name_bytes, weight.type, len(weight.shape))
        index += struct.pack(f"<{len(weight.shape)}QQQ", *weight.shape, len(data), len(raw))
        data += raw + bytes(-len(raw) % 64)
    text_end = 64 + len(text) + -len(text) % 64
    index_end = text_end + len(index) + -len(index) % 64
    header = struct.pack(
        "<4sBBHIQIQQI20x", b"APR\0", 2, 0, 0x20, len(model.weights), 64, len(text), text_end, index_end, 0
    )
    path.write_bytes((header + text).ljust(text_end, b"\0") + index.ljust(index_end - text_end, b"\0") + data)
