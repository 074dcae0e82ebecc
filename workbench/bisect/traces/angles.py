"""By which angle a recorded rotation turned every pair of channels.

All heads of a token turn by the same angles, and the angles of one pair grow with the position: taken together they
are known far better than any single element, so a table that is slightly off shows where elements are coarse.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from kernels.graph import At
from kernels.kinds.rotate import Rotate, Rotation
from kernels.precision import FLOAT32, Precision

Values = NDArray[np.float64]
Pairs = NDArray[np.complex128]
_ANGLE = 4 * FLOAT32.unit  # relative rounding of an angle: a frequency, a product, a cosine, in float32 even in float64


def pairs_of(x: NDArray[Any], rotation: Rotation) -> Pairs:
    """The channels (tokens, channels) that turn together as complex numbers (tokens, heads, pairs)."""
    heads = x.reshape(len(x), -1, rotation.head_dim)[..., : rotation.width].astype(np.float64)
    half = rotation.width // 2
    if rotation.pairs == "neox":
        return np.asarray(heads[..., :half] + 1j * heads[..., half:])
    return np.asarray(heads[..., 0::2] + 1j * heads[..., 1::2])


def channels_of(pairs: Pairs, x: NDArray[Any], rotation: Rotation) -> Values:
    """The inverse of `pairs_of`, float64 (tokens, channels), with those of x that do not turn."""
    parts = pairs.real, pairs.imag
    joined = np.concatenate(parts, axis=2) if rotation.pairs == "neox" else np.stack(parts, axis=3)
    still = x.reshape(len(x), -1, rotation.head_dim)[..., rotation.width :]
    return np.concatenate([joined.reshape(*pairs.shape[:2], -1), still], axis=2).reshape(x.shape)


def phases(x: NDArray[Any], y: NDArray[Any], rotation: Rotation) -> Pairs:
    """What turns every pair of x into that of y, summed over the heads, complex (tokens, pairs)."""
    return np.asarray((pairs_of(y, rotation) * pairs_of(x, rotation).conj()).sum(axis=1))


def turned_off(at: At, y: NDArray[Any], right: NDArray[Any], kept: Precision) -> float:
    """How far the angles of a rotation y are from those of the right one, in units of what rounding makes of them.

    The larger of two figures, both of the worst pair: the root mean square over the tokens, and the error of its
    frequency. An engine rounds cosines and sines, which all heads share, and the products of every head by themselves.
    """
    assert isinstance(at.kind, Rotate)
    rotation = at.kind.rotation
    size = np.square(np.abs(pairs_of(right, rotation)))
    energy = size.sum(axis=1)
    seen = energy > 0
    if not seen.any():
        return 0.0
    off = np.angle(phases(right, y, rotation))
    with np.errstate(divide="ignore", invalid="ignore"):
        heads = np.square(size).sum(axis=1) / np.square(energy)  # one over the number of heads that count
        single = kept.unit**2 * (1 + 3 * heads) + 9 * kept.least**2 / energy
    positions = at.positions()[:, None].astype(np.float64)
    frequencies = np.abs(at.path.rope_angles(np.ones(1, dtype=np.int64), rotation)).astype(np.float64)
    spread = np.where(seen, single + np.square(_ANGLE * (1 + positions * frequencies)), np.inf)
    each = np.sqrt((np.square(off) / spread).sum(axis=0) / np.maximum(seen.sum(axis=0), 1))
    known = (np.square(positions) / spread).sum(axis=0)
    drift = np.divide((positions * off / spread).sum(axis=0), known, out=np.zeros_like(known), where=known > 0)
    sure = np.sqrt(np.divide(1, known, out=np.full_like(known, np.inf), where=known > 0) + (_ANGLE * frequencies) ** 2)
    return float(max(each.max(), (np.abs(drift) / sure).max()))
