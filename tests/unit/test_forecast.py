"""What the inputs explain is forecast; what a stage adds by itself is not, and is marked."""

import numpy as np
import pytest

from kernels.forward import At, evaluate, forward, inputs_of
from kernels.paths import numeric_path
from kernels.stages import LAYER_STAGES, Site
from tests.artifacts import tiny_model
from tests.memory_model import random_model
from workbench.bisect.models.forecast import derivative, forecast

TOKENS = (3, 1, 4, 1, 5, 9)
MODEL = random_model("qwen2", layers=1)
F32, F64 = numeric_path("f32"), numeric_path("f64")
AT = At(MODEL, F32, TOKENS, 0)


def run(path=F64):
    """All stages of layer 0, and "layer_input"."""
    values = {site.stage: y for site, y in forward(MODEL, TOKENS, path)}
    return values | {"layer_input": values["embedding"]}


def perturbed(values, share, seed=0):
    """Values with relative noise of `share`."""
    return values + share * np.random.default_rng(seed).standard_normal(values.shape) * np.abs(values)


@pytest.mark.parametrize("stage", [*LAYER_STAGES, "final_norm", "lm_head"])
def test_derivatives_agree_with_finite_differences(stage):
    at = At(MODEL, F64, TOKENS, None if stage in ("final_norm", "lm_head") else 0)
    x = {name: run()[name] for name in inputs_of(stage)}
    dx = {name: np.random.default_rng(n).standard_normal(value.shape) for n, (name, value) in enumerate(x.items())}
    h = 1e-5
    ends = [evaluate(stage, at, {name: x[name] + sign * h * dx[name] for name in x}) for sign in (1, -1)]
    slope = (ends[0] - ends[1]) / (2 * h)
    assert np.linalg.norm(derivative(stage, at, x, dx) - slope) < 1e-7 * np.linalg.norm(slope)


def observed(stage, inputs_a, inputs_b, bug=lambda y: y):
    y_a = evaluate(stage, AT, {n: x.astype(np.float32) for n, x in inputs_a.items()})
    y_b = bug(evaluate(stage, AT, {n: x.astype(np.float32) for n, x in inputs_b.items()}))
    return forecast(stage, AT, AT, inputs_a, inputs_b, y_a, y_b)


@pytest.mark.parametrize("share", [0.01, 0.05, 0.36])
def test_a_disturbed_gate_is_forecast_at_silu_and_swigl(share):
    values = run(F32)
    gate = perturbed(values["ffn_gate"], share).astype(np.float32)
    silu = observed("ffn_silu", {"ffn_gate": values["ffn_gate"]}, {"ffn_gate": gate})
    after = evaluate("ffn_silu", AT, {"ffn_gate": gate})
    up = {"ffn_up": values["ffn_up"]}
    swigl = observed("ffn_swigl", {"ffn_silu": values["ffn_silu"]} | up, {"ffn_silu": after} | up)
    for found in (silu, swigl):
        assert found.ratio == pytest.approx(1, abs=0.01)
        assert not found.marked


def test_strongly_negative_gates_are_amplified_and_nothing_is_wrong():
    """Kappa of SiLU at -6 is -4.99: five times the relative difference, all of it forecast."""
    gate = np.full((6, 96), -6.0, np.float32)
    found = observed("ffn_silu", {"ffn_gate": gate}, {"ffn_gate": gate * np.float32(1.0001)})
    assert found.growth == pytest.approx(4.985, abs=0.01)
    assert found.ratio == pytest.approx(1, abs=1e-3)
    assert not found.marked


@pytest.mark.parametrize("stage", ["attn_norm", "attention", "ffn_silu", "ffn_swigl"])
def test_what_a_stage_adds_by_itself_is_marked(stage):
    values = run(F32)
    x = {name: values[name] for name in inputs_of(stage)}
    disturbed = {name: perturbed(value, 0.01).astype(np.float32) for name, value in x.items()}
    assert not observed(stage, x, disturbed).marked
    assert not observed(stage, x, x).marked
    assert observed(stage, x, disturbed, bug=lambda y: y * np.float32(1.001)).marked
    assert observed(stage, x, x, bug=lambda y: np.roll(y, 1, axis=0)).marked
    assert observed(stage, x, x, bug=lambda y: np.where(y == y.max(), np.float32(np.nan), y)).marked


def test_a_planted_activation_bug_is_marked_although_the_norms_agree():
    """Quick GELU in place of SiLU, behind a gate that differs by 1 %."""
    values = run(F32)
    gate = perturbed(values["ffn_gate"], 0.01).astype(np.float32)

    def quick_gelu(_right):
        return gate / (1 + np.exp(np.float32(-1.702) * gate))

    found = observed("ffn_silu", {"ffn_gate": values["ffn_gate"]}, {"ffn_gate": gate}, bug=quick_gelu)
    assert found.marked
    assert found.unexplained > 0.9 * found.observed


def test_a_wrong_weight_is_not_explained_by_its_inputs():
    values = run(F32)
    other = random_model("qwen2", layers=1, seed=1)
    x, x_b = ({"ffn_norm": v} for v in (values["ffn_norm"], perturbed(values["ffn_norm"], 0.01).astype(np.float32)))
    at_b = At(other, F32, TOKENS, 0)
    y_a, y_b = evaluate("ffn_gate", AT, x), evaluate("ffn_gate", at_b, x_b)
    assert forecast("ffn_gate", AT, at_b, x, x_b, y_a, y_b).marked
    assert not forecast("ffn_gate", AT, AT, x, x_b, y_a, evaluate("ffn_gate", AT, x_b)).marked


def test_rounding_to_8_bits_is_not_marked():
    model = tiny_model("qwen2", "Q4_K", layers=1)
    ggml, exact = At(model, numeric_path("ggml"), TOKENS, 0), At(model, F32, TOKENS, 0)
    values = dict(forward(model, TOKENS, F32))
    x = {"ffn_norm": values[Site(0, "ffn_norm")]}
    x_b = {"ffn_norm": perturbed(x["ffn_norm"], 1e-3).astype(np.float32)}
    found = forecast("ffn_up", exact, ggml, x, x_b, evaluate("ffn_up", exact, x), evaluate("ffn_up", ggml, x_b))
    assert found.unexplained > found.predicted
    assert not found.marked
