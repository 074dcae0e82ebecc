"""Layers with something else in place of attention: their mistakes, their slopes, and what is refused."""

from dataclasses import replace

import numpy as np
import pytest

from kernels.forward import evaluate, forward
from kernels.graph import At
from kernels.models import Graph
from kernels.paths import numeric_path
from kernels.stages import Site
from tests.unit.test_families import TOKENS, Fault, check_named, fault_name, model_of, with_kind


def with_weight(name, change):
    """The stage with another weight."""

    def changed(model, known, right, site):
        at = At(model, numeric_path("f32"), TOKENS, Graph.of(model).stage(site))
        weights = model.weights | {name: replace(model.weights[name], stored=change(model.weights[name]))}
        other = replace(at, model=replace(model, weights=weights))
        return evaluate(other, {role: known[name] for role, name in at.stage.inputs.items()})

    return changed


def taps(change):
    return lambda weight: np.ascontiguousarray(change(weight.stored.view(np.float32))).view(np.uint8)


def of_delta(part):
    return f"model.layers.0.linear_attn.{part}"


def decay_with(change):
    """The decay of A and dt as they come out of a change."""

    def changed(model, known, right):
        a, dt = change(*(model.values()[of_delta(name)] for name in ("A_log", "dt_bias")))
        return (a * np.logaddexp(0, known["delta_a"] + dt)).astype(np.float32)

    return changed


def other_heads(order):
    """Rows of the heads of values in another order."""
    return lambda w: w.reshape(4, -1, w.shape[1])[order].reshape(w.shape)


def of_delta_nets(family):
    """What is easily done wrong in a gated delta net, and in attention with a gate."""
    tiles = [0, 2, 1, 3]
    yield Fault(
        family,
        Site(0, "delta_decay"),
        "recurrence",
        "of which -exp was not taken",
        change=decay_with(lambda a, dt: (np.log(-a), dt)),
    )
    yield Fault(
        family,
        Site(0, "delta_decay"),
        "recurrence",
        "-exp is taken of A once more",
        change=decay_with(lambda a, dt: (-np.exp(a), dt)),
    )
    yield Fault(
        family,
        Site(0, "delta_decay"),
        "bias_missing",
        "dt_bias is not added",
        change=decay_with(lambda a, dt: (a, 0 * dt)),
    )
    yield Fault(
        family,
        Site(0, "delta_decay"),
        "recurrence",
        "-exp was not taken",
        tensors={of_delta("A_log"): lambda a: np.log(-a)},
    )
    yield Fault(
        family, Site(0, "delta_decay"), "recurrence", "once more", tensors={of_delta("A_log"): lambda a: -np.exp(a)}
    )
    yield Fault(
        family,
        Site(0, "delta_beta"),
        "activation_function",
        "no activation stands in place of a sigmoid",
        change=lambda m, known, right: known["delta_b"],
    )
    yield Fault(
        family, Site(0, "delta"), "head_grouping", "share a head of keys", change=with_kind(tiled=family == "qwen3next")
    )
    yield Fault(
        family, Site(0, "delta_qkv"), "rows_permuted", "", tensors={of_delta("v_proj.weight"): other_heads(tiles)}
    )
    yield Fault(
        family,
        Site(0, "convolved"),
        "recurrence",
        "in reverse order",
        change=with_weight(of_delta("conv1d.weight"), taps(lambda w: w[:, ::-1])),
    )
    yield Fault(family, Site(0, "delta_norm"), "norm_offset", "", tensors={of_delta("norm.weight"): lambda w: w + 1})
    yield Fault(
        family,
        Site(1, "attn_gated"),
        "activation_function",
        "the gate is left out",
        change=lambda m, known, right: known["attention"],
    )
    yield Fault(
        family,
        Site(1, "attn_gated"),
        "activation_function",
        "does not go through a sigmoid",
        change=lambda m, known, right: known["attention"] * known["attn_gate"],
    )
    yield Fault(
        family,
        Site(1, "q_norm"),
        "norm_offset",
        "",
        tensors={"model.layers.1.self_attn.q_norm.weight": lambda w: w - 1},
    )
    yield Fault(
        family,
        Site(0, "delta_silu"),
        "activation_function",
        "a sigmoid stands in place of SiLU",
        change=lambda m, known, right: 1 / (1 + np.exp(-known["delta_z"])),
    )


CONV = "model.layers.0.conv.conv.weight"
FAULTS = (
    Fault("lfm2", Site(0, "convolved"), "recurrence", "in reverse order",
          change=with_weight(CONV, taps(lambda w: w[:, ::-1]))),
    Fault("lfm2", Site(0, "convolved"), "recurrence", "tokens before are not seen",
          change=with_weight(CONV, taps(lambda w: w * np.array([0, 0, 1], np.float32)))),
    Fault("lfm2", Site(0, "convolved"), "activation_function", "SiLU follows",
          change=lambda m, known, right: numeric_path("f32").silu(right)),
    Fault("lfm2", Site(0, "conv_gated"), "recurrence", "part 2 is the gate in place of part 1",
          change=with_kind(gate_start=64)),
    Fault("lfm2", Site(0, "conv_out"), "recurrence", "the gate is left out",
          change=lambda m, known, right: known["convolved"]),
    Fault("lfm2", Site(0, "conv_in"), "rows_permuted", "",
          tensors={"model.layers.0.conv.in_proj.weight": lambda w: np.roll(w, 64, axis=0)}),
    Fault("lfm2", Site(0, "convolved"), "rows_permuted", "",
          tensors={CONV: lambda w: w[:, ::-1]}),
    *(fault for family in ("qwen35", "qwen35moe", "qwen3next") for fault in of_delta_nets(family)),
)  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS, ids=fault_name)
def test_a_mistake_is_named(fault):
    check_named(fault)


@pytest.mark.parametrize(
    ("family", "site"),
    [
        *(("lfm2", Site(0, name)) for name in ("convolved", "conv_out")),
        *(("qwen35", Site(0, name)) for name in ("delta_q", "delta_beta", "delta_decay", "delta")),
        *(("qwen3next", Site(0, name)) for name in ("delta", "delta_gated")),
        ("qwen35", Site(1, "attn_gated")),
    ],
)
def test_the_slope_is_that_of_small_steps(family, site):
    model, path = model_of(family), numeric_path("f64")
    at = At(model, path, TOKENS, Graph.of(model).stage(site))
    known = {stage.stage: values for stage, values in forward(model, TOKENS, path) if stage.layer == site.layer}
    rng, step = np.random.default_rng(0), 1e-6
    x = {role: known[name] for role, name in at.stage.inputs.items()}
    dx = {role: rng.standard_normal(values.shape) for role, values in x.items()}
    ahead, back = (evaluate(at, {role: x[role] + sign * step * dx[role] for role in x}) for sign in (1, -1))
    slope = at.kind.derivative(at, x, dx)
    assert np.linalg.norm(slope - (ahead - back) / (2 * step)) < 1e-7 * np.linalg.norm(slope)
