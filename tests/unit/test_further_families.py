"""Families whose settings no other container than SafeTensors and GGUF holds: their mistakes, and what is refused."""

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
from tests import family_faults as families
from tests.family_faults import Fault, expert, next_expert, of_layer, with_kind
from tests.gguf_files import write_gguf
from tests.hf_files import hf_config, write_safetensors
from tests.memory_model import HYBRID

FAULTS = (
    Fault("mistral3", Site(0, "q_tempered"), "attention_scale", "not multiplied by the factor",
          change=lambda _, known, right: known["q_post_rope"]),
    Fault("mistral3", Site(0, "q_tempered"), "attention_scale", "temperature is 0.5", config={"temperature": None}),
    Fault("mistral3", Site(1, "q_tempered"), "attention_scale", "counted from 1", change=with_kind(offset=1)),
    Fault("mistral3", Site(0, "q_tempered"), "attention_scale", "of their positions twice",
          change=lambda _, known, right: right * right / known["q_post_rope"]),
    Fault("mistral3", Site(1, "k_post_rope"), "attention_scale", "the attention factor 1.06482 of the rotary scaling",
          runtime={"rope_attention_factor": 1.0}),
    Fault("mistral3", Site(0, "q_post_rope"), "rope_theta", "rotary scaling is left out",
          runtime={"rope_attention_factor": 1.0, "rope_factors": None}),
    Fault("mistral3", Site(1, "qkv_matmul"), "permuted_rope", "adjacent-pair",
          tensors={of_layer(1, "self_attn.k_proj"): lambda w: w.reshape(2, 2, 16, -1).swapaxes(1, 2).reshape(w.shape)}),
    Fault("llama4", Site(3, "q_tempered"), "attention_scale", "temperature_length is 8192 in A and 2 in B",
          config={"temperature": 3.0, "temperature_length": 2}),
    Fault("llama4", Site(0, "q_rope_norm"), "norm_missing", "the norm is left out",
          change=lambda m, known, right: known["q_post_rope"]),
    Fault("llama4", Site(1, "k_rope_norm"), "head_grouping", "heads are normed together",
          change=lambda m, known, right: known["k_post_rope"] / np.sqrt(
              np.square(known["k_post_rope"]).mean(axis=1, keepdims=True) + np.float32(1e-5))),
    Fault("llama4", Site(0, "q_post_rope"), "rope_type", "neox instead of norm", runtime={"rope_type": "neox"}),
    Fault("llama4", Site(3, "q_post_rope"), "rope_position", "as other layers are", runtime={"rotated_layers": None}),
    Fault("llama4", Site(1, "expert_input"), "router", "not multiplied",
          change=lambda m, known, right: np.tile(known["ffn_norm"], (1, 3))),
    Fault("llama4", Site(1, "expert_sum"), "router", "multiplied by the weights of the experts once more",
          change=lambda m, known, right, site: with_kind(weighted=True)(m, known, right, site)),
    Fault("llama4", Site(1, "expert_weights"), "router", "a softmax over all experts", change=with_kind(
        scoring="softmax")),
    Fault("llama4", Site(3, "expert_gate"), "expert_order", "of the next one", change=next_expert),
    Fault("llama4", Site(1, "expert_gate"), "transposed", "experts.2.gate_proj",
          tensors={expert(1, 2, "gate"): lambda w: w.T.reshape(w.shape)}),
    Fault("llama4", Site(1, "ffn_out"), "residual_missing", "shared_out is not added",
          change=lambda m, known, right: known["expert_sum"]),
)  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: f"{fault.family}-{fault.site}-{fault.cause}")
def test_a_mistake_is_named(fault):
    families.check_named(fault)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"llama_4_scaling_beta": None}, "llama_4_scaling_beta"),
        ({"original_max_position_embeddings": None}, "original_max_position_embeddings"),
        ({"llama_4_scaling_beta": "much"}, "rope_parameters.llama_4_scaling_beta"),
    ],
)
def test_a_factor_of_positions_that_is_not_said_is_not_guessed(tmp_path, changes, words):
    model = families.model_of("mistral3")
    write_safetensors(tmp_path, model)
    config = hf_config(model)
    config["rope_parameters"] |= changes
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(WorkbenchError, match=words):
        open_artifact(tmp_path)


def test_the_text_model_of_one_with_pictures_is_read(tmp_path):
    model = families.model_of("mistral3")
    write_safetensors(tmp_path, model)
    config = {"model_type": "mistral3", "text_config": hf_config(model), "vision_config": {"model_type": "pixtral"}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert open_artifact(tmp_path).config == model.config


def test_an_original_context_of_no_tokens_is_refused(tmp_path):
    write_gguf(tmp_path / "m.gguf", families.model_of("mistral3"), context_length=0)
    with pytest.raises(WorkbenchError, match="context"):
        open_artifact(tmp_path / "m.gguf")


def test_another_chunk_is_named_by_what_it_is():
    model = families.model_of("llama4", layers=HYBRID)
    assert [stage.kind.chunk for stage in attentions(model)] == [3, None, 3]
    found = families.bisected(model, replace(model, config=replace(model.config, attention_chunk=4))).culprit
    assert (found.site, found.cause) == (Site(0, "attention"), "causal_mask")
    assert "attention_chunk is 3 in A and 4 in B" in found.explanation


def attentions(model):
    return [stage for stage in Graph.of(model).stages() if stage.site.stage == "attention"]


@pytest.mark.parametrize("changes", [{}, {"causal": False}])
def test_a_chunk_is_seen_alike_by_the_mask_and_by_the_compiled_code(changes):
    model, path = families.model_of("llama4", layers=HYBRID), numeric_path("f64")
    model.config = replace(model.config, **changes)
    known = dict(forward(model, families.TOKENS, path))
    stage = attentions(model)[0]
    at = At(model, path, families.TOKENS, stage)
    x = {role: known[Site(0, name)] for role, name in stage.inputs.items()}
    seen = stage.kind.mask(np.arange(9), 9)
    assert seen.sum() == (18 if stage.kind.causal else 54)
    rng = np.random.default_rng(0)
    dx = {role: rng.standard_normal(values.shape) for role, values in x.items()}
    ahead, back = (evaluate(at, {role: x[role] + sign * 1e-6 * dx[role] for role in x}) for sign in (1, -1))
    slope = stage.kind.derivative(at, x, dx)
    assert np.linalg.norm(slope - (ahead - back) / 2e-6) < 1e-7 * np.linalg.norm(slope)


@pytest.mark.parametrize("stage", ["expert_input", "expert_sum", "expert_weights", "q_rope_norm"])
def test_the_slope_of_what_only_llama4_has(stage):
    model, path = families.model_of("llama4", layers=2), numeric_path("f64")
    known = {site.stage: y for site, y in forward(model, families.TOKENS, path) if site.layer == 1}
    at = At(model, path, families.TOKENS, Graph.of(model).stage(Site(1, stage)))
    rng = np.random.default_rng(0)
    x = {role: known[name] for role, name in at.stage.inputs.items()}
    dx = {role: rng.standard_normal(y.shape) * (y != 0) for role, y in x.items()}
    ahead, back = (evaluate(at, {role: x[role] + sign * 1e-6 * dx[role] for role in x}) for sign in (1, -1))
    slope = at.kind.derivative(at, x, dx)
    assert np.linalg.norm(slope - (ahead - back) / 2e-6) < 1e-7 * np.linalg.norm(slope)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"layer_types": ["sliding_attention"] * 4}, "layer_types"),
        ({"no_rope_layers": [1, 0]}, "no_rope_layers"),
        ({"moe_layers": "all"}, "moe_layers"),
        ({"intermediate_size_mlp": None}, "intermediate_size_mlp"),
    ],
)
def test_settings_of_llama4_that_cannot_be_are_refused(tmp_path, changes, words):
    model = families.model_of("llama4")
    write_safetensors(tmp_path, model)
    (tmp_path / "config.json").write_text(json.dumps(hf_config(model) | changes))
    with pytest.raises(WorkbenchError, match=words):
        open_artifact(tmp_path)


@pytest.mark.parametrize(
    ("changes", "words"),
    [({"attention__sliding_window": 0}, "sliding_window"), ({"rope__freq_base_swa": 5e5}, "freq_base_swa")],
)
def test_settings_with_which_llama_cpp_computes_otherwise_are_refused(tmp_path, changes, words):
    write_gguf(tmp_path / "m.gguf", families.model_of("llama4"), **changes)
    with pytest.raises(WorkbenchError, match=words):
        open_artifact(tmp_path / "m.gguf")
