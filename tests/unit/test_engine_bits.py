"""The ggml path against recordings of llama.cpp: not a bit differs, on its own inputs and over the whole forward.

Dumps as in test_forward.py; the first were recorded by a build with AVX-512, whose vectors have 16 lanes, the others
by one with AVX2.
"""

import ctypes
import ctypes.util
import json
import math

import numpy as np
import pytest

from kernels import c_library
from kernels.forward import forward
from kernels.machine.compiler import kernel
from kernels.matmul.ggml import matmul_ggml
from kernels.paths import numeric_path
from kernels.stages import Site
from kernels.weight import TensorType, Weight
from tests.gguf_files import interleaved
from tests.memory_model import random_model
from tests.unit.test_forward import LLAMA_TOKENS, canonical_heads, dump, forced
from workbench.bisect.verdict import Bits

OF_TYPES = [("llama", "F32"), ("qwen2", "F16"), ("qwen2", "Q4_K"), ("llama", "Q6_K")]


def recorded(architecture, type, model):
    found = dump(f"llama-cpp-{architecture}-{type.lower()}.npz")
    turned = interleaved(architecture)
    return {site: canonical_heads(site, value, model.config) if turned else value for site, value in found.items()}


def unlike(model, path, found, tokens):
    """The stages that differ in a bit: on the engine's own inputs, and in a run of all of them."""
    run = dict(forward(model, tokens, path))
    pairs = [*forced(model, path, found), *((site, run[site], found[site]) for site in found if site in run)]
    return [site for site, ours, theirs in pairs if not np.array_equal(bits(ours), bits(theirs))]


def bits(values):
    return np.ascontiguousarray(values, np.float32).view(np.uint32)


@pytest.mark.parametrize(("architecture", "type"), OF_TYPES)
def test_a_recording_with_vectors_of_sixteen_lanes_is_identical(architecture, type):
    shape = {"layers": 1, "head_dim": 64, "hidden": 256, "ffn": 512, "vocab": 64, "tied": type == "Q6_K"}
    model = random_model(architecture, TensorType[type], **shape, seed=int(TensorType[type]))
    found = recorded(architecture, type, model)
    assert unlike(model, numeric_path("ggml:avx512"), found, LLAMA_TOKENS) == []
    assert unlike(model, numeric_path("ggml"), found, LLAMA_TOKENS) != []


def test_functions_of_the_c_library_have_its_bits():
    names = ("sinf", "cosf", "expf", "logf")
    library = ctypes.CDLL(ctypes.util.find_library("m"))
    theirs = [getattr(library, name) for name in names]
    for function in theirs:
        function.restype, function.argtypes = ctypes.c_float, [ctypes.c_float]
    ours = [getattr(c_library, name) for name in names]
    sine, cosine, exponential, logarithm = ours

    @kernel()
    def all_of(x, out):
        for i in range(x.size):
            out[0, i], out[1, i] = sine(x[i]), cosine(x[i])
            out[2, i], out[3, i] = exponential(x[i]), logarithm(x[i])

    rng = np.random.default_rng(4)
    sizes = np.exp2(rng.uniform(-140, 127.9, 4000)).astype(np.float32)
    angles = rng.uniform(-math.pi, 400_000, 4000).astype(np.float32)
    x = np.concatenate([sizes, -sizes, angles, rng.uniform(-104, 89, 4000).astype(np.float32), np.float32([0, np.inf])])
    out = np.empty((4, x.size), np.float32)
    all_of(x, out)
    for mine, function in zip(out, theirs, strict=True):
        expected = np.array([function(value) for value in x.tolist()], np.float32)
        same = (bits(mine) == bits(expected)) | (np.isnan(mine) & np.isnan(expected))
        assert same.all()


def test_a_count_of_bits_is_told_and_read_back():
    whole, parts = Bits(15, 15), Bits(14, 15, Site(0, "attention"), 3, 17)
    assert whole.words("llama.cpp") == "Identical to llama.cpp in every bit: all 15 stages that were checked."
    assert "14 of 15" in parts.words("llama.cpp")
    assert "layer 0 attention, token 3, channel 17" in parts.words("llama.cpp")
    assert [Bits.from_json(json.loads(json.dumps(bits.to_json()))) for bits in (whole, parts)] == [whole, parts]


@pytest.mark.parametrize(("part_of", "same"), [(8, True), (0, False)])
def test_rows_of_a_matrix_have_the_bits_that_it_has(part_of, same):
    rng = np.random.default_rng(1)
    values, x = (rng.standard_normal((rows, 64)).astype(np.float32) for rows in (8, 5))
    whole = Weight("w", TensorType["F32"], values.shape, values.view(np.uint8))
    part = Weight("w", TensorType["F32"], (2, 64), values[:2].view(np.uint8), part_of=part_of)
    assert np.array_equal(bits(matmul_ggml(x, part)), bits(matmul_ggml(x, whole)[:, :2])) is same
