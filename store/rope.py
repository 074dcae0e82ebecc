"""Rotary settings as the formats spell them, turned into divisors of the rotary frequencies."""

import math
from collections.abc import Callable, Collection
from typing import NamedTuple

import numpy as np

from kernels.config import ModelConfig
from kernels.errors import UnsupportedModelError
from kernels.family import Family
from kernels.kinds.rotate import yarn_factors, yarn_magnitude
from kernels.weight import TensorType
from store.errors import ArtifactError
from store.files.fields import LARGEST, SMALLEST, Fields, shortest
from store.stored_model import StoredModel, TensorInfo
from store.text import printable

MAX_HEAD_DIM = 1 << 14
STILL = 1e30  # by which files divide the frequencies of pairs that do not turn

Factors = tuple[float, ...] | None


class Scaling(NamedTuple):
    """How a model stretches its rotary embedding: divisors of the frequencies, and what q and k are multiplied by.

    limit, limit_key : up to how many tokens that holds, and the setting that changes it beyond; None for any number.
    long_factors : the divisors that hold beyond, where they are known. ramp : what YaRN's divisors were made of.
    """

    factors: Factors = None
    attention_factor: float = 1.0
    long_factors: Factors = None
    limit: int | None = None
    limit_key: str | None = None
    ramp: tuple[float, ...] | None = None


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


def latent_head(fields: Fields, size: int, rotated: int, what: str) -> tuple[int, int]:
    """Return channels of a head of q and k in latent attention, and how many of them rotate. what : says the latter."""
    found = rotary_dim(fields, rotated, size, f"{what} {rotated}") if size % 2 == 0 and size <= MAX_HEAD_DIM else None
    if found is None:
        raise UnsupportedModelError(
            f"{fields.file} has heads of {size} channels of which {rotated} rotate; supported are even numbers up to "
            f"{MAX_HEAD_DIM}, of which a part rotates."
        )
    return size, found


def rotary_dim(fields: Fields, rotated: int | None, head_dim: int, what: str) -> int | None:
    """Return how many channels of each head rotate, None for all. what : says so, with its value."""
    if rotated is None or rotated == head_dim:
        return None
    if rotated % 2 or not 0 < rotated < head_dim:
        raise UnsupportedModelError(
            f"{fields.file} rotates {rotated} of {head_dim} channels of each head ({what}); supported are even numbers "
            "up to all of them."
        )
    return rotated


def hf_rotary_dim(of: Family, settings: Fields, model: Fields, head_dim: int) -> int | None:
    """Return the same of Hugging Face's `rope_parameters`, whose keys `settings` holds, and the model around it."""
    if of.partly is None:
        return None
    key, usual = of.partly
    share = settings.number("partial_rotary_factor") or model.number(key) or usual
    return rotary_dim(model, int(head_dim * share), head_dim, f"{key} {share:g}")


def hf_share(of: Family, config: ModelConfig) -> dict[str, object]:
    """Return the key of Hugging Face's from which `hf_rotary_dim` makes what a configuration rotates."""
    if of.partly is None:
        return {}
    share = (config.rotary_dim or config.head_dim) / config.head_dim
    if int(config.head_dim * share) < (config.rotary_dim or 0):
        share = math.nextafter(share, 1)
    return {of.partly[0]: share}


# Below, `head_dim` is that of the channels that rotate, the whole head or a part of it.


def linear(factor: float, head_dim: int) -> Factors:
    """Return the divisors of linear scaling (position interpolation)."""
    return None if factor == 1 else (_single(factor),) * (head_dim // 2)


def stored_factors(model: StoredModel, info: TensorInfo, head_dim: int) -> tuple[float, ...]:
    """Return the divisors that a `rope_freqs.weight` tensor holds, or one like it."""
    shown, what = printable(info.file.name), f"tensor {info.name}"
    if info.type != TensorType["F32"] or info.shape != (head_dim // 2,):
        raise ArtifactError(f"{shown}: {what} is not {head_dim // 2} float32 values; convert the model again.")
    factors = model.stored_rows(info.name).view(np.float32).reshape(-1)
    if not ((np.abs(factors) >= SMALLEST) & ((np.abs(factors) <= LARGEST) | (factors == np.float32(STILL)))).all():
        raise ArtifactError(
            f"{shown}: {what} holds values whose size is not {SMALLEST:g} to {LARGEST:g}; convert the model again."
        )
    return tuple(factors.tolist())


def hf_scaling(of: Family, group: str, scaling: Fields, model: Fields, rope_theta: float, head_dim: int) -> Scaling:
    """Return what Hugging Face's `rope_scaling` or `rope_parameters` asks for (transformers' modeling_rope_utils.py).

    group : name of that object, whose keys `scaling` holds. model : the whole configuration around it.
    """
    given = scaling.text("rope_type", "type") or "default"
    kinds = of.rope_kinds or {name: name for name in _HF_KINDS}
    if given not in kinds:
        raise UnsupportedModelError(
            f"{scaling.file} scales its rotary embedding by {printable(given, 80)}; supported are {', '.join(kinds)}."
        )
    return _HF_KINDS[kinds[given]](_Stretch(group, scaling, model, rope_theta, head_dim))


class _Stretch(NamedTuple):
    """What a scaling of Hugging Face's is computed from."""

    group: str
    scaling: Fields
    model: Fields
    rope_theta: float
    head_dim: int

    @property
    def original(self) -> int:
        """The context before scaling; a key of the whole configuration counts before one beside the scaling."""
        key = "original_max_position_embeddings"
        return self.model.integer(key) or self.scaling.integer(key) or self.longest

    @property
    def longest(self) -> int:
        """The longest text the model is made for."""
        return self.model.needed_integer("max_position_embeddings")

    def unless_zero(self, key: str) -> float | None:
        """A number of which 0 is none."""
        return self.scaling.number(key) if self.scaling.values.get(key) else None

    def factor(self) -> float:
        """By how much the context was stretched: as stated, or if null by how much it is longer than before."""
        if self.scaling.values.get("factor", 0) is None:
            return self.longest / self.original
        return self.scaling.needed_number("factor")


def _hf_linear(s: _Stretch) -> Scaling:
    return Scaling(linear(s.scaling.needed_number("factor"), s.head_dim))


def _hf_dynamic(s: _Stretch) -> Scaling:
    """NTK scaling by the length of the text: nothing changes up to the model's own context."""
    s.scaling.needed_number("factor")
    return Scaling(limit=s.longest, limit_key=f"{s.group} (rope_type dynamic)")


def _hf_llama3(s: _Stretch) -> Scaling:
    factor = s.scaling.needed_number("factor")
    low = s.scaling.needed_number("low_freq_factor")
    high = s.scaling.needed_number("high_freq_factor")
    original = s.original
    if high <= low:
        raise ArtifactError(
            f"{s.scaling.file} gives high_freq_factor {high} not above low_freq_factor {low}; correct it."
        )
    wavelengths = (2 * math.pi * s.rope_theta ** (2 * i / s.head_dim) for i in range(s.head_dim // 2))
    return Scaling(tuple(_single(_llama3(original / wavelength, factor, low, high)) for wavelength in wavelengths))


def _hf_longrope(s: _Stretch) -> Scaling:
    """Stored divisors, which are others for texts beyond the original context."""
    original = s.original
    short, long = (_stored_numbers(s, key) for key in ("short_factor", "long_factor"))
    factor = s.scaling.number("factor") or s.longest / original
    attention = s.scaling.number("attention_factor")
    if attention is None:
        if original == 1:
            raise ArtifactError(f"{s.scaling.file} gives an original context of one token; correct it.")
        attention = 1.0 if factor <= 1 else math.sqrt(1 + math.log(factor) / math.log(original))
    return Scaling(short, attention, long, original, f"{s.group} (rope_type longrope)")


def _stored_numbers(s: _Stretch, key: str) -> tuple[float, ...]:
    """Return a list of divisors, one for each pair that turns."""
    given = s.scaling.find(key)[1]
    numbers = [value for value in given if type(value) in (int, float)] if isinstance(given, list) else []
    if len(numbers) != s.head_dim // 2 or not all(SMALLEST <= value <= LARGEST for value in numbers):
        raise ArtifactError(f"{s.scaling.file} gives no {key} of {s.head_dim // 2} numbers; correct it.")
    return tuple(map(_single, numbers))


def _hf_yarn(s: _Stretch) -> Scaling:
    factor, attention = s.factor(), s.scaling.number("attention_factor")
    mscale, mscale_all = (s.unless_zero(key) for key in ("mscale", "mscale_all_dim"))
    if attention is None:
        attention = yarn_magnitude(factor)
        if mscale and mscale_all:
            attention = yarn_magnitude(factor, mscale) / yarn_magnitude(factor, mscale_all)
    fast, slow = s.scaling.number("beta_fast") or _BETA_FAST, s.scaling.number("beta_slow") or _BETA_SLOW
    low, high = (_yarn_pair(s.scaling.file, turns, s.head_dim, s.rope_theta, s.original) for turns in (fast, slow))
    if s.scaling.flag("truncate") is not False:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, s.head_dim - 1)
    return _yarn(factor, low, (high - low) or 0.001, s.head_dim, attention)


_HF_KINDS: dict[str, Callable[[_Stretch], Scaling]] = {
    "default": lambda _: Scaling(),
    "linear": _hf_linear,
    "dynamic": _hf_dynamic,
    "llama3": _hf_llama3,
    "longrope": _hf_longrope,
    "yarn": _hf_yarn,
}
_BETA_FAST, _BETA_SLOW = 32.0, 1.0


def ggml_yarn(settings: Fields, keys: Collection[str], original: int, rope_theta: float, head_dim: int) -> Scaling:
    """Return llama.cpp's YaRN (ggml.c `ggml_rope_yarn_corr_dims`, ggml-cpu/ops.cpp `rope_yarn`, llama-context.cpp).

    keys : those of `settings` that it reads in the family.
    """
    factor = ggml_factor(settings)

    def said(key: str, usual: float) -> float:
        name = f"rope.scaling.yarn_{key}"
        return (settings.single(name) if name in keys and settings.find(name)[1] else None) or usual

    turns = said("beta_fast", _BETA_FAST), said("beta_slow", _BETA_SLOW)
    fast, slow = (_yarn_pair(settings.file, often, head_dim, rope_theta, original) for often in turns)
    low, high = max(math.floor(fast), 0), min(math.ceil(slow), head_dim - 1)
    magnitude = yarn_magnitude(factor) / yarn_magnitude(factor, said("log_multiplier", 0.0))
    return _yarn(factor, low, max(high - low, 0.001), head_dim, magnitude)


def ggml_factor(settings: Fields) -> float:
    """Return by how much a GGUF says that the context was stretched."""
    key, value = settings.find("rope.scaling.factor", "rope.scale_linear")
    return 1.0 if value in (None, 0) else shortest(settings.needed_number(key.removeprefix(settings.prefix)))


def _yarn(factor: float, low: float, width: float, head_dim: int, magnitude: float) -> Scaling:
    return Scaling(yarn_factors(factor, low, width, head_dim // 2), magnitude, ramp=(factor, float(low), float(width)))


def _yarn_pair(file: str, turns: float, head_dim: int, rope_theta: float, original: float) -> float:
    """Return which channel pair makes `turns` turns over the original context, between the whole ones."""
    if rope_theta == 1:
        raise ArtifactError(f"{file} gives a rotary base of 1, which YaRN cannot scale; correct it.")
    return head_dim * math.log(original / (turns * 2 * math.pi)) / (2 * math.log(rope_theta))


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
