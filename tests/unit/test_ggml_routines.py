"""Rearranged weights and tiles beside ggml's own answers (golden/record_ggml_routines.py), bit for bit.

Seen with builds for AVX2 and for AVX-512 (VNNI, BF16, VBMI) of llama-cpp-python 0.3.36, whose products are the same.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from kernels.errors import WorkbenchError
from kernels.ggml_settings import GgmlSettings
from kernels.kinds.attention import Attention
from kernels.matmul.byte_products import available
from kernels.matmul.ggml import matmul_ggml, multiplier, packed, round_activations, rounded_activations
from kernels.matmul.routines import Routines
from kernels.paths import numeric_path
from kernels.weight import TensorType
from tests.random_weights import digest, random_weight, tied_activations

ROWS, COLUMNS, TOKENS = 16, 768, 11
TYPES = [type for type in TensorType if type.block.elements > 1]
REPACKED = [type for type in TYPES if type.format.repacked]
TILED = [type for type in TYPES if type.format.tiled]


@pytest.fixture(scope="module")
def recorded():
    with np.load(Path(__file__).parents[1] / "golden/ggml-routines.npz") as arrays:
        return dict(arrays)


def of(type):
    return random_weight(int(type), type, ROWS, COLUMNS)


@pytest.mark.parametrize(
    ("type", "routine"),
    [*((type, "repacked") for type in REPACKED), *((type, "tiled") for type in TILED)],
    ids=lambda value: getattr(value, "name", value),
)
def test_other_routines_have_the_bits_of_ggml(type, routine, recorded):
    routines = Routines(repack=True, wide=True) if routine == "repacked" else Routines(tiled=True)
    ours = matmul_ggml(tied_activations(TOKENS, COLUMNS), of(type), routines=routines)
    assert digest(ours) == str(recorded[f"avx512 {type.name} {routine}"])
    if f"avx2 {type.name} {routine}" in recorded:
        assert np.array_equal(ours.view(np.uint32), recorded[f"avx2 {type.name} {routine}"].view(np.uint32))


def test_any_processor_has_them_too(recorded):
    how, type, x = available()[0], TensorType.Q4_K, tied_activations(TOKENS, COLUMNS)
    multiply, codes = multiplier(type.format.rearranged, how, type.format), round_activations(x, type, 8)
    ours = np.empty((TOKENS, ROWS), np.float32)
    multiply(int(type), COLUMNS, of(type).stored, *packed(codes, type.format, how), ours, 0, 0, ROWS)
    assert np.array_equal(ours.view(np.uint32), recorded["avx2 Q4_K repacked"].view(np.uint32))


def test_experts_meet_their_tokens_one_by_one():
    weight, x = of(TensorType.Q4_K), tied_activations(TOKENS, COLUMNS)
    routines = Routines(repack=True, tiled=True)
    expert = replace(weight, name="model.layers.0.mlp.experts.3.up_proj.weight")
    alone = np.concatenate([matmul_ggml(x[t : t + 1], weight, routines=routines) for t in range(TOKENS)])
    assert np.array_equal(matmul_ggml(x, expert, routines=routines), alone)
    assert not np.array_equal(matmul_ggml(x, weight, routines=routines), alone)


def test_which_weights_are_rearranged():
    routines, weight = Routines(repack=True), of(TensorType.Q4_K)
    assert routines.rearranged(weight)
    assert not Routines().rearranged(weight)
    assert not routines.rearranged(replace(weight, shape=(ROWS + 4, COLUMNS)))
    assert not routines.rearranged(replace(weight, name="model.layers.0.self_attn.k_b_proj.1.weight"))
    assert not routines.rearranged(of(TensorType.Q2_K))
    assert routines._replace(wide=True).rearranged(of(TensorType.Q2_K))


def test_batches_are_computed_by_themselves():
    """Of 8 + 3 tokens the second batch has too few for tiles."""
    weight, x = of(TensorType.Q6_K), tied_activations(TOKENS, COLUMNS)
    routines = Routines(tiled=True, batch=8)
    parts = [matmul_ggml(x[:8], weight, routines=Routines(tiled=True)), matmul_ggml(x[8:], weight)]
    assert np.array_equal(matmul_ggml(x, weight, routines=routines), np.concatenate(parts))
    codes = rounded_activations(x, weight, routines)
    assert np.array_equal(codes.codes, round_activations(x, weight.type).codes)


def test_a_path_is_named_with_its_settings():
    path = numeric_path("ggml:tiled,repack,v=f16,batch=64")
    assert path.name == "ggml:repack,tiled,v=f16,batch=64"
    assert path.how == GgmlSettings(repack=True, tiled=True, type_v="f16", batch=64)
    assert path.engine == numeric_path("ggml").name == "ggml"
    assert path is numeric_path("ggml:batch=64,repack,tiled,v=f16")  # as a bisection tells that two sides compute alike
    for wrong in ("ggml:", "ggml:fast", "ggml:batch=0", "ggml:k=q8_0", "ggml:avx512_bf16", "f32:tiled"):
        with pytest.raises(WorkbenchError, match=r"setting of|not known"):
            numeric_path(wrong)


@pytest.mark.parametrize("spoiled", [0, 1], ids=["of a key", "of a value"])
@pytest.mark.parametrize("settings", ["", ":k=f16,v=f16"])
def test_a_lost_value_reaches_the_tokens_that_see_it_and_no_others(settings, spoiled):
    q, k, v = (np.random.default_rng(place).standard_normal((6, 32), np.float32) for place in range(3))
    (k, v)[spoiled][3, 5] = np.nan
    out = numeric_path(f"ggml{settings}").attention(q, k, v, Attention(4, 4, 8, 0.3, 32))
    assert np.isnan(out).any(axis=1).tolist() == [False] * 3 + [True] * 3
