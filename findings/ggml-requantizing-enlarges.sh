#!/usr/bin/env bash
# Quantizing a Q5_1 file again as Q4_1, or the other way round, makes every weight 2 % larger on average.
#
# Version: gguf 0.19.0 (its own quantizers, in NumPy), numpy 2.4.6.
# Behaviour: from floats both types are unbiased: the least-squares factor from source to copy is within 0.1 % of 1. From
#   each other they are not. Both span the same minimum to maximum of a block, one in 15 steps and one in 31, so the
#   values of the first lie at fixed places between those of the second: k of 31 is k/2 - k/62 of 15. Near the minimum
#   the odd codes fall just below one half and are rounded down, near the maximum the even ones lie just above it and are
#   rounded up: everything moves away from the middle of its block, nothing averages out. Q4_0 as Q4_1 shows it by 1.3 %.
#   Q8_0 in between, whose steps do not interlock with either, leaves the factor at 1.
# Why it matters: a copy of a copy is not only noisier. Its matrices are louder by a constant factor in every block and
#   every layer, which a comparison of magnitudes reads as a scale that somebody applied, and which adds up over layers.
# Output seen on 2026-11-28:
#   float -> Q4_1          factor 1.0006, relative error 0.0782
#   float -> Q5_1          factor 1.0002, relative error 0.0379
#   float -> Q5_1 -> Q4_1  factor 1.0230, relative error 0.0738 of the second step
#   float -> Q4_1 -> Q5_1  factor 1.0195, relative error 0.0448 of the second step
#   float -> Q4_0 -> Q4_1  factor 1.0132, relative error 0.0642 of the second step
#   float -> Q8_0 -> Q4_1  factor 1.0006, relative error 0.0782 of the second step
# The script fails if this changes.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check numpy==2.4.6 gguf==0.19.0
"$work/venv/bin/python" - <<'PY'
import numpy as np
from gguf import GGMLQuantizationType as Type
from gguf.quants import dequantize, quantize

weights = np.random.default_rng(0).standard_normal((512, 1024)).astype(np.float32)


def kept(values, name):
    return dequantize(quantize(values, Type[name]), Type[name])


def factor(source, copy):
    """Least-squares factor from source to copy, and what the copy is off by."""
    x, y = source.astype(np.float64), copy.astype(np.float64)
    return (x * y).sum() / (x * x).sum(), np.sqrt(((x - y) ** 2).sum() / (x * x).sum())


for names, low, high in (
    (("Q4_1",), 0.999, 1.001),
    (("Q5_1",), 0.999, 1.001),
    (("Q5_1", "Q4_1"), 1.022, 1.024),
    (("Q4_1", "Q5_1"), 1.019, 1.020),
    (("Q4_0", "Q4_1"), 1.012, 1.014),
    (("Q8_0", "Q4_1"), 0.999, 1.001),
):
    source = weights
    for name in names[:-1]:
        source = kept(source, name)
    found, off = factor(source, kept(source, names[-1]))
    of = " of the second step" if len(names) > 1 else ""
    print(f"{' -> '.join(('float', *names)):<22} factor {found:.4f}, relative error {off:.4f}{of}")
    assert low < found < high, names
PY
echo "as described"
