"""Hugging Face folders of a model in memory: config.json and SafeTensors."""

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
from store.stored_model import NORM
from tests.delta_files import gguf_delta, hf_delta, unsqueezed
from tests.expert_stacks import STACKED
from tests.memory_model import YARN, MemoryModel
from tests.scan_files import MULTIPLIERS, without_multipliers


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
