"""The APR v2 writer, held to the format byte by byte, and conversion from the other formats."""

import json
import os
import struct
import zlib

import numpy as np
import pytest

from kernels.errors import UnsupportedModelError, WorkbenchError
from kernels.weight import TensorType
from store.files.apr_writer import AprTensor, convert_to_apr, write_apr
from store.open import open_artifact
from tests.artifacts import tiny_apr, tiny_gguf, tiny_model, tiny_safetensors
from tests.gguf_files import KNOWN_TO_GGUF, write_gguf

GOLDEN_VALUES = {
    "model_type": "linear_regression",
    "name": "golden-v2",
    "license": None,
    "data_source": None,
    "data_license": None,
    "version": "0.0.0-golden",
    "created_at": "1700000000",
    "total_size": 0,
    "param_count": 8,
}
OPTIONAL_KEYS = [
    "description",
    "author",
    "source",
    "original_format",
    "quantization",
    "sharding",
    "chat_template",
    "chat_format",
    "special_tokens",
    "architecture",
    "hf_architecture",
    "hf_model_type",
    "hidden_size",
    "num_layers",
    "num_heads",
    "num_kv_heads",
    "vocab_size",
    "intermediate_size",
    "max_position_embeddings",
    "rope_theta",
    "rope_type",
    "rms_norm_eps",
    "head_dim",
    "num_experts",
    "num_experts_per_tok",
    "moe_intermediate_size",
]


def golden_tensors() -> list[AprTensor]:
    values = {"weights": [1, 2, 0.5, -0.5, 4, -2, 0.25, 8], "bias": [0.125]}
    return [AprTensor(name, TensorType.F32, (len(v),), np.array(v, "<f4").view(np.uint8)) for name, v in values.items()]


def test_layout_of_the_reference_file(tmp_path):
    path = tmp_path / "golden.apr"
    write_apr(path, GOLDEN_VALUES, golden_tensors())
    data = path.read_bytes()
    assert len(data) == 516  # as aprender's own fixture of these values
    text = (
        b'{"model_type":"linear_regression","name":"golden-v2","license":null,"data_source":null,"data_license":null,'
        b'"version":"0.0.0-golden","created_at":"1700000000","total_size":0,"param_count":8}'
    )
    index = b"\x04\0bias\0\x01" + struct.pack("<QQQ", 1, 0, 4) + b"\x07\0weights\0\x01" + struct.pack("<QQQ", 8, 64, 32)
    assert data[:40] == struct.pack("<4sBBHIQIQQ", b"APR\0", 2, 0, 0x400, 2, 64, len(text), 256, 384)
    assert data[40:44] == zlib.crc32(data[:40] + bytes(20)).to_bytes(4, "little")
    assert data[44:64] == bytes(20)
    assert data[64:256] == text.ljust(192, b"\0")
    assert data[256:384] == index.ljust(128, b"\0")
    assert data[384:448] == struct.pack("<f60x", 0.125)
    assert data[448:512] == struct.pack("<8f32x", 1, 2, 0.5, -0.5, 4, -2, 0.25, 8)
    assert data[512:] == zlib.crc32(data[:512]).to_bytes(4, "little")


def test_size_of_the_older_reference_file_that_writes_every_key(tmp_path):
    write_apr(tmp_path / "golden.apr", GOLDEN_VALUES | dict.fromkeys(OPTIONAL_KEYS), golden_tensors())
    assert (tmp_path / "golden.apr").stat().st_size == 1092


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("arch", ["llama", "qwen2"])
@pytest.mark.parametrize("type", KNOWN_TO_GGUF)
def test_gguf_to_apr_keeps_config_tokenizer_and_every_byte(tmp_path, arch, type, tied):
    tiny_gguf(tmp_path / "m.gguf", arch, type, vocabulary="bpe", vocab=260, tied=tied, layers=1)
    before = open_artifact(tmp_path / "m.gguf")
    calls = []
    notes = convert_to_apr(before, tmp_path / "m.apr", lambda *call: calls.append(call))
    after = open_artifact(tmp_path / "m.apr")
    assert after.problems == ()
    assert after.config == before.config
    assert set(after.tensors) == set(before.tensors)
    for name in before.tensors:
        assert np.array_equal(after.stored_rows(name), before.stored_rows(name))
        assert np.array_equal(after.weight(name).rows, before.weight(name).rows)
        assert after.permuted(name) == before.permuted(name)
    raw = after.tensors["model.norm.weight"].raw_name
    assert raw == ("output_norm.weight" if arch == "llama" else "model.norm.weight")
    for field in ("tokens", "merges", "token_types"):
        assert getattr(after.vocabulary, field).decode() == getattr(before.vocabulary, field).decode()
    for field in ("kind", "pre", "bos_id", "eos_id", "unk_id", "add_bos"):
        assert getattr(after.vocabulary, field) == getattr(before.vocabulary, field)
    has_code = type in (TensorType.F32, TensorType.F16, TensorType.BF16, TensorType.Q4_K, TensorType.Q6_K)
    assert [type.name in note for note in notes] == ([] if has_code else [True])
    assert calls[-1][0] == calls[-1][1] - 4 == after.size - 4


@pytest.mark.parametrize("arch", ["llama", "qwen2"])
def test_safetensors_and_apr_to_apr(tmp_path, arch):
    tiny_safetensors(tmp_path / "hf", arch, "BF16", shards=2)
    before = open_artifact(tmp_path / "hf")
    assert convert_to_apr(before, tmp_path / "a.apr") == ()
    convert_to_apr(open_artifact(tmp_path / "a.apr"), tmp_path / "b.apr")
    for name in ("a.apr", "b.apr"):
        after = open_artifact(tmp_path / name)
        assert after.problems == ()
        assert after.config == before.config
        for tensor in before.tensors:
            assert np.array_equal(after.weight(tensor).rows, before.weight(tensor).rows)


def test_rope_scaling_survives(tmp_path):
    write_gguf(tmp_path / "m.gguf", tiny_model("qwen2"), rope__scaling__type="linear", rope__scaling__factor=2.5)
    before = open_artifact(tmp_path / "m.gguf")
    convert_to_apr(before, tmp_path / "m.apr")
    after = open_artifact(tmp_path / "m.apr")
    assert after.config == before.config
    assert after.config.rope_factors == (2.5,) * 8
    write_gguf(tmp_path / "b.gguf", tiny_model("llama"), rope__scaling__attn_factor=1.5)
    with pytest.raises(UnsupportedModelError, match=r"rope_attention_factor 1\.5, which APR has no place for"):
        convert_to_apr(open_artifact(tmp_path / "b.gguf"), tmp_path / "b.apr")
    assert after.problems == ()


def test_a_token_that_is_not_utf_8_survives(tmp_path):
    tiny_gguf(tmp_path / "m.gguf", vocabulary="bpe", vocab=260)
    content = (tmp_path / "m.gguf").read_bytes()
    (tmp_path / "m.gguf").write_bytes(content.replace(b"filler0", b"\xff\x1b[31m\n"))
    before = open_artifact(tmp_path / "m.gguf")
    convert_to_apr(before, tmp_path / "m.apr")
    assert open_artifact(tmp_path / "m.apr").vocabulary.tokens.decode() == before.vocabulary.tokens.decode()


QWEN2_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
    r"|\s+(?!\S)|\s+"
)


@pytest.mark.parametrize(("pattern", "pre"), [(QWEN2_SPLIT, "qwen2"), ("unknown", None)])
def test_tokenizer_json_is_embedded_when_it_can_be(tmp_path, pattern, pre):
    tiny_safetensors(tmp_path)
    tokenizer = {
        "added_tokens": [{"id": 4, "content": "<|end|>", "special": True}, {"id": 3, "content": "x", "special": False}],
        "pre_tokenizer": {
            "type": "Sequence",
            "pretokenizers": [{"type": "Split", "pattern": {"Regex": pattern}}, {"type": "ByteLevel"}],
        },
        "post_processor": None,
        "model": {"type": "BPE", "vocab": {"a": 0, "b": 1, "ab": 5}, "merges": [["a", "b"]]},
    }
    (tmp_path / "tokenizer.json").write_text(json.dumps(tokenizer))
    notes = convert_to_apr(open_artifact(tmp_path), tmp_path / "m.apr")
    vocabulary = open_artifact(tmp_path / "m.apr").vocabulary
    if pre is None:
        assert vocabulary is None
        assert "so it was left out" in notes[0]
    else:
        assert notes == ()
        assert vocabulary.pre == pre
        assert vocabulary.tokens.decode() == ["a", "b", "[PAD2]", "x", "<|end|>", "ab"]
        assert vocabulary.token_types.decode() == [1, 1, 5, 4, 3, 1]
        assert vocabulary.merges.decode() == ["a b"]


def test_a_tokenizer_of_a_kind_that_apr_has_no_name_for_is_left_out(tmp_path):
    tokens = ["<unk>", *(f"▁{n}" for n in range(259))]
    keys = {"model": "t5", "tokens": tokens, "scores": [-1.0] * 260, "token_type": [2] + [1] * 259}
    model = tiny_model(vocab=260)
    write_gguf(tmp_path / "m.gguf", model, {f"tokenizer.ggml.{key}": value for key, value in keys.items()})
    notes = convert_to_apr(open_artifact(tmp_path / "m.gguf"), tmp_path / "m.apr")
    assert "so it was left out" in notes[0]
    assert open_artifact(tmp_path / "m.apr").vocabulary is None


def test_conversion_onto_its_own_source(tmp_path):
    model = tiny_apr(tmp_path / "m.apr")
    artifact = open_artifact(tmp_path / "m.apr")
    norm = artifact.weight("model.norm.weight")
    convert_to_apr(artifact, tmp_path / "m.apr")
    assert np.array_equal(norm.rows, model.weights["model.norm.weight"].rows)  # the old file stays mapped
    assert open_artifact(tmp_path / "m.apr").config == model.config


def test_a_write_that_fails_leaves_what_was_there(tmp_path, monkeypatch):
    target = tmp_path / "m.apr"
    target.write_bytes(b"precious")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(WorkbenchError, match=r"m\.apr cannot be written \(No space left on device\)"):
        write_apr(target, GOLDEN_VALUES, golden_tensors())
    assert target.read_bytes() == b"precious"
    assert list(tmp_path.iterdir()) == [target]


def test_what_the_format_cannot_hold_is_not_written(tmp_path):
    (bias, _) = golden_tensors()
    long = AprTensor("n" * 257, bias.type, bias.shape, bias.data)
    with pytest.raises(WorkbenchError, match="has 257 bytes, and APR allows 256"):
        write_apr(tmp_path / "m.apr", GOLDEN_VALUES, [long])
    with pytest.raises(WorkbenchError, match="its metadata has"):
        write_apr(tmp_path / "m.apr", {"name": "n" * (16 << 20)}, [bias])
    with pytest.raises(WorkbenchError, match="cannot be written"):
        write_apr(tmp_path / "no" / "m.apr", GOLDEN_VALUES, [bias])
    assert list(tmp_path.iterdir()) == []
