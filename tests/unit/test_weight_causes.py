"""What makes one tensor from another: every cause must predict the other side, and none may be taken for another."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from kernels.paths import numeric_path
from kernels.rows.fields import bytes_of_codes
from kernels.stages import Site
from kernels.weight import TensorType, Weight
from tests.faults.distributions import DISTRIBUTIONS
from tests.faults.models import plain
from tests.faults.storing import packed
from tests.memory_model import MemoryModel, random_model
from workbench.bisect.models.bisection import bisect_artifacts
from workbench.bisect.models.cell import Side
from workbench.bisect.weights.causes import weight_causes
from workbench.bisect.weights.check import check_weights
from workbench.bisect.weights.grids import coarser_grids
from workbench.bisect.weights.one_source import not_one_source
from workbench.bisect.weights.steps import Stored
from workbench.bisect.weights.tensor_pairs import TensorPairs

MODEL, SMALL = plain("qwen2-4to1"), plain("qwen2-mha")
UP, Q, K = (f"model.layers.1.{name}.weight" for name in ("mlp.up_proj", "self_attn.q_proj", "self_attn.k_proj"))
EMBEDDING = "model.embed_tokens.weight"
RNG = np.random.default_rng(7)
RECORDED = np.load(Path(__file__).parents[1] / "golden" / "quantized-weights.npz")
POINTS = [type.name for type in TensorType if getattr(type.format, "grid", None) is not None]


def stored(values, type=TensorType.F32, config=MODEL.config):
    """A model of these values with all matrices in one type."""
    weights = {}
    for name, x in values.items():
        kind = type if x.ndim == 2 else TensorType.F32
        weights[name] = Weight(name, kind, x.shape, packed(x.astype(np.float32), kind))
    return MemoryModel(config, weights)


def with_one(name, edit, type=TensorType.F32):
    """The model with one tensor edited."""
    return stored(MODEL.values | {name: edit(MODEL.values[name])}, type)


def best(name, a, b):
    causes = weight_causes(name, a, b, check_weights(a.weight(name), b.weight(name)))
    return causes[0] if causes[0].explained else causes[-1]


def int4(values, size, zero=8):
    """4-bit codes with a half-precision scale per group, read with a zero point."""
    groups = values.reshape(len(values), -1, size)
    step = (np.abs(groups).max(axis=2, keepdims=True) / 7).astype(np.float16).astype(np.float32)
    return ((np.clip(np.round(groups / step) + 8, 0, 15) - zero) * step).reshape(values.shape)


A = stored(MODEL.values)


@pytest.mark.parametrize("size", [32, 64, 128, 256])
def test_codes_of_a_group_are_requantized_with_the_steps_of_that_group(size):
    found = best(UP, A, with_one(UP, lambda x: int4(x, size)))
    assert (found.cause, found.residual < 0.2) == ("requantized", True)
    assert f"4 bits per {size if size < 256 else 'row'}" in found.explanation.replace("values", "").replace("  ", " ")


def test_values_that_are_near_but_on_no_grid_are_not_requantized():
    def moved(x):
        return x + np.float32(0.02 * x.std()) * RNG.standard_normal(x.shape).astype(np.float32)

    for type in (TensorType.F32, TensorType.Q8_0, TensorType.Q6_K):
        assert best(UP, A, with_one(UP, moved, type)).cause == "unknown"


def test_values_on_a_grid_further_than_half_a_step_away_are_not_requantized():
    shuffled = with_one(UP, lambda x: int4(RNG.permuted(x, axis=1), 32))
    assert best(UP, A, shuffled).cause == "unknown"


@pytest.mark.parametrize("type", [TensorType.F32, TensorType.BF16, TensorType.Q8_0])
def test_a_format_itself_is_no_coarser_grid(type):
    """Rounded once to the format, values lie on no coarser grid of any kind."""
    weight = stored(MODEL.values, type).weight(UP)
    values = Stored.of(weight).values
    assert not list(coarser_grids(weight, np.arange(16), (float(values.min()), float(values.max()))))


def asymmetric(values, bits, size, zero=0):
    """Codes from 0 on with a scale and a zero point per group of a row, read with another zero point."""
    groups = values.reshape(len(values), -1, size)
    low, high = (np.minimum(groups.min(2, keepdims=True), 0), np.maximum(groups.max(2, keepdims=True), 0))
    step = (high - low) / np.float32(2**bits - 1)
    zeros = np.round(-low / step)
    return ((np.clip(np.round(groups / step) + zeros, 0, 2**bits - 1) - zeros - zero) * step).reshape(values.shape)


@pytest.mark.parametrize(("bits", "size"), [(4, 32), (4, 64), (4, 256), (8, 64), (8, 256)])
@pytest.mark.parametrize("down", [False, True])
def test_codes_with_zero_points_are_requantized_and_nothing_else_is_said_to_be(bits, size, down):
    def stored_so(x, zero=0):
        return asymmetric(x.T, bits, size, zero).T if down else asymmetric(x, bits, size, zero)

    wrong = with_one(UP, stored_so)
    verdict = check_weights(A.weight(UP), wrong.weight(UP))
    assert [c.cause for c in weight_causes(UP, A, wrong, verdict) if c.explained] == ["requantized"]
    found = best(UP, A, with_one(UP, lambda x: stored_so(x, 1)))
    assert (found.cause, "of a column" in found.explanation) == ("group_offset", down)


@pytest.mark.parametrize("size", [32, 128])
@pytest.mark.parametrize("source", [TensorType.F32, TensorType.BF16])
def test_8_bit_codes_with_zero_points_are_known_again_after_bfloat16(size, source):
    """Of a value near the end of its group bfloat16 leaves a step uncertain; of one near 0 it leaves none."""
    right = with_one(UP, lambda x: x, source)
    named = []
    for zero in (0, 1):
        wrong = with_one(UP, lambda x, zero=zero: asymmetric(x, 8, size, zero), TensorType.BF16)
        found = best(UP, right, wrong)
        named.append((found.cause, f"8 bits per {size} values" in found.explanation))
    assert named == [("requantized", True), ("group_offset", True)]


def test_4_bit_codes_that_bfloat16_arithmetic_made_values_of_are_requantized():
    """Scale times code and plus an offset, each rounded to bfloat16, as int4 kernels with float zero points do."""

    def rounded(x):
        return packed(x, TensorType.BF16).view(np.uint16).astype(np.uint32).__lshift__(16).view(np.float32)

    def read(x):
        groups = x.reshape(-1, 64)
        low = groups.min(axis=1, keepdims=True)
        step = rounded((groups.max(axis=1, keepdims=True) - low) / 15)
        middle = rounded(low + 8 * step)
        codes = np.clip(np.round((groups - middle) / step), -8, 7)
        return rounded(rounded(codes.astype(np.float32) * step) + middle).reshape(x.shape)

    found = best(UP, A, with_one(UP, read, TensorType.BF16))
    assert (found.cause, "4 bits per 64 values" in found.explanation) == ("requantized", True)


@pytest.mark.parametrize(("zero", "cause"), [(0, "requantized"), (1, "group_offset")])
def test_codes_and_zero_points_that_were_multiplied_apart_in_bfloat16_are_known(zero, cause):
    """Both products are rounded before one is taken from the other, which moves values by a part of a step."""

    def rounded(x):
        return packed(x, TensorType.BF16).view(np.uint16).astype(np.uint32).__lshift__(16).view(np.float32)

    def read(x):
        low, high = x.min(axis=1, keepdims=True), x.max(axis=1, keepdims=True)
        step = (high - low) / 15
        zeros = np.round(-low / step)
        codes, factor = np.clip(np.round(x / step) + zeros, 0, 15), rounded(step)
        return rounded(rounded(codes * factor) - rounded((zeros + zero) * factor))

    found = best(UP, A, with_one(UP, read, TensorType.BF16))
    assert (found.cause, "4 bits per row" in found.explanation) == (cause, True)


@pytest.mark.parametrize("size", [32, 128, 256])
def test_a_zero_point_read_as_one_more_is_an_offset_of_one_step(size):
    right, wrong = (with_one(UP, lambda x, zero=zero: int4(x, size, zero)) for zero in (8, 9))
    found = best(UP, right, wrong)
    assert (found.cause, found.residual < 1e-6) == ("group_offset", True)
    assert "-1 of its steps" in found.explanation
    for pair in ((A, wrong), (wrong, A)):  # beside the source: offset and rounding together
        assert best(UP, *pair).cause == "group_offset"


@pytest.mark.parametrize("down", [False, True])
@pytest.mark.parametrize("size", [32, 64, 128])
def test_the_groups_of_a_misread_zero_point_are_told_beside_the_source(size, down):
    def read(x):
        return asymmetric(x.T, 4, size, 1).T if down else asymmetric(x, 4, size, 1)

    found = best(UP, A, with_one(UP, read))
    assert found.cause == "group_offset"
    assert f"every group of {size} values of a {'column' if down else 'row'} " in found.explanation


@pytest.mark.parametrize(("rank", "type"), [(4, TensorType.F32), (16, TensorType.F32), (4, TensorType.Q8_0)])
def test_an_adapter_is_found_with_its_rank(rank, type):
    def merged(x):
        return x + (RNG.standard_normal((len(x), rank)) @ RNG.standard_normal((rank, x.shape[1]))) * 0.02 / rank**0.5

    found = best(UP, A, with_one(UP, merged, type))
    assert (found.cause, f"of rank {rank}," in found.explanation) == ("low_rank", True)


@pytest.mark.parametrize("type", [TensorType.F32, TensorType.BF16])
def test_one_direction_as_large_as_the_weights_is_an_adapter_of_rank_one(type):
    """What float32 loses of the product and of the sum is no second direction."""

    def merged(x):
        return x + np.float32(0.3 * x.std()) * np.outer(RNG.standard_normal(len(x)), RNG.standard_normal(x.shape[1]))

    found = best(UP, with_one(UP, lambda x: x, type), with_one(UP, merged, type))
    assert (found.cause, "of rank 1," in found.explanation) == ("low_rank", True)


def test_a_difference_of_every_rank_or_of_few_rows_is_no_adapter():
    noise = with_one(UP, lambda x: x + 0.02 * RNG.standard_normal(x.shape))
    few = with_one(UP, lambda x: np.concatenate([x[:4] + RNG.standard_normal(x[:4].shape), x[4:]]))
    assert best(UP, A, noise).cause == "unknown"
    assert best(UP, A, few).cause == "corrupted_blocks"


@pytest.mark.parametrize("ranks", [2, 4], ids=["of key heads", "of query heads"])
def test_rows_that_ranks_interleaved_are_rows_permuted_in_each_of_the_fused_tensors(ranks):
    names = [f"model.layers.1.self_attn.{x}_proj.weight" for x in "qkv"]
    parts = [MODEL.values[name] for name in names]
    joined = np.concatenate([np.split(part, ranks)[rank] for rank in range(ranks) for part in parts])
    read = np.split(joined, np.cumsum([len(part) for part in parts])[:-1])
    b = stored(MODEL.values | dict(zip(names, read, strict=True)))
    for name in names:
        found = best(name, A, b)
        assert (found.cause, found.residual, f"interleaved by {ranks} ranks" in found.explanation) == (
            "rows_permuted",
            0,
            True,
        )


def float8(x, kept, least):
    power = np.maximum(np.frexp(x)[1] - 1, least)
    step = np.ldexp(np.float32(1), power - kept)
    return np.round(x / step) * step


@pytest.mark.parametrize(("kept", "least", "largest"), [(3, -6, 448), (2, -14, 57344)])
@pytest.mark.parametrize("axis", [None, 1])
def test_float8_codes_without_their_scales_are_scaled_and_rounded(kept, least, largest, axis):
    def codes(x):
        return float8(x * (largest / np.abs(x).max(axis=axis, keepdims=axis is not None)), kept, least)

    found = best(UP, A, with_one(UP, codes))
    assert (found.cause, "FP8" in found.explanation) == ("scaled", True)


@pytest.mark.parametrize("axis", [None, 1])
def test_float8_codes_with_their_scales_are_only_rounded(axis):
    def rounded(x):
        scale = np.abs(x).max(axis=axis, keepdims=axis is not None) / 448
        return float8(x / scale, 3, -6) * scale

    assert best(UP, A, with_one(UP, rounded)).cause == "dtype_truncated"


def test_integer_codes_without_the_scales_of_their_rows_are_scaled():
    found = best(UP, A, with_one(UP, lambda x: np.round(x / (np.abs(x).max(axis=1, keepdims=True) / 127))))
    assert found.cause == "scaled"


def test_a_norm_cut_to_fewer_bits_is_not_a_smaller_one():
    name = "model.layers.1.input_layernorm.weight"
    weight = A.weight(name)
    cut = Weight(
        name, TensorType.BF16, weight.shape, np.ascontiguousarray(weight.rows.view(np.uint16)[:, 1::2]).view(np.uint8)
    )
    b = replace(A, weights=A.weights | {name: cut})
    verdict = check_weights(weight, cut)
    assert [c.cause for c in weight_causes(name, A, b, verdict) if c.explained] == ["dtype_truncated"]


def test_a_norm_cut_to_bfloat16_is_not_a_smaller_one_beside_a_coarse_copy_either():
    """Its last bit moves a value by two steps of the copy, which the factor that moves most so would explain."""
    name = "model.layers.1.input_layernorm.weight"
    values = MODEL.values[name]
    cut = (values.view(np.uint32) & np.uint32(0xFFFF0000)).view(np.float32)
    kinds = TensorType.F32, TensorType.F16, TensorType.BF16
    named = set()
    for coarse, other in [(x, y) for x in kinds for y in kinds]:
        pair = [
            replace(A, weights={name: Weight(name, kind, values.shape, packed(x, kind))})
            for x, kind in ((values, coarse), (cut, other))
        ]
        for one, two in (pair, pair[::-1]):
            verdict = check_weights(one.weight(name), two.weight(name))
            if not verdict.explained:
                named.add(weight_causes(name, one, two, verdict)[0].cause)
    assert named == {"dtype_truncated"}


@pytest.mark.parametrize("name", ["model.layers.1.input_layernorm.weight", K.replace("weight", "bias")])
@pytest.mark.parametrize("factor", [0.99, 1.005])
def test_a_factor_too_near_to_1_for_bfloat16_is_named_where_nothing_else_explains_the_vector(name, factor):
    values = MODEL.values[name]
    a, b = (
        replace(A, weights={name: Weight(name, TensorType.BF16, values.shape, packed(x, TensorType.BF16))})
        for x in (values, values * np.float32(factor))
    )
    assert {best(name, *pair).cause for pair in ((a, b), (b, a))} == {"scaled"}


def test_codes_of_4_bits_are_known_again_in_5_bits():
    """A step of theirs is only four times what a value is uncertain by: a first look at few runs cannot be sure."""
    tied, name = plain("qwen2-2to1-tied"), UP.replace("mlp.up", "self_attn.o")
    values = tied.values[name]
    coarse = int4(values, 32)
    a, b = (stored({name: x}, type, tied.config) for x, type in ((values, TensorType.BF16), (coarse, TensorType.Q5_1)))
    found = best(name, a, b)
    assert (found.cause, "4 bits per 32 values" in found.explanation) == ("requantized", True)


@pytest.mark.parametrize("type", POINTS)
def test_random_codes_and_a_factor_are_named_beside_points_of_a_grid(type):
    """As ggml makes them; codes that are no nearest ones tell nothing of a rounding before theirs."""
    values, rows = (RECORDED[key].reshape(8, -1) for key in ("eight levels", f"eight levels|two channels|{type}"))
    damaged, codes = rows.copy(), bytes_of_codes(TensorType[type].format)
    damaged[2, codes] = np.random.default_rng(1).permutation(rows[2, codes])
    for source, copy, cause in ((values, damaged, "corrupted_blocks"), (values / np.float32(2), rows, "scaled")):
        sides = (
            Weight(UP, TensorType.F32, values.shape, packed(source, TensorType.F32)),
            Weight(UP, TensorType[type], values.shape, copy),
        )
        a, b = (replace(A, weights={**A.weights, UP: weight}) for weight in sides)
        assert weight_causes(UP, a, b, check_weights(*sides))[0].cause == cause


def test_two_checkpoints_are_told_from_copies_with_one_mistake():
    def other(x):
        return (x + 0.03 * x.std() * RNG.standard_normal(x.shape)).astype(np.float32)

    def said(values, type=TensorType.F32):
        a, b = stored(SMALL.values, config=SMALL.config), stored(values, type, SMALL.config)
        return not_one_source(TensorPairs(a, b), a, b)

    trained = {name: other(x) for name, x in SMALL.values.items()}
    for type in (TensorType.BF16, TensorType.Q8_0):
        assert "not made from one source" in (said(trained, type) or "")
    assert said({name: trained[name] if x.ndim == 2 else x for name, x in SMALL.values.items()}) is None
    assert said({name: 2 * x for name, x in SMALL.values.items()}) is None
    assert said(SMALL.values, TensorType.Q4_0) is None


@pytest.mark.parametrize("type", [TensorType.Q4_1, TensorType.Q4_0])
def test_another_checkpoint_begins_at_the_first_tensor_though_its_steps_hide_it(type):
    other = {
        name: (x + 0.03 * x.std() * RNG.standard_normal(x.shape)).astype(np.float32) for name, x in SMALL.values.items()
    }
    pair = [stored(values, type, SMALL.config) for values in (SMALL.values, other)]
    for a, b in (pair, pair[::-1]):
        found = bisected(a, b)
        assert (found.culprit.tensor, found.culprit.cause, found.others) == (EMBEDDING, "unknown", ())
    importances = stored(
        {name: int4(x, 32) if x.ndim == 2 else x for name, x in SMALL.values.items()}, type, SMALL.config
    )
    assert not_one_source(TensorPairs(pair[0], importances), pair[0], importances) is None


def test_copies_of_eight_levels_and_of_tiny_values_are_left_alone():
    """Errors of a level repeat, and what is too small for half precision gives zero on one side."""
    for draw in ("eight levels", "tiny"):
        values = {
            name: DISTRIBUTIONS[draw](np.random.default_rng(n), *x.shape) if x.ndim == 2 else x
            for n, (name, x) in enumerate(SMALL.values.items())
        }
        for type in (TensorType.Q4_1, TensorType.Q5_1):
            a, b = stored(values, config=SMALL.config), stored(values, type, SMALL.config)
            assert bisected(a, b, ("f32", "ggml")).verdict == "quantization_only"


def test_a_stage_that_is_zero_on_both_sides_but_not_on_one_input_is_left_alone():
    """Half precision loses the activations of one side, 6 bits the weights that the other side's are made of."""
    size = {"gate": 3e-4, "up": 5e-8}
    values = {
        name: np.float32(next((size[key] for key in size if key in name), 0.04) / x.std()) * x if x.ndim == 2 else x
        for name, x in MODEL.values.items()
    }
    a, b = (stored(values, type) for type in (TensorType.F16, TensorType.Q6_K))
    assert bisected(a, b, ("ggml", "ggml")).verdict == "quantization_only"


def test_a_known_cause_is_preferred_but_not_to_a_simpler_one():
    coarse = with_one(UP, lambda x: int4(x, 128))
    verdict = check_weights(A.weight(UP), coarse.weight(UP))
    assert weight_causes(UP, A, coarse, verdict, known=("scaled", "group_offset"))[0].cause == "requantized"


def bisected(a, b, paths=("f32", "f32")):
    sides = (Side(model, numeric_path(path)) for model, path in zip((a, b), paths, strict=True))
    return bisect_artifacts(*sides, (SMALL if a.config is SMALL.config else MODEL).tokens())


def test_every_mistake_is_named_beside_missing_biases():
    """Rotary order of all q and k, every bias gone, one sign: nothing hides the rest, and one mistake has one name."""
    size, layers = MODEL.config.head_dim, range(MODEL.config.num_hidden_layers)
    values = {name: x for name, x in MODEL.values.items() if not name.endswith(".bias")}
    turned = [f"model.layers.{n}.self_attn.{x}_proj.weight" for n in layers for x in "qk"]
    for name in turned:
        x = values[name]
        values[name] = x.reshape(-1, 2, size // 2, x.shape[1]).swapaxes(1, 2).reshape(x.shape)
    flipped = "model.layers.2.mlp.down_proj.weight"
    values[flipped] = -values[flipped]
    found = bisected(A, stored(values))
    assert found.culprit is not None
    all_ = [found.culprit, *found.others]
    assert [c.tensor for c in all_ if c.cause == "permuted_rope"] == turned
    assert [c.tensor for c in all_ if c.cause == "sign_flipped"] == [flipped]
    assert [(c.site.layer, "3 of 3 layers" in c.explanation) for c in all_ if c.cause == "bias_missing"] == [(0, True)]
    assert len(all_) == len(turned) + 2


def test_a_wrong_tensor_that_these_tokens_do_not_use_is_no_all_clear():
    unused = next(row for row in range(len(MODEL.values[EMBEDDING])) if row not in MODEL.tokens())
    values = MODEL.values[EMBEDDING].copy()
    values[unused] = np.nan
    found = bisected(A, stored(MODEL.values | {EMBEDDING: values, UP: -MODEL.values[UP]}))
    assert found.culprit is not None
    assert (found.culprit.tensor, [other.tensor for other in found.others]) == (UP, [EMBEDDING])
    found = bisected(A, stored(MODEL.values | {EMBEDDING: values}))
    assert found.culprit is not None
    assert (found.verdict, found.first_divergent, found.others) == ("divergent", None, ())
    assert (found.culprit.tensor, found.culprit.cause) == (EMBEDDING, "corrupted_blocks")
    assert "NaN" in found.culprit.explanation


def test_a_second_setting_with_the_same_slug_is_named():
    config = replace(MODEL.config, rope_theta=5000.0, rope_factors=tuple(np.linspace(1, 4, MODEL.config.head_dim // 2)))
    found = bisected(A, replace(A, config=config))
    assert found.culprit is not None
    words = [found.culprit.explanation, *(other.explanation for other in found.others)]
    assert found.culprit.cause == "rope_theta"
    assert [other.cause for other in found.others] == ["rope_theta"]
    assert len(set(words)) == 2


@pytest.mark.parametrize("type", [TensorType.F32, TensorType.Q8_0])
def test_rows_that_stand_where_others_belong_are_no_damage(type):
    def stale(values):
        return np.concatenate([values[:-32], values[:32]])

    assert best(UP, A, with_one(UP, stale, type)).cause == "rows_permuted"


def test_what_one_bit_admits_is_no_factor():
    """Codes of one bit times a large number reach every source, whichever rows they are of."""

    def one_bit(x):
        blocks = x.reshape(len(x), -1, 128)
        scales = np.abs(blocks).mean(axis=2, keepdims=True).astype(np.float16).view(np.uint8)
        return np.concatenate([scales, np.packbits(blocks >= 0, axis=2, bitorder="little")], axis=2).reshape(len(x), -1)

    source = MODEL.values[UP]
    copies = {"rows_permuted": one_bit(source[::-1]), "sign_flipped": one_bit(-source), "scaled": one_bit(3 * source)}
    for cause, rows in copies.items():
        b = replace(A, weights={**A.weights, UP: Weight(UP, TensorType.Q1_0, source.shape, rows)})
        assert best(UP, A, b).cause == cause


def test_a_wrong_value_is_seen_in_any_column_of_a_matrix_whose_width_is_no_multiple_of_a_block():
    model, name = random_model("qwen2", hidden=80, heads=2, head_dim=40), UP
    for column in (10, 60, 79):
        values = model.values()
        values[name][3, column] += 3
        copy = stored(values, config=model.config)
        sides = (Side(each, numeric_path("f32")) for each in (model, copy))
        culprit = bisect_artifacts(*sides, (1, 2, 3, 4)).culprit
        assert (culprit.site, culprit.cause) == (Site(1, "ffn_up"), "corrupted_blocks"), column
