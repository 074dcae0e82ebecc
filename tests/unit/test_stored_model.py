"""What is known of a model that cannot be run: tensors by place, type and shape, and why it cannot be run."""

import json
from dataclasses import replace

import gguf
import numpy as np
import pytest

from kernels.errors import WorkbenchError
from kernels.forward import forward
from kernels.paths import numeric_path
from kernels.rows.dequantize import dequantize
from store.artifact import Artifact
from store.open import open_artifact, open_model
from store.tensor_types import ggml_type, safetensors_type
from tests.artifacts import tiny_gguf, tiny_model, tiny_safetensors
from tests.gguf_files import change_type, gguf_rows, write_gguf
from tests.hf_files import entries_of, float_tensor, hf_config, write_safetensors, write_safetensors_entries


def gguf_of(path, arch="llama", tensors=None, **keys):
    """A GGUF file of any tensors: arrays, or (bytes, ggml type) of quantized rows."""
    writer = gguf.GGUFWriter(path, arch)
    for key, value in keys.items():
        name = key.replace("__", ".")
        add = {int: writer.add_uint32, str: writer.add_string, list: writer.add_array}
        add[type(value)](name, value)
    for name, value in (tensors or {}).items():
        if isinstance(value, tuple):
            writer.add_tensor(name, value[0], raw_dtype=value[1])
        else:
            writer.add_tensor(name, value)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return open_model(path)


@pytest.mark.parametrize("kind", gguf.GGML_QUANT_SIZES)
def test_sizes_of_ggml_types_are_those_of_the_gguf_package(kind):
    assert ggml_type(int(kind)).name == kind.name
    assert ggml_type(int(kind)).block == gguf.GGML_QUANT_SIZES[kind]


def test_types_that_ggml_gave_up_have_their_names():
    assert [ggml_type(code).name for code in (4, 31, 38, 42)] == ["Q4_2", "Q4_0_4_4", "IQ4_NL_8_8", "Q2_0"]
    assert ggml_type(1000).block is None


@pytest.mark.parametrize(("dtype", "size"), [("F8_E4M3", 6), ("I64", 48), ("F4", 3), ("BOOL", 6), ("BF16", 12)])
def test_tensors_of_every_safetensors_type_are_listed(tmp_path, dtype, size):
    entries = {"a": (dtype, (2, 3), bytes(size)), "b": ("F32", (), b"1234")}
    write_safetensors_entries(tmp_path / "m.safetensors", entries)
    model = open_model(tmp_path / "m.safetensors")
    assert {info.name: (info.type.name, info.shape, info.nbytes) for info in model.tensors.values()} == {
        "a": (dtype, (2, 3), size),
        "b": ("F32", (), 4),
    }
    assert "config.json" in str(model.refusal)
    assert safetensors_type(dtype).block is not None


def test_a_bare_tensor_of_exponents_is_listed_and_read_as_powers_of_two(tmp_path):
    """With the bits of ml_dtypes 0.6.0 (`float8_e8m0fnu`): the least one is denormal in float32, the last is NaN."""
    entries = {"scales": ("F8_E8M0", (4, 64), bytes(range(256)))}
    write_safetensors_entries(tmp_path / "m.safetensors", entries)
    model = open_model(tmp_path / "m.safetensors")
    assert (model.tensors["scales"].stored_as, model.tensors["scales"].nbytes) == ("F8_E8M0", 256)
    bits = dequantize(model.weight("scales")).reshape(-1).view(np.uint32)
    assert bits.tolist() == [0x400000, *(exponent << 23 for exponent in range(1, 255)), 0x7FC00000]


def test_stacked_experts_are_listed_and_read_as_the_matrix_of_all_rows(tmp_path):
    experts = np.random.default_rng(0).standard_normal((3, 4, 64)).astype(np.float32)
    packed = np.zeros((3, 4, 256), np.int8), gguf.GGMLQuantizationType.I8
    model = gguf_of(tmp_path / "moe.gguf", "arctic", {"blk.0.ffn_up_exps.weight": experts, "blk.0.x": packed})
    assert model.tensors["blk.0.x"].shape == (3, 4, 256)
    assert model.tensors["blk.0.x"].nbytes == packed[0].nbytes
    name = "model.layers.0.mlp.experts.up_proj.weight"
    assert np.array_equal(dequantize(model.weight(name)), experts.reshape(12, 64))
    with pytest.raises(WorkbenchError, match="type I8 cannot be read yet"):
        model.weight("blk.0.x")
    with pytest.raises(WorkbenchError, match="architecture arctic"):
        open_artifact(tmp_path / "moe.gguf")


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        (
            {"split__count": 3, "split__no": 1},
            "part 2 of 3 of a model by what it says, and the others are found by names",
        ),
        ({"general__type": "adapter"}, "LoRA adapter"),
        ({"general__type": "imatrix"}, "importance matrix"),
        ({"general__type": "mmproj"}, "projector"),
    ],
)
def test_what_is_no_whole_language_model_says_what_it_is(tmp_path, keys, words):
    model = gguf_of(tmp_path / "m.gguf", "llama", {"a": np.ones((2, 4), np.float32)}, **keys)
    assert words in str(model.refusal)
    assert list(model.tensors) == ["a"]


def test_a_vocabulary_alone_and_a_projector_say_so(tmp_path):
    model = gguf_of(tmp_path / "v.gguf", **{"tokenizer__ggml__model": "gpt2", "tokenizer__ggml__tokens": ["a", "b"]})
    assert "a vocabulary and no tensors" in str(model.refusal)
    assert len(model.vocabulary.tokens) == 2
    assert "projector" in str(gguf_of(tmp_path / "c.gguf", "clip", {"v": np.ones((2, 4), np.float32)}).refusal)


def test_a_part_names_the_parts_that_are_missing(tmp_path):
    keys = {"split__count": 3, "split__no": 0}
    (tmp_path / "m-00003-of-00003.gguf").touch()
    model = gguf_of(tmp_path / "m-00001-of-00003.gguf", tensors={"a": np.ones((1, 4), np.float32)}, **keys)
    assert "part 1 of 3 of a model, and m-00002-of-00003.gguf is not beside it" in str(model.refusal)
    assert model.is_part


def test_a_later_part_has_the_settings_of_the_first(tmp_path):
    """Only the first part says the architecture, which tells in which order the rows of q are stored."""
    model = tiny_model("llama", layers=1)
    name = "model.layers.0.self_attn.q_proj.weight"
    settings = {"llama__attention__head_count": 4, "llama__attention__head_count_kv": 2}
    gguf_of(tmp_path / "m-00001-of-00002.gguf", "llama", split__count=2, split__no=0, **settings)
    rows = {"blk.0.attn_q.weight": gguf_rows(model, name).view(np.float32)}
    part = tmp_path / "m-00002-of-00002.gguf"
    gguf_of(part, "llama", rows, split__count=2, split__no=1)
    key = b"general.architecture"
    part.write_bytes(part.read_bytes().replace(key, b"general.not_in_part2"))
    assert np.array_equal(open_model(part).weight(name).rows, model.weights[name].rows)


def test_one_of_several_files_names_the_folder(tmp_path):
    tiny_safetensors(tmp_path, shards=3)
    model = open_model(tmp_path / "model-00002-of-00003.safetensors")
    assert len(model.tensors) == 9
    assert model.metadata["hidden_size"] == 64
    assert "model.safetensors.index.json" in str(model.refusal)


@pytest.mark.parametrize(
    ("files", "words"),
    [
        (("config.json", "pytorch_model.bin"), "pytorch_model.bin, a PyTorch checkpoint"),
        (("config.json",), "no weights"),
        (("a.gguf", "b.gguf"), r"give one of them \(a.gguf, b.gguf\)"),
        (("adapter_config.json", "adapter_model.bin"), "an adapter to org/base"),
        (("adapter_config.json", "adapter_model.safetensors"), "an adapter to org/base"),
        (("params.json", "consolidated.safetensors"), "Mistral's own names"),
        (("model-00001-of-00002.safetensors",), "file 1 of the 2"),
        (("other.safetensors",), "needs the config.json"),
    ],
)
def test_a_folder_of_something_else_says_what_to_give(tmp_path, files, words):
    for name in files:
        (tmp_path / name).write_text('{"base_model_name_or_path": "org/base"}')
        if name.endswith(".safetensors"):
            tensors = ("layers.0.attention.wq.weight",) if name.startswith("cons") else ("a.lora_A.weight",)
            tensors = tensors if len(files) == 2 else ("a",)
            write_safetensors_entries(tmp_path / name, {tensor: ("F32", (1,), bytes(4)) for tensor in tensors})
    with pytest.raises(WorkbenchError, match=words):
        open_artifact(tmp_path)


@pytest.mark.parametrize("name", ["model-00001-of-00002.safetensors", "config.json"])
def test_a_pointer_of_git_lfs_within_a_folder_is_named(tmp_path, name):
    tiny_safetensors(tmp_path, shards=2)
    (tmp_path / name).write_text("version https://git-lfs.github.com/spec/v1\nsize 12\n")
    with pytest.raises(WorkbenchError, match=f"{name} is a Git LFS pointer"):
        open_artifact(tmp_path)


def test_packed_and_unmerged_weights_are_told(tmp_path):
    model = tiny_safetensors(tmp_path)
    lora = {"model.layers.0.self_attn.q_proj.lora_A.default.weight": ("F32", (2, 64), bytes(512))}
    write_safetensors_entries(tmp_path / "model.safetensors", entries_of(model.weights) | lora)
    with pytest.raises(WorkbenchError, match="adapter that is not merged"):
        open_artifact(tmp_path)


def test_a_tensor_that_cannot_be_read_leaves_the_others_readable(tmp_path):
    model = tiny_gguf(tmp_path / "m.gguf", "llama")
    change_type(tmp_path / "m.gguf", "blk.1.ffn_up.weight", 24)
    found = open_model(tmp_path / "m.gguf")
    assert not isinstance(found, Artifact)
    assert "blk.1.ffn_up.weight has the type I8" in str(found.refusal)
    name = "model.layers.1.self_attn.q_proj.weight"  # stored for adjacent pairs, and put back
    assert np.array_equal(found.weight(name).rows, model.weights[name].rows)


def test_a_mistral_is_a_llama_with_a_window_in_every_layer(tmp_path):
    model = tiny_safetensors(tmp_path, "llama")
    for given, window in (({"sliding_window": None}, None), ({"sliding_window": 64}, 64), ({}, 4096)):
        (tmp_path / "config.json").write_text(json.dumps(hf_config(model) | {"model_type": "mistral"} | given))
        config = open_artifact(tmp_path).config
        assert [config.window(layer) for layer in range(2)] == [window] * 2
        assert replace(config, architecture="llama", sliding_window=None) == model.config


@pytest.mark.parametrize(
    ("arch", "name", "rows", "refused"),
    [
        ("llama", "output.bias", 128, True),
        ("llama", "model.layers.2.input_layernorm.weight", 64, True),
        ("llama", "model.layers.0.self_attn.o_proj.bias", 64, False),
        ("llama", "rope_freqs.weight", 8, False),
        ("qwen2", "model.layers.0.self_attn.o_proj.bias", 64, True),
        ("qwen2", "rope_freqs.weight", 8, True),
    ],
)
def test_what_llama_cpp_would_refuse_is_said(tmp_path, arch, name, rows, refused):
    """llama.cpp refuses every tensor that it does not ask for; which ones it asks for differs by architecture."""
    model = tiny_model(arch)
    model.weights[name] = float_tensor(name, np.ones(rows, np.float32))
    write_gguf(tmp_path / "m.gguf", model)
    problems = open_artifact(tmp_path / "m.gguf").problems
    assert any("llama.cpp would refuse" in problem for problem in problems) == refused


def test_layers_that_llama_cpp_leaves_out_and_a_vocabulary_of_another_size_are_said(tmp_path):
    write_gguf(tmp_path / "n.gguf", tiny_model("llama"), nextn_predict_layers=1)
    assert any("1 of the 2 layers" in problem for problem in open_artifact(tmp_path / "n.gguf").problems)
    model = tiny_model("llama", vocab=300)
    write_gguf(tmp_path / "v.gguf", model, "bpe")
    assert not open_artifact(tmp_path / "v.gguf").problems


def test_a_bias_of_the_logits_is_added_as_llama_cpp_does_and_transformers_does_not(tmp_path):
    model = tiny_model("qwen2")
    model.weights["lm_head.bias"] = float_tensor("lm_head.bias", np.ones(128, np.float32))
    write_gguf(tmp_path / "m.gguf", model)
    write_safetensors(tmp_path / "folder", model)
    files = [open_artifact(tmp_path / name) for name in ("m.gguf", "folder")]
    assert files[0].problems == ()
    logits = [list(forward(file, (3, 1), numeric_path("f64")))[-1][1] for file in files]
    assert np.allclose(logits[0] - logits[1], 1, atol=1e-12)
    assert any("lm_head.bias" in problem for problem in files[1].problems)
