"""gpt-oss: sinks, bounded gates, experts stored by turns and as columns; the mistakes that it invites."""

import json
from dataclasses import replace

import numpy as np
import pytest

from kernels.errors import WorkbenchError
from kernels.forward import evaluate
from kernels.graph import At
from kernels.models import Graph
from kernels.paths import numeric_path
from kernels.rows.dequantize import dequantize
from kernels.stages import Site
from kernels.weight import TensorType, Weight
from store.open import open_artifact
from tests.expert_stacks import of_gpt_oss
from tests.family_faults import (
    TOKENS,
    Fault,
    bisected,
    check_named,
    expert,
    fault_name,
    less,
    model_of,
    with_kind,
)
from tests.gguf_files import write_gguf
from tests.hf_files import entries_of, hf_config, write_safetensors, write_safetensors_entries
from tests.memory_model import place

F32 = numeric_path("f32")


def by_turns(number: int, part: str):
    """What a converter makes of an expert that takes the first half of rows of gate and up by turns for gate."""
    gate, up = (model_of("gpt_oss").values()[expert(0, number, part)] for part in ("gate", "up"))
    turns = np.stack([gate, up], axis=1).reshape(-1, gate.shape[1])
    return lambda _: turns[: len(gate)] if part == "gate" else turns[len(gate) :]


def halves_of_turns(model, known, right, site):
    stage = Graph.of(model).stage(site)
    x = {role: known[name] for role, name in stage.inputs.items()}
    up = replace(stage, tensors=tuple(name.replace("gate_proj", "up_proj") for name in stage.tensors))
    other = evaluate(At(model, F32, TOKENS, up), x)
    both = (part.reshape(len(right), 3, -1) for part in (right, other))
    return np.stack(list(both), axis=3).reshape(len(right), 3, -1)[:, :, : right.shape[1] // 3].reshape(right.shape)


def without_sinks(model, known, right, site):
    stage = replace(Graph.of(model).stage(site), tensors=())
    return evaluate(At(model, F32, TOKENS, stage), {role: known[name] for role, name in stage.inputs.items()})


def plain_up(model, known, right, site):
    return known["expert_silu"] * known["expert_up"]


SINKS, ROUTER = "model.layers.0.self_attn.sinks.weight", "model.layers.1.mlp.gate.bias"
FAULTS = (
    Fault("gpt_oss", Site(0, "attention"), "attention_sink", "sinks are left out", change=without_sinks),
    Fault("gpt_oss", Site(0, "attention"), "sign_flipped", SINKS, tensors={SINKS: lambda s: -s}),
    Fault("gpt_oss", Site(0, "attention"), "causal_mask", "", runtime={"sliding_window": None, "layer_types": None}),
    Fault("gpt_oss", Site(1, "attention"), "causal_mask", "1 slide",
          config={"layer_types": ("sliding_attention",) * 2}),
    Fault("gpt_oss", Site(0, "expert_gate"), "rows_permuted", "by turns", change=halves_of_turns),
    Fault("gpt_oss", Site(0, "expert_gate"), "rows_permuted", "gate0 up0",
          tensors={expert(0, n, part): by_turns(n, part) for n in range(6) for part in ("gate", "up")}),
    Fault("gpt_oss", Site(1, "expert_weights"), "router", "a softmax over all experts in place of a softmax of the",
          change=with_kind(scoring="softmax")),
    Fault("gpt_oss", Site(1, "expert_silu"), "activation_function", "not 1.702 times as steep",
          change=with_kind(steepness=1.0)),
    Fault("gpt_oss", Site(0, "expert_silu"), "activation_function", "gate is not bounded at 7",
          change=with_kind(limit=np.inf)),
    Fault("gpt_oss", Site(0, "expert_silu"), "activation_function", "swiglu_alpha is 1.702", config={
          "swiglu_alpha": 1.0}),
    Fault("gpt_oss", Site(0, "expert_swigl"), "activation_function", "up is not bounded",
          change=with_kind(limit=np.inf)),
    Fault("gpt_oss", Site(0, "expert_swigl"), "activation_function", "neither bounded nor is 1 added", change=plain_up),
    Fault("gpt_oss", Site(1, "router"), "bias_missing", "mlp.gate.bias is not added", change=less(ROUTER)),
    Fault("gpt_oss", Site(1, "attn_out"), "bias_missing", "", change=less("model.layers.1.self_attn.o_proj.bias")),
    Fault("gpt_oss", Site(1, "router"), "sign_flipped", ROUTER, tensors={ROUTER: lambda b: -b}),
)  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS, ids=fault_name)
def test_a_mistake_is_named(fault):
    check_named(fault)


@pytest.mark.parametrize("stage", ["attention", "expert_silu", "expert_swigl"])
def test_the_slope_beside_sinks_and_bounds(stage):
    model, rng = model_of("gpt_oss"), np.random.default_rng(0)
    at = place(model, numeric_path("f64"), TOKENS, 0, stage)
    sizes = {"v": model.config.q_size + 2 * model.config.kv_size, "k": model.config.kv_size}
    x = {role: 5 * rng.standard_normal((9, sizes.get(role, at.stage.channels))) for role in at.kind.roles}
    dx = {role: rng.standard_normal(values.shape) for role, values in x.items()}
    ahead, back = (evaluate(at, {role: x[role] + way * 1e-6 * dx[role] for role in x}) for way in (1, -1))
    slope = at.kind.derivative(at, x, dx)
    assert np.linalg.norm(slope - (ahead - back) / 2e-6) < 1e-6 * np.linalg.norm(slope)


@pytest.mark.parametrize("type", ["F16", "BF16"])
def test_columns_by_turns_are_read_in_half_precision_too(tmp_path, type):
    model = model_of("gpt_oss", type=type)
    write_safetensors(tmp_path, model)
    artifact = open_artifact(tmp_path)
    for name, weight in model.weights.items():
        assert np.array_equal(dequantize(artifact.weight(name)), dequantize(weight)), name


def test_rotation_is_yarn_where_nothing_is_said(tmp_path):
    model = model_of("gpt_oss")
    write_safetensors(tmp_path, model)
    config = hf_config(model)
    (tmp_path / "config.json").write_text(json.dumps({**config, "rope_parameters": None}))
    silent = open_artifact(tmp_path).config
    yarn = {"rope_type": "yarn", "factor": 32.0, "truncate": False, "original_max_position_embeddings": 4096}
    (tmp_path / "config.json").write_text(json.dumps({**config, "rope_parameters": yarn, "rope_theta": 150000.0}))
    assert open_artifact(tmp_path).config == silent
    assert silent.rope_attention_factor == pytest.approx(0.1 * np.log(32) + 1)


def test_settings_of_the_gates_count_in_folders_and_not_in_gguf(tmp_path):
    model = model_of("gpt_oss")
    other = replace(model, config=replace(model.config, swiglu_limit=2.0))
    write_safetensors(tmp_path / "folder", other)
    write_gguf(tmp_path / "m.gguf", other)
    folder, file = open_artifact(tmp_path / "folder"), open_artifact(tmp_path / "m.gguf")
    assert (folder.config.swiglu_limit, file.config.swiglu_limit) == (2.0, 7.0)
    assert bisected(folder, file).culprit.cause == "activation_function"


def test_another_rotary_base_of_sliding_layers_is_refused(tmp_path):
    write_gguf(tmp_path / "m.gguf", model_of("gpt_oss"), rope__freq_base_swa=500.0)
    with pytest.raises(WorkbenchError, match=r"rope.freq_base_swa as 500"):
        open_artifact(tmp_path / "m.gguf")


def packed_experts(model):
    """The same model with experts in MXFP4, and the tensors of its folder: blocks of pairs, and scales."""
    rng, stacks, experts = np.random.default_rng(1), {}, {}
    for layer in range(2):
        for part, rows, columns in (("gate_up", 2 * 96, 64), ("down", 64, 96)):
            name = f"model.layers.{layer}.mlp.experts.{part}_proj"
            codes = rng.integers(0, 16, (6, rows, columns), dtype=np.uint8)
            scales = rng.integers(121, 126, (6, rows, columns // 32), dtype=np.uint8)
            pairs = (codes[..., ::2] | codes[..., 1::2] << 4).reshape(6, rows, -1, 16)
            stacks[f"{name}_blocks"] = "U8", pairs.shape, pairs.tobytes()
            stacks[f"{name}_scales"] = "U8", scales.shape, scales.tobytes()
            halves = codes.reshape(6, rows, -1, 2, 16)  # GGUF has value 16 beside value 0
            blocks = np.concatenate([scales[..., None], halves[..., 0, :] | halves[..., 1, :] << 4], axis=3)
            turns = {"gate": slice(0, None, 2), "up": slice(1, None, 2)} if part == "gate_up" else {"down": slice(None)}
            for own, chosen in turns.items():
                for number in range(6):
                    stored = np.ascontiguousarray(blocks[number, chosen].reshape(-1, columns // 32 * 17))
                    weight = Weight(expert(layer, number, own), TensorType.MXFP4, (len(stored), columns), stored)
                    experts[weight.name] = weight
    return replace(model, weights=model.weights | experts), stacks


def test_packed_experts_are_read_from_both_engines_files(tmp_path):
    plain = model_of("gpt_oss")
    model, stacks = packed_experts(plain)
    write_gguf(tmp_path / "m.gguf", model)
    write_safetensors(tmp_path / "folder", plain)
    config = hf_config(plain) | {
        "quantization_config": {"quant_method": "mxfp4", "modules_to_not_convert": ["lm_head"]}
    }
    (tmp_path / "folder/config.json").write_text(json.dumps(config))
    entries = {name: entry for name, entry in entries_of(of_gpt_oss(plain)).items() if not name.endswith("_proj")}
    write_safetensors_entries(tmp_path / "folder/model.safetensors", entries | stacks)
    file, folder = open_artifact(tmp_path / "m.gguf"), open_artifact(tmp_path / "folder")
    assert folder.problems == file.problems == ()
    for name in model.weights:
        if ".experts." in name:
            assert np.array_equal(dequantize(folder.weight(name)), dequantize(file.weight(name))), name
    assert bisected(file, folder).verdict in ("alike", "numerics_only")
