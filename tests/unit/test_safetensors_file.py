"""SafeTensors reading, against the safetensors library as an independent reader."""

import hashlib
import json
import math
import struct

import numpy as np
import pytest
import safetensors

from kernels.errors import UnsupportedModelError, WorkbenchError
from store.open import open_artifact
from tests.artifacts import tiny_model, tiny_safetensors
from tests.hf_files import hf_config, write_safetensors


def write_config(folder, model, **changes):
    config = {key: value for key, value in (hf_config(model) | changes).items() if value is not ...}
    (folder / "config.json").write_text(json.dumps(config))


@pytest.mark.parametrize("arch", ["llama", "qwen2"])
@pytest.mark.parametrize("type", ["F32", "F16", "BF16"])
def test_folder_index_and_file_give_the_same_model(tmp_path, arch, type):
    single = tiny_safetensors(tmp_path / "one", arch, type, tied=True)
    tiny_safetensors(tmp_path / "many", arch, type, tied=True, shards=3)
    for path in ("one", "one/model.safetensors", "many", "many/model.safetensors.index.json"):
        artifact = open_artifact(tmp_path / path)
        assert artifact.path == tmp_path / path
        assert artifact.config == single.config
        assert artifact.problems == ()
        assert set(artifact.tensors) == set(single.weights)
        for name, weight in single.weights.items():
            read = artifact.weight(name)
            assert (read.type, read.shape) == (weight.type, weight.shape)
            assert np.array_equal(read.rows, weight.rows)
            assert not artifact.permuted(name)


def test_the_library_reads_the_same_values(tmp_path):
    tiny_safetensors(tmp_path)
    artifact = open_artifact(tmp_path)
    with safetensors.safe_open(tmp_path / "model.safetensors", "np") as library:
        assert set(library.keys()) == set(artifact.tensors)
        for name in artifact.tensors:
            weight = artifact.weight(name)
            assert np.array_equal(weight.rows.view(np.float32).reshape(weight.shape), library.get_tensor(name))


def test_hash_covers_every_file_that_decides_the_numbers(tmp_path):
    tiny_safetensors(tmp_path, shards=2)
    artifact = open_artifact(tmp_path)
    names = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors", "config.json"]
    assert [path.name for path in artifact.files] == names
    lines = "".join(f"{n}  {hashlib.sha256((tmp_path / n).read_bytes()).hexdigest()}\n" for n in names)
    calls = []
    assert artifact.sha256(lambda *call: calls.append(call)) == hashlib.sha256(lines.encode()).hexdigest()
    assert calls[-1] == (artifact.size, artifact.size)


def test_config_of_transformers_4_and_5(tmp_path):
    model = tiny_model("llama")
    for transformers in (4, 5):
        write_safetensors(tmp_path, model, transformers=transformers)
        assert open_artifact(tmp_path).config == model.config
    write_config(tmp_path, model, rope_parameters=..., head_dim=..., num_key_value_heads=2, tie_word_embeddings=...)
    assert open_artifact(tmp_path).config == model.config  # rope_theta 10000, head_dim 64 / 4, untied


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"model_type": "qwen7"}, "has the model_type qwen7, which this program does not run"),
        (
            {"quantization_config": {"quant_method": "hqq"}},
            r"quantization_config \(hqq\); supported are fp8, .* or a GG",
        ),
        ({"layer_types": ["full_attention", "chunked_attention"]}, "layer_types other than full_attention"),
        ({"hidden_act": "gelu"}, "activation gelu; only silu"),
        ({"final_logit_softcapping": 30.0}, "sets final_logit_softcapping to 30.0"),
        ({"rope_parameters": {"rope_type": "proportional"}}, "by proportional; supported are default, linear"),
        ({"rope_parameters": {"full_attention": {"rope_type": "default"}}}, "rope_parameters for each kind of layer"),
        (
            {"partial_rotary_factor": 0.5, "rope_parameters": {"rope_type": "linear", "factor": 2.0}},
            "partial_rotary_factor",
        ),
        ({"head_dim": 15}, "heads of 15 channels"),
    ],
)
def test_what_is_not_computed_is_refused_by_name(tmp_path, changes, words):
    model = tiny_safetensors(tmp_path)
    write_config(tmp_path, model, **changes)
    with pytest.raises(UnsupportedModelError, match=words):
        open_artifact(tmp_path)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"hidden_size": "64"}, r"gives hidden_size as '64'"),
        ({"hidden_size": True}, "gives hidden_size as True"),
        ({"num_attention_heads": 3, "head_dim": ...}, "do not divide among 3 attention heads"),
        ({"num_key_value_heads": 3}, "do not divide among 3 key/value heads"),
        ({"num_key_value_heads": ...}, "do not divide among 32 key/value heads"),  # transformers' default of qwen2
        ({"hidden_size": ...}, "shape 128×64 where the configuration implies 128×4096"),
        ({"rms_norm_eps": None}, "does not say rms_norm_eps"),
        ({"layer_types": ["sliding_attention"] * 2}, "no sliding_window that is in use"),
        ({"rms_norm_eps": 0}, "gives rms_norm_eps as 0"),
        ({"rms_norm_eps": float("nan")}, "gives rms_norm_eps as nan"),
        ({"vocab_size": 127}, "shape 128×64 where the configuration implies 127×64"),
        ({"num_hidden_layers": 3}, r"lacks the tensor model\.layers\.2\.input_layernorm\.weight"),
        ({"num_hidden_layers": 2**31}, "gives num_hidden_layers"),
        ({"rope_parameters": {"rope_type": "linear"}}, "does not say factor"),
        ({"rope_parameters": [1]}, "rope_parameters"),
    ],
)
def test_a_config_that_cannot_be_is_an_error_that_says_why(tmp_path, changes, words):
    model = tiny_safetensors(tmp_path)
    write_config(tmp_path, model, **changes)
    with pytest.raises(WorkbenchError, match=words):
        open_artifact(tmp_path)


def test_a_quantized_checkpoint_is_refused_by_its_method_and_not_by_its_tensors(tmp_path):
    model = tiny_safetensors(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(header_of({"a": F32_PAIR | {"dtype": "I32"}}, bytes(8)))
    write_config(tmp_path, model, quantization_config={"quant_method": "aqlm"})
    with pytest.raises(UnsupportedModelError, match=r"quantization_config \(aqlm\); supported are fp8"):
        open_artifact(tmp_path)


def test_rope_scaling_factors(tmp_path):
    model = tiny_safetensors(tmp_path, "llama", head_dim=128, heads=1, kv_heads=1)
    write_config(tmp_path, model, rope_parameters={"rope_type": "linear", "factor": 2.0, "rope_theta": 10000.0})
    assert open_artifact(tmp_path).config.rope_factors == (2.0,) * 64
    llama3 = {
        "rope_type": "llama3",
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    }
    write_config(tmp_path, model, rope_parameters=..., rope_theta=500000.0, rope_scaling=llama3)
    factors = open_artifact(tmp_path).config.rope_factors
    assert factors is not None
    for i, factor in enumerate(factors):
        wavelength = 2 * math.pi * 500000.0 ** (i / 64)
        if wavelength < 8192 / 4:
            assert factor == 1
        elif wavelength > 8192 / 1:
            assert factor == 8
        else:
            smooth = (8192 / wavelength - 1) / 3
            assert factor == pytest.approx(1 / ((1 - smooth) / 8 + smooth), rel=1e-7)
    assert 1 < factors[30] < 8  # the blended range was met


def test_stored_head_wins_over_a_tied_config(tmp_path):
    model = tiny_safetensors(tmp_path)
    write_config(tmp_path, model, tie_word_embeddings=True)
    artifact = open_artifact(tmp_path)
    assert not artifact.config.tie_word_embeddings
    assert "the stored tensor is used" in artifact.problems[0]
    del model.weights["lm_head.weight"]
    write_safetensors(tmp_path, model)
    with pytest.raises(WorkbenchError, match=r"lacks the tensor lm_head\.weight"):
        open_artifact(tmp_path)


def test_files_that_are_not_there(tmp_path):
    with pytest.raises(WorkbenchError, match=r"holds no config\.json"):
        open_artifact(tmp_path)
    with pytest.raises(WorkbenchError, match="does not exist"):
        open_artifact(tmp_path / "nothing.gguf")
    tiny_safetensors(tmp_path, shards=2)
    (tmp_path / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(WorkbenchError, match=r"model-00002-of-00002\.safetensors does not exist"):
        open_artifact(tmp_path)
    (tmp_path / "model.safetensors.index.json").unlink()
    (tmp_path / "config.json").unlink()
    with pytest.raises(WorkbenchError, match="is file 1 of the 2 of a model"):
        open_artifact(tmp_path / "model-00001-of-00002.safetensors")
    tiny_safetensors(tmp_path / "one")
    (tmp_path / "one" / "config.json").unlink()
    with pytest.raises(WorkbenchError, match=r"needs the config\.json"):
        open_artifact(tmp_path / "one")


def test_a_folder_is_read_as_transformers_reads_it_and_says_what_lies_beside(tmp_path):
    """transformers 5.23: what config.json names, else model.safetensors, else the index, else a pickle."""
    tiny_safetensors(tmp_path, shards=2, seed=1)
    old = open_artifact(tmp_path)
    assert old.problems == ()
    model = tiny_safetensors(tmp_path)  # written beside the older set
    artifact = open_artifact(tmp_path)
    assert [path.name for path in artifact.files] == ["model.safetensors", "config.json"]
    assert np.array_equal(artifact.weight("lm_head.weight").rows, model.weights["lm_head.weight"].rows)
    assert "holds 3 more weight files, which are not read" in artifact.problems[0]
    (tmp_path / "model-00001-of-00002.safetensors").unlink()  # the index no longer holds, and nobody asks it
    (tmp_path / "adapter_model.safetensors").write_bytes(b"")
    (tmp_path / "pytorch_model.bin").write_bytes(b"")
    problems = open_artifact(tmp_path).problems
    assert "holds 3 more weight files" in problems[0]
    assert "pytorch_model.bin" in problems[0]
    assert "an adapter (adapter_model.safetensors), which is not applied" in problems[1]
    (tmp_path / "model.safetensors").rename(tmp_path / "other.safetensors")
    write_config(tmp_path, model, transformers_weights="other.safetensors")
    assert [path.name for path in open_artifact(tmp_path).files] == ["other.safetensors", "config.json"]
    write_config(tmp_path, model, transformers_weights="../other.safetensors")
    with pytest.raises(WorkbenchError, match="not a plain name"):
        open_artifact(tmp_path)
    write_config(tmp_path, model)
    (tmp_path / "model.safetensors.index.json").unlink()
    (tmp_path / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(WorkbenchError, match=r"pytorch_model\.bin, a PyTorch checkpoint"):
        open_artifact(tmp_path)
    (tmp_path / "pytorch_model.bin").unlink()
    assert open_artifact(tmp_path).files[0].name == "other.safetensors"


@pytest.mark.parametrize("name", ["../model.safetensors", "/etc/passwd", "a\\b", "..", "", "x\0y", 7, None])
def test_an_index_does_not_lead_out_of_its_folder(tmp_path, name):
    tiny_safetensors(tmp_path / "m", shards=2)
    (tmp_path / "model.safetensors").write_bytes(b"secret")
    index = {"weight_map": {"model.norm.weight": name}}
    (tmp_path / "m" / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(WorkbenchError, match=r"names (the|a) file"):
        open_artifact(tmp_path / "m")


def test_an_index_and_its_shards_must_agree(tmp_path):
    tiny_safetensors(tmp_path, shards=2)
    path = tmp_path / "model.safetensors.index.json"
    index = json.loads(path.read_text())
    norm = index["weight_map"].pop("model.norm.weight")
    path.write_text(json.dumps(index))
    with pytest.raises(WorkbenchError, match=r"lacks the tensor model\.norm\.weight"):
        open_artifact(tmp_path)
    other = next(file for file in index["weight_map"].values() if file != norm)
    index["weight_map"]["model.norm.weight"] = other
    path.write_text(json.dumps(index))
    with pytest.raises(WorkbenchError, match=rf"places tensor model\.norm\.weight in {other}, which does not hold it"):
        open_artifact(tmp_path)


def header_of(tensors: dict[str, object], data: bytes = b"", length: int | None = None) -> bytes:
    text = json.dumps(tensors).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


F32_PAIR = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}


BROKEN_HEADERS = {
    "data cut off": (header_of({"a": F32_PAIR}, bytes(7)), "would end at byte"),
    "data left over": (header_of({"a": F32_PAIR}, bytes(9)), "but the file has"),
    "gap": (header_of({"a": F32_PAIR | {"data_offsets": [4, 12]}}, bytes(12)), "starts at byte"),
    "overlap": (header_of({"a": F32_PAIR, "b": F32_PAIR}, bytes(8)), "starts at byte"),
    "backwards": (header_of({"a": F32_PAIR | {"data_offsets": [8, 0]}}, bytes(8)), "8 bytes by its shape and -8"),
    "shape larger than its place": (header_of({"a": F32_PAIR | {"shape": [3]}}, bytes(8)), "12 bytes by its shape"),
    "shape smaller than its place": (
        header_of({"a": F32_PAIR | {"shape": [1]}}, bytes(8)),
        "4 bytes by its shape and 8",
    ),
    "overflowing shape": (header_of({"a": F32_PAIR | {"shape": [2**62, 2**62]}}, bytes(8)), "bytes by its shape and 8"),
    "negative shape": (header_of({"a": F32_PAIR | {"shape": [-2]}}, bytes(8)), "without type, shape or place"),
    "fractional shape": (header_of({"a": F32_PAIR | {"shape": [2.0]}}, bytes(8)), "without type, shape or place"),
    "type that is no text": (header_of({"a": F32_PAIR | {"dtype": 1}}, bytes(8)), "gives dtype as 1"),
    "entry that is no object": (header_of({"a": [1]}, bytes(8)), "without type, shape or place"),
    "header of 2**56 bytes": (header_of({}, length=2**56 - 1), "the header would end at byte"),
    "header cut off": (header_of({}, length=1), "not valid JSON"),
    "header not UTF-8": (struct.pack("<Q", 7) + b'{"a":\xff}', "not valid JSON"),
    "key twice": (struct.pack("<Q", 15) + b'{"a":1, "a":2} ', "a key stands twice"),
    "deep nesting": (struct.pack("<Q", 200_000) + b'{"a":' + b"[" * 199_995, "nested too deeply"),
}


@pytest.mark.parametrize("case", BROKEN_HEADERS)
def test_a_header_that_breaks_a_rule_is_refused(tmp_path, case):
    content, words = BROKEN_HEADERS[case]
    tiny_safetensors(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(content)
    with pytest.raises(WorkbenchError, match=words):
        open_artifact(tmp_path / "model.safetensors")


@pytest.mark.parametrize("case", BROKEN_HEADERS)
def test_the_library_refuses_the_same_headers(tmp_path, case):
    path = tmp_path / "model.safetensors"
    path.write_bytes(BROKEN_HEADERS[case][0])
    with pytest.raises(safetensors.SafetensorError), safetensors.safe_open(path, "np"):
        pass
