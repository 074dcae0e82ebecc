"""What the channels of the stages are: how many, and in which order the heads of q and k have them."""

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from kernels.config import ModelConfig
from kernels.models import Graph
from kernels.stages import Site

_PROJECTED = ("qkv_matmul", "qkv_bias", "qkv_clip")
ROTATED = (*_PROJECTED, "q_post_rope", "k_post_rope", "q_tempered")
_ROWS = 64  # enough to tell how heads rotate
_ROUNDING = 1e-4  # relative; a rotation in float16 keeps lengths to 1e-3, in float32 to 1e-6


def stage_channels(config: ModelConfig) -> dict[str, int]:
    """Return the channels of every stage of a model, of the last layer that has it."""
    return {site.stage: channels for site, channels in site_channels(config).items()}


def site_channels(config: ModelConfig) -> dict[Site, int]:
    """Return the channels of every stage of a model in each layer; those of heads may differ."""
    return {stage.site: stage.channels for stage in Graph(config).stages()}


def halves_from_adjacent(stage: str, channels: int, head_dim: int, kv_size: int) -> NDArray[np.intp]:
    """Return which channel of a stage whose heads rotate adjacent pairs belongs at each place of the canonical order.

    Channel 2i+s of a head goes to s*head_dim/2+i; V, the last kv_size channels of Q|K|V, stays.
    """
    rotated = channels - kv_size if stage in _PROJECTED else channels
    order = np.arange(channels)
    order[:rotated] = order[:rotated].reshape(-1, head_dim // 2, 2).swapaxes(1, 2).ravel()
    return order


def rope_pairs(before: NDArray[Any], after: NDArray[Any], head_dim: int) -> Literal["adjacent", "halves"] | None:
    """Tell from q before and after its rotation, both (tokens, channels), which channels of a head rotate together.

    A rotation keeps the length of every pair that it turns. None where both or neither of the ways do, as for a
    single token at position 0, which is not turned.
    """
    if before.size == 0 or head_dim % 2 or before.shape != after.shape:
        return None
    x, y = (np.asarray(values[:_ROWS], np.float64).reshape(-1, head_dim) for values in (before, after))
    if not np.isfinite(x).all() or not np.isfinite(y).all():
        return None
    limit = _ROUNDING * float(np.abs(x).max())
    moved = np.flatnonzero(np.abs(x - y).max(axis=0) > limit)
    turned = 2 * ((int(moved.max(initial=0)) + 2) // 2)  # of models that rotate a part of each head

    def kept(one: slice, other: slice) -> bool:
        off = np.hypot(x[:, one], x[:, other]) - np.hypot(y[:, one], y[:, other])
        return bool(np.abs(off).max() <= limit)

    adjacent = kept(slice(0, None, 2), slice(1, None, 2))
    halves = any(kept(slice(0, width // 2), slice(width // 2, width)) for width in (head_dim, turned))
    if adjacent == halves:
        return None
    return "adjacent" if adjacent else "halves"
