"""Families beyond the first: one model in every container."""

import json
from dataclasses import replace

import numpy as np
import pytest

from kernels.errors import WorkbenchError
from kernels.forward import evaluate, forward
from kernels.graph import At
from kernels.models import Graph
from kernels.models import family as family_of
from kernels.paths import numeric_path
from kernels.rows.dequantize import dequantize
from kernels.stages import Site
from store.files.apr_writer import convert_to_apr, write_apr
from store.open import open_artifact
from tests.artifacts import apr_metadata, apr_tensors
from tests.family_faults import HEALTHY, TOKENS, bisected, damaged, model_of
from tests.gguf_files import write_gguf
from tests.golden.record_families import FURTHER, ONLY_GGUF, OTHERS, optional_model
from tests.hf_files import float_tensor, write_safetensors
from workbench.__main__ import run
from workbench.bisect.models.bisection import bisect_artifacts
from workbench.bisect.models.cell import Side
from workbench.bisect.models.element import element


@pytest.mark.parametrize("family", [*OTHERS, *ONLY_GGUF, *FURTHER])
def test_every_container_holds_one_model(tmp_path, capsys, family):
    model, folders = model_of(family), ["folder"] if family in (*OTHERS, *FURTHER) else []
    write_gguf(tmp_path / "m.gguf", model)
    config, of = model.config, family_of(model.config.architecture)
    plain = not config.num_experts and config.layer_types is None and config.rms_norm_eps > 0
    carried = family not in FURTHER and of.in_apr and (bool(folders) or plain)
    if carried:
        write_apr(tmp_path / "m.apr", apr_metadata(model), apr_tensors(model))
        convert_to_apr(open_artifact(tmp_path / "m.gguf"), tmp_path / "of-gguf.apr")
    else:
        with pytest.raises(WorkbenchError, match=r"APR has no place for"):
            convert_to_apr(open_artifact(tmp_path / "m.gguf"), tmp_path / "of-gguf.apr")
    for name in folders:
        write_safetensors(tmp_path / name, model)
    for name in folders if carried else ():
        convert_to_apr(open_artifact(tmp_path / name), tmp_path / f"of-{name}.apr")
    aprs = ("m.apr", "of-gguf.apr", *(f"of-{name}.apr" for name in folders)) if carried else ()
    for name in ("m.gguf", *folders, *aprs):
        artifact = open_artifact(tmp_path / name)
        assert artifact.problems == (), name
        spelled = "llama" if "gguf" in name and family == "mixtral" else model.config.architecture
        assert artifact.config == replace(model.config, architecture=spelled), name
        for tensor in model.weights:
            assert np.array_equal(dequantize(artifact.weight(tensor)), dequantize(model.weight(tensor))), tensor
    for name in ("m.gguf", *folders):
        assert bisected(open_artifact(tmp_path / name), model).verdict == "alike"
        assert run(["inspect", str(tmp_path / name)]) == 0
        assert "not understood" not in capsys.readouterr().out


@pytest.mark.parametrize("family", [*OTHERS, *FURTHER])
def test_copies_in_other_types_and_engines_are_not_divergent(tmp_path, family):
    sizes = {"hidden": 128, "ffn": 256, "head_dim": 32}
    write_gguf(tmp_path / "m.gguf", model_of(family, type="F16", **sizes))
    write_safetensors(tmp_path / "folder", model_of(family, **sizes))
    a, b = open_artifact(tmp_path / "m.gguf"), open_artifact(tmp_path / "folder")
    assert bisected(a, b).verdict in HEALTHY
    sides = Side(a, numeric_path("ggml")), Side(b, numeric_path("f32"))
    assert bisect_artifacts(*sides, TOKENS).verdict in HEALTHY


def test_factors_of_products_are_read_and_compared(tmp_path):
    model = optional_model()
    write_gguf(tmp_path / "m.gguf", model)
    artifact = open_artifact(tmp_path / "m.gguf")
    assert artifact.problems == ()
    assert bisected(artifact, model, "ggml").verdict == "alike"
    name = "model.layers.0.mlp.up_proj.output_scale"
    found = bisected(model, damaged(model, {name: lambda x: x * 2}))
    assert (found.first_divergent, found.culprit.tensor) == (Site(0, "ffn_up"), name)
    name = "model.layers.0.self_attn.k_proj.output_scale"
    without = replace(model, weights={key: w for key, w in model.weights.items() if key != name})
    assert bisected(model, without).verdict == "divergent"


def test_longrope_is_one_in_both_engines_files(tmp_path):
    model, short, long = model_of("phi3"), [1.0, 1.5, 2.0, 2.5, 3.0, 4.0], [9.0] * 6
    write_safetensors(tmp_path, model)
    config = json.loads((tmp_path / "config.json").read_text())
    config |= {"rope_parameters": {"rope_type": "longrope", "short_factor": short, "long_factor": long}}
    config |= {"original_max_position_embeddings": 64}
    (tmp_path / "config.json").write_text(json.dumps(config))
    folder = open_artifact(tmp_path)
    names = {"rope_factors_short.weight": short, "rope_factors_long.weight": long}
    tensors = {name: float_tensor(name, np.array(values, np.float32)) for name, values in names.items()}
    more = {"rope__scaling__attn_factor": folder.config.rope_attention_factor}
    more |= {"rope__scaling__original_context_length": 64}
    write_gguf(tmp_path / "m.gguf", replace(model, weights=model.weights | tensors), None, **more)
    file = open_artifact(tmp_path / "m.gguf")
    assert file.config.rope_factors == folder.config.rope_factors == tuple(short)
    assert file.config.length_limit == folder.config.length_limit == 64
    assert file.config.rope_attention_factor == pytest.approx(folder.config.rope_attention_factor, rel=1e-6)
    assert file.unused == ()
    assert bisected(file, folder).verdict in HEALTHY
    assert file.for_length(64).config == file.config
    longer = file.for_length(65).config
    assert longer.rope_factors == folder.for_length(65).config.rope_factors == tuple(long)
    assert longer.length_limit is None


@pytest.mark.parametrize("site", [Site(0, "attention"), Site(None, "lm_head")])
def test_the_slope_of_what_is_bounded(site):
    model, path = model_of("gemma2"), numeric_path("f64")
    at = At(model, path, TOKENS, Graph.of(model).stage(site))
    known = {stage.stage: values for stage, values in forward(model, TOKENS, path) if stage.layer == site.layer}
    rng = np.random.default_rng(0)
    x = {role: known[name] for role, name in at.stage.inputs.items()}
    dx = {role: rng.standard_normal(values.shape) for role, values in x.items()}
    step = 1e-6
    ahead, back = (evaluate(at, {role: x[role] + sign * step * dx[role] for role in x}) for sign in (1, -1))
    slope = at.kind.derivative(at, x, dx)
    assert np.linalg.norm(slope - (ahead - back) / (2 * step)) < 1e-7 * np.linalg.norm(slope)


def test_an_element_of_a_scaled_product_is_refused():
    model = model_of("granite")
    with pytest.raises(WorkbenchError, match="not taken apart"):
        element(model, numeric_path("f32"), Site(None, "lm_head"), np.zeros(64, np.float32), 0)


@pytest.mark.parametrize("name", ["attn_q.input_scale", "ffn_up.scale"])
def test_what_the_engine_loads_and_does_not_use_is_said(tmp_path, name):
    model = model_of("smollm3")
    raw = f"blk.0.{name}"
    weights = model.weights | {raw: float_tensor(raw, np.full(1, 2, np.float32))}
    write_gguf(tmp_path / "m.gguf", replace(model, weights=weights))
    artifact = open_artifact(tmp_path / "m.gguf")
    assert [problem for problem in artifact.problems if raw in problem and "does not use" in problem]
    assert bisected(artifact, model).verdict == "alike"


@pytest.mark.parametrize(
    ("family", "changes", "words"),
    [
        ("smollm3", {"no_rope_layers": [1, 0]}, "no_rope_layers"),
        ("smollm3", {"no_rope_layers": [1, 2, 3, 4]}, "no_rope_layers"),
        ("smollm3", {"use_sliding_window": True, "sliding_window": 4}, "use_sliding_window"),
    ],
)
def test_what_is_not_computed_is_refused_by_name(tmp_path, family, changes, words):
    from tests.hf_files import hf_config

    model = model_of(family)
    write_safetensors(tmp_path, model)
    (tmp_path / "config.json").write_text(json.dumps(hf_config(model) | changes))
    with pytest.raises(WorkbenchError, match=words):
        open_artifact(tmp_path)
