"""GGUF reading, against the gguf package as an independent reader."""

import struct
import tracemalloc
from dataclasses import replace
from pathlib import Path

import gguf
import numpy as np
import pytest
from gguf.quants import dequantize

from kernels.errors import MissingTensorError, UnsupportedModelError, WorkbenchError
from kernels.weight import TensorType
from store.files.gguf_header import read_header
from store.files.model_file import ModelFile
from store.names import canonical_name
from store.open import open_artifact
from tests.artifacts import tiny_gguf, tiny_model
from tests.gguf_files import READ_BY_GGUF, byte_tokens, change_type, gguf_rows, interleaved_rows, write_gguf


@pytest.mark.parametrize("arch", ["llama", "qwen2"])
@pytest.mark.parametrize("type", READ_BY_GGUF)
def test_every_type_is_found_where_the_gguf_package_finds_it(tmp_path, arch, type):
    model = tiny_gguf(tmp_path / "m.gguf", arch, type, layers=1)
    artifact = open_artifact(tmp_path / "m.gguf")
    assert artifact.config == model.config
    assert artifact.problems == ()
    assert artifact.files == (tmp_path / "m.gguf",)
    oracle = {canonical_name(t.name): t for t in gguf.GGUFReader(tmp_path / "m.gguf").tensors}
    assert set(artifact.tensors) == set(oracle) == set(model.weights)
    for name, info in artifact.tensors.items():
        theirs = oracle[name]
        assert (info.offset, info.nbytes) == (theirs.data_offset, theirs.n_bytes)
        assert info.shape == tuple(int(size) for size in reversed(theirs.shape))
        assert info.type == theirs.tensor_type
        weight = artifact.weight(name)
        assert np.array_equal(weight.rows, model.weights[name].rows)
        stored = dequantize(theirs.data, theirs.tensor_type).reshape(info.shape)
        ours = dequantize(artifact.stored_rows(name).view(theirs.data.dtype), theirs.tensor_type).reshape(info.shape)
        assert np.array_equal(ours, stored)


@pytest.mark.parametrize(("heads", "kv_heads", "head_dim"), [(4, 4, 16), (6, 2, 8), (4, 1, 32), (8, 2, 2)])
def test_llama_rows_are_put_back_and_others_left_alone(tmp_path, heads, kv_heads, head_dim):
    sizes = {"heads": heads, "kv_heads": kv_heads, "head_dim": head_dim, "layers": 1}
    for arch in ("llama", "qwen2"):
        model = tiny_gguf(tmp_path / "m.gguf", arch, **sizes)
        artifact = open_artifact(tmp_path / "m.gguf")
        assert artifact.config == model.config
        moved = {name for name in artifact.tensors if artifact.permuted(name)}
        expected = {f"model.layers.0.self_attn.{letter}_proj.weight" for letter in "qk"}
        assert moved == (expected if arch == "llama" else set())
        for name, weight in model.weights.items():
            assert np.array_equal(artifact.weight(name).rows, weight.rows)
            assert np.array_equal(artifact.stored_rows(name), gguf_rows(model, name))


def test_llama_biases_are_put_back_like_their_rows(tmp_path):
    model = tiny_model("qwen2")
    object.__setattr__(model.config, "architecture", "llama")
    write_gguf(tmp_path / "m.gguf", model)
    artifact = open_artifact(tmp_path / "m.gguf")
    name = "model.layers.1.self_attn.k_proj.bias"
    assert artifact.permuted(name)
    assert np.array_equal(artifact.weight(name).rows, model.weights[name].rows)
    assert not np.array_equal(artifact.stored_rows(name), model.weights[name].rows)


def test_tied_embedding_answers_for_the_head(tmp_path):
    tiny_gguf(tmp_path / "m.gguf", tied=True)
    artifact = open_artifact(tmp_path / "m.gguf")
    assert artifact.config.tie_word_embeddings
    assert "lm_head.weight" in artifact
    assert "lm_head.weight" not in artifact.tensors
    head, embedding = artifact.weight("lm_head.weight"), artifact.weight("model.embed_tokens.weight")
    assert head.name == "lm_head.weight"
    assert np.array_equal(head.rows, embedding.rows)
    with pytest.raises(MissingTensorError, match=r"no tensor model\.layers\.9"):
        artifact.weight("model.layers.9.mlp.up_proj.weight")


def test_fused_qkv_is_split_by_rows(tmp_path):
    model = tiny_model("qwen2", "Q8_0", kv_heads=1)
    expected = dict(model.weights)
    for layer in range(2):
        for kind in ("weight", "bias"):
            prefix = f"model.layers.{layer}.self_attn."
            parts = [model.weights.pop(f"{prefix}{letter}_proj.{kind}") for letter in "qkv"]
            rows = np.concatenate([part.rows for part in parts], axis=0 if kind == "weight" else 1)
            shape = (sum(part.shape[0] for part in parts), *parts[0].shape[1:])
            name = f"{prefix}qkv_proj.{kind}"
            model.weights[name] = type(parts[0])(name, parts[0].type, shape, rows)
    write_gguf(tmp_path / "m.gguf", model)
    artifact = open_artifact(tmp_path / "m.gguf")
    assert set(artifact.tensors) == set(expected)
    for name, weight in expected.items():
        assert np.array_equal(artifact.weight(name).rows, weight.rows)
    sizes = [artifact.weight(f"model.layers.0.self_attn.{part}_proj.weight").part_of for part in "qkvo"]
    assert sizes == [sum(expected[f"model.layers.0.self_attn.{part}_proj.weight"].shape[0] for part in "qkv")] * 3 + [0]


def test_mapped_rows_can_be_changed_without_touching_the_file(tmp_path):
    tiny_gguf(tmp_path / "m.gguf")
    before = (tmp_path / "m.gguf").read_bytes()
    weight = open_artifact(tmp_path / "m.gguf").weight("lm_head.weight")
    assert weight.rows.flags.writeable
    assert weight.rows.flags.c_contiguous
    weight.rows[:] = 0
    assert (tmp_path / "m.gguf").read_bytes() == before


def test_rope_scaling(tmp_path):
    model = tiny_model("llama", head_dim=8, heads=8)
    write_gguf(tmp_path / "m.gguf", model, rope__scaling__type="linear", rope__scaling__factor=4.0)
    assert open_artifact(tmp_path / "m.gguf").config.rope_factors == (4.0,) * 4
    freqs = np.array([1, 1, 2.5, 8], np.float32)
    weight = next(iter(model.weights.values()))
    model.weights["rope_freqs.weight"] = type(weight)("", TensorType.F32, (4,), freqs.view(np.uint8).reshape(1, -1))
    write_gguf(tmp_path / "m.gguf", model)
    artifact = open_artifact(tmp_path / "m.gguf")
    assert artifact.config.rope_factors == (1.0, 1.0, 2.5, 8.0)
    assert artifact.problems == ()
    write_gguf(tmp_path / "m.gguf", tiny_model(), rope__scaling__type="longrope")
    with pytest.raises(UnsupportedModelError, match=r"longrope; supported are none, linear"):
        open_artifact(tmp_path / "m.gguf")


def test_settings_that_change_the_computation_are_refused_by_name(tmp_path):
    path = tmp_path / "m.gguf"
    refused = {
        "expert_count": 8,
        "rope__dimension_count": 4,
        "attention__head_count": [4, 2],
    }
    for key, value in refused.items():
        write_gguf(path, tiny_model(), **{key: value})
        with pytest.raises(UnsupportedModelError, match=key.replace("__", ".")):
            open_artifact(path)
    write_gguf(path, tiny_model(), attention__head_count=[4, 4], attention__sliding_window=512)
    artifact = open_artifact(path)
    assert artifact.config.num_attention_heads == 4
    assert "attention.sliding_window to 512, which llama.cpp ignores" in artifact.problems[0]
    ignored = {"attn_logit_softcapping": 50.0, "attention__clamp_kqv": 8.0, "residual_scale": 2.0}
    for key, value in (ignored | {"attention__scale": 0.5}).items():
        write_gguf(path, tiny_model(), **{key: value})
        assert f"{key.replace('__', '.')} to {value}, which llama.cpp ignores" in open_artifact(path).problems[0]
    write_gguf(path, tiny_model(), logit_scale=1.0, expert_count=0)
    assert open_artifact(path).problems == ()
    model = tiny_model()
    model.weights["output.scale"] = replace(model.weights["model.norm.weight"], name="output.scale")
    write_gguf(path, model)
    with pytest.raises(UnsupportedModelError, match=r"output\.scale"):
        open_artifact(path)


def test_unsupported_architecture_and_type_are_named(tmp_path):
    model = tiny_model()
    object.__setattr__(model.config, "architecture", "falcon")
    write_gguf(tmp_path / "m.gguf", model)
    with pytest.raises(UnsupportedModelError, match="has the architecture falcon, which this program does not run"):
        open_artifact(tmp_path / "m.gguf")
    tiny_gguf(tmp_path / "t.gguf")
    change_type(tmp_path / "t.gguf", "blk.0.ffn_up.weight", 24)
    with pytest.raises(UnsupportedModelError, match=r"blk\.0\.ffn_up\.weight has the type I8; supported are F32"):
        open_artifact(tmp_path / "t.gguf")


def test_missing_and_misshaped_tensors_are_named(tmp_path):
    model = tiny_model()
    up = model.weights.pop("model.layers.1.mlp.up_proj.weight")
    write_gguf(tmp_path / "m.gguf", model)
    with pytest.raises(WorkbenchError, match=r"m\.gguf lacks the tensor model\.layers\.1\.mlp\.up_proj\.weight"):
        open_artifact(tmp_path / "m.gguf")
    model.weights[up.name] = type(up)(up.name, up.type, up.shape[::-1], up.rows.reshape(up.shape[1], -1))
    write_gguf(tmp_path / "m.gguf", model)
    with pytest.raises(WorkbenchError, match=r"up_proj\.weight \(stored as blk\.1\.ffn_up\.weight\).*64×96.*96×64"):
        open_artifact(tmp_path / "m.gguf")


def test_absent_biases_are_a_problem_and_half_absent_ones_an_error(tmp_path):
    model = tiny_model()
    for letter in "qkv":
        del model.weights[f"model.layers.1.self_attn.{letter}_proj.bias"]
    write_gguf(tmp_path / "m.gguf", model)
    assert "lacks the q/k/v biases of 1 of 2 layers, from layer 1" in open_artifact(tmp_path / "m.gguf").problems[0]
    del model.weights["model.layers.0.self_attn.v_proj.bias"]
    write_gguf(tmp_path / "m.gguf", model)
    with pytest.raises(WorkbenchError, match=r"lacks the tensor model\.layers\.0\.self_attn\.v_proj\.bias"):
        open_artifact(tmp_path / "m.gguf")


def test_tensors_that_are_not_computed_with_are_refused_or_listed(tmp_path):
    model = tiny_model()
    norm = model.weights["model.norm.weight"]
    model.weights["model.layers.2.input_layernorm.weight"] = norm  # beyond the last layer
    write_gguf(tmp_path / "m.gguf", model)
    assert open_artifact(tmp_path / "m.gguf").problems == (
        "m.gguf stores 1 tensor (blk.2.attn_norm.weight) that the forward does not use.",
        "llama.cpp would refuse m.gguf: it holds 1 tensor (blk.2.attn_norm.weight) that qwen2 models are not made of "
        "there.",
    )
    model.weights["model.layers.1.self_attn.q_norm.weight"] = norm
    write_gguf(tmp_path / "m.gguf", model)
    with pytest.raises(UnsupportedModelError, match=r"q_norm\.weight .*does not compute with"):
        open_artifact(tmp_path / "m.gguf")


@pytest.mark.parametrize("kind", ["bpe", "spm"])
def test_vocabulary(tmp_path, kind):
    tiny_gguf(tmp_path / "m.gguf", vocabulary=kind, vocab=300)
    vocabulary = open_artifact(tmp_path / "m.gguf").vocabulary
    assert vocabulary.kind == kind
    assert len(vocabulary.tokens) == 300
    assert vocabulary.tokens.decode() == byte_tokens(kind, 300)
    assert vocabulary.token_types.decode()[0] in (2, 3)
    if kind == "bpe":
        assert (vocabulary.pre, vocabulary.merges.decode()) == ("gpt-2", ["h e", "l l"])
    else:
        assert vocabulary.scores.decode() == [0.0] * 300
        assert vocabulary.bos_id == 1


def test_a_special_token_outside_the_vocabulary_is_none(tmp_path):
    tiny_gguf(tmp_path / "m.gguf", vocabulary="bpe", vocab=300)
    data = (tmp_path / "m.gguf").read_bytes()
    entry = b"tokenizer.ggml.bos_token_id" + struct.pack("<I", 4)
    at = data.index(entry) + len(entry)
    (tmp_path / "m.gguf").write_bytes(data[:at] + b"\xff" * 4 + data[at + 4 :])
    assert open_artifact(tmp_path / "m.gguf").vocabulary.bos_id is None


def test_settings_kept_in_float32_read_as_their_shortest_decimal(tmp_path):
    model = tiny_model()
    object.__setattr__(model.config, "rms_norm_eps", 1e-6)
    write_gguf(tmp_path / "m.gguf", model)
    assert open_artifact(tmp_path / "m.gguf").config.rms_norm_eps == 1e-6


def test_a_file_that_changes_after_opening_is_not_read_on(tmp_path):
    tiny_gguf(tmp_path / "m.gguf")
    artifact = open_artifact(tmp_path / "m.gguf")
    tiny_gguf(tmp_path / "m.gguf", layers=1, seed=1)
    with pytest.raises(WorkbenchError, match="has changed since it was opened"):
        artifact.weight("model.norm.weight")


def test_a_wrong_suffix_is_told(tmp_path):
    tiny_gguf(tmp_path / "m.apr")
    artifact = open_artifact(tmp_path / "m.apr")
    assert artifact.format == "gguf"
    assert artifact.problems == ("m.apr is named .apr but holds gguf; it is read as what it holds.",)


def test_a_vocabulary_of_152_000_tokens_makes_no_object_of_each(tmp_path):
    def string(text: str) -> bytes:
        return struct.pack("<Q", len(text)) + text.encode()

    header = struct.pack("<4sIQQ", b"GGUF", 3, 0, 2)
    for key, count in (("tokenizer.ggml.tokens", 152_064), ("tokenizer.ggml.merges", 151_387)):
        strings = b"".join(string(f"token {n}") for n in range(count))
        header += string(key) + struct.pack("<IIQ", 9, 8, count) + strings
    path: Path = tmp_path / "m.gguf"
    path.write_bytes(header)
    file = ModelFile.at(path)
    tracemalloc.start()
    metadata = read_header(file).metadata
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 1 << 20  # 300 000 strings alone would be 17 MB
    assert metadata["tokenizer.ggml.merges"].decode()[-1] == "token 151386"


def test_interleaved_rows_are_the_inverse_of_what_llama_cpp_documents():
    weight = tiny_model("llama").weights["model.layers.0.self_attn.q_proj.weight"]
    rows = interleaved_rows(weight, 4)
    per_head = rows.reshape(4, 16, -1)
    back = np.concatenate([per_head[:, 0::2], per_head[:, 1::2]], axis=1).reshape(rows.shape)
    assert np.array_equal(back, weight.rows)
