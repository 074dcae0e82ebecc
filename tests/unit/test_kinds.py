"""What a file is, named whether it can be run or not."""

import json

import numpy as np
import pytest

from store.kinds import kind_of
from store.open import open_model
from tests.artifacts import tiny_model
from tests.gguf_files import write_gguf
from tests.hf_files import float_tensor, hf_config, write_safetensors_file

MATRIX = np.ones((4, 4), np.float32)


def folder(tmp_path, names, config=None, **files):
    """A folder with tensors of these names, and files of JSON."""
    for name, content in {"config.json": config, **{f"{name}.json": c for name, c in files.items()}}.items():
        if content is not None:
            (tmp_path / name).write_text(json.dumps(content))
    write_safetensors_file(tmp_path / "model.safetensors", {name: float_tensor(name, MATRIX) for name in names})
    return open_model(tmp_path)


@pytest.mark.parametrize(
    ("names", "config", "files", "kind"),
    [
        (["model.layers.0.mlp.up_proj.weight"], {"model_type": "mamba"}, {}, "a language model"),
        (["encoder.layer.0.output.dense.weight"], {"model_type": "bert"}, {}, "an embedding model"),
        (["layers.0.mlp.up_proj.weight"], {"model_type": "qwen3"}, {"modules": []}, "an embedding model"),
        (["norm.weight"], {"model_type": "gemma3_text", "use_bidirectional_attention": True}, {}, "an embedding model"),
        (
            ["model.language_model.layers.0.mlp.up_proj.weight", "model.vision_tower.blocks.0.weight"],
            {"model_type": "llava"},
            {},
            "a language model with tensors beside it, 1 of a vision tower",
        ),
        (["model.visual.blocks.0.weight", "audio_tower.a"], {"model_type": "x"}, {}, "1 of an audio tower"),
        (["base_model.model.model.layers.0.mlp.up_proj.lora_A.weight"], None, {}, "a LoRA adapter"),
        (
            ["base_model.model.model.layers.0.mlp.up_proj.lora_A.weight"],
            None,
            {"adapter_config": {"base_model_name_or_path": "org/base"}},
            "an adapter to org/base",
        ),
        ([], {"model_type": "llama"}, {}, "no model: it has no tensors"),
    ],
)
def test_folders_are_named(names, config, files, kind, tmp_path):
    assert kind in kind_of(folder(tmp_path, names, config, **files))


@pytest.mark.parametrize(
    ("more", "kind"),
    [
        ({}, "a language model"),
        ({"general__type": "adapter"}, "a LoRA adapter"),
        ({"general__type": "imatrix"}, "an importance matrix"),
        ({"general__type": "mmproj"}, "the projector of a vision model"),
        ({"general__type": "mmproj", "clip__has_audio_encoder": True}, "the projector of an audio model"),
        ({"qwen2__pooling_type": 3}, "a language model that is set to make a vector of a text"),
        ({"qwen2__pooling_type": 4}, "a reranker"),
    ],
)
def test_gguf_files_are_named(more, kind, tmp_path):
    path = tmp_path / "m.gguf"
    write_gguf(path, tiny_model())
    model = open_model(path)
    model.metadata = {**model.metadata, **{key.replace("__", "."): value for key, value in more.items()}}
    assert kind_of(model).startswith(kind)


def test_a_decoder_wrapped_by_a_model_with_pictures_says_so(tmp_path):
    config = hf_config(tiny_model("gemma3"))
    found = folder(tmp_path, ["vision_tower.layers.0.weight"], {"model_type": "gemma3", "text_config": config})
    assert "1 of a vision tower" in kind_of(found)
