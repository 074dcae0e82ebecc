"""GGUF files of a model in memory, as llama.cpp's converter lays them out."""

import struct
from collections.abc import Mapping
from pathlib import Path

import gguf
import numpy as np

from kernels.config import ModelConfig
from kernels.models import ARCHITECTURES, family
from kernels.weight import TensorType, Weight
from store.names import gguf_name
from tests.hf_files import fused
from tests.memory_model import YARN, MemoryModel


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


def change_type(path: Path, tensor: str, code: int) -> None:
    """Give a two-dimensional tensor of a GGUF file another type id."""
    data = bytearray(path.read_bytes())
    at = data.index(tensor.encode()) + len(tensor) + 4 + 2 * 8
    data[at : at + 4] = struct.pack("<I", code)
    path.write_bytes(data)
