"""APR v2: both dialects are read, checksums reported, relatives of the format recognised."""

import json
import struct
import zlib

import numpy as np
import pytest

from kernels.errors import UnsupportedModelError, WorkbenchError
from kernels.formats.numbers import NOT_IN_GGML
from kernels.weight import TensorType, Weight
from store.files.apr_format import stored_as
from store.files.apr_writer import AprTensor, write_apr
from store.open import open_artifact
from tests.artifacts import apr_metadata, apr_tensors, tiny_apr, tiny_model, tiny_realizar_apr, write_realizar_apr
from tests.gguf_files import gguf_rows
from workbench.bisect.pair import bisect_pair
from workbench.pair.pair import open_pair

HEADER = "<4sBBHIQIQQI20x"


def patch(path, offset: int, data: bytes, checksum: bool = True) -> None:
    """Write `data` into the header, and the checksum that the header then must have."""
    content = bytearray(path.read_bytes())
    content[offset : offset + len(data)] = data
    if checksum:
        content[40:44] = zlib.crc32(content[:40] + content[44:64]).to_bytes(4, "little")
        content[-4:] = zlib.crc32(content[:-4]).to_bytes(4, "little")
    path.write_bytes(content)


@pytest.mark.parametrize("arch", ["llama", "qwen2"])
@pytest.mark.parametrize("type", [type for type in TensorType if type < NOT_IN_GGML])
@pytest.mark.parametrize("write", [tiny_apr, tiny_realizar_apr])
def test_both_dialects_hold_the_same_model(tmp_path, arch, type, write):
    model = write(tmp_path / "m.apr", arch, type, layers=1)
    artifact = open_artifact(tmp_path / "m.apr")
    assert artifact.config == model.config
    assert set(artifact.tensors) == set(model.weights)
    for name, weight in model.weights.items():
        read = artifact.weight(name)
        assert (read.type, read.shape) == (weight.type, weight.shape)
        assert np.array_equal(read.rows, weight.rows)


def test_canonical_files_have_no_problems_and_realizar_files_have_the_known_ones(tmp_path):
    tiny_apr(tmp_path / "a.apr")
    assert open_artifact(tmp_path / "a.apr").problems == ()
    tiny_realizar_apr(tmp_path / "b.apr")
    problems = " ".join(open_artifact(tmp_path / "b.apr").problems)
    for words in ("no header checksum (0)", "unsorted tensor index", "no footer checksum"):
        assert words in problems


def test_damaged_checksums_are_told(tmp_path):
    tiny_apr(tmp_path / "m.apr")
    patch(tmp_path / "m.apr", 63, b"\x01", checksum=False)
    header, footer = open_artifact(tmp_path / "m.apr").problems
    assert "has the header checksum 0x" in header
    assert "has the footer checksum 0x" in footer
    tiny_apr(tmp_path / "m.apr")
    content = bytearray((tmp_path / "m.apr").read_bytes())
    content[-40] ^= 1  # inside the last tensor
    (tmp_path / "m.apr").write_bytes(content)
    (only,) = open_artifact(tmp_path / "m.apr").problems
    assert "has the footer checksum 0x" in only


@pytest.mark.parametrize(
    ("offset", "data", "words"),
    [
        (0, b"APRN\x01\x00\x02\x00", r"APR version 1 file \(a logistic regression\), recognised but not a lang"),
        (0, b"APR1", "whisper"),
        (0, b"APRX", "an unknown kind of APR"),
        (4, b"\x03", r"APR version 3\.0; only version 2"),
        (6, b"\x04\x04", "encrypted"),
        (6, b"\x00\x08", "stores its matrices by columns"),
    ],
)
def test_relatives_are_refused_by_what_they_are(tmp_path, offset, data, words):
    tiny_apr(tmp_path / "m.apr")
    patch(tmp_path / "m.apr", offset, data)
    with pytest.raises(UnsupportedModelError, match=words):
        open_artifact(tmp_path / "m.apr")


def test_a_compression_flag_alone_does_not_matter(tmp_path):
    tiny_apr(tmp_path / "m.apr")
    patch(tmp_path / "m.apr", 6, b"\x01\x04")
    assert open_artifact(tmp_path / "m.apr").problems == ()


def test_weights_as_one_json_text_are_refused(tmp_path):
    metadata, index = json.dumps(apr_metadata(tiny_model())).encode(), b'[{"name":"weights","dtype":"json"}]'
    start = 64 + len(metadata)
    header = struct.pack(HEADER, b"APR\0", 2, 0, 0, 1, 64, len(metadata), start, start + len(index), 0)
    (tmp_path / "m.apr").write_bytes(header + metadata + index + b"{}")
    with pytest.raises(UnsupportedModelError, match="keeps its weights as one JSON text"):
        open_artifact(tmp_path / "m.apr")


def unread(at: int, count: int) -> bytes:
    """The bytes of a tensor whose size alone is to tell."""
    return bytes(count)


@pytest.mark.parametrize(
    ("code", "size", "expected"),
    [
        (0, 4 * 512, TensorType.F32),
        (1, 2 * 512, TensorType.F16),
        (2, 16 * 18, TensorType.Q4_0),
        (2, 2 * 512, TensorType.BF16),  # before 2026-01-30
        (0, 16 * 22, TensorType.Q5_0),  # realizar, which has no code for it
        (3, 16 * 20, TensorType.Q4_1),
        (6, 16 * 22, TensorType.Q5_0),
        (7, 16 * 24, TensorType.Q5_1),
        (8, 16 * 34, TensorType.Q8_0),
        (10, 16 * 34, TensorType.Q8_0),
        (8, 2 * 176, TensorType.Q5_K),  # before 2026-01-30
        (9, 2 * 210, TensorType.Q6_K),
        (12, 2 * 144, TensorType.Q4_K),
        (12, 2 * 176, TensorType.Q5_K),
        (13, 2 * 176, TensorType.Q5_K),
        (14, 2 * 210, TensorType.Q6_K),
        (30, 2 * 512, TensorType.BF16),
    ],
)
def test_the_size_tells_what_a_type_code_means(code, size, expected):
    assert stored_as("m.apr", "w", code, (2, 256), size, unread) == (expected, None, 0)


@pytest.mark.parametrize(
    ("code", "size", "name"),
    [
        *((3, 8 * 512, "F64"), (3, 512, "I8"), (4, 4 * 512, "I32"), (4, 2 * 512, "I16"), (5, 8 * 512, "I64")),
        *((5, 4 * 512, "I32"), (6, 512, "I8"), (6, 8 * 512, "I64"), (7, 512, "U8")),
        *((8, 7, "of unknown kind (dtype code 8)"), (77, 512, "of unknown kind (dtype code 77)")),
    ],
)
def test_types_that_are_no_weights_have_names(code, size, name):
    assert stored_as("m.apr", "w", code, (2, 256), size, unread).type.name == name


def test_a_size_that_fits_no_reading_is_an_error():
    with pytest.raises(WorkbenchError, match=r"dtype code 0 .* shape 2×256, which do not make 2047 bytes"):
        stored_as("m.apr", "w", 0, (2, 256), 2047, unread)


def test_missing_settings_are_named_as_guesses_or_errors(tmp_path):
    model = tiny_model()
    object.__setattr__(model.config, "rms_norm_eps", 1e-6)
    object.__setattr__(model.config, "rope_theta", 1e6)
    metadata = apr_metadata(model)
    for key in ("rms_norm_eps", "rope_theta", "rope_type", "max_position_embeddings", "head_dim"):
        metadata[key] = None
    write_apr(tmp_path / "m.apr", metadata, apr_tensors(model))
    artifact = open_artifact(tmp_path / "m.apr")
    assert (artifact.config.rms_norm_eps, artifact.config.rope_theta) == (1e-6, 1e6)
    assert artifact.problems == (
        "m.apr does not say rope_theta; 1e+06 is used, which is a guess.",
        "m.apr does not say rms_norm_eps; 1e-06 is used, which is a guess.",
    )
    write_apr(tmp_path / "m.apr", metadata | {"num_heads": None}, apr_tensors(model))
    with pytest.raises(WorkbenchError, match="does not say num_heads or num_attention_heads or n_heads or n_head"):
        open_artifact(tmp_path / "m.apr")


def test_metadata_aliases(tmp_path):
    model = tiny_model()
    metadata = {
        "architecture": "auto",
        "model_type": "Qwen2",
        "n_embd": 64,
        "n_layer": 2,
        "n_head": 4,
        "n_kv_heads": 2,
        "ffn_dim": 96,
        "n_ctx": 128,
        "norm_eps": 1e-5,
        "rope_theta": 10000,
    }
    write_apr(tmp_path / "m.apr", metadata, apr_tensors(model))
    assert open_artifact(tmp_path / "m.apr").config == model.config


def old_names(model) -> list[AprTensor]:
    """As files of early 2026 spell them."""
    whole = {"model.norm.weight": "norm.weight", "lm_head.weight": "output.weight"}
    return [
        AprTensor(whole.get(name, name.removeprefix("model.")), w.type, w.shape, w.rows.reshape(-1))
        for name, w in model.weights.items()
    ]


def test_names_without_the_model_prefix(tmp_path):
    model = tiny_model()
    write_apr(tmp_path / "m.apr", apr_metadata(model), old_names(model))
    artifact = open_artifact(tmp_path / "m.apr")
    assert set(artifact.tensors) == set(model.weights)
    assert artifact.tensors["model.norm.weight"].raw_name == "norm.weight"
    twice = [*old_names(model), *apr_tensors(model)]
    write_apr(tmp_path / "m.apr", apr_metadata(model), twice)
    with pytest.raises(WorkbenchError, match=r"stores .* twice, as "):
        open_artifact(tmp_path / "m.apr")


Q_PROJ = "model.layers.0.self_attn.q_proj.weight"


def stored_for_pairs(model) -> list[AprTensor]:
    """Hugging Face names, but rows as llama GGUF files order them."""
    return [AprTensor(n, w.type, w.shape, gguf_rows(model, n).reshape(-1)) for n, w in model.weights.items()]


@pytest.mark.parametrize(
    ("origin", "rope_type", "permuted", "doubt"),
    [
        ("gguf", 0, True, None),
        ("gguf", None, True, None),
        ("gguf", 2, False, None),
        ("safetensors", 0, False, None),  # what `apr import` writes for a llama folder
        ("safetensors", 2, False, None),
        ("safetensors", None, False, None),
        (None, 0, False, "taken to mean split halves"),
    ],
)
def test_row_order_of_llama_with_hugging_face_names(tmp_path, origin, rope_type, permuted, doubt):
    model = tiny_model("llama")
    tensors = stored_for_pairs(model) if permuted else apr_tensors(model)
    write_apr(tmp_path / "m.apr", apr_metadata(model, original_format=origin, rope_type=rope_type), tensors)
    artifact = open_artifact(tmp_path / "m.apr")
    assert artifact.config.rope_type == "neox"
    assert artifact.permuted(Q_PROJ) == permuted
    assert np.array_equal(artifact.weight(Q_PROJ).rows, model.weights[Q_PROJ].rows)
    assert [doubt in problem for problem in artifact.problems] == ([True] if doubt else [])


@pytest.mark.parametrize("rope_type", [0, 2])
def test_row_order_of_llama_with_gguf_names(tmp_path, rope_type):
    model = tiny_model("llama")
    write_realizar_apr(tmp_path / "m.apr", model, rope_type=rope_type)
    artifact = open_artifact(tmp_path / "m.apr")
    assert artifact.permuted(Q_PROJ) == (rope_type == 0)
    expected = model.weights[Q_PROJ].rows if rope_type == 0 else gguf_rows(model, Q_PROJ)
    assert np.array_equal(artifact.weight(Q_PROJ).rows, expected)


@pytest.mark.parametrize(
    ("origin", "stated", "rope_type", "problems"),
    [("gguf", 2, "neox", 0), ("gguf", None, "neox", 0), ("gguf", 0, "norm", 1), ("safetensors", 0, "neox", 1)],
)
def test_rope_type_of_qwen2(tmp_path, origin, stated, rope_type, problems):
    model = tiny_model("qwen2")
    write_apr(tmp_path / "m.apr", apr_metadata(model, original_format=origin, rope_type=stated), apr_tensors(model))
    artifact = open_artifact(tmp_path / "m.apr")
    assert artifact.config.rope_type == rope_type
    assert not artifact.permuted(Q_PROJ)
    assert len(artifact.problems) == problems


def test_a_float_tensor_at_an_odd_place_can_be_viewed_as_numbers(tmp_path):
    model = tiny_realizar_apr(tmp_path / "m.apr", "qwen2", "F32")
    content = (tmp_path / "m.apr").read_bytes()
    fields = list(struct.unpack(HEADER, content[:64]))
    data = fields[8]
    fields[8] += 1
    (tmp_path / "m.apr").write_bytes(struct.pack(HEADER, *fields) + content[64:data] + b"\0" + content[data:])
    rows = open_artifact(tmp_path / "m.apr").weight("model.norm.weight").rows
    assert rows.view(np.float32).flags.aligned
    assert np.array_equal(rows, model.weights["model.norm.weight"].rows)


def test_fused_qkv_rows_are_split(tmp_path):
    model = tiny_model("qwen2", "Q4_K", layers=1)
    expected = dict(model.weights)
    parts = [model.weights.pop(f"model.layers.0.self_attn.{letter}_proj.weight") for letter in "qkv"]
    name, shape = "model.layers.0.self_attn.qkv_proj.weight", (sum(part.shape[0] for part in parts), 256)
    model.weights[name] = Weight(name, TensorType.Q4_K, shape, np.concatenate([part.rows for part in parts]))
    write_apr(tmp_path / "m.apr", apr_metadata(model), apr_tensors(model))
    artifact = open_artifact(tmp_path / "m.apr")
    for name, weight in expected.items():
        assert np.array_equal(artifact.weight(name).rows, weight.rows)
    assert artifact.weight(Q_PROJ).type.block.bytes == 144


@pytest.mark.parametrize("architecture", ["mistral", "gemma3", "qwen2", "llama"])
def test_windows_that_a_file_says_nothing_of_are_a_guess_that_the_verdict_tells(tmp_path, architecture):
    model = tiny_model(architecture)
    silent = ("sliding_window", "layer_types", "rope_local_base_freq", "query_pre_attn_scalar")
    metadata = {key: value for key, value in apr_metadata(model).items() if key not in silent}
    write_apr(tmp_path / "m.apr", metadata, apr_tensors(model))
    artifact = open_artifact(tmp_path / "m.apr")
    assert artifact.config.sliding_window is None
    guessed = [key for key in silent if any(f"does not say {key};" in guess for guess in artifact.guesses)]
    assert guessed == {
        "mistral": ["sliding_window"],
        "gemma3": ["sliding_window", "query_pre_attn_scalar"],
    }.get(architecture, [])
    assert set(artifact.guesses) <= set(artifact.problems)
    found = bisect_pair(open_pair((tmp_path / "m.apr", tmp_path / "m.apr"), (None, None), (1, 2, 3), None)).bisection
    assert set(artifact.guesses) <= set(found.notes)
