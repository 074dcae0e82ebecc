"""One processor or another: the same bits."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from llvmlite import ir
from numba import types

from kernels.machine import target
from kernels.machine.compiler import kernel
from kernels.machine.vectors import F32, I16, Vectors, array_intrinsic
from kernels.matmul.byte_products import HOST

ROOT = Path(__file__).parents[2]
# Every path, in few kernels: dots of quantized blocks and floats, halves, norms, rotation, attention, activation.
PATHS = [("f64", "F16"), ("f32", "F16"), ("ggml", "Q8_0"), ("ggml", "Q6_K"), ("apr", "Q4_K")]
HASHES = """
import hashlib, json, sys
from kernels.machine import target
from kernels.matmul.byte_products import HOST
from kernels.forward import forward
from kernels.paths import numeric_path
from tests.artifacts import tiny_model

found = {}
for path, type in json.loads(sys.argv[1]):
    digest = hashlib.sha256()
    for _, values in forward(tiny_model("qwen2", type, layers=1), range(9), numeric_path(path)):
        digest.update(values.tobytes())
    found[f"{path} {type}"] = digest.hexdigest()
print(json.dumps({"how": [HOST.name, target.HALF_PRECISION, target.has("fma")], "hashes": found}))
"""
FIRST = ir.Constant(ir.IntType(64), 0)
PORTABLE, AVX2 = ["portable", False, False], ["AVX2", True, True]
# name of the processor, its vector extensions (without them Numba takes those of this machine), how products are made,
# and what is computed: on one between the least and this one, what is written for its instructions
TARGETS = [
    ("generic", "", PORTABLE, PATHS),
    ("haswell", "+avx,+avx2,+f16c,+fma", AVX2, PATHS[1:4])
    if target.has("avx512f")
    else ("sandybridge", "+avx,-avx2,-f16c,-fma", PORTABLE, PATHS[1:4]),
]


def start(paths: list[tuple[str, str]], environment: dict[str, str]) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-c", HASHES, json.dumps(paths)],
        cwd=ROOT,
        env=os.environ | environment,
        stdout=subprocess.PIPE,
        text=True,
    )


@pytest.mark.skipif(not target.X86, reason="names of x86 processors")
def test_every_target_computes_the_same_bits():
    running = [
        start(paths, {"NUMBA_CPU_NAME": name, "NUMBA_CPU_FEATURES": features}) for name, features, _, paths in TARGETS
    ]
    here, *others = (json.loads(process.communicate()[0]) for process in (start(PATHS, {}), *running))
    assert here["how"][0] == HOST.name
    for other, (name, _, how, paths) in zip(others, TARGETS, strict=True):
        assert other["how"] == how
        assert len(other["hashes"]) == len(paths)
        assert other["hashes"].items() <= here["hashes"].items(), name


def converter(way: str):
    """A kernel function of (x, out) that converts the first element."""

    def emit(b, x, out):
        v = Vectors(b)
        made = v.from_half(v.load(I16, 1, x, FIRST)) if way == "from" else v.to_half(v.load(F32, 1, x, FIRST))
        v.store(made, out, FIRST)

    return array_intrinsic(2, types.void, emit)


@pytest.mark.parametrize("hardware", {False, target.HALF_PRECISION})
def test_halves_are_those_of_ieee_754(hardware, monkeypatch):
    monkeypatch.setattr(target, "HALF_PRECISION", hardware)
    widen, narrow = converter("from"), converter("to")

    @kernel()
    def both(halves, widened, floats, narrowed):
        for i in range(halves.size):
            widen(halves[i : i + 1], widened[i : i + 1])
        for i in range(floats.size):
            narrow(floats[i : i + 1], narrowed[i : i + 1])

    halves = np.arange(1 << 16, dtype=np.uint16)
    exact = halves.view(np.float16).astype(np.float32)
    # all halves, and what lies around the middle between two of them, where rounding turns
    finite = np.sort(exact[np.isfinite(exact)])
    middles = (finite[:-1] + finite[1:]) / 2
    around = [np.nextafter(middles, np.float32(way)) for way in (-np.inf, np.inf)]
    extremes = np.array([65519.996, 65520, 65536, 3e38, 1e-45, 2.0**-25, 2.0**-24, np.inf, np.nan], np.float32)
    floats = np.concatenate([exact, middles, *around, extremes, -extremes])
    widened, narrowed = np.empty_like(exact), np.empty(floats.size, np.uint16)
    both(halves, widened, floats, narrowed)
    assert np.array_equal(widened, exact, equal_nan=True)
    assert np.array_equal(np.signbit(widened), np.signbit(exact))
    with np.errstate(all="ignore"):
        expected = floats.astype(np.float16)
    assert np.array_equal(narrowed.view(np.float16), expected, equal_nan=True)
    known = ~np.isnan(expected)
    assert np.array_equal(narrowed[known], expected.view(np.uint16)[known])


@pytest.mark.parametrize(
    ("stated", "feature", "there"),
    [
        ({"avx2": True}, "avx2", True),
        ({"avx2": False}, "avx2", False),
        ({}, "avx2", False),
        ({"avx2": True, "avx": False}, "avx2", False),
        ({"avx512vnni": True, "avx512f": False}, "avx512vnni", False),
    ],
)
def test_a_feature_counts_only_with_what_it_stands_on(stated, feature, there, monkeypatch):
    monkeypatch.setattr(target, "_stated", lambda: stated)
    assert target.has(feature) == there
