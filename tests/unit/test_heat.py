"""How a cell looks: digits and marks alone say what the colours say."""

import colorsys

import numpy as np
import pytest

from kernels.metrics import profile
from kernels.stages import Site
from workbench.cells.cell import Cell
from workbench.cells.heat import (
    GREYS,
    LIGHT_PALETTE,
    PALETTE,
    counts,
    first_outside,
    level_edge,
    look,
    look_of_times,
)
from workbench.cells.metrics import METRICS

SITE = Site(0, "ffn_gate")
B = np.random.default_rng(5).normal(size=(4, 64)).astype(np.float32)


def cell(a, b=B, status="ok"):
    return Cell(SITE, status, shape=b.shape, profile=profile(a, b), positions=tuple(range(len(b))))


def off_by(error):
    return cell((B * np.float32(1 + error)).astype(np.float32))


@pytest.mark.parametrize(
    ("error", "glyph", "outside"),
    [
        (0.4, "6", False),
        (0.04, "5", False),
        (4e-3, "4", False),
        (4e-6, "1", False),
        (0.6, "7", True),
        (20.0, "7", True),
    ],
)
def test_a_digit_is_a_power_of_ten_below_the_edge_of_the_band(error, glyph, outside):
    metric = METRICS["rel_rms"]
    seen = look(off_by(error), metric, level_edge([], metric))
    assert (seen.glyph, seen.outside) == (glyph, outside)
    assert seen.marked.endswith("!") == outside


def test_steps_across_zero_are_words_at_the_top_of_a_scale_that_they_do_not_stretch():
    metric = METRICS["max_ulp"]
    near, flipped = cell(np.nextafter(B, np.float32(9))), cell(-B)
    edge = level_edge([near, flipped], metric)
    assert (edge, look(near, metric, edge).text) == (1.0, "1")
    assert look(flipped, metric, edge)[:3] == ("7", "other sign", 7)
    assert look(flipped, metric, level_edge([flipped], metric)).glyph == "7"


def test_identical_and_numberless_cells_have_signs_that_are_no_digits():
    metric = METRICS["std_ratio"]
    cells = [cell(B, status="identical"), *(Cell(SITE, status) for status in ("absent", "unmeasured", "uncomparable"))]
    assert [look(c, metric, 1.0).glyph for c in cells] == ["=", "·", "?", "≠"]
    assert counts(cells) == (1, 3)


def test_a_nan_on_one_side_is_outside_whatever_the_rest_says():
    a = B.copy()
    a[1, 3] = np.nan
    for metric in METRICS.values():
        if metric.band is not None:
            assert look(cell(a), metric, 1.0).outside


def test_a_position_that_a_cell_does_not_hold_is_unmeasured():
    assert look(off_by(0.1), METRICS["rel_rms"], 1.0, position=4).glyph == "?"


def test_without_a_band_the_largest_difference_on_the_map_is_seven():
    metric = METRICS["max_abs"]
    cells = [off_by(1e-4), off_by(1e-2)]
    edge = level_edge(cells, metric)
    assert [look(c, metric, edge).glyph for c in cells] == ["5", "7"]
    assert first_outside(cells, metric) is None


def test_the_palette_grows_lighter_with_the_level():
    rgb = [tuple(int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)) for colour in PALETTE]
    lightness = [colorsys.rgb_to_yiq(*channels)[0] for channels in rgb]
    assert lightness == sorted(lightness)
    assert lightness[-1] - lightness[0] > 0.6


@pytest.mark.parametrize(
    ("times", "beyond", "glyph", "level"),
    [(0.0, False, "=", 0), (0.9, False, "0", 0), (2.0, False, "2", 1), (8.0, False, "8", 3), (8.1, True, "9", 7)],
)
def test_a_digit_counts_what_rounding_can_cause_and_only_what_is_wrong_is_bright(times, beyond, glyph, level):
    assert look_of_times(times, beyond)[::2] == (glyph, level)


def test_what_rounding_cannot_cause_at_all_is_bright_and_what_is_not_known_has_no_level():
    assert look_of_times(None, True) == ("!", "where rounding can cause nothing", 7, True)
    assert look_of_times(None, False).glyph == "?"
    assert look_of_times(float("nan"), False).level is None


def test_the_palettes_differ_most_from_their_background_where_the_level_is_highest():
    def lightness(palette):
        return [colorsys.rgb_to_yiq(*(int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)))[0] for colour in palette]

    assert lightness(LIGHT_PALETTE) == sorted(lightness(LIGHT_PALETTE), reverse=True)
    assert lightness(GREYS) == sorted(lightness(GREYS))
