"""Difference metrics against exact sums, their words, and their digits where formulas usually lose them."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from kernels.measures import COL, summarise
from kernels.metrics import gap_percentiles, logit_agreement, profile, profile_and_percentiles, profile_weights
from kernels.rows.dequantize import dequantize
from kernels.weight import TensorType
from tests.random_weights import random_weight
from workbench.cells.metrics import METRICS, in_band

# A norm below the smallest normal float32 counts as zero, which the textbook does not say.
FLOATS = st.floats(-1e6, 1e6, width=32).map(lambda x: x if abs(x) > 1e-30 else 0.0)
PAIRS = hnp.array_shapes(min_dims=2, max_dims=2, max_side=9).flatmap(
    lambda shape: st.tuples(*(hnp.arrays(np.float32, shape, elements=FLOATS) for _ in range(2)))
)


def measures(a, b, rows=slice(None)):
    return summarise(profile(np.float32(a), np.float32(b)), rows)


def exact(a, b):
    """The textbook formulas with exactly rounded sums."""
    a, b = [float(x) for x in np.ravel(a)], [float(x) for x in np.ravel(b)]
    n, d = len(a), [x - y for x, y in zip(a, b, strict=True)]

    def std(x):
        mean = math.fsum(x) / n
        return math.sqrt(math.fsum((v - mean) ** 2 for v in x) / n)

    norm_b, norm_d = (math.sqrt(math.fsum(v * v for v in x)) for x in (b, d))
    return {
        "std_a": std(a),
        "std_b": std(b),
        "mean_shift": math.fsum(d) / n,
        "max_abs": max(map(abs, d)),
        "mean_abs": math.fsum(map(abs, d)) / n,
        "rms": norm_d / math.sqrt(n),
        "rel_rms": norm_d / norm_b if norm_b else None,
    }


@given(PAIRS)
@settings(max_examples=150, deadline=None)
def test_every_metric_is_its_textbook_formula(pair):
    a, b = pair
    ours, scale = measures(a, b), float(max(np.abs(a).max(), np.abs(b).max(), 1e-30))
    for name, value in exact(a, b).items():
        if value is None:
            assert getattr(ours, name) is None
            assert ours.words[name] in ("B zero", "both zero")
        elif name == "rel_rms":
            assert getattr(ours, name) == pytest.approx(value, rel=1e-12)
        else:
            assert getattr(ours, name) == pytest.approx(value, rel=1e-12, abs=1e-9 * scale)


@given(PAIRS)
@settings(max_examples=50, deadline=None)
def test_one_token_is_measured_as_if_it_were_alone(pair):
    a, b = pair
    row = len(a) - 1
    whole, alone = measures(a, b, slice(row, row + 1)), measures(a[row:], b[row:])
    assert (whole.rel_rms, whole.std_ratio, whole.max_abs) == (alone.rel_rms, alone.std_ratio, alone.max_abs)
    assert (whole.max_token, alone.max_token) == (row, 0)


def test_nearly_parallel_vectors_keep_the_digits_of_their_angle():
    rng = np.random.default_rng(0)
    b = rng.standard_normal((4, 5000)).astype(np.float32)
    a = (b + np.float32(3e-6) * rng.standard_normal(b.shape)).astype(np.float32)
    x, y = (v.astype(np.longdouble).ravel() for v in (a, b))
    cosine = (x @ y) / np.sqrt((x @ x) * (y @ y))
    assert measures(a, b).one_minus_cosine == pytest.approx(float(1 - cosine), rel=1e-4)
    assert measures(b, b).one_minus_cosine == 0
    assert measures(-b, b).one_minus_cosine == pytest.approx(2, rel=1e-15)


def test_a_tensor_against_itself_is_identical_even_if_it_is_all_zero():
    zero = np.zeros((2, 8), np.float32)
    ours = measures(zero, zero)
    assert ours.identical
    assert {ours.words[name] for name in ("std_ratio", "rel_rms", "one_minus_cosine")} == {"both zero"}
    assert all(in_band(metric, ours) for metric in METRICS.values())


@pytest.mark.parametrize(("a", "b", "words"), [([[1, 2]], [[0, 0]], "B zero"), ([[1, 2]], [[3, 3]], "B constant")])
def test_a_denominator_of_zero_gets_words_and_is_out_of_band(a, b, words):
    ours = measures(a, b)
    assert ours.std_ratio is None
    assert ours.words["std_ratio"] == words
    assert in_band(METRICS["std_ratio"], ours) is False


def test_nan_and_infinity_are_counted_and_kept_out_of_every_sum():
    a, b = np.float32([[1, 2, np.nan, 4]]), np.float32([[1, np.inf, 3, 5]])
    ours = measures(a, b)
    assert (ours.nonfinite_a, ours.nonfinite_b, ours.finite, ours.count) == (1, 1, 2, 4)
    assert (ours.max_abs, ours.max_channel, ours.mean_abs) == (1.0, 3, 0.5)
    assert measures([[np.nan]], [[1.0]]).words["rel_rms"] == "no finite pair"


def test_steps_between_floats_are_counted_across_zero():
    tiny = np.float32(1e-45)
    assert profile(np.array([[tiny]]), np.array([[-tiny]]))[0, COL.max_ulp] == 2
    assert measures([[0.0]], [[-0.0]]).max_ulp == 0
    assert measures([[1.0]], [[np.nextafter(np.float32(1), np.float32(2))]]).max_ulp == 1


@pytest.mark.parametrize(
    ("a", "b", "steps", "text"),
    [
        ([[1.0, 2.0]], [[1.0000001, -2.0]], None, "other sign"),
        ([[1.0, -1e-45]], [[3.0, 1e-45]], 12582912, "1.3e+07"),  # the pair across zero is not the one far apart
        ([[0.0, 1.0]], [[-1.0, 1.0]], 0x3F800000, "1.1e+09"),  # zero has no other sign
        ([[1.0], [-2.0]], [[1.0], [2.0]], None, "other sign"),
        ([[1.0, np.nan]], [[1.0000001, -2.0]], 1, "1"),
    ],
)
def test_steps_across_zero_are_said_in_words_where_a_number_would_mean_nothing(a, b, steps, text):
    ours = measures(a, b)
    assert ours.max_ulp == steps
    assert METRICS["max_ulp"].text(ours) == text


def test_a_flipped_sign_hides_from_the_std_ratio_but_not_from_the_others():
    x = np.random.default_rng(1).standard_normal((3, 64)).astype(np.float32)
    ours = measures(-x, x)
    assert in_band(METRICS["std_ratio"], ours)
    assert in_band(METRICS["rel_rms"], ours) is False
    assert in_band(METRICS["one_minus_cosine"], ours) is False


@pytest.mark.parametrize("threads", ["1", "2"])
def test_percentiles_are_those_of_all_finite_differences(monkeypatch, threads):
    monkeypatch.setenv("WORKBENCH_THREADS", threads)
    rng = np.random.default_rng(2)
    a, b = rng.standard_normal((2, 5, 40_001)).astype(np.float32)
    a[2] = b[2]  # a fifth of the differences is 0
    b[1, :3] = np.nan, np.inf, -np.inf
    d = np.abs(a - b)
    expected = np.percentile(d[np.isfinite(d)].astype(np.float64), (50, 90, 99))
    assert list(gap_percentiles(a, b).values()) == pytest.approx(expected, rel=1e-12)
    assert gap_percentiles(a[:1, :1], b[:1, :1]) == dict.fromkeys(("p50", "p90", "p99"), d[0, 0])
    assert gap_percentiles(a[1:2, :3], b[1:2, :3]) == {}


@pytest.mark.parametrize("size", [(1, 3), (3, 17), (7, 3584), (2, 70_001)])
@pytest.mark.parametrize("gaps", ["many of one value", "some huge", "in order", "few finite", "none"])
def test_percentiles_are_exact_whatever_a_sample_says(size, gaps):
    rng = np.random.default_rng(4)
    a, b = rng.standard_normal((2, *size)).astype(np.float32)
    made = {
        "many of one value": np.round(a) * np.float32(2),
        "some huge": np.where(rng.random(size) < 0.02, a + 1000, b),
        "in order": a - np.sort(b, axis=None).reshape(size),
        "few finite": np.where(rng.random(size) < 0.999, np.float32(np.inf), b),
        "none": a,
    }
    with np.errstate(invalid="ignore"):
        d = np.abs(a - made[gaps])
    finite = d[np.isfinite(d)].astype(np.float64)
    found_profile, found = profile_and_percentiles(a, made[gaps])
    assert found_profile.tobytes() == profile(a, made[gaps]).tobytes()
    assert list(found.values()) == pytest.approx(np.percentile(finite, (50, 90, 99)) if finite.size else [], rel=1e-12)


def test_a_row_with_values_that_are_not_finite_is_measured_like_the_rest_of_it():
    a, b = np.random.default_rng(3).standard_normal((2, 1, 777)).astype(np.float32)
    holed_a, holed_b = (np.insert(x, [0, 300, 300, 777], 1.0, axis=1) for x in (a, b))
    holed_a[0, [0, 301]], holed_b[0, [301, 302, 780]] = np.nan, (np.inf, -np.inf, np.nan)
    ours, whole = measures(holed_a, holed_b), measures(a, b)
    assert (ours.finite, ours.nonfinite_a, ours.nonfinite_b) == (777, 2, 3)
    for name in ("std_ratio", "rel_rms", "one_minus_cosine", "mean_shift", "max_abs", "max_a", "max_ulp"):
        assert getattr(ours, name) == getattr(whole, name)
    assert holed_a[0, ours.max_channel] == a[0, whole.max_channel]


@pytest.mark.parametrize("type", [TensorType.Q4_K, TensorType.BF16, TensorType.F32])
def test_stored_tensors_are_measured_as_their_values(type):
    a, b = random_weight(0, type, 70, 1024), random_weight(1, TensorType.Q6_K, 70, 1024)
    assert (profile_weights(a, b) == profile(dequantize(a), dequantize(b))).all()


def test_unlike_shapes_are_refused():
    with pytest.raises(ValueError, match="cannot be compared"):
        profile(np.zeros((7, 8), np.float32), np.zeros((1, 8), np.float32))


def test_logit_agreement_is_that_of_the_definitions():
    a, b = np.float32([[0, 1, 2, 3, 4, 5]]), np.float32([[5, 4, 3, 2, 1, 0]])
    p, q = (np.exp(x[0].astype(float)) / np.exp(x[0].astype(float)).sum() for x in (a, b))
    ours = logit_agreement(a, b)
    assert ours.kl[0] == pytest.approx(float((q * np.log(q / p)).sum()), rel=1e-12)
    assert not ours.top1[0]
    assert ours.top5[0] == 4 / 5
    assert logit_agreement(a, a).kl[0] == 0
