"""Families whose settings no other container than SafeTensors and GGUF holds: their mistakes, and what is refused."""

import json

import pytest

from kernels.errors import WorkbenchError
from kernels.stages import Site
from store.open import open_artifact
from tests.artifacts import hf_config, write_gguf, write_safetensors
from tests.unit import test_families as families
from tests.unit.test_families import Fault, of_layer, with_kind

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
)  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: f"{fault.family}-{fault.site}-{fault.cause}")
def test_a_mistake_is_named(fault):
    families.test_a_mistake_is_named(fault)


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
