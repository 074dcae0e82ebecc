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
)  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS, ids=fault_name)
def test_a_mistake_is_named(fault):
    check_named(fault)


@pytest.mark.parametrize(("family", "site"), [("lfm2", Site(0, "convolved")), ("lfm2", Site(0, "conv_out"))])
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
