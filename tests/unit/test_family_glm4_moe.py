"""glm4_moe: experts in groups, a part of each head that rotates, layers that are not run; the mistakes it invites."""

import json
from dataclasses import replace

import numpy as np
import pytest

from kernels.errors import WorkbenchError
from kernels.stages import Site
from store.open import open_artifact
from tests.family_faults import (
    Fault,
    bisected,
    check_named,
    chosen_with,
    counted_bias,
    fault_name,
    model_of,
    of_layer,
    with_kind,
)
from tests.gguf_files import write_gguf
from tests.hf_files import float_tensor, hf_config, write_safetensors

NORMS = tuple(f"self_attn.{part}_norm.weight" for part in "qk")
FAULTS = (
    Fault("glm4_moe", Site(1, "expert_weights"), "router", "experts of all groups", change=with_kind(groups=1)),
    Fault("glm4_moe", Site(1, "expert_weights"), "router", "1 groups of experts", change=with_kind(groups_used=1)),
    Fault("glm4_moe", Site(1, "expert_weights"), "router", "n_group is 3", config={"n_group": 1, "topk_group": 1}),
    Fault("glm4_moe", Site(1, "expert_weights"), "router", "not multiplied by 2.5", change=with_kind(scale=1.0)),
    Fault("glm4_moe", Site(1, "expert_weights"), "router", "counts in the weights too", change=counted_bias),
    Fault("glm4_moe", Site(1, "expert_weights"), "router", "nothing is added to the scores",
          change=lambda m, known, right, site: chosen_with(m, known, site, tensors=())),
    Fault("glm4_moe", Site(1, "ffn_out"), "residual_missing", "shared_out is not added",
          change=lambda m, known, right: known["expert_sum"]),
    Fault("glm4_moe", Site(0, "q_post_rope"), "rope_type", "all channels of a head are rotated",
          runtime={"rotary_dim": None}),
    Fault("glm4_moe", Site(0, "q_norm"), "norm_offset", "",
          tensors={of_layer(0, "self_attn.q_norm"): lambda w: w + 1}),
)  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS, ids=fault_name)
def test_a_mistake_is_named(fault):
    check_named(fault)


def without_norms():
    model = model_of("glm4_moe")
    weights = {name: weight for name, weight in model.weights.items() if not name.endswith(NORMS)}
    return replace(model, config=replace(model.config, normed_heads=False), weights=weights)


def test_models_without_norms_of_heads_are_one_in_every_container(tmp_path):
    model = without_norms()
    write_gguf(tmp_path / "m.gguf", model)
    write_safetensors(tmp_path / "folder", model)
    for path in ("m.gguf", "folder"):
        artifact = open_artifact(tmp_path / path)
        assert (artifact.config, artifact.problems) == (model.config, ())
        assert bisected(artifact, model).verdict == "alike"


@pytest.mark.parametrize("says", [True, False])
def test_a_folder_has_the_norms_that_it_speaks_of(tmp_path, says):
    model = without_norms() if says else model_of("glm4_moe")
    write_safetensors(tmp_path, model)
    (tmp_path / "config.json").write_text(json.dumps(hf_config(model) | {"use_qk_norm": says}))
    with pytest.raises(WorkbenchError, match="q_norm"):
        open_artifact(tmp_path)


def test_layers_that_predict_further_tokens_are_there_and_not_run(tmp_path):
    model = model_of("glm4_moe")
    more = {
        name.replace("layers.1", "layers.2"): weight for name, weight in model.weights.items() if "layers.1" in name
    }
    more = {name: replace(weight, name=name) for name, weight in more.items()}
    name = "blk.2.nextn.eh_proj.weight"
    more[name] = float_tensor(name, np.zeros((64, 128), np.float32))
    longer = replace(model, weights=model.weights | more, config=replace(model.config, num_hidden_layers=3))
    longer.config = replace(longer.config, expert_layers=(False, True, True))
    write_gguf(tmp_path / "m.gguf", longer, nextn_predict_layers=1)
    artifact = open_artifact(tmp_path / "m.gguf")
    assert artifact.config == model.config
    assert bisected(artifact, model).verdict == "alike"
    (problem,) = artifact.problems
    assert "1 layer behind those that are run" in problem


def test_sections_in_which_text_does_not_turn_alike_are_refused(tmp_path):
    write_gguf(tmp_path / "m.gguf", model_of("glm4_moe"), rope__dimension_sections=[2, 2, 0, 4])
    with pytest.raises(WorkbenchError, match="dimension_sections"):
        open_artifact(tmp_path / "m.gguf")
