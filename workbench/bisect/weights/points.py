"""What can be asked of a tensor whose codes are points of a grid (IQ1, IQ2, IQ3): signs, and likeness.

Eight or four codes together are the point of a grid that is best in the weighted mean, not the nearest one of each;
then the scale is fitted to them, with importance weights that may leave most values to chance, and rounded to odd
multiples of one that is too large for the smallest groups. So of a single value hardly more than its sign is certain,
and where seven of eight signs are stored, one of eight is not. Runs of values must be alike all the same.
"""

import numpy as np

from workbench.bisect.weights.steps import Flags, Floats, Stored

_RUN = 256  # values that share a scale
_LEAST_LIKE = 0.15  # cosine of the angle between two copies of a run; 0.21 is the least found, in docs/bisect.md
_LEAST_OF_ONE = 0.05  # where one value has more than half of a run's energy and no code is so large; 0.087 is found
_LEAST_SHARE = 0.2  # of the values that a source has at least along them; 0.25 is the least found
POINTS_IN_COLUMNS = 48.0  # over the columns of a head: how far off 1 a factor of theirs may be; 1.49 of 32, 0.7 of 64
_OPPOSITE, _SHRUNK = 0.75, 0.25  # of a group: share of values, one of eight exempt and rounding besides; its size
_SMALLEST = 1e-3  # root mean square of a run, below which half-precision scales lose their digits


def on_grid(a: Stored, b: Stored) -> bool:
    """Whether one side's codes are points of a grid."""
    return a.flips is not None or b.flips is not None


def forgiven(a: Stored, b: Stored, excess: Floats) -> Floats:
    """The excess of every value, without the worst ones of every eight where a wrong sign may be the format's."""
    excess = np.where(_turned(a, b) | _turned(b, a), np.float32(0), excess)
    eights = excess.reshape(-1, 8).copy()
    for _ in range((a.flips or 0) + (b.flips or 0)):
        eights[np.arange(len(eights)), eights.argmax(axis=1)] = 0
    return eights.reshape(excess.shape)


def _turned(side: Stored, source: Stored) -> Flags:
    """Groups that a fit to one important value, whose sign had to change, made as small as can be and opposite.

    Of types of which seven of eight signs are stored; all others keep the sign of their scale.
    """
    if side.flips != 1 or side.reached is None:
        return np.zeros(side.values.shape, dtype=bool)
    v, x = (each.values.astype(np.float64).reshape(-1, side.shared) for each in (side, source))
    smallest = (side.reached.reshape(v.shape) == 0).all(axis=1)
    opposite = (v * x < 0).mean(axis=1) >= _OPPOSITE
    small = np.abs(v).sum(axis=1) <= _SHRUNK * np.abs(x).sum(axis=1)
    return np.repeat(smallest & opposite & small, side.shared).reshape(side.values.shape)


def unlike(a: Stored, b: Stored, size: int) -> Flags:
    """Blocks (rows, columns / size) of runs that are no two copies of one another."""
    x, y = (
        np.where(np.isfinite(side.values), side.values, 0).astype(np.float64).reshape(len(side.values), -1, _RUN)
        for side in (a, b)
    )
    energy_x, energy_y, product = (np.einsum("rcn,rcn->rc", p, q) for p, q in ((x, x), (y, y), (x, y)))
    large = np.maximum(energy_x, energy_y) > _RUN * _SMALLEST**2
    of_one = np.maximum(np.square(x).max(axis=-1) - energy_x / 2, np.square(y).max(axis=-1) - energy_y / 2) > 0
    least = np.where(of_one, _LEAST_OF_ONE, _LEAST_LIKE)
    far = large & ((product < least * np.sqrt(energy_x * energy_y)) | (product <= 0))
    for side, energy in ((a, energy_x), (b, energy_y)):
        if side.flips is not None:
            far |= large & (product < _LEAST_SHARE * energy)
    return np.repeat(far, _RUN // size, axis=1)
