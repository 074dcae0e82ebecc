"""Latent attention: the matrices of every head, where a file stores those of all heads in one tensor.

Keys' are stored with rows and columns exchanged in GGUF, as they are computed with, and in one tensor with values' in
Hugging Face's files and old GGUF files.
"""

import re
from collections.abc import Iterator
from dataclasses import replace

from kernels.config import ModelConfig
from kernels.errors import UnsupportedModelError
from store.errors import ArtifactError
from store.stored_model import FLOATS, TensorInfo
from store.text import printable

_WHOLE = re.compile(r"(model\.layers\.[0-9]+\.self_attn)\.(k_b|v_b|kv_b)_proj\.weight", re.ASCII)


def split_heads(file: str, tensors: dict[str, TensorInfo], config: ModelConfig) -> None:
    """Replace in `tensors` what holds the matrices of all heads by a tensor for each; of slices nothing is copied.

    Raises ArtifactError where it has another shape than the configuration implies, or another tensor holds them too;
    UnsupportedModelError for keys' and values' in one tensor that is not of floats.
    """
    for match in [match for name in tensors if config.kv_lora_rank and (match := _WHOLE.fullmatch(name))]:
        info = tensors.pop(match[0])
        for part in _both(file, info, match[1], config) if match[2] == "kv_b" else _heads(file, info, match, config):
            if part.name in tensors:
                raise ArtifactError(f"{file} stores {part.name} twice, whole and split; remove one of them.")
            tensors[part.name] = part


def _sizes(config: ModelConfig) -> tuple[int, int]:
    """Channels of a head of keys that do not rotate, and of a head of values."""
    return config.head_dim - (config.rotary_dim or 0), config.v_head_dim or config.head_dim


def _heads(file: str, info: TensorInfo, match: re.Match[str], config: ModelConfig) -> Iterator[TensorInfo]:
    """Slices of a stack; the axis of a single head is not written."""
    still, size = _sizes(config)
    one = (config.kv_lora_rank, still) if match[2] == "k_b" else (size, config.kv_lora_rank)
    count = config.num_attention_heads
    _check(file, info, (count, *one) if len(info.shape) == 3 or count > 1 else one)
    part = info.nbytes // count
    for head in range(count):
        name = f"{match[1]}.{match[2]}_proj.{head}.weight"
        yield replace(info, name=name, shape=one, offset=info.offset + head * part, nbytes=part)


def _both(file: str, info: TensorInfo, module: str, config: ModelConfig) -> Iterator[TensorInfo]:
    """Rows of keys and of values of every head in turn."""
    if info.type not in FLOATS:
        raise UnsupportedModelError(
            f"{file} stores keys and values of latent attention in one tensor of the type {info.type.name} "
            f"({printable(info.raw_name, 80)}), as conversions before May 2025 do; convert the model again."
        )
    still, size = _sizes(config)
    count, rank = config.num_attention_heads, config.kv_lora_rank
    _check(file, info, (count * (still + size), rank))
    row = info.nbytes // info.shape[0]
    for head in range(count):
        start = info.offset + head * (still + size) * row
        keys = replace(info, name=f"{module}.k_b_proj.{head}.weight", shape=(rank, still), turned=True)
        yield replace(keys, offset=start, nbytes=still * row)
        values = replace(info, name=f"{module}.v_b_proj.{head}.weight", shape=(size, rank))
        yield replace(values, offset=start + still * row, nbytes=size * row)


def _check(file: str, info: TensorInfo, shape: tuple[int, ...]) -> None:
    if info.shape != shape:
        found, implied = ("×".join(map(str, sizes)) for sizes in (info.shape, shape))
        raise ArtifactError(
            f"{file}: tensor {printable(info.raw_name, 80)} has the shape {found} where the configuration implies "
            f"{implied}; the configuration and the tensors do not belong together."
        )
