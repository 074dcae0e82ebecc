"""APR: what only APR has (AprQ4, AprQ8, padded rows, shards, compressed files, entrenar checkpoints)."""

import json
import struct
import sys
import time

import gguf
import numpy as np
import pytest

from kernels.errors import WorkbenchError
from kernels.rows.dequantize import dequantize
from kernels.weight import TensorType, Weight
from store.files.apr_writer import AprTensor, convert_to_apr, write_apr
from store.open import open_artifact, open_model
from tests.artifacts import apr_metadata, apr_tensors, tiny_apr, tiny_gguf, tiny_model
from workbench.__main__ import run
from workbench.bisect.weights.check import check_weights
from workbench.bisect.weights.steps import Stored

UP = "model.layers.0.mlp.up_proj.weight"


def four_bits(values: np.ndarray) -> bytes:
    """AprQ4, as aprender describes it: a scale of 7 levels, codes in order, two to a byte."""
    content = b""
    for block in values.reshape(-1, 32):
        scale = np.float16(np.abs(block).max() / 7) or np.float16(1)
        codes = [int(min(15, max(0, round(float(value / scale)) + 8))) for value in block]
        content += scale.tobytes() + bytes(codes[2 * i] | codes[2 * i + 1] << 4 for i in range(16))
    return content


def four_bit_values(content: bytes, shape: tuple[int, ...]) -> np.ndarray:
    values = []
    for at in range(0, len(content), 18):
        scale = np.frombuffer(content[at : at + 2], "<f2")[0].astype(np.float32)
        for byte in content[at + 2 : at + 18]:
            values += [np.float32((byte & 15) - 8) * scale, np.float32((byte >> 4) - 8) * scale]
    return np.array(values, np.float32).reshape(shape)


def eight_bits(values: np.ndarray) -> bytes:
    """AprQ8: one scale for all, codes rounded half away from zero."""
    scale = np.float32(np.abs(values).max() / 127)
    codes = np.clip(np.trunc(values / scale + np.copysign(0.5, values)), -127, 127).astype(np.int8)
    return scale.tobytes() + codes.tobytes()


def eight_bit_values(content: bytes, shape: tuple[int, ...]) -> np.ndarray:
    scale = np.float32(struct.unpack("<f", content[:4])[0])
    codes = struct.unpack(f"{len(content) - 4}b", content[4:])
    return np.array([np.float32(code) * scale for code in codes], np.float32).reshape(shape)


ENCODINGS = {
    128: (four_bits, four_bit_values, "AprQ4"),
    8: (four_bits, four_bit_values, "AprQ4"),
    129: (eight_bits, eight_bit_values, "AprQ8"),
    9: (eight_bits, eight_bit_values, "AprQ8"),
}


def encoded(model, code: int) -> list[AprTensor]:
    """Matrices of layers in an encoding of APR's own, the rest as it is."""
    tensors = []
    for tensor in apr_tensors(model):
        if tensor.name.endswith("_proj.weight"):
            data = np.frombuffer(ENCODINGS[code][0](tensor.data.view(np.float32)), np.uint8)
            tensors.append(AprTensor(tensor.name, tensor.type, tensor.shape, data, code))
        else:
            tensors.append(tensor)
    return tensors


@pytest.mark.parametrize("code", ENCODINGS)
def test_aprenders_own_types_have_their_values_and_are_healthy_copies(tmp_path, capsys, code):
    model = tiny_apr(tmp_path / "a.apr", "qwen2", layers=1)
    write_apr(tmp_path / "b.apr", apr_metadata(model), encoded(model, code))
    copy = open_artifact(tmp_path / "b.apr")
    _, read, kind = ENCODINGS[code]
    assert f"b.apr holds 7 tensors of {kind}" in copy.problems[0]
    for tensor in encoded(model, code):
        if tensor.code is not None:
            assert copy.info(tensor.name).stored_as == kind
            assert np.array_equal(dequantize(copy.weight(tensor.name)), read(tensor.data.tobytes(), tensor.shape))
    sides = [str(tmp_path / name) for name in ("a.apr", "b.apr")]
    assert run(["weights", *sides]) == 0
    assert "0 outside the band" in capsys.readouterr().out
    run(["bisect", *sides, "--tokens", "1,2,3", "--json"])
    assert json.loads(capsys.readouterr().out)["verdict"] == "quantization_only"


def test_a_mistake_in_such_a_copy_is_found(tmp_path):
    model = tiny_apr(tmp_path / "a.apr", "qwen2", layers=1)
    tensors = encoded(model, 129)
    at = next(n for n, tensor in enumerate(tensors) if tensor.name == UP)
    data = tensors[at].data.copy()
    data[4 : 4 + 64 * 20] = 0
    tensors[at] = AprTensor(UP, tensors[at].type, tensors[at].shape, data, 129)
    write_apr(tmp_path / "b.apr", apr_metadata(model), tensors)
    a, b = (open_artifact(tmp_path / name) for name in ("a.apr", "b.apr"))
    explained = {name: check_weights(a.weight(name), b.weight(name)).explained for name in a.tensors}
    assert [name for name, is_right in explained.items() if not is_right] == [UP]


def test_an_early_q4_k_is_told_from_aprq4_by_its_bytes(tmp_path):
    """Both have code 8 and 0.5625 bytes a value."""
    model = tiny_model("qwen2", "Q4_K", layers=1)
    early = [
        AprTensor(t.name, t.type, t.shape, t.data, 8 if t.type == TensorType.Q4_K else None) for t in apr_tensors(model)
    ]
    write_apr(tmp_path / "early.apr", apr_metadata(model), early)
    artifact = open_artifact(tmp_path / "early.apr")
    assert artifact.info(UP).type is TensorType.Q4_K
    assert np.array_equal(artifact.weight(UP).rows, model.weights[UP].rows)
    zero = [AprTensor(t.name, t.type, t.shape, t.data * (t.name != UP), t.code) for t in early]
    write_apr(tmp_path / "zero.apr", apr_metadata(model), zero)
    refusal = str(open_model(tmp_path / "zero.apr").refusal)
    assert "AprQ4 or an early Q4_K (dtype code 8), which its bytes do not tell" in refusal


@pytest.mark.parametrize("type", ["Q4_K", "Q6_K"])
def test_rows_that_are_padded_to_whole_blocks_keep_their_values_and_steps(tmp_path, type):
    blocks = tiny_model("qwen2", type, layers=1)  # rows of 256 and 512
    model = tiny_model("qwen2", layers=1, hidden=224, head_dim=56, ffn=480)
    tensors, stored = [], {}
    for tensor in apr_tensors(model):
        if tensor.name.endswith("_proj.weight"):
            columns = 512 if tensor.shape[1] > 256 else 256
            alike = [w.rows for w in blocks.weights.values() if w.shape[1:] == (columns,) and w.type.name == type]
            rows = np.resize(np.concatenate(alike), (tensor.shape[0], alike[0].shape[1]))
            stored[tensor.name] = Weight("w", TensorType[type], (len(rows), columns), rows)
            tensors.append(AprTensor(tensor.name, TensorType[type], tensor.shape, rows.reshape(-1)))
        else:
            tensors.append(tensor)
    write_apr(tmp_path / "m.apr", apr_metadata(model), tensors)
    artifact = open_artifact(tmp_path / "m.apr")
    for name, whole in stored.items():
        weight = artifact.weight(name)
        assert artifact.info(name).stored_as == f"{type}, padded"
        assert np.array_equal(dequantize(weight), dequantize(whole)[:, : weight.shape[1]])
        assert np.array_equal(Stored.of(weight).width, Stored.of(whole).width[:, : weight.shape[1]])
    convert_to_apr(artifact, tmp_path / "copy.apr")
    again = open_artifact(tmp_path / "copy.apr")
    assert again.info(UP).stored_as == f"{type}, padded"
    assert np.array_equal(again.undecoded(UP), artifact.undecoded(UP))


@pytest.mark.parametrize("code", [128, 129])
def test_aprenders_own_types_are_written_as_they_are(tmp_path, code):
    model = tiny_model("qwen2", layers=1)
    write_apr(tmp_path / "m.apr", apr_metadata(model), encoded(model, code))
    assert convert_to_apr(open_artifact(tmp_path / "m.apr"), tmp_path / "copy.apr") == ()
    for name in ("m.apr", "copy.apr"):
        content = (tmp_path / name).read_bytes()
        assert content[content.index(UP.encode()) + len(UP)] == code
    one, other = (open_artifact(tmp_path / name) for name in ("m.apr", "copy.apr"))
    assert np.array_equal(one.weight(UP).rows, other.weight(UP).rows)


def test_aprq8_under_the_name_of_q8_0_in_a_gguf_is_read_as_what_it_is(tmp_path):
    """As `apr export` wrote it before 0.40: 4 + n bytes where Q8_0 has 34 for 32 values."""
    tiny_gguf(tmp_path / "m.gguf", "qwen2", "Q8_0", layers=1, vocab=96)
    reader = gguf.GGUFReader(tmp_path / "m.gguf")
    head = (tmp_path / "m.gguf").read_bytes()[: min(tensor.data_offset for tensor in reader.tensors)]
    data, moved = b"", {}
    for tensor in reader.tensors:
        raw = tensor.data.tobytes()
        if tensor.tensor_type == gguf.GGMLQuantizationType.Q8_0:
            raw = moved[tensor.name] = eight_bits(gguf.quants.dequantize(tensor.data, tensor.tensor_type))
        name = struct.pack("<Q", len(tensor.name)) + tensor.name.encode()
        at = head.index(name) + len(name) + 4 + 8 * len(tensor.shape) + 4
        head = head[:at] + struct.pack("<Q", len(data)) + head[at + 8 :]
        data += raw + bytes(-len(raw) % 32)
    (tmp_path / "m.gguf").write_bytes(head + data)
    artifact = open_artifact(tmp_path / "m.gguf")
    assert "of type AprQ8 under the name of Q8_0" in artifact.problems[0]
    info = artifact.info(UP)
    assert info.stored_as == "AprQ8"
    assert np.array_equal(dequantize(artifact.weight(UP)), eight_bit_values(moved["blk.0.ffn_up.weight"], info.shape))


def transposed(model) -> list[AprTensor]:
    tensors = []
    for tensor in apr_tensors(model):
        if tensor.name.endswith("_proj.weight"):
            values = np.ascontiguousarray(tensor.data.view(np.float32).reshape(tensor.shape).T)
            tensors.append(AprTensor(tensor.name, tensor.type, values.shape, values.view(np.uint8).reshape(-1)))
        else:
            tensors.append(tensor)
    return tensors


def test_entrenar_checkpoints(tmp_path):
    """The Hugging Face config as text, and in early ones matrices by input features."""
    model = tiny_model("llama", layers=1)
    config = {
        **{"model_type": "llama", "hidden_size": 64, "num_hidden_layers": 1, "num_attention_heads": 4},
        **{"num_key_value_heads": 2, "intermediate_size": 96, "rms_norm_eps": 1e-5, "rope_theta": 10000.0},
        **{"vocab_size": 128, "max_position_embeddings": 128, "torch_dtype": "float32"},
    }
    metadata = {"model_type": "checkpoint", "license": None, "model_config": json.dumps(config)}
    write_apr(tmp_path / "new.apr", metadata, apr_tensors(model))
    write_apr(tmp_path / "old.apr", metadata, transposed(model))
    new, old = (open_artifact(tmp_path / name) for name in ("new.apr", "old.apr"))
    assert new.config == old.config == model.config
    assert new.problems == ()
    (told,) = old.problems
    assert "7 tensors" in told
    assert "by input features, as early entrenar checkpoints do" in told
    for name, weight in model.weights.items():
        assert np.array_equal(new.weight(name).rows, weight.rows)
        assert np.array_equal(old.weight(name).rows, weight.rows)


@pytest.mark.parametrize("window", [None, 7])
def test_billions_of_layers_are_refused_at_once(tmp_path, window):
    model = tiny_model("qwen2", layers=1)
    more = {"use_sliding_window": True, "sliding_window": window, "max_window_layers": 3} if window else {}
    cases = {2**31 - 1: "gives num_layers as 2147483647", 1 << 14: r"lacks the tensor model\.layers\.1\."}
    for layers, words in cases.items():
        write_apr(tmp_path / "m.apr", apr_metadata(model, num_layers=layers, **more), apr_tensors(model))
        start = time.monotonic()
        with pytest.raises(WorkbenchError, match=words):
            open_artifact(tmp_path / "m.apr")
        assert time.monotonic() - start < 2


def shards(model, folder, count=3) -> dict[str, int]:
    """The model in files, and which of them holds each tensor."""
    tensors, holder = apr_tensors(model), {}
    names = [f"x-0000{n + 1}-of-0000{count}.apr" for n in range(count)]
    for n, name in enumerate(names):
        sharding = {"shard_count": count, "shard_index": n, "total_size": 0, "pattern": "x-{:05d}-of-{:05d}.apr"}
        metadata = apr_metadata(model) if n == 0 else {"model_type": "qwen2"}
        write_apr(folder / name, metadata | {"sharding": sharding}, tensors[n::count])
        holder |= {tensor.name: n for tensor in tensors[n::count]}
    files = [{"filename": name, "index": n, "size": 1, "tensors": []} for n, name in enumerate(names)]
    manifest = {"version": 1, "shard_count": count, "shards": files, "weight_map": holder}
    (folder / "x.json").write_text(json.dumps(manifest))
    return holder


@pytest.mark.parametrize("given", ["x-00001-of-00003.apr", "x-00003-of-00003.apr", "x.json"])
def test_any_shard_or_the_manifest_opens_the_model(tmp_path, given):
    model = tiny_model("qwen2", layers=1)
    shards(model, tmp_path)
    artifact = open_artifact(tmp_path / given)
    assert (artifact.config, artifact.problems) == (model.config, ())
    for name, weight in model.weights.items():
        assert np.array_equal(artifact.weight(name).rows, weight.rows)


def test_what_is_wrong_with_a_manifest_is_named(tmp_path):
    holder = shards(tiny_model("qwen2", layers=1), tmp_path)
    manifest = json.loads((tmp_path / "x.json").read_text())
    (tmp_path / "x.json").write_text(json.dumps(manifest | {"weight_map": holder | {UP: (holder[UP] + 1) % 3}}))
    with pytest.raises(WorkbenchError, match=r"x\.json places tensor .*up_proj\.weight in shard"):
        open_model(tmp_path / "x.json")
    for name in ("../x.apr", "/etc/passwd"):
        manifest["shards"][0]["filename"] = name
        (tmp_path / "x.json").write_text(json.dumps(manifest))
        with pytest.raises(WorkbenchError, match="not a plain name in its own folder"):
            open_model(tmp_path / "x.json")


def test_a_missing_or_foreign_shard_is_named(tmp_path):
    shards(tiny_model("qwen2", layers=1), tmp_path)
    first, second, third = (tmp_path / f"x-0000{n}-of-00003.apr" for n in (1, 2, 3))
    second.write_bytes(third.read_bytes())
    refusal = str(open_model(first).refusal)
    assert "x-00002-of-00003.apr says that it is shard 3 of 3, and not 2 of 3" in refusal
    second.unlink()
    model = open_model(first)
    assert "one of 3 shards of a model, and x-00002-of-00003.apr is not beside it" in str(model.refusal)
    assert model.is_part
    first.rename(tmp_path / "y.apr")
    assert "give the manifest, or the name that it had" in str(open_model(tmp_path / "y.apr").refusal)


def compress(content: bytes, how: str) -> bytes:
    """All behind the header as one stream, as realizar reads it."""
    head = content[:6] + bytes([content[6] | {"lz4": 1, "zstandard": 2}[how]]) + content[7:64]
    if how == "lz4":
        return head + pytest.importorskip("lz4.block").compress(content[64:], store_size=True)
    return head + pytest.importorskip("zstandard").ZstdCompressor().compress(content[64:])


@pytest.mark.parametrize("how", ["lz4", "zstandard"])
def test_compressed_files(tmp_path, how):
    model = tiny_apr(tmp_path / "m.apr", "qwen2", layers=1)
    packed = compress((tmp_path / "m.apr").read_bytes(), how)
    (tmp_path / "m.apr").write_bytes(packed)
    artifact = open_artifact(tmp_path / "m.apr")
    assert artifact.config == model.config
    for name, weight in model.weights.items():
        assert np.array_equal(artifact.weight(name).rows, weight.rows)
    assert len(artifact.problems) == 2  # the checksums of the header, whose flag was set here, and of all
    (tmp_path / "m.apr").write_bytes(packed[:64] + packed[70:])
    with pytest.raises(WorkbenchError, match=r"m\.apr says that it is compressed with .* and is not, or is damaged"):
        open_model(tmp_path / "m.apr")


def test_a_bomb_is_not_unpacked(tmp_path, monkeypatch):
    zstandard = pytest.importorskip("zstandard")
    tiny_apr(tmp_path / "m.apr", "qwen2", layers=1)
    head = bytearray((tmp_path / "m.apr").read_bytes()[:64])
    head[6] |= 2
    monkeypatch.setattr("store.files.apr_compressed._ZSTD_FREE", 1 << 20)
    (tmp_path / "m.apr").write_bytes(head + zstandard.ZstdCompressor().compress(bytes(1 << 24)))
    with pytest.raises(WorkbenchError, match=r"m\.apr unpacks to more than any model of its size does"):
        open_model(tmp_path / "m.apr")
    head[6] ^= 3
    (tmp_path / "m.apr").write_bytes(bytes(head) + b"\xff\xff\xff\xff" + bytes(40))
    with pytest.raises(WorkbenchError, match="compressed with LZ4 and is not"):
        open_model(tmp_path / "m.apr")


def test_a_missing_package_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "zstandard", None)
    tiny_apr(tmp_path / "m.apr", "qwen2", layers=1)
    content = bytearray((tmp_path / "m.apr").read_bytes())
    content[6] |= 2
    content[64] = 0x28
    (tmp_path / "m.apr").write_bytes(content)
    with pytest.raises(WorkbenchError, match=r"compressed with Zstandard, .* install layer-workbench\[compressed\]"):
        open_model(tmp_path / "m.apr")
