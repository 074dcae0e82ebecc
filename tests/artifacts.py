"""Tiny models on disk in all three formats; the model in memory that each function returns is what a reader must find.

`tiny_gguf(path)`, `tiny_safetensors(folder)`, `tiny_apr(path)` and `tiny_realizar_apr(path)` share their arguments,
those of `tiny_model`; equal arguments give equal weights, so the files are copies of one model.
"""

import json
import struct
from pathlib import Path

from kernels.models import family
from kernels.weight import TensorType
from store.files.apr_writer import AprTensor, write_apr
from store.names import gguf_name
from tests.gguf_files import gguf_rows, write_gguf
from tests.hf_files import hf_weights, rotary_share, write_safetensors
from tests.memory_model import MemoryModel, random_model


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
