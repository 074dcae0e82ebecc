"""Models in several GGUF files, and files of big-endian machines, as the gguf package splits and turns them."""

import shutil
import struct
from types import SimpleNamespace

import gguf
import numpy as np
import pytest
from gguf.scripts import gguf_convert_endian

from kernels.errors import WorkbenchError
from kernels.rows.dequantize import dequantize
from kernels.weight import TensorType
from store.encodings import BIG_ENDIAN, of_big_endian
from store.open import open_artifact, open_model
from store.stored_model import TensorInfo
from tests.artifacts import tiny_gguf, tiny_model
from tests.gguf_files import write_gguf

PARTS = [f"m-0000{n}-of-00003.gguf" for n in (1, 2, 3)]


@pytest.fixture
def split(tmp_path):
    """A model of 21 tensors in three files."""
    model = tiny_model("llama", "Q8_0", vocab=300)
    write_gguf(tmp_path / "m.gguf", model, "spm", part=9)
    assert sorted(path.name for path in tmp_path.iterdir()) == PARTS
    return SimpleNamespace(folder=tmp_path, model=model)


@pytest.mark.parametrize("given", PARTS)
def test_any_part_opens_the_whole_model(split, given):
    artifact = open_artifact(split.folder / given)
    assert (artifact.config, artifact.problems) == (split.model.config, ())
    assert [path.name for path in artifact.files] == PARTS
    assert artifact.path == split.folder / PARTS[0]
    assert len(artifact.vocabulary.tokens) == 300
    for name, weight in split.model.weights.items():
        assert np.array_equal(artifact.weight(name).rows, weight.rows)
    assert {info.file.name for info in artifact.tensors.values()} == set(PARTS)


def test_a_divisor_tensor_in_a_later_part_is_read_there(tmp_path):
    model = tiny_model("llama", head_dim=8, heads=8)
    weight = next(iter(model.weights.values()))
    freqs = np.array([1, 1, 2.5, 8], np.float32).view(np.uint8).reshape(1, -1)
    model.weights["rope_freqs.weight"] = type(weight)("", TensorType.F32, (4,), freqs)  # the last one
    write_gguf(tmp_path / "m.gguf", model, part=9)
    assert open_artifact(tmp_path / PARTS[0]).config.rope_factors == (1.0, 1.0, 2.5, 8.0)


def test_a_missing_part_is_named_and_the_others_listed(split):
    (split.folder / PARTS[1]).unlink()
    model = open_model(split.folder / PARTS[2])
    assert str(model.refusal) == (
        "m-00003-of-00003.gguf is part 3 of 3 of a model, and m-00002-of-00003.gguf is not beside it; download all "
        "parts."
    )
    assert model.is_part
    assert 0 < len(model.tensors) < 10


def _of_other_model(split, part):
    write_gguf(split.folder / "other.gguf", tiny_model("llama", "Q8_0", layers=1, vocab=300), "spm", part=9)
    shutil.copyfile(split.folder / "other-00002-of-00002.gguf", split.folder / part)


def _swapped(split, part):
    shutil.copyfile(split.folder / PARTS[2], split.folder / part)


def _same_tensors(split, part):
    data = (split.folder / PARTS[2]).read_bytes()
    at = data.index(b"split.no") + len(b"split.no") + 4
    (split.folder / part).write_bytes(data[:at] + struct.pack("<H", 1) + data[at + 2 :])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (_of_other_model, "m-00002-of-00003.gguf is part 2 of 2 by what it says, and not the part that its name"),
        (_swapped, "m-00002-of-00003.gguf is part 3 of 3 by what it says"),
        (_same_tensors, "which m-00002-of-00003.gguf holds too; one of them belongs to another model"),
        (lambda split, part: (split.folder / part).write_bytes(b"GGML" + bytes(60)), "is no GGUF file"),
        (lambda split, part: tiny_gguf(split.folder / part), "is a whole model by what it says"),
    ],
)
def test_a_foreign_part_is_named(split, change, words):
    change(split, PARTS[1])
    model = open_model(split.folder / PARTS[0])
    assert words in str(model.refusal)
    assert model.is_part


def test_parts_that_do_not_add_up_are_told(split):
    data = (split.folder / PARTS[2]).read_bytes()
    key = b"split.tensors.count"
    at = data.index(key) + len(key) + 4
    (split.folder / PARTS[2]).write_bytes(data[:at] + struct.pack("<i", 24) + data[at + 4 :])
    refusal = str(open_model(split.folder / PARTS[0]).refusal)
    assert "m-00003-of-00003.gguf says that all parts hold 24 tensors, and they hold 21" in refusal


def test_a_renamed_part_says_what_its_name_was_like(split):
    (split.folder / PARTS[1]).rename(split.folder / "x.gguf")
    refusal = str(open_model(split.folder / "x.gguf").refusal)
    assert "x.gguf is part 2 of 3 of a model by what it says" in refusal
    assert "such as NAME-00002-of-00003.gguf" in refusal


def turn(path, monkeypatch):
    """Make a file of it that is big-endian, with the gguf package's own script."""
    monkeypatch.setattr("builtins.input", lambda *_: "YES")
    monkeypatch.setattr("sys.argv", ["x", str(path), "big"])
    gguf_convert_endian.main()


@pytest.mark.parametrize("type", ["F32", "F16", "BF16", "Q4_0", "Q8_0", "Q4_K", "Q6_K", "MXFP4"])
def test_big_endian_files_hold_the_same_model(tmp_path, monkeypatch, type):
    model = tiny_gguf(tmp_path / "m.gguf", "llama", type, layers=1, vocab=300, vocabulary="spm")
    whole = (tmp_path / "m.gguf").read_bytes()
    turn(tmp_path / "m.gguf", monkeypatch)
    turned = (tmp_path / "m.gguf").read_bytes()
    assert len(turned) == len(whole)
    assert turned[4:8] == b"\0\0\0\3"
    artifact = open_artifact(tmp_path / "m.gguf")
    assert artifact.config == model.config
    assert artifact.problems == ("m.gguf is of a big-endian machine; llama.cpp reads it on such machines only.",)
    assert artifact.vocabulary.scores.decode() == [0.0] * 300
    assert artifact.vocabulary.tokens.decode()[:3] == ["<unk>", "<s>", "</s>"]
    for name, weight in model.weights.items():
        assert np.array_equal(artifact.weight(name).rows, weight.rows)
        assert np.array_equal(dequantize(artifact.weight(name)), dequantize(weight))


# Where ggml-common.h has half-precision numbers in the blocks of types that the package's script leaves alone.
HALVES = {
    **{"Q4_1": (0, 2), "Q5_0": (0,), "Q5_1": (0, 2), "Q2_K": (80, 82), "Q3_K": (108,), "Q5_K": (0, 2)},
    **{"IQ4_NL": (0,), "TQ1_0": (52,), "TQ2_0": (64,), "IQ2_S": (0,), "IQ3_S": (0,), "Q1_0": (0,), "Q2_0": (0,)},
    **{"NVFP4": ()},
}


@pytest.mark.parametrize("type", TensorType)
def test_every_type_is_turned_where_it_has_numbers_of_several_bytes_or_is_refused(type):
    blocks = np.random.default_rng(0).integers(0, 256, (3, 5 * type.block.bytes), np.uint8)
    if of_big_endian(type) is not type:
        assert type.name in ("IQ1_S", "IQ1_M", "IQ2_XXS", "IQ2_XS", "IQ3_XXS", "IQ4_XS")
        assert "big-endian" in of_big_endian(type).note
        return

    def turned(data: np.ndarray) -> np.ndarray:
        return BIG_ENDIAN.decoded(data, type, data.shape).reshape(data.shape)

    back = turned(turned(blocks))
    assert np.array_equal(back, blocks)
    if type.name in HALVES:
        moved = (turned(np.arange(type.block.bytes, dtype=np.uint8)) != np.arange(type.block.bytes)).nonzero()[0]
        assert moved.tolist() == [at + half for at in HALVES[type.name] for half in (0, 1)]


def test_a_type_whose_order_nobody_settled_is_listed_and_not_read(tmp_path):
    writer = gguf.GGUFWriter(tmp_path / "m.gguf", "llama", endianess=gguf.GGUFEndian.BIG)
    for name, kind, size in (("a", gguf.GGMLQuantizationType.IQ4_XS, 136), ("b", gguf.GGMLQuantizationType.I32, 1024)):
        writer.add_tensor(name, np.zeros((2, size), np.uint8), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    model = open_model(tmp_path / "m.gguf")
    info: TensorInfo = model.tensors["a"]
    assert info.unread == ("type IQ4_XS (in big-endian order, in which no converter writes it) cannot be read yet")
    assert model.stored_bytes("b") is None
    with pytest.raises(WorkbenchError, match="big-endian order"):
        model.weight("a")
