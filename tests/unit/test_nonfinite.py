"""NaN and infinity in stored values: found wherever they are, counted, and named by every command."""

import json
from dataclasses import replace

import numpy as np
import pytest

from kernels.rows.dequantize import dequantize
from kernels.weight import TensorType, Weight
from tests.artifacts import tiny_model
from tests.gguf_files import write_gguf
from tests.hf_files import write_safetensors
from tests.random_weights import put_nibbles, random_rows
from workbench.__main__ import run
from workbench.tensors.nonfinite import nonfinite

UP = "model.layers.1.mlp.up_proj.weight"
HALF = {"nan": (0x00, 0x7E), "inf": (0x00, 0xFC)}
BITS = {
    TensorType.F32: {"nan": (0, 0, 0xC0, 0x7F), "inf": (0, 0, 0x80, 0xFF)},
    TensorType.BF16: {"nan": (0xC0, 0x7F), "inf": (0x80, 0x7F)},
    TensorType.F64: {"nan": (0,) * 6 + (0xF8, 0x7F), "inf": (0,) * 6 + (0xF0, 0xFF)},
    TensorType.F8_E5M2: {"nan": (0x7E,), "inf": (0xFC,)},
    TensorType.F8_E4M3: {"nan": (0x7F,)},
}


KINDS = [
    (type, kind)
    for type in TensorType
    if getattr(type.format, "factors", BITS)
    for kind in ("nan", "inf")
    if kind in BITS.get(type, HALF)
]


@pytest.mark.parametrize(("type", "kind"), KINDS)
def test_what_is_counted_is_what_dequantizing_gives(type, kind):
    columns, places = 512, ((31, 1), (7, 0), (7, 1))
    rows = random_rows(np.random.default_rng(1), type, 40, columns)
    for row, block in places:
        bits = BITS.get(type, HALF)[kind]
        at = block * type.block.bytes + getattr(type.format, "d", 0)
        rows[row, at : at + len(bits)] = bits
    weight = Weight("x", type, (40, columns), rows)
    strange = ~np.isfinite(dequantize(weight))
    found = nonfinite(weight)
    assert found is not None
    assert found.count == strange.sum() == 3 * type.block.elements
    assert found.nan == (found.count if kind == "nan" else 0)
    assert (found.row, found.columns[0]) == tuple(np.argwhere(strange)[0])
    assert nonfinite(Weight("x", type, (23, columns), np.ascontiguousarray(rows[8:31]))) is None


def test_powers_of_two_that_are_too_large_for_float32_are_counted():
    rows = random_rows(np.random.default_rng(1), TensorType.MXFP4, 4, 64)
    rows[2, 17] = 254
    weight = Weight("x", TensorType.MXFP4, (4, 64), rows)
    strange, found = ~np.isfinite(dequantize(weight)), nonfinite(weight)
    assert found is not None
    assert (found.count, found.nan) == (strange.sum(), 0)
    assert (found.row, found.columns[0]) == tuple(np.argwhere(strange)[0])


@pytest.mark.parametrize("kind", ["nan", "inf"])
def test_a_scale_in_four_nibbles_is_looked_at(kind):
    rows = random_rows(np.random.default_rng(1), TensorType.IQ1_M, 4, 512)
    put_nibbles(rows[2, 56:], np.array(HALF[kind], np.uint8).view(np.float16)[0])
    found = nonfinite(Weight("x", TensorType.IQ1_M, (4, 512), rows))
    assert found is not None
    assert (found.count, found.nan, found.row) == (256, 256 if kind == "nan" else 0, 2)
    assert found.columns == (256, 511)


def test_the_first_place_is_told_in_canonical_order():
    values = np.ones((4, 8), np.float32)
    values[1, 5] = np.nan
    found = nonfinite(Weight("x", TensorType.F32, (4, 8), values.view(np.uint8), np.array([3, 0, 1, 2])))
    assert found is not None
    assert (found.row, found.columns) == (2, (5, 5))


def edited(value, type=TensorType.F32):
    """A small model with one value of one tensor replaced."""
    model = tiny_model("qwen2", "F32")
    values = dequantize(model.weights[UP])
    values[3, 5] = value
    kept = values.astype(np.float16 if type == TensorType.F16 else np.float32)
    weight = Weight(UP, type, values.shape, np.ascontiguousarray(kept).view(np.uint8))
    return replace(model, weights={**model.weights, UP: weight})


def answered(capsys, *arguments):
    code = run([*map(str, arguments), "--json"])
    return code, json.loads(capsys.readouterr().out)


@pytest.mark.parametrize(
    ("right", "wrong", "cause", "words"),
    [
        (edited(0.1), edited(np.nan), "corrupted_blocks", "NaN"),
        (edited(np.inf), edited(0.1), "corrupted_blocks", "infinite"),
        (edited(70000), edited(np.inf, TensorType.F16), "overflow", "beyond 65504"),
    ],
    ids=["NaN", "Inf in A", "overflow"],
)
def test_every_command_names_them(tmp_path, capsys, right, wrong, cause, words):
    for name, model in (("a", right), ("b", wrong)):
        write_safetensors(tmp_path / name, model)
    code, found = answered(capsys, "bisect", tmp_path / "a", tmp_path / "b", "--tokens", "1,2,3")
    assert (code, found["culprit"]["cause"], found["culprit"]["tensor"]) == (1, cause, UP)
    assert words in found["culprit"]["explanation"]
    code, found = answered(capsys, "weights", tmp_path / "a", tmp_path / "b")
    outside = [tensor for tensor in found["tensors"] if not tensor["in_band"]]
    assert (code, [tensor["name"] for tensor in outside]) == (1, [UP])
    assert "row 3, column 5" in "".join(outside[0]["findings"])
    sides = [answered(capsys, "inspect", tmp_path / name)[1]["problems"] for name in "ab"]
    assert [sum(UP in problem for problem in problems) for problems in sides] == (
        [1, 0] if cause == "corrupted_blocks" and words == "infinite" else [0, 1]
    )


def test_what_both_sides_have_lost_is_said_though_they_are_alike(tmp_path, capsys):
    for name in "ab":
        write_safetensors(tmp_path / name, edited(np.nan))
    code, found = answered(capsys, "bisect", tmp_path / "a", tmp_path / "b", "--tokens", "1,2,3")
    assert (code, found["verdict"], UP in found["notes"][0]) == (0, "alike", True)
    code, found = answered(capsys, "weights", tmp_path / "a", tmp_path / "b")
    assert (code, found["outside_band"]) == (1, 1)
    cell = ("--tokens", "1,2,3", "--cell", "1:ffn_up")
    code, found = answered(capsys, "bisect", tmp_path / "a", tmp_path / "b", *cell)
    assert (code, list(found)) == (2, ["error"])
    assert "layer 1 ffn_up cannot be taken apart: 3 of 288 values" in found["error"]


def changed(model, name, change):
    """The model with other values in a tensor."""
    weight = model.weights[name]
    values = np.ascontiguousarray(change(dequantize(weight).reshape(weight.shape)), np.float32)
    return replace(
        model, weights=model.weights | {name: Weight(name, weight.type, weight.shape, values.view(np.uint8))}
    )


def of_low_rank(values):
    return values + np.outer(np.sin(np.arange(len(values))), np.cos(np.arange(values.shape[1]))) / 4


def with_other_base(model):
    return replace(model, config=replace(model.config, rope_theta=5e5))


EMBEDDING = "model.embed_tokens.weight"
MISTAKES = {
    "none": (lambda model: model, None),
    "low rank": (lambda model: changed(model, UP, of_low_rank), (1, "ffn_up", "low_rank")),
    "scaled": (lambda model: changed(model, UP, lambda x: x * 2), (1, "ffn_up", "scaled")),
    "some rows": (
        lambda model: changed(model, UP, lambda x: np.concatenate([x[:8], x[:7:-1]])),
        (1, "ffn_up", "rows_permuted"),
    ),
    "base": (with_other_base, (0, "q_post_rope", "rope_theta")),
}


@pytest.mark.parametrize("mistake", MISTAKES)
@pytest.mark.parametrize(("name", "row", "value"), [(UP, 3, np.inf), (EMBEDDING, 7, np.nan)], ids=["product", "token"])
def test_what_both_sides_have_lost_neither_hides_a_mistake_nor_is_one(tmp_path, capsys, mistake, name, row, value):
    """The two engines compute otherwise, and the lost value reaches only the last of the tokens, or layer 1."""
    model = tiny_model("qwen2", "F32")
    places = np.zeros(model.weights[name].shape, bool)
    places[row, 5] = True
    source = changed(model, name, lambda x: np.where(places, value, x))
    change, expected = MISTAKES[mistake]
    wrong = changed(change(source), name, lambda x: np.where(places, value, x))
    write_safetensors(tmp_path / "a", source)
    write_gguf(tmp_path / "b.gguf", wrong)
    for pair in ((tmp_path / "a", tmp_path / "b.gguf"), (tmp_path / "b.gguf", tmp_path / "a")):
        code, found = answered(capsys, "bisect", *pair, "--tokens", "1,2,3,7")
        if expected is not None:
            culprit = found["culprit"]
            assert (code, culprit["layer"], culprit["stage"], culprit["cause"]) == (1, *expected)
        elif name == EMBEDDING:
            assert (code, found["verdict"]) == (0, "numerics_only")
        else:  # of what reads the product no token is left
            assert (code, found["verdict"]) == (2, "undecided")
            assert found["cells_checked"] < found["cells_expected"]
