"""What is wrong with a run of another engine, and what only its rounding: verdict, cause, and the figures in words."""

import re
from dataclasses import dataclass, replace

import numpy as np
import pytest

from kernels import ops
from kernels.kinds.rotate import Rotation
from kernels.paths import numeric_path
from kernels.precision import BFLOAT16, FLOAT16, FLOAT32
from kernels.rows.dequantize import dequantize
from kernels.stages import Site
from kernels.weight import TensorType, Weight
from store.open import open_artifact
from tests.foreign_dumps import Stages, run, run_changed
from tests.memory_model import random_model
from workbench.bisect.traces.bisection import bisect_trace
from workbench.bisect.traces.stages import Reader, recorded_stages
from workbench.bisect.weights.roundings import rounded
from workbench.cells.limit import LIMIT
from workbench.demo import MODEL as DEMO

MODEL = random_model("qwen2")
ROTATED = ("q_post_rope", "k_post_rope")


@dataclass
class Recorded:
    """A trace in memory, of all tokens."""

    stages: Stages

    def status(self, site):
        return "ok" if site in self.stages else "absent"

    def read(self, site):
        return self.stages[site]

    def positions(self, site):
        return tuple(range(len(self.stages[site])))


def tokens_of(count):
    return tuple((37 * n + 11) % MODEL.config.vocab_size for n in range(count))


def reader(stages, count, model=MODEL, kept=FLOAT32):
    return Reader(model, numeric_path("f32"), Recorded(stages), tokens_of(count), kept, kept)


def asked(stages, count, model=MODEL, kept=FLOAT32):
    return bisect_trace(reader(stages, count, model, kept))


def half(values):
    return values.astype(np.float16).astype(np.float32)


def bfloat(values):
    return rounded(np.ascontiguousarray(values, np.float32), 7)


def with_tensor(model, name, change):
    values = dequantize(model.weight(name)).copy()
    change(values)
    rows = np.atleast_2d(values).view(np.uint8)
    weight = Weight(name, TensorType.F32, values.shape, rows)
    return replace(model, weights=model.weights | {name: weight})


def rotated(known, site, angles, config=MODEL.config, keep=lambda x: x):
    """Q or K turned by given angles, with cosines, sines, products and sums kept as `keep` says."""
    size = config.q_size
    part = slice(0, size) if site.stage == "q_post_rope" else slice(size, size + config.kv_size)
    heads = known["qkv_bias"][:, part].reshape(len(angles), -1, 2, config.head_dim // 2)
    cos, sin = (keep(f(angles.astype(np.float64)).astype(np.float32))[:, None] for f in (np.cos, np.sin))
    a, b = heads[:, :, 0], heads[:, :, 1]
    turned = keep(keep(a * cos) - keep(b * sin)), keep(keep(b * cos) + keep(a * sin))
    return np.concatenate(turned, axis=2).reshape(len(angles), -1)


def turned_run(count, angles_of, keep=lambda x: x):
    """A run whose rotations are by angles_of(layer), every stage kept as `keep` says."""

    def change(site, right, known):
        return rotated(known, site, angles_of(site.layer), keep=keep) if site.stage in ROTATED else keep(right)

    return run_changed(MODEL, tokens_of(count), change)


def angles(count, theta=MODEL.config.rope_theta, start=0, keep=lambda x: x):
    frequencies = (theta ** -(np.arange(0, 16, 2) / 16)).astype(np.float32)
    return (np.arange(count)[:, None] + start) * keep(frequencies)[None]


def test_numbers_too_small_for_half_precision_are_no_mistake_and_a_coarser_step_is():
    quiet = with_tensor(MODEL, "model.layers.0.mlp.up_proj.weight", lambda w: w.__setitem__(slice(8), w[:8] * 1e-5))
    stages = run_changed(quiet, tokens_of(12), lambda _site, right, _known: half(right))
    assert 0 < np.abs(stages[Site(0, "ffn_swigl")][:, :8]).max() < 2.0**-16
    healthy = asked(stages, 12, quiet, FLOAT16)
    assert (healthy.verdict, healthy.culprit) == ("numerics_only", None)

    def coarse(site, right, _known):
        return np.round(right * 2.0**16) / np.float32(2.0**16) if site == Site(0, "ffn_swigl") else half(right)

    found = asked(run_changed(quiet, tokens_of(12), coarse), 12, quiet, FLOAT16)
    assert (found.verdict, found.first_divergent) == ("divergent", Site(0, "ffn_swigl"))


@pytest.mark.parametrize(("kept", "keep"), [(FLOAT16, half), (BFLOAT16, bfloat)], ids=["float16", "bfloat16"])
def test_attention_weights_of_a_long_prompt_are_kept_in_the_type_of_the_run(kept, keep):
    """As transformers does it: the softmax in float32, cast before it meets the values."""
    c, count = MODEL.config, 300

    def change(site, right, known):
        if site.stage != "attention":
            return keep(right)
        q, k = (known[stage].reshape(count, -1, c.head_dim) for stage in ROTATED)
        v = known["qkv_bias"][:, c.q_size + c.kv_size :].reshape(count, -1, c.head_dim)
        scores = keep(keep(np.einsum("qhd,khd->hqk", q, k.repeat(2, 1))) * np.float32(c.head_dim**-0.5))
        scores = np.where(np.tri(count, dtype=bool), scores, -np.inf)
        weights = np.exp(scores - scores.max(-1, keepdims=True))
        weights = keep(weights / weights.sum(-1, keepdims=True))
        return keep(np.einsum("hqk,khd->qhd", weights, v.repeat(2, 1)).reshape(count, -1))

    found = asked(run_changed(MODEL, tokens_of(count), change), count, kept=kept)
    assert (found.verdict, found.culprit) == ("numerics_only", None)


@pytest.mark.parametrize(("kept", "keep"), [(FLOAT16, half), (BFLOAT16, bfloat)], ids=["float16", "bfloat16"])
def test_rotary_frequencies_cast_with_the_model_are_told_from_tables_cast_to_its_type(kept, keep):
    right = turned_run(60, lambda _layer: angles(60), keep)
    assert asked(right, 60, kept=kept).verdict == "numerics_only"
    assert max(stage.averaged for stage in recorded_stages(reader(right, 60, kept=kept))) < LIMIT / 4
    found = asked(turned_run(60, lambda _layer: angles(60, keep=keep), keep), 60, kept=kept)
    assert (found.culprit.site, found.culprit.factor, found.culprit.cause) == (
        Site(0, "q_post_rope"),
        "numerics",
        "dtype_truncated",
    )
    assert found.others == ()
    assert f"rounded to {kept.name} (frequencies)" in found.culprit.explanation
    told = float(re.search(r"turned ([\d.e-]+) radians", found.culprit.explanation)[1])
    assert told == pytest.approx(np.abs(angles(60, keep=keep) - angles(60)).max(), rel=0.05)


def test_positions_and_angles_rounded_to_bfloat16_are_seen_in_a_float32_run():
    def tables(_layer):
        return bfloat(bfloat(np.arange(300))[:, None] * bfloat(angles(2)[1])[None])

    found = asked(turned_run(300, tables), 300)
    assert (found.culprit.cause, found.others) == ("dtype_truncated", ())
    assert "(positions, frequencies, angles)" in found.culprit.explanation


@pytest.mark.parametrize("kept", [FLOAT32, BFLOAT16], ids=["float32", "bfloat16"])
@pytest.mark.parametrize(
    ("theta", "start", "scale", "words"),
    [
        (5e5, 0, 1, {"rope_theta": "rope_theta 500000 instead of 10000"}),
        (23456.0, 0, 1, {"rope_theta": "rope_theta 23"}),
        (1e4, 37, 1, {"rope_position": "position 0 counted as 37"}),
        (5e5, 1, 1, {"rope_theta": "rope_theta 500000 instead of 10000", "rope_position": "position 0 counted as 1"}),
        (1e6, 0, 0.25, {"rope_theta": "rope_theta 1000000 instead", "rope_position": "position 8 counted as 2"}),
        (1e4, 0, 1 / 3, {"rope_position": "divided by 3"}),
    ],
)
def test_every_rotary_setting_that_is_wrong_is_named_with_its_numbers(kept, theta, start, scale, words):
    keep = bfloat if kept == BFLOAT16 else (lambda x: x)
    stages = turned_run(40, lambda _layer: scale * angles(40, theta, start), keep)
    found = asked(stages, 40, kept=kept)
    culprits = [found.culprit, *found.others]
    assert [culprit.cause for culprit in culprits] == list(words)
    assert {culprit.site for culprit in culprits} == {Site(0, "q_post_rope")}
    for culprit in culprits:
        assert words[culprit.cause] in culprit.explanation


def test_another_base_with_the_other_pairs_is_two_mistakes():
    rotation = Rotation(MODEL.config.head_dim, 5e5, "norm")
    positions = np.arange(9)

    def change(site, right, known):
        if site.stage not in ROTATED:
            return right
        size = MODEL.config.q_size
        part = slice(0, size) if site.stage == "q_post_rope" else slice(size, size + MODEL.config.kv_size)
        return ops.rotate(known["qkv_bias"], ops.rope_angles_f32(positions, rotation), rotation, part)

    found = asked(run_changed(MODEL, tokens_of(9), change), 9)
    assert sorted(culprit.cause for culprit in (found.culprit, *found.others)) == ["rope_theta", "rope_type"]


PARTLY = replace(MODEL, config=replace(MODEL.config, rotary_dim=MODEL.config.head_dim // 2))


@pytest.mark.parametrize("pairs", ["neox", "norm"])
@pytest.mark.parametrize(
    ("changes", "cause", "words"),
    [
        ({"rotary_dim": None}, "rope_type", "all channels of a head are rotated and not only the first"),
        ({"rotary_dim": 4}, "rope_type", "only the first 4 channels"),
        ({"theta": 100.0}, "rope_theta", "are those of heads of 16 channels, of which 8 rotate"),
        ({"theta": 5e5}, "rope_theta", "rope_theta 500000 instead of 10000"),
        ({"theta": 5432.0}, "rope_theta", "rope_theta 5432"),
        ({"pairs": "other"}, "rope_type", "the other channels of a head rotate together"),
        ({"last": True}, "rope_type", "the last 8 channels of a head are rotated"),
    ],
)
def test_mistakes_of_heads_that_rotate_in_part(pairs, changes, cause, words):
    model = replace(PARTLY, config=replace(PARTLY.config, rope_type=pairs))
    own = Rotation(model.config.head_dim, 1e4, pairs, rotary_dim=8)
    other = {"neox": "norm", "norm": "neox"}[pairs]
    fields = {key: other if value == "other" else value for key, value in changes.items() if key != "last"}
    wrong, positions, c = replace(own, **fields), np.arange(9), model.config

    def change(site, right, known):
        if site.stage not in ROTATED:
            return right
        part = slice(0, c.q_size) if site.stage == "q_post_rope" else slice(c.q_size, c.q_size + c.kv_size)
        x = np.ascontiguousarray(known["qkv_bias"][:, part]).reshape(9, -1, c.head_dim)
        x = np.ascontiguousarray(np.roll(x, 8 * ("last" in changes), axis=2)).reshape(9, -1)
        y = ops.rotate(x, ops.rope_angles_f32(positions, wrong), wrong).reshape(9, -1, c.head_dim)
        return np.ascontiguousarray(np.roll(y, -8 * ("last" in changes), axis=2)).reshape(9, -1)

    found = asked(run_changed(model, tokens_of(9), change), 9, model)
    assert (found.culprit.site, found.culprit.cause, found.others) == (Site(0, "q_post_rope"), cause, ())
    assert words in found.culprit.explanation


def test_heads_that_rotate_in_part_as_they_should_are_healthy():
    assert asked(run_changed(PARTLY, tokens_of(9), lambda _site, right, _known: right), 9, PARTLY).culprit is None


def test_one_setting_in_all_layers_is_one_mistake_and_two_values_of_it_are_two():
    same = asked(turned_run(20, lambda _layer: angles(20, 12345.0)), 20)
    assert [same.culprit.cause, len(same.others)] == ["rope_theta", 0]
    two = asked(turned_run(20, lambda layer: angles(20, (5e5, 2e4)[layer])), 20)
    assert [(c.site.layer, c.cause) for c in (two.culprit, *two.others)] == [(0, "rope_theta"), (1, "rope_theta")]
    assert "rope_theta 20000 instead" in two.others[0].explanation


@pytest.fixture(scope="module")
def loud():
    """A model of which channel 11 of a gated product is beyond half precision, and nothing else."""
    model = with_tensor(MODEL, "model.layers.0.mlp.up_proj.weight", lambda w: w.__setitem__(11, w[11] * 4096))
    model = with_tensor(model, "model.layers.0.mlp.gate_proj.weight", lambda w: w.__setitem__(11, w[11] * -4096))
    return with_tensor(
        model, "model.layers.0.mlp.down_proj.weight", lambda w: w.__setitem__((..., 11), w[:, 11] / 4096)
    )


@pytest.mark.parametrize("stuck", [False, True], ids=["infinite", "stuck at the largest"])
def test_values_beyond_half_precision_are_an_overflow_and_what_follows_is_inherited(loud, stuck):
    def change(_site, right, _known):
        with np.errstate(over="ignore"):
            return half(np.clip(right, -65504, 65504) if stuck else right)

    with np.errstate(invalid="ignore", over="ignore"):
        stages = run_changed(loud, tokens_of(6), change)
        found = asked(stages, 6, loud, FLOAT16)
    exact = stages[Site(0, "ffn_silu")].astype(np.float64) * stages[Site(0, "ffn_up")]
    count = int((np.abs(exact) > 65520).sum())
    assert 0 < count <= 6
    assert stuck or not np.isfinite(stages[Site(None, "lm_head")]).all()
    assert (found.culprit.site, found.culprit.factor, found.culprit.cause, found.others) == (
        Site(0, "ffn_swigl"),
        "numerics",
        "overflow",
        (),
    )
    token, channel = np.argwhere(np.abs(exact) > 65520)[0]
    words = found.culprit.explanation
    assert words.startswith(f"{count} of {exact.size} values are beyond 65504")
    assert f"token {token}, channel {channel}," in words
    told = float(re.search(r"exact value is ([\d.e+]+)", words)[1])
    assert told == pytest.approx(abs(exact[token, channel]), rel=1e-4)
    assert stuck or any("read NaN or infinite values" in note for note in found.notes)


def test_one_product_kept_in_half_precision_overflows_in_a_float32_run_and_later_tokens_keep_their_names():
    model = with_tensor(MODEL, "model.layers.0.mlp.down_proj.weight", lambda w: w.__setitem__(5, w[5] * 1e6))
    found = asked(run(model, tokens_of(6)), 6, model)
    assert found.verdict == "alike"

    def change(site, right, _known):
        if site == Site(1, "ffn_out"):
            right = right.copy()
            right[4] = 0
        with np.errstate(over="ignore"):
            return half(right) if site == Site(0, "ffn_out") else right

    with np.errstate(invalid="ignore", over="ignore"):
        stages = run_changed(model, tokens_of(6), change)
        found = asked(stages, 6, model)
    lost = ~np.isfinite(stages[Site(0, "ffn_out")]).all(axis=1)
    assert lost.any()
    assert not lost[4]
    assert [(c.site, c.factor, c.cause) for c in (found.culprit, *found.others)] == [
        (Site(0, "ffn_out"), "numerics", "overflow"),
        (Site(1, "ffn_out"), "graph", "zeroed"),
    ]
    assert "at token 4 only" in found.others[0].explanation


@pytest.mark.parametrize("stage", ["embedding", "qkv_bias", "attention", "post_attn_residual", "ffn_norm", "ffn_gate"])
@pytest.mark.parametrize("value", [np.nan, np.inf, 1e38])
def test_any_stage_may_hold_any_value(stage, value, capfd):
    site = Site(None if stage == "embedding" else 1, stage)

    def change(at, right, _known):
        if at == site:
            right = right.copy()
            right[2, 3] = value
        return right

    with np.errstate(all="ignore"):
        found = asked(run_changed(MODEL, tokens_of(6), change), 6)
    assert (found.culprit.site, found.others) == (site, ())
    assert stage == "embedding" or found.culprit.factor == "graph"
    assert capfd.readouterr().out == ""  # LAPACK complains there


@pytest.mark.parametrize(
    ("site", "change", "cause"),
    [
        (Site(None, "lm_head"), lambda y: y.__setitem__((-1, slice(64, None)), 0), "zeroed"),
        (Site(1, "ffn_out"), lambda y: y.__setitem__(-1, 0), "zeroed"),
        (Site(0, "qkv_matmul"), lambda y: y.__setitem__((4, slice(10, 90)), 1.0), "unknown"),
        (Site(1, "attn_norm"), lambda y: y.__setitem__(3, y[3] * 2), "scaled"),
        (Site(0, "qkv_bias"), lambda y: y.__setitem__(2, y[1]), "token_scope"),
        (Site(0, "ffn_gate"), lambda y: y.__setitem__((slice(5), slice(3)), 0.25), "unknown"),
    ],
    ids=["half of the last logits", "a row of zeros", "a run of channels", "a norm", "the row before", "five tokens"],
)
def test_what_is_wrong_for_some_tokens_only_is_not_the_weights(site, change, cause):
    def changed(at, right, _known):
        if at == site:
            right = right.copy()
            change(right)
        return right

    stages = run_changed(MODEL, tokens_of(9), changed)
    found = asked(stages, 9)
    assert (found.culprit.site, found.culprit.factor, found.culprit.cause, found.others) == (site, "graph", cause, ())
    right = next(stage for stage in recorded_stages(reader(stages, 9)) if stage.site == site).right
    tokens = np.flatnonzero((stages[site] != right).any(axis=1) & (np.abs(stages[site] - right).max(axis=1) > 1e-3))
    assert re.search(rf"tokens? {tokens[0]}\b", found.culprit.explanation)


def test_a_damaged_row_is_the_weights_though_it_shows_little_at_some_tokens():
    damaged = with_tensor(MODEL, "model.layers.0.mlp.gate_proj.weight", lambda w: w.__setitem__((7, slice(5)), 0.3))
    found = asked(run(damaged, tokens_of(7)), 7)
    assert (found.culprit.site, found.culprit.factor, found.culprit.cause) == (
        Site(0, "ffn_gate"),
        "weights",
        "corrupted_blocks",
    )


@pytest.mark.parametrize(
    ("kind", "wrong", "told"),
    [
        (TensorType.Q4_K, lambda at: at % 256 >= 128, "columns 128 to 255 of every block of 256"),
        (TensorType.Q6_K, lambda at: at % 256 < 32, "columns 0 to 31 of every block of 256"),
        (TensorType.Q8_0, lambda at: at % 32 >= 16, "columns 16 to 31 of every block of 32"),
    ],
    ids=["Q4_K", "Q6_K", "Q8_0"],
)
def test_blocks_that_an_engine_misreads_are_one_mistake_of_all_products(kind, wrong, told):
    """Scales of some columns are other ones than those stored: each by a factor of its own between 0.2 and 1."""
    model = random_model("qwen2", kind, layers=2, heads=4, head_dim=64, hidden=256, ffn=512)
    read, rng = model, np.random.default_rng(3)

    def misread(values):
        columns = wrong(np.arange(values.shape[1]))
        runs = rng.uniform(0.2, 1, (len(values), values.shape[1] // 16)).repeat(16, axis=1)
        values[:, columns] *= runs[:, columns].astype(np.float32)

    for name, weight in model.weights.items():
        if weight.type == kind and "embed" not in name:
            read = with_tensor(read, name, misread)
    found = asked(run(read, tokens_of(7)), 7, model)
    assert (found.culprit.site, found.culprit.factor, found.culprit.cause, found.others) == (
        Site(0, "qkv_matmul"),
        "weights",
        "corrupted_blocks",
        (),
    )
    assert told in found.culprit.explanation
    assert f"all 11 stages with {kind.name} weights" in found.culprit.explanation


SHIPPED = open_artifact(DEMO)


def shipped_run(count, change):
    tokens = tuple((37 * n + 11) % SHIPPED.config.vocab_size for n in range(count))
    return run_changed(SHIPPED, tokens, change), tokens


def normed(x, weight, eps, keep=lambda x: x):
    """An RMS norm as transformers computes it: float32, cast before it meets the weight."""
    scale = 1 / np.sqrt((x * x).mean(axis=1, keepdims=True, dtype=np.float32) + np.float32(eps))
    return keep(keep(x * scale) * weight)


@pytest.mark.parametrize(("kept", "keep"), [(FLOAT32, lambda x: x), (FLOAT16, half), (BFLOAT16, bfloat)])
def test_an_epsilon_that_no_element_shows_is_seen_in_what_all_channels_of_a_token_have_in_common(kept, keep):
    late = Site(4, "attn_norm")  # whose inputs have a mean square of 50: 1e-5 for 1e-6 makes 1e-7 of the output

    def run_with(eps):
        def change(site, right, known):
            if site.stage not in ("attn_norm", "ffn_norm"):
                return keep(right)
            first = site.stage == "attn_norm"
            name = "input_layernorm" if first else "post_attention_layernorm"
            x = known["layer_input" if first else "post_attn_residual"]
            weight = dequantize(SHIPPED.weight(f"model.layers.{site.layer}.{name}.weight"))
            return normed(x, weight, eps if site == late else 1e-6, keep)

        stages, tokens = shipped_run(60, change)
        read = Reader(SHIPPED, numeric_path("f32"), Recorded(stages), tokens, kept, kept)
        return read, bisect_trace(read)

    read, healthy = run_with(1e-6)
    assert (healthy.verdict, healthy.culprit) == ("numerics_only", None)
    assert max(stage.averaged for stage in recorded_stages(read)) < LIMIT / 2
    if kept == FLOAT32:
        read, found = run_with(1e-5)
        shown = next(stage for stage in recorded_stages(read) if stage.site == late)
        assert np.sqrt(np.square((shown.y - shown.right) / shown.noise).mean()) < LIMIT / 4
        assert (found.culprit.site, found.culprit.factor, found.culprit.cause) == (late, "config", "rms_norm_eps")
        assert "epsilon is 1e-05 in place of 1e-06" in found.culprit.explanation
        assert found.others == ()


def test_a_small_bias_that_rounding_hides_at_every_token_shows_in_their_mean():
    name = "model.layers.1.self_attn.k_proj.bias"
    values = dequantize(MODEL.weight(name)) * np.float32(0.03)
    small, silent = (
        replace(MODEL, weights=MODEL.weights | {name: vector_weight(name, times * values)}) for times in (1, 0)
    )
    healthy, wrong = (
        asked(run_changed(of, tokens_of(60), lambda _s, y, _k: bfloat(y)), 60, small, BFLOAT16)
        for of in (small, silent)
    )
    assert (healthy.verdict, healthy.culprit) == ("numerics_only", None)
    found = wrong.culprit
    assert (found.site, found.cause, found.tensor) == (Site(1, "qkv_bias"), "bias_missing", name)
    assert wrong.others == ()


def vector_weight(name, values):
    return Weight(name, TensorType.F32, values.shape, values.view(np.uint8).reshape(1, -1))


def test_a_bias_that_is_added_first_is_no_other_bias():
    """A fused product begins its sums with the bias: what their order makes is of the size of the product's terms."""

    def change(site, right, known):
        if site.stage != "qkv_bias":
            return right
        projections = [f"model.layers.{site.layer}.self_attn.{part}_proj" for part in "qkv"]
        weight, bias = (
            np.concatenate([dequantize(SHIPPED.weight(f"{name}.{kind}")) for name in projections])
            for kind in ("weight", "bias")
        )
        total = np.repeat(bias[None], len(right), axis=0)
        for n, column in enumerate(weight.T):
            total = total + known["attn_norm"][:, n : n + 1] * column[None]
        return total

    stages, tokens = shipped_run(7, change)
    found = bisect_trace(Reader(SHIPPED, numeric_path("f32"), Recorded(stages), tokens, FLOAT32, FLOAT32))
    assert (found.verdict, found.culprit) == ("numerics_only", None)
    sums = [cell.b_off for cell in found.checked if cell.site.stage == "qkv_bias"]
    assert 0 < max(sums) < LIMIT / 4


@pytest.mark.parametrize("architecture", ["qwen2", "gemma3"])
def test_a_value_that_attention_multiplies_by_zero_is_inherited_though_no_token_sees_it(architecture):
    """As a product of all weights with all values makes it, of which one is NaN: 0 times NaN is NaN."""
    model = random_model(architecture, layers=3)

    def change(site, right, known):
        right = right.copy()
        if site == Site(1, "ffn_up"):
            right[6, 5] = np.nan
        elif site.stage == "attention" and not np.isfinite(known["layer_input"]).all():
            right[:] = np.nan
        return right

    with np.errstate(all="ignore"):
        found = asked(run_changed(model, tokens_of(9), change), 9, model)
    assert (found.culprit.site, found.others) == (Site(1, "ffn_up"), ())


@pytest.mark.parametrize(
    ("changed", "cause", "tensor"),
    [
        ({"weight": 0.0}, "zeroed", "weight"),
        ({"weight": 1.5}, "scaled", "weight"),
        ({"bias": -1.0}, "sign_flipped", "bias"),
        ({"weight": 0.0, "bias": 0.0}, "zeroed", None),
        ({"weight": -1.0, "bias": -1.0}, "sign_flipped", None),
    ],
)
@pytest.mark.parametrize("module", ["mlp.down_proj", "input_layernorm"])
def test_of_a_sum_with_a_bias_the_part_is_named_that_is_wrong(module, changed, cause, tensor):
    model, layer = random_model("starcoder2"), "model.layers.1."
    wrong = model
    for kind, factor in changed.items():
        wrong = with_tensor(wrong, f"{layer}{module}.{kind}", lambda values, factor=factor: values.__imul__(factor))
    found = asked(run(wrong, tokens_of(9)), 9, model).culprit
    assert (found.site.layer, found.cause) == (1, cause)
    assert found.tensor == (tensor and f"{layer}{module}.{tensor}")
    assert found.factor == ("weights" if tensor else "graph")


def test_a_factor_is_told_where_tokens_are_so_alike_that_a_channel_shows_one_rounding_of_its_weights():
    model, name = random_model("starcoder2", TensorType.F16, hidden=256, head_dim=64, ffn=192), "mlp.down_proj.weight"
    name = f"model.layers.1.{name}"
    values = (1.1 * dequantize(model.weight(name))).astype(np.float16)
    scaled = Weight(name, TensorType.F16, values.shape, values.view(np.uint8))
    found = asked(run(model, tokens_of(20)), 20, replace(model, weights=model.weights | {name: scaled})).culprit
    assert (found.site, found.cause, found.tensor) == (Site(1, "ffn_out"), "scaled", name)


def test_channels_of_another_head_are_no_damage():
    name = "model.layers.1.self_attn.v_proj.weight"
    stale = with_tensor(MODEL, name, lambda values: values.__setitem__(slice(0, 16), values[16:32].copy()))
    found = asked(run(stale, tokens_of(9)), 9).culprit
    assert (found.site, found.cause, found.tensor) == (Site(1, "qkv_matmul"), "rows_permuted", name)
