"""Rotary settings as the formats spell them, turned into divisors of the rotary frequencies."""

import math

import numpy as np

from kernels.config import ModelConfig
from kernels.errors import UnsupportedModelError
from kernels.weight import TensorType
from store.artifact import TensorInfo
from store.errors import ArtifactError
from store.fields import LARGEST, SMALLEST, Fields
from store.model_file import ModelFile
from store.names import ROPE_FREQS
from store.text import printable

MAX_HEAD_DIM = 1 << 14

Factors = tuple[float, ...] | None


def head_dim(fields: Fields, hidden: int, heads: int, *keys: str) -> int:
    """Return the channels of a head: the first of `keys` that is set, else hidden / heads."""
    size = fields.integer(*keys, high=MAX_HEAD_DIM)
    if size is None and hidden % heads:
        raise ArtifactError(
            f"{fields.file}: {hidden} channels do not divide among {heads} attention heads; "
            f"set {fields.prefix}{keys[0]}."
        )
    size = size or hidden // heads
    if size % 2 or size > MAX_HEAD_DIM:
        raise UnsupportedModelError(
            f"{fields.file} has heads of {size} channels; supported are even numbers up to {MAX_HEAD_DIM}."
        )
    return size


def check_whole_head(fields: Fields, key: str, head_dim: int) -> None:
    """Raise UnsupportedModelError if `key` says that only a part of each head is rotated."""
    if (rotated := fields.integer(key)) not in (None, head_dim):
        raise UnsupportedModelError(
            f"{fields.file} rotates {rotated} of {head_dim} channels ({fields.prefix}{key}); "
            "only whole heads are supported."
        )


def linear(factor: float, head_dim: int) -> Factors:
    """Return the divisors of linear scaling (position interpolation)."""
    return None if factor == 1 else (_single(factor),) * (head_dim // 2)


def stored_factors(file: ModelFile, info: TensorInfo, head_dim: int) -> tuple[float, ...]:
    """Return the divisors that a `rope_freqs.weight` tensor holds."""
    what = f"tensor {ROPE_FREQS}"
    if info.type != TensorType.F32 or info.shape != (head_dim // 2,):
        raise ArtifactError(f"{file.shown}: {what} is not {head_dim // 2} float32 values; convert the model again.")
    factors = np.frombuffer(file.read(info.offset, info.nbytes, what), "<f4")
    if not ((factors >= SMALLEST) & (factors <= LARGEST)).all():
        raise ArtifactError(
            f"{file.shown}: {what} holds values outside {SMALLEST:g} to {LARGEST:g}; convert the model again."
        )
    return tuple(factors.tolist())


def hf_factors(scaling: Fields, rope_theta: float, head_dim: int) -> Factors:
    """Return the divisors for Hugging Face's `rope_scaling` or `rope_parameters` (modeling_rope_utils.py)."""
    kind = scaling.text("rope_type", "type") or "default"
    if kind == "default":
        return None
    if kind == "linear":
        return linear(scaling.needed_number("factor"), head_dim)
    if kind != "llama3":
        raise UnsupportedModelError(
            f"{scaling.file} scales its rotary embedding by {printable(kind, 80)}; "
            "supported are default, linear and llama3."
        )
    factor = scaling.needed_number("factor")
    low = scaling.needed_number("low_freq_factor")
    high = scaling.needed_number("high_freq_factor")
    original = scaling.needed_integer("original_max_position_embeddings")
    if high <= low:
        raise ArtifactError(
            f"{scaling.file} gives high_freq_factor {high} not above low_freq_factor {low}; correct it."
        )
    wavelengths = (2 * math.pi * rope_theta ** (2 * i / head_dim) for i in range(head_dim // 2))
    return tuple(_single(_llama3(original / wavelength, factor, low, high)) for wavelength in wavelengths)


def _single(factor: float) -> float:
    """Round as files do that store the divisors, so that all formats agree."""
    return float(np.float32(factor))


def _llama3(turns: float, factor: float, low: float, high: float) -> float:
    """Divisor for a frequency that makes `turns` turns over the original context."""
    if turns > high:
        return 1.0
    if turns < low:
        return factor
    smooth = (turns - low) / (high - low)
    return 1 / ((1 - smooth) / factor + smooth)


def check_heads(file: str, config: ModelConfig) -> None:
    """Raise ArtifactError if the query heads do not divide among the key/value heads."""
    if config.num_attention_heads % config.num_key_value_heads:
        raise ArtifactError(
            f"{file}: {config.num_attention_heads} attention heads do not divide among {config.num_key_value_heads} "
            "key/value heads; correct the configuration."
        )
