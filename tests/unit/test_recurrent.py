"""Layers with something else in place of attention: their mistakes, their slopes, and what is refused."""

import json
from dataclasses import replace

import numpy as np
import pytest

from kernels.errors import WorkbenchError
from kernels.forward import evaluate, forward
from kernels.graph import At
from kernels.models import Graph
from kernels.paths import numeric_path
from kernels.stages import Site
from store.open import open_artifact
from tests.family_faults import TOKENS, Fault, check_named, fault_name, model_of, with_kind
from tests.gguf_files import write_gguf
from tests.hf_files import float_tensor, hf_config, hf_weights, write_safetensors, write_safetensors_file
from workbench.conventions.ledger import ledger


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


def of_scan(part):
    return f"model.layers.0.mamba.{part}"


def other_scan(**changes):
    """A state space with other tensors or inputs."""

    def changed(model, known, right, site):
        at = At(model, numeric_path("f64"), TOKENS, Graph.of(model).stage(site))
        a, d = (model.values()[of_scan(name)].astype(np.float64) for name in ("A_log", "D"))
        x = {role: known[name].astype(np.float64) for role, name in at.stage.inputs.items()}
        a, d = changes.get("a", lambda a: a)(a), changes.get("d", lambda d: d)(d)
        x["x"] = changes.get("x", lambda x, r: x)(x["x"], model.config.recurrence)
        return at.path.scan({role: np.ascontiguousarray(y) for role, y in x.items()}, a, d, at.kind).astype(np.float32)

    return changed


def exchanged(x, r):
    parts = np.split(x, [r.values, r.values + r.keys], axis=1)
    return np.concatenate([parts[0], parts[2], parts[1]], axis=1)


def together(model, known, right):
    x, weight = known["scan_gated"], model.values()[of_scan("norm.weight")]
    return x / np.sqrt(np.square(x).mean(axis=1, keepdims=True) + model.config.rms_norm_eps) * weight


def of_state_spaces():
    family, scan = "granitehybrid", Site(0, "scan")
    yield Fault(family, scan, "recurrence", "of which -exp was not taken", change=other_scan(a=lambda a: np.log(-a)))
    yield Fault(family, scan, "recurrence", "-exp is taken of A once more", change=other_scan(a=lambda a: -np.exp(a)))
    yield Fault(family, scan, "recurrence", "D x is not added", change=other_scan(d=np.zeros_like))
    yield Fault(family, scan, "recurrence", "B and C are exchanged", change=other_scan(x=exchanged))
    yield Fault(
        *(family, Site(0, "scan_dt"), "bias_missing", "dt_bias is not added"),
        change=lambda m, known, right: right - m.values()[of_scan("dt_bias")],
    )
    yield Fault(family, Site(0, "scan_norm"), "head_grouping", "normed together", change=together)
    yield Fault(
        *(family, Site(0, "convolved"), "bias_missing", "conv1d.bias is not added"),
        change=lambda m, known, right: right - m.values()[of_scan("conv1d.bias")],
    )
    yield Fault(
        *(family, Site(0, "scan_silu"), "activation_function", "a sigmoid stands in place of SiLU"),
        change=lambda m, known, right: 1 / (1 + np.exp(-known["scan_z"])),
    )
    yield Fault(family, scan, "recurrence", "once more", tensors={of_scan("A_log"): lambda a: -np.exp(a)})


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
    *of_state_spaces(),
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
        *(("granitehybrid", Site(0, name)) for name in ("convolved", "scan_dt", "scan_step", "scan", "scan_norm")),
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


@pytest.mark.parametrize("path", ["f32", "ggml"])
@pytest.mark.parametrize("family", ["lfm2", "qwen35", "granitehybrid"])
def test_any_number_of_threads_gives_the_same_bits(family, path, monkeypatch):
    model, runs = model_of(family, layers=1), []
    for threads in ("1", "2", "3"):
        monkeypatch.setenv("WORKBENCH_THREADS", threads)
        run = forward(model, tuple(range(100)), numeric_path(path))
        runs.append({site: values.tobytes() for site, values in run})
    assert runs[0] == runs[1] == runs[2]


def test_layers_that_predict_further_tokens_are_not_run_and_said_to_be_unused(tmp_path):
    model = model_of("qwen35")
    names = ("mtp.fc.weight", "mtp.layers.0.self_attn.q_proj.weight")
    extra = {name: float_tensor(name, np.ones((4, 4), np.float32)) for name in names}
    write_safetensors(tmp_path / "folder", replace(model, weights=model.weights | extra))
    raw = "blk.2.nextn.eh_proj.weight"
    more = {raw: float_tensor(raw, np.ones((4, 4), np.float32))}
    deeper = replace(model.config, num_hidden_layers=3, recurrent_layers=(True, False, False))
    write_gguf(tmp_path / "m.gguf", replace(model, config=deeper, weights=model.weights | more), nextn_predict_layers=1)
    for path, unused in (("folder", names), ("m.gguf", (raw,))):
        artifact = open_artifact(tmp_path / path)
        assert artifact.config == model.config
        assert any(unused[0] in problem for problem in artifact.problems)


@pytest.mark.parametrize("family", ["qwen35", "qwen3next", "granitehybrid", "lfm2"])
def test_the_ledger_finds_everything_done_as_often_as_it_should_be(family, tmp_path):
    model = model_of(family)
    write_safetensors(tmp_path / "folder", model)
    write_gguf(tmp_path / "m.gguf", model)
    for name in ("folder", "m.gguf"):
        found = ledger(open_artifact(tmp_path / name))
        entries = [entry for of in found.entries.values() for entry in of]
        assert entries
        assert not [entry for entry in entries if entry.verdict == "otherwise"]


def test_what_is_not_computed_is_refused_by_name(tmp_path):
    for family, changes, words in (
        ("lfm2", {"is_causal": False}, "is_causal"),
        ("lfm2", {"layer_types": ["conv", "sliding"]}, "layer_types"),
        ("qwen35", {"linear_num_key_heads": 3}, "3 heads of keys"),
        ("granitehybrid", {"time_step_limit": [0.1, 1.0]}, "time_step_limit"),
    ):
        model = model_of(family)
        write_safetensors(tmp_path / family, model)
        (tmp_path / family / "config.json").write_text(json.dumps(hf_config(model) | changes))
        with pytest.raises(WorkbenchError, match=words):
            open_artifact(tmp_path / family)


def test_a_text_model_among_others_is_read_with_what_it_calls_its_delta_nets(tmp_path):
    model = model_of("qwen35")
    own = {name.replace("model.", "model.language_model.", 1): tensor for name, tensor in hf_weights(model).items()}
    beside = {"model.visual.blocks.0.attn.qkv.weight": float_tensor("x", np.ones((4, 4), np.float32))}
    write_safetensors_file(tmp_path / "model.safetensors", own | beside)
    text = hf_config(model)
    text["rope_parameters"] |= {"mrope_section": [11, 11, 10], "mrope_interleaved": True}
    whole = {"model_type": "qwen3_5", "text_config": text, "vision_config": {}}
    (tmp_path / "config.json").write_text(json.dumps(whole))
    artifact = open_artifact(tmp_path)
    assert artifact.config == model.config
    assert set(artifact.unused) == set(beside)
