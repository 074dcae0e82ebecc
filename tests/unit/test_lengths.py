"""Lengths in one pass beside their formulas, what a cell makes of them piece by piece, and weights row by row."""

from dataclasses import fields

import numpy as np
import pytest

from kernels.lengths import energies, gaps, in_units, parts
from kernels.metrics import logit_agreement
from kernels.numbers import in_signed_sums, norm
from kernels.paths import numeric_path
from kernels.rows.dequantize import dequantize
from kernels.weight import TensorType, Weight
from store.open import open_artifact
from tests.random_weights import random_activations, random_weight
from workbench.bisect.models import cell as cells
from workbench.bisect.models.bisection import walk
from workbench.bisect.models.cell import Side
from workbench.bisect.models.decompose import decompose
from workbench.bisect.weights.check import check, check_weights
from workbench.bisect.weights.slopes import NO_HEADS, Groups
from workbench.bisect.weights.steps import Stored
from workbench.bisect.weights.tensor_pairs import TensorPairs
from workbench.demo import MODEL, make_copy


@pytest.fixture
def three():
    """Three tensors with lost values on one side, on the other, and on all."""
    rng = np.random.default_rng(5)
    x = rng.standard_normal((37, 517)).astype(np.float32)
    y, z = (x + np.float32(by) * rng.standard_normal(x.shape).astype(np.float32) for by in (1e-2, 1e-3))
    x[3, 5], y[3, 5], z[3, 5], y[4, 7], x[5, 1], x[6, 2], y[6, 2] = np.nan, np.inf, np.nan, 1e30, 0, np.inf, np.inf
    return x, y, z


def apart(x, y):
    x, y = x.astype(np.float64), y.astype(np.float64)
    with np.errstate(invalid="ignore"):
        return np.where(np.isfinite(x) | np.isfinite(y), x - y, 0)


def test_lengths_are_their_formulas_whatever_has_been_lost(three):
    x, y, z = three
    known = np.where(np.isfinite(x), x, 0).astype(np.float64)
    assert energies(x) == pytest.approx(np.square(known).sum(axis=1), rel=1e-13)
    assert norm(x) == pytest.approx(np.sqrt(np.square(known).sum()), rel=1e-13)
    for right in (y, y.astype(np.float64)):
        assert gaps(x, right) == pytest.approx(np.square(apart(x, y)).sum(axis=1), rel=1e-13)
    d, one, other = apart(y, x), apart(z, x), apart(y, z)
    with np.errstate(invalid="ignore"):
        expected = [(p * q).sum(axis=1) for p, q in ((d, d), (one, one), (other, other), (one, d), (other, d))]
    expected += [energies(side) for side in three]
    for found, right in zip(parts(x, y, z), expected, strict=True):
        assert found == pytest.approx(right, rel=1e-12, abs=1e-12, nan_ok=True)


def test_a_distance_in_units_is_the_worst_of_the_whole_its_rows_and_its_columns(three):
    x, y, _ = three
    x[3, 5], unit = np.inf, np.abs(y.astype(np.float64)) + 0.1
    unit[3, 5] = unit[6, 2] = np.inf
    with np.errstate(invalid="ignore"):
        squares = np.square(np.where(x == y, 0, apart(x, y)) / unit)
    expected = max(squares.mean(), squares.mean(axis=1).max(), squares.mean(axis=0).max())
    assert in_units(x, y, unit).worst == pytest.approx(expected, rel=1e-12)
    x[9, 9] = np.nan
    assert not np.isfinite(in_units(x, y, unit).worst)


def test_lengths_have_the_same_bits_on_any_number_of_threads(three, monkeypatch):
    x, y, z = (np.tile(side, (40, 3)) for side in three)
    found = []
    for count in "12":
        monkeypatch.setenv("WORKBENCH_THREADS", count)
        found.append([energies(x), gaps(x, y), *parts(x, y, z), in_units(x, y, np.abs(z) + 1.0)])
    for one, other in zip(*found, strict=True):
        np.testing.assert_array_equal(one, other)


def test_logits_are_looked_at_a_few_tokens_at_a_time_without_a_trace(monkeypatch):
    a, b = np.random.default_rng(1).standard_normal((2, 11, 300)).astype(np.float32)
    whole = logit_agreement(a, b)
    monkeypatch.setattr("kernels.metrics._VALUES", 700)
    for found, expected in zip(logit_agreement(a, b), whole, strict=True):
        np.testing.assert_array_equal(found, expected)


ESTIMATED = ("floor", "a_off", "b_off")


@pytest.fixture(scope="module", params=["ggml", "f32"])
def head(request, tmp_path_factory):
    """Both sides' heads over 37 tokens, and the sides; A is on one path and B on the other."""
    copy = tmp_path_factory.mktemp("head") / "copy.apr"
    make_copy(copy, None)
    others = (MODEL, request.param), (copy, "f32" if request.param == "ggml" else "ggml")
    sides = [Side(open_artifact(path), numeric_path(name)) for path, name in others]
    *_, cell = walk(*sides, tuple(range(400, 437)))
    return cell, sides, TensorPairs(*(side.model for side in sides))


def test_a_large_output_is_taken_apart_some_tokens_at_a_time(head, monkeypatch):
    cell, sides, pairs = head
    whole = decompose(cell, *sides, pairs)
    monkeypatch.setattr(cells, "_AT_ONCE", 1)
    assert [len(piece.tokens) for piece in cell.pieces()] == [16, 21]
    pieces = decompose(cell, *sides, pairs)
    for field in fields(whole):
        found, expected = getattr(pieces, field.name), getattr(whole, field.name)
        near = 0.3 if field.name in ESTIMATED else 1e-12
        assert found == (pytest.approx(expected, rel=near) if isinstance(expected, float) else expected), field.name


def test_some_tokens_and_sums_of_tokens_stand_for_all_where_there_are_many(head, monkeypatch):
    cell, sides, pairs = head
    some = decompose(cell, *sides, pairs)
    monkeypatch.setattr(cells, "_EXACT", len(cell.tokens))
    monkeypatch.setattr("kernels.numbers._SUMS", len(cell.tokens))
    whole = decompose(cell, *sides, pairs)
    for field in fields(whole):
        found, expected = getattr(some, field.name), getattr(whole, field.name)
        near = 0.3 if field.name in ESTIMATED else 0
        assert found == (pytest.approx(expected, rel=near, abs=0) if isinstance(expected, float) else expected)
    assert (some.floor, some.a_off) != (whole.floor, whole.a_off)


def test_signed_sums_have_the_length_of_their_rows_also_behind_a_matrix():
    rng = np.random.default_rng(3)
    errors, matrix = rng.uniform(-1, 1, (500, 256)) * rng.exponential(3, (500, 1)), rng.standard_normal((256, 400))
    assert np.array_equal(in_signed_sums(errors[:32]), errors[:32])
    sums = in_signed_sums(errors)
    assert len(sums) == 32
    assert norm(sums @ matrix) == pytest.approx(norm(errors @ matrix), rel=0.02)
    alike = np.tile(errors[:1], (500, 1))
    assert norm(in_signed_sums(alike)) == pytest.approx(norm(alike), rel=0.3)
    errors[::5, 7] = np.nan  # such tokens give no numbers
    known = np.delete(errors, np.s_[::5], axis=0)
    assert norm(in_signed_sums(errors) @ matrix) == pytest.approx(norm(known @ matrix), rel=0.02)


@pytest.mark.parametrize("type", [TensorType.Q4_K, TensorType.Q4_1, TensorType.Q8_0, TensorType.BF16])
def test_what_rounding_makes_of_a_product_is_that_of_float64(type):
    """In float32 it has the length that it has in float64; by the product itself, which is right (test_matmul)."""
    weight, x = random_weight(2, type, 48, 512), random_activations(7, 20, 512)
    path = numeric_path("ggml")
    exact = x.astype(np.float64) @ dequantize(weight).astype(np.float64).T
    made = path.matmul(x, weight).astype(np.float64)
    assert norm(path.rounded_off(x, weight)) == pytest.approx(norm(exact - made), rel=1e-4)
    lost = path.lost(x, weight)
    if type is not TensorType.Q4_1:  # whose sums are rounded too
        in_float64 = lost @ dequantize(weight).astype(np.float64).T
        assert norm(path.rounded_off(x, weight)) == pytest.approx(norm(in_float64), rel=1e-6)


@pytest.mark.parametrize("groups", [NO_HEADS, Groups(rows=32), Groups(columns=64)], ids=["whole", "rows", "columns"])
def test_stored_rows_are_judged_as_their_values_are(groups):
    for type in TensorType:
        a = random_weight(3, type, 64, 512)
        near = dequantize(a) + np.minimum(Stored.of(a).width, 1) * np.random.default_rng(4).uniform(
            -0.9, 0.9, (64, 512)
        )
        near[40:44, 64:128] *= 1.5
        near[50, 3] = np.nan
        b = Weight("w", TensorType.F32, (64, 512), near.astype(np.float32).view(np.uint8))
        found, expected = check_weights(a, b, groups), check(Stored.of(a), Stored.of(b), groups)
        for field in fields(found):  # rows that are looked at by themselves are added last
            one, other = (getattr(side, field.name) for side in (found, expected))
            if isinstance(one, float | np.ndarray) and np.asarray(one).dtype == np.float64:
                np.testing.assert_allclose(one, other, rtol=1e-12, err_msg=f"{type.name} {field.name}")
            else:
                np.testing.assert_equal(one, other, f"{type.name} {field.name}")
