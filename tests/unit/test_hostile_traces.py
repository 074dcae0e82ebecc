"""Foreign traces that are damaged or malicious: one sentence, within bounds, never a crash."""

import io
import re
import struct
import zipfile

import numpy as np
import pytest

from kernels.stages import Site
from store.errors import StoreError
from store.traces.open import open_trace
from tests.foreign_dumps import run, write_stage_dump
from tests.memory_model import random_model


def zipped(path, members, **options):
    with zipfile.ZipFile(path, "w", **options) as archive:
        for name, content in members.items():
            archive.writestr(name, content)


def npy(array) -> bytes:
    stream = io.BytesIO()
    np.lib.format.write_array(stream, array)
    return stream.getvalue()


STAGE, META_KEY, INDEX_KEY, NODE_KEY = (
    "stage|-1|embedding.npy",
    "__meta__.npy",
    "__index__.npy",
    "00000|embd|GET_ROWS.npy",
)
ROWS = npy(np.ones((5, 64), np.float32))
CASES = [
    ("no array of a known stage", {"a.npy": ROWS}),
    ("model.pkl is not a numpy array", {"model.pkl": b"x"}),
    ("holds Python objects", {STAGE: npy(np.array([{}], dtype=object))}),
    ("<i4 of shape (5, 64), which no stage tensor is", {STAGE: npy(np.ones((5, 64), np.int32))}),
    ("float32 of shape (0, 64), which no stage tensor is", {STAGE: npy(np.ones((0, 64), np.float32))}),
    ("bytes where its header tells", {STAGE: ROWS.replace(b"(5, 64), ", b"(5, 9999)")}),
    ("__meta__ of x.npz is not valid JSON", {META_KEY: npy(np.array("{")), STAGE: ROWS}),
    ("nested too deeply", {META_KEY: npy(np.array("[" * 200_000)), STAGE: ROWS}),
    ("__meta__ is JSON, but not an object", {META_KEY: npy(np.array("[]")), STAGE: ROWS}),
    ("tokens of __meta__ are not token ids", {META_KEY: npy(np.array('{"tokens": [1.5]}')), STAGE: ROWS}),
    ("__meta__ is not a text", {META_KEY: ROWS, STAGE: ROWS}),
    ("has 5 rows, but __meta__ names 2 tokens", {META_KEY: npy(np.array('{"tokens": [1, 2]}')), STAGE: ROWS}),
    ("5 tokens were embedded, but __meta__ names 2", {META_KEY: npy(np.array('{"tokens": [1, 2]}')), NODE_KEY: ROWS}),
    ("__index__ of x.npz is not valid JSON", {NODE_KEY: ROWS, INDEX_KEY: npy(np.array("?"))}),
    ("__index__ is JSON, but not a list", {NODE_KEY: ROWS, INDEX_KEY: npy(np.array("{}"))}),
    ("has no seq, name", {NODE_KEY: ROWS, INDEX_KEY: npy(np.array('[{"seq": -1}]'))}),
    ("shape (5,), which no stage has", {NODE_KEY: npy(np.ones(5, np.float32))}),
]


@pytest.mark.parametrize(("words", "members"), CASES, ids=[words for words, _ in CASES])
def test_archives_that_are_not_dumps_get_one_sentence(tmp_path, words, members):
    zipped(tmp_path / "x.npz", members)
    with pytest.raises(StoreError, match=re.escape(words)) as error:
        open_trace(tmp_path / "x.npz")
    assert str(error.value).isprintable()


def test_what_an_archive_claims_to_unpack_to_is_bounded_before_it_is_unpacked(tmp_path):
    path = tmp_path / "x.npz"
    zipped(path, {"stage|-1|embedding.npy": npy(np.zeros((5, 64), np.float32))}, compression=zipfile.ZIP_DEFLATED)
    data = bytearray(path.read_bytes())
    entry = data.rindex(b"PK\x01\x02")
    data[entry + 24 : entry + 28] = struct.pack("<I", 0xFFFF_FFF0)
    path.write_bytes(data)
    with pytest.raises(StoreError, match="claims 4294967280 bytes, more than can be in there"):
        open_trace(path)


def test_values_that_do_not_have_their_checksum_are_not_returned(tmp_path):
    for compressed in (False, True):
        write_stage_dump(tmp_path / "dump", run(random_model(), (5, 7)), {"tokens": [5, 7]}, compressed)
        path = tmp_path / "dump.npz"
        data = bytearray(path.read_bytes())
        with zipfile.ZipFile(path) as archive:
            info = archive.getinfo("stage|0|ffn_up.npy")
        data[info.header_offset + 30 + 200 + info.compress_size // 2] ^= 1
        path.write_bytes(data)
        trace = open_trace(path)
        with pytest.raises(StoreError, match=r"checksum|cannot be unpacked"):
            trace.read(Site(0, "ffn_up"))


def test_numbers_that_are_no_characters_are_no_text(tmp_path):
    beyond = npy(np.array("{ }")).replace("{ }".encode("utf-32-le"), b"{\0\0\0\xff\xff\xff\x7f}\0\0\0")
    zipped(tmp_path / "x.npz", {META_KEY: beyond, STAGE: ROWS})
    with pytest.raises(StoreError, match="the text __meta__ cannot be decoded"):
        open_trace(tmp_path / "x.npz")
