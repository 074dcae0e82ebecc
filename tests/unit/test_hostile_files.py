"""Files that lie: always one sentence, at once, without a large allocation."""

import json
import os
import struct
from pathlib import Path

import pytest

from kernels.errors import WorkbenchError
from store.open import open_artifact
from tests.artifacts import tiny_gguf, tiny_safetensors

SMALL = {"layers": 1, "hidden": 32, "heads": 2, "kv_heads": 1, "head_dim": 16, "ffn": 32, "vocab": 260}


def string(text: bytes, length: int | None = None) -> bytes:
    return struct.pack("<Q", len(text) if length is None else length) + text


def key(name: bytes, type: int, value: bytes) -> bytes:
    return string(name) + struct.pack("<I", type) + value


def tensor(name: bytes, dims: list[int], type: int = 0, offset: int = 0) -> bytes:
    return string(name) + struct.pack(f"<I{len(dims)}QIQ", len(dims), *dims, type, offset)


def array(element: int, length: int, data: bytes = b"") -> bytes:
    return struct.pack("<IQ", element, length) + data


ARCHITECTURE = key(b"general.architecture", 8, string(b"llama"))


def gguf_file(*, keys=(ARCHITECTURE,), tensors=(), n_keys=None, n_tensors=None, version=3, data=b"") -> bytes:
    head = struct.pack(
        "<4sIQQ",
        b"GGUF",
        version,
        len(tensors) if n_tensors is None else n_tensors,
        len(keys) if n_keys is None else n_keys,
    )
    head += b"".join(keys) + b"".join(tensors)
    return head + bytes(-len(head) % 32) + data


F32 = bytes(32)

GGUF_FILES = {
    "magic alone": (b"GGUF", "the GGUF header would end at byte 24"),
    "big-endian, version 99": (struct.pack(">4sIQQ", b"GGUF", 99, 0, 0), "is GGUF version 99"),
    "big-endian, 2**60 tensors": (struct.pack(">4sIQQ", b"GGUF", 3, 2**60, 0), "claims 1152921504606846976 tensors"),
    "43 bytes with counts at their limits": (
        struct.pack("<4sIQQ", b"GGUF", 3, 1 << 16, 1 << 14) + key(b"k", 9, array(8, 1 << 22))[:19],
        "would end at byte",
    ),
    "version 99": (gguf_file(version=99), "is GGUF version 99; supported are versions 2 and 3"),
    "2**60 tensors": (gguf_file(n_tensors=2**60), "claims 1152921504606846976 tensors"),
    "2**60 keys": (gguf_file(n_keys=2**60), "claims 1152921504606846976 metadata entries"),
    "more tensors than there are": (gguf_file(keys=(), n_tensors=1000), "would end at byte"),
    "name of 2**63 bytes": (gguf_file(tensors=[string(b"x", 2**63)]), "a tensor name would end at byte"),
    "key of 2**64-1 bytes": (gguf_file(keys=[string(b"x", 2**64 - 1)]), "a metadata key would end at byte"),
    "value of 2**62 bytes": (gguf_file(keys=[key(b"k", 8, string(b"", 2**62))]), "metadata k would end at byte"),
    "array of 2**60 numbers": (gguf_file(keys=[key(b"k", 9, array(4, 2**60))]), "an array of 1152921504606846976"),
    "array of 2**60 strings": (gguf_file(keys=[key(b"k", 9, array(8, 2**60))]), "claims more than 4194304 strings"),
    "array that leaves the file": (gguf_file(keys=[key(b"k", 9, array(4, 99))]), "metadata k would end at byte"),
    "string array that leaves the file": (
        gguf_file(keys=[key(b"k", 9, array(8, 2, string(b"", 2**63)))]),
        "metadata k would end at byte",
    ),
    "array of arrays": (gguf_file(keys=[key(b"k", 9, array(9, 1))]), "an array of 1 elements of type 9"),
    "unknown value type": (gguf_file(keys=[key(b"k", 13, b"")]), "metadata k has the unknown type 13"),
    "key twice": (gguf_file(keys=[key(b"k", 0, b"\1")] * 2), "metadata key k stands there twice"),
    "no architecture": (gguf_file(keys=()), r"does not say general\.architecture"),
    "architecture is a number": (gguf_file(keys=[key(b"general.architecture", 4, bytes(4))]), "gives general.architec"),
    "a part of several": (gguf_file(keys=[key(b"split.count", 2, b"\3\0")]), "is part 1 of 3 of a model"),
    "part 4 of 3": (
        gguf_file(keys=[key(b"split.count", 2, b"\3\0"), key(b"split.no", 2, b"\3\0")]),
        "says that it is part 4 of 3",
    ),
    "alignment 3": (gguf_file(keys=[key(b"general.alignment", 4, b"\3\0\0\0")]), "alignment is 3, not a power of two"),
    "alignment 0": (gguf_file(keys=[key(b"general.alignment", 4, bytes(4))]), "gives general.alignment as 0"),
    "no dimension": (gguf_file(tensors=[tensor(b"t", [])]), "claims 0 dimensions"),
    "2**32-1 dimensions": (gguf_file(tensors=[string(b"t") + b"\xff" * 4]), "claims 4294967295 dimensions"),
    "empty tensor": (gguf_file(tensors=[tensor(b"t", [0])], data=F32), "has the shape 0"),
    "three dimensions, cut off": (gguf_file(tensors=[tensor(b"t", [2, 2, 3])], data=F32), "tensor t would end at byte"),
    "overflowing dimensions": (
        gguf_file(tensors=[tensor(b"t", [2**63, 2**63])], data=F32),
        "tensor t would end at byte",
    ),
    "offset out of the file": (
        gguf_file(tensors=[tensor(b"t", [8], offset=2**64 - 32)], data=F32),
        "tensor t would end",
    ),
    "data cut off": (gguf_file(tensors=[tensor(b"t", [8])], data=F32[1:]), "tensor t would end at byte"),
    "partial block": (gguf_file(tensors=[tensor(b"t", [8], type=8)], data=F32), "do not fill whole Q8_0 blocks of 32"),
    "dead type, partial block": (gguf_file(tensors=[tensor(b"t", [8], type=4)], data=F32), "whole Q4_2 blocks of 16"),
    "later type, cut off": (gguf_file(tensors=[tensor(b"t", [64], type=39)], data=F32), "tensor t would end at byte"),
    "type 2**32-1": (
        gguf_file(tensors=[tensor(b"token_embd.weight", [8], type=2**32 - 1)], data=F32),
        r"lacks|does not say",
    ),
    "overlap": (gguf_file(tensors=[tensor(b"t", [8]), tensor(b"u", [4], offset=28)], data=F32 * 2), "t and u overlap"),
    "tensor twice": (
        gguf_file(tensors=[tensor(b"t", [8]), tensor(b"t", [8], offset=32)], data=F32 * 2),
        "stores t twice",
    ),
    "other architecture, with tensors of its own": (
        gguf_file(
            keys=[key(b"general.architecture", 8, string(b"mamba2"))],
            tensors=[tensor(b"t", [32, 1, 2], type=39)],
            data=F32 * 2,
        ),
        "has the architecture mamba2, which this program does not run",
    ),
    "no embedding": (gguf_file(), r"lacks the tensor token_embd\.weight"),
    "escape sequence": (
        gguf_file(tensors=[tensor("\x1b[2J\u202e".encode() + b"\xff", [0])]),
        r"tensor \\x1b\[2J\\u202e\\xff has the shape 0",
    ),
}


@pytest.mark.parametrize("case", GGUF_FILES)
def test_gguf_that_lies(tmp_path, case):
    content, words = GGUF_FILES[case]
    (tmp_path / "m.gguf").write_bytes(content)
    with pytest.raises(WorkbenchError, match=words) as error:
        open_artifact(tmp_path / "m.gguf")
    assert str(error.value).startswith("m.gguf")
    assert str(error.value).isprintable()


APR_HEADER = "<4sBBHIQIQQI20x"
ENTRY = struct.pack("<H1sBB3Q", 1, b"t", 0, 1, 8, 0, 32)


def apr_file(
    *,
    count=1,
    metadata=b'{"architecture":"llama"}',
    metadata_at=64,
    size=None,
    index=ENTRY,
    index_at=None,
    data_at=None,
) -> bytes:
    start = 64 + len(metadata) if index_at is None else index_at
    data = 64 + len(metadata) + len(index) if data_at is None else data_at
    size = len(metadata) if size is None else size
    return (
        struct.pack(APR_HEADER, b"APR\0", 2, 0, 0x400, count, metadata_at, size, start, data, 0)
        + metadata
        + index
        + F32
    )


def entry(name=b"t", length=None, code=0, dims=(8,), offset=0, size=32, n_dims=None) -> bytes:
    head = struct.pack("<H", len(name) if length is None else length) + name
    n_dims = len(dims) if n_dims is None else n_dims
    return head + struct.pack(f"<BB{len(dims)}QQQ", code, n_dims, *dims, offset, size)


APR_FILES = {
    "magic alone": (b"APR\0", "the header would end at byte 64"),
    "version 1 magic alone": (b"APRN", "is an APR version 1 file"),
    "2**32-1 tensors": (apr_file(count=2**32 - 1), "claims 4294967295 tensors"),
    "metadata out of the file": (apr_file(metadata_at=2**63), "the metadata would end at byte"),
    "metadata of 4 GB": (apr_file(size=2**32 - 1), "the metadata would end at byte"),
    "index out of the file": (apr_file(index_at=2**64 - 1), "the tensor index would end at byte"),
    "data out of the file": (apr_file(data_at=2**64 - 1), "the tensor data would end at byte"),
    "data before index": (apr_file(data_at=64), "starts before its tensor index"),
    "metadata no JSON": (apr_file(metadata=b"{]"), "metadata of m.apr is not valid JSON"),
    "metadata no object": (apr_file(metadata=b"[1]"), "metadata of m.apr is JSON, but not an object"),
    "metadata not UTF-8": (apr_file(metadata=b'{"\xff":1}'), "metadata of m.apr is not valid JSON"),
    "metadata nested deeply": (apr_file(metadata=b"[" * 100_000), "nested too deeply"),
    "metadata with many brackets": (apr_file(metadata=b"[" * 2_000_000), "larger than that of any known model"),
    "number of 5000 digits": (apr_file(metadata=b'{"a":' + b"9" * 5000 + b"}"), "is not valid JSON"),
    "index cut off": (apr_file(count=2), "its index ends after 1 of 2 tensors"),
    "name too long": (apr_file(index=entry(length=65535)), "a tensor name has 65535 bytes"),
    "name leaves the index": (apr_file(index=entry(length=200)), "its index ends after 0 of 1 tensors"),
    "255 dimensions": (apr_file(index=entry(n_dims=255)), "claims 255 dimensions"),
    "no dimension": (apr_file(index=entry(dims=())), r"has the shape \(\)"),
    "overflowing dimensions": (apr_file(index=entry(dims=(2**63, 2**63))), "which do not make 32 bytes"),
    "offset out of the file": (apr_file(index=entry(offset=2**64 - 1)), "tensor t would end at byte"),
    "size out of the file": (apr_file(index=entry(size=2**64 - 1)), "tensor t would end at byte"),
    "overlap": (apr_file(count=2, index=ENTRY * 2), "tensors t and t overlap"),
    "no architecture": (apr_file(metadata=b"{}"), "does not say model_type"),
    "hidden size of 10**30": (
        apr_file(metadata=b'{"architecture":"llama","hidden_size":1e30}', index=entry(b"output.weight")),
        "lacks the tensor model.embed_tokens.weight",
    ),
    "escape sequence": (apr_file(index=entry(b"\x1b]0;x\x07", dims=())), r"tensor \\x1b\]0;x\\x07 has the shape"),
}


@pytest.mark.parametrize("case", APR_FILES)
def test_apr_that_lies(tmp_path, case):
    content, words = APR_FILES[case]
    (tmp_path / "m.apr").write_bytes(content)
    with pytest.raises(WorkbenchError, match=words) as error:
        open_artifact(tmp_path / "m.apr")
    assert str(error.value).isprintable()


OTHER_FILES = {
    "empty": (b"", "x is empty"),
    "zeros": (bytes(100), "of an unknown format"),
    "text": (b"hello, world: this is no model", "of an unknown format"),
    "HDF5": (b"\x89HDF\r\n\x1a\n" + bytes(50), "an HDF5 file, perhaps a recorded trace"),
    "zip": (b"PK\3\4" + bytes(50), "a zip archive, perhaps a PyTorch checkpoint"),
    "pickle": (b"\x80\x02" + bytes(50), "a Python pickle"),
    "GGML": (b"lmgg" + bytes(50), "from before GGUF"),
    "GGJT": (b"tjgg" + bytes(50), "from before GGUF"),
    "GGMF": (b"fmgg" + bytes(50), "from before GGUF"),
    "LFS pointer": (b"version https://git-lfs.github.com/spec/v1\n", "run `git lfs pull`"),
    "other JSON": (b'{"hidden_size": 1}', "has no weight_map"),
    "length alone": (struct.pack("<Q", 2**40) + b"{", "the header would end at byte"),
}


@pytest.mark.parametrize("case", OTHER_FILES)
def test_what_is_no_model_is_told_by_what_it_is(tmp_path, case):
    content, words = OTHER_FILES[case]
    (tmp_path / "x").write_bytes(content)
    with pytest.raises(WorkbenchError, match=words):
        open_artifact(tmp_path / "x")


def test_pipes_devices_and_odd_paths_do_not_hang(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", "/dev/zero", "nul\0byte", "x" * 5000, "sur\udcffrogate"):
        with pytest.raises(WorkbenchError) as error:
            open_artifact(path)
        assert str(error.value).isprintable()


@pytest.mark.parametrize("fill", ["strings", "keys", "tensors"])
def test_a_huge_sparse_file_is_refused_without_holding_it(tmp_path, fill):
    """100 GB of zeros are a valid sequence of empty strings; the counts allow the most that is read."""
    head = {
        "strings": gguf_file(keys=[key(b"k", 9, array(8, 2**22))]),
        "keys": gguf_file(n_keys=1 << 14),
        "tensors": gguf_file(n_tensors=1 << 16),
    }[fill]
    path: Path = tmp_path / "m.gguf"
    path.write_bytes(head)
    os.truncate(path, 100 << 30)
    with pytest.raises(WorkbenchError):
        open_artifact(path)


def test_deep_metadata_of_an_otherwise_sound_file_stays_a_problem_of_its_own(tmp_path):
    model = tiny_safetensors(tmp_path, **SMALL)
    config = json.loads((tmp_path / "config.json").read_text())
    config["extra"] = [[["\x1b[31m"]]]
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert open_artifact(tmp_path).config == model.config


@pytest.mark.parametrize("container", ["gguf", "safetensors"])
def test_billions_of_layers_are_refused_at_once(tmp_path, container):
    """A list of the kinds of all layers would not fit in memory."""
    if container == "gguf":
        tiny_gguf(tmp_path / "m.gguf", "qwen2", **SMALL)
        content = (tmp_path / "m.gguf").read_bytes()
        at = content.index(b"qwen2.block_count") + len(b"qwen2.block_count") + 4
        (tmp_path / "m.gguf").write_bytes(content[:at] + struct.pack("<I", 2**31 - 1) + content[at + 4 :])
    else:
        tiny_safetensors(tmp_path, "qwen2", **SMALL)
        config = json.loads((tmp_path / "config.json").read_text()) | {"num_hidden_layers": 2**31 - 1}
        (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(WorkbenchError, match=r"(block_count|num_hidden_layers) as 2147483647, which is not"):
        open_artifact(tmp_path / "m.gguf" if container == "gguf" else tmp_path)
