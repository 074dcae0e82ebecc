"""What the KL divergence of two outputs is made of: one pass over the logits of a token, in float64.

KL(run‖other) = Σ p (run − other) − (log Σ exp run − log Σ exp other), p the softmax of run. Exponentials are within a
unit in the last place of float64, for divergences that float32 arithmetic alone makes are some 1e-12.
"""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kernels.machine.compiler import helper, kernel
from kernels.machine.operations import bits, fma, from_bits
from kernels.machine.parallel import over_rows

Logits = NDArray[np.floating[Any]]
Values = NDArray[np.float64]

_POWERS = 1 / math.log(2)
_ROUND = float.fromhex("0x1.8p+52")  # added, it leaves a whole number in the last places
_LN2 = float.fromhex("0x1.62e42fee00000p-1")  # its products with whole powers are exact, and the rest of it
_LN2_REST = float.fromhex("0x1.a39ef35793c76p-33")
_TERMS = tuple(1 / math.factorial(n) for n in range(14))
_LEAST = -708.0  # the exponential of what is below it counts as none
_SHARE = 1 << 16  # logits that are worth a thread


@helper()
def _exponential(x: float) -> float:
    """Exp(x) of x up to 0; NaN of NaN."""
    shifted = fma(x, _POWERS, _ROUND)
    n = shifted - _ROUND
    rest = fma(-n, _LN2_REST, fma(-n, _LN2, x))
    near = _TERMS[13]
    for term in (
        *(_TERMS[12], _TERMS[11], _TERMS[10], _TERMS[9], _TERMS[8], _TERMS[7]),
        *(_TERMS[6], _TERMS[5], _TERMS[4], _TERMS[3], _TERMS[2], _TERMS[1], _TERMS[0]),
    ):
        near = fma(near, rest, term)
    power = from_bits((bits(shifted) + np.uint64(1023)) << np.uint64(52))
    return 0.0 if x < _LEAST else near * power


@kernel(
    "void(float32[:, ::1], float32[:, ::1], float64[::1], float64[:, ::1])",
    "void(float64[:, ::1], float64[:, ::1], float64[::1], float64[:, ::1])",
    reassociate=True,
)
def _weigh(run: Logits, other: Logits, most: Values, out: Values) -> None:
    for token in range(run.shape[0]):
        whole = gaps = 0.0
        for i in range(run.shape[1]):
            x = np.float64(run[token, i])
            share = _exponential(x - most[token])
            whole += share
            gaps += share * (x - np.float64(other[token, i]))
        out[0, token], out[1, token] = most[token] + math.log(whole), gaps / whole


def log_sums_and_gaps(run: Logits, other: Logits) -> tuple[Values, Values]:
    """Log Σ exp of every token of `run`, and the mean of run − other under its softmax: float64 (tokens,) both.

    run, other : (tokens, vocabulary), both float32 or float64; NaN where logits of a token are not finite.
    """
    dtype = np.float32 if run.dtype == other.dtype == np.float32 else np.float64
    found = np.empty((2, len(run)))

    def compute(start: int, stop: int) -> None:
        of_run, of_other = (np.require(side[start:stop], dtype, ("C", "W")) for side in (run, other))
        part = np.empty((2, stop - start))
        _weigh(of_run, of_other, of_run.max(axis=1).astype(np.float64), part)
        found[:, start:stop] = part

    over_rows(compute, len(run), least=-(-_SHARE // run.shape[1]))
    return found[0], found[1]
