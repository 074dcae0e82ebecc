"""The elements of a cell against slow, literal ways of saying the same."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from kernels.config import ModelConfig
from kernels.forward import forward
from kernels.models import execution_order
from kernels.paths import numeric_path
from kernels.stages import Site
from tests.memory_model import random_model
from workbench.app.cell.distribution import bars, histograms, strip_levels
from workbench.cells.elements import ORDERS, Elements, bounds, histogram, ulp_distance
from workbench.cells.stage_tensors import channel_head, channel_name, stage_tensors

floats = st.floats(width=32, allow_nan=True, allow_infinity=True)
pairs = st.tuples(st.integers(1, 4), st.integers(1, 9)).flatmap(
    lambda shape: st.tuples(arrays(np.float32, shape, elements=floats), arrays(np.float32, shape, elements=floats))
)


def elements(a, b):
    return Elements(a, b, tuple(range(10, 10 + len(a))))


def literal_distance(a, b):
    if a.tobytes() == b.tobytes():
        return 0.0
    d = abs(float(a) - float(b))
    return d if math.isfinite(d) else math.inf


def literal_ulp(a, b):
    """Count the float32 values between a and b, by stepping in the one way that NumPy offers."""
    low, high = sorted((np.float32(a), np.float32(b)))
    steps = 0
    while low < high:
        low, steps = np.nextafter(low, np.float32(np.inf)), steps + 1
    return steps


@given(pairs)
def test_every_order_lists_every_element_largest_first(pair):
    a, b = pair
    subject = elements(a, b)
    distances = [literal_distance(x, y) for x, y in zip(a.flat, b.flat, strict=True)]
    for order in ORDERS:
        indices = subject.ordered(order)
        if indices is None:
            assert order == "index"
            continue
        assert sorted(indices.tolist()) == list(range(a.size))
        if order == "abs":
            assert [distances[i] for i in indices] == sorted(distances, reverse=True)
    grid = subject.strip(2, 3)
    assert grid.max() == max(distances)
    assert all(0 <= level <= 7 for row in strip_levels(grid) for _, level in row if level is not None)


@pytest.mark.parametrize("order", [order for order in ORDERS if order != "index"])
def test_what_is_lost_on_a_side_comes_first_in_every_order(order):
    a, b = np.float32([[1, np.nan, 3, np.inf]]), np.float32([[1.5, np.inf, 9, 2]])
    assert sorted(elements(a, b).ordered(order)[:2].tolist()) == [1, 3]


@given(pairs)
def test_any_element_is_found_by_token_and_channel(pair):
    a, b = pair
    subject = elements(a, b)
    for index in (0, a.size // 2, a.size - 1):
        element = subject.element(index)
        assert subject.index(element.token, element.channel) == index
        assert np.float32(element.a).tobytes() == a.flat[index].tobytes() or math.isnan(element.a)
    assert subject.index(9, 0) is None
    assert subject.index(10, a.shape[1]) is None


@pytest.mark.parametrize(("a", "b"), [(1.0, 1.0000005), (0.0, -0.0), (-1e-45, 1e-45), (0.1, 0.1), (-2.0, -2.000002)])
def test_ulp_distance_counts_float32_steps(a, b):
    counted = ulp_distance(np.array([a], np.float32), np.array([b], np.float32))
    assert counted[0] == literal_ulp(a, b)


def test_a_strip_shows_a_lone_difference_wherever_it_is():
    b = np.zeros((3, 1000), np.float32)
    a = b.copy()
    a[1, 777] = 2.5
    grid = elements(a, b).strip(rows=3, columns=40)
    assert grid.shape == (3, 40)
    assert np.argwhere(grid > 0).tolist() == [[1, 777 * 40 // 1000]]
    assert strip_levels(grid)[1][777 * 40 // 1000] == ("7", 7)
    assert strip_levels(grid)[0][0] == ("=", 0)


def test_histograms_count_each_finite_value_once_and_show_a_single_one():
    values = np.array([0, 0, 0, 1, np.nan, np.inf], np.float32)
    assert bounds(values) == (0.0, 1.0)
    counts = histogram(values, 0.0, 1.0, 4)
    assert counts.tolist() == [3, 0, 0, 1]
    assert bars(counts) == "█  ▄"
    lines = histograms(values[None], values[None], 60)
    assert [len(line) for line in lines] == [60] * 3
    assert "all the same" in lines[2]
    lost = histograms(np.full((1, 2), np.nan, np.float32), values[None, :2], 60)
    assert ["no finite value" in line for line in lost] == [True, False, True]
    assert "all the same" in lost[1]


def test_channels_are_named_by_head_where_heads_are_flattened():
    config = ModelConfig("qwen2", 1, 8, 16, 2, 1, 4, 32, 1e-6, 1e4, "neox", False)
    assert channel_head(Site(0, "qkv_matmul"), 9, config) == "k0.1"
    assert channel_head(Site(0, "qkv_matmul"), 13, config) == "v0.1"
    assert channel_head(Site(0, "attention"), 7, config) == "1.3"
    assert channel_name(Site(0, "ffn_gate"), 7, config) == "7"


def test_the_tensors_that_a_stage_uses_are_those_that_its_evaluation_asks_for():
    model = random_model("qwen2")
    asked = []
    original = model.weight
    model.weight = lambda name: asked.append(name) or original(name)
    sites = 0
    for site, _ in forward(model, (1, 2), numeric_path("f32")):
        assert set(asked) == {name for name in stage_tensors(site, model.config) if name in model}, site
        asked.clear()
        sites += 1
    assert sites == len(execution_order(model.config))
