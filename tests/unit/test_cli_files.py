"""inspect, weights and convert on real files."""

import json
import shutil

import numpy as np
import pytest

from store.open import open_artifact
from tests.artifacts import tiny_apr, tiny_gguf, tiny_safetensors
from workbench.__main__ import run
from workbench.demo import MODEL, make_copy


def printed(arguments, capsys, status=0):
    assert run([*map(str, arguments), "--json"]) == status
    return json.loads(capsys.readouterr().out)


def test_inspect_lists_what_the_file_holds(capsys):
    record = printed(["inspect", MODEL], capsys)
    assert record["types"]["Q4_K"]["tensors"] == 39
    assert sum(of["tensors"] for of in record["types"].values()) == len(record["tensors"]) == 75
    assert record["tokenizer"]["pre"] == "gpt-2"
    assert run(["inspect", str(MODEL)]) == 0
    text = capsys.readouterr().out
    assert "model.layers.5.mlp.down_proj.weight" in text
    assert "no problems found" in text


def test_inspect_tells_what_a_trace_of_another_engine_holds(tmp_path, capsys):
    np.savez(tmp_path / "dump.npz", **{"stage|0|attn_norm": np.ones((2, 8), np.float32)})
    record = printed(["inspect", tmp_path / "dump.npz"], capsys)
    assert record["tokens"] is None
    assert record["stages"] == [{"layer": 0, "stage": "attn_norm", "shape": [2, 8], "dtype": "float32"}]
    assert run(["inspect", str(tmp_path / "dump.npz")]) == 0
    text = capsys.readouterr().out
    assert "1 of 19 measured" in text
    assert "what the format does not say" in text


def test_inspect_shows_no_escape_sequence_of_a_file(tmp_path, capsys):
    hostile = MODEL.read_bytes().replace(b"gpt-2", b"g\x1b[2J")
    (tmp_path / "hostile.gguf").write_bytes(hostile)
    assert run(["inspect", str(tmp_path / "hostile.gguf")]) == 0
    out = capsys.readouterr().out
    assert "\x1b" not in out
    assert "\\x1b[2J" in out


@pytest.mark.parametrize("cut", [0, 3, 100, 100_000, 3_000_000])
def test_a_truncated_file_is_one_sentence(cut, tmp_path, capsys):
    (tmp_path / "cut.gguf").write_bytes(MODEL.read_bytes()[:cut])
    assert run(["inspect", str(tmp_path / "cut.gguf")]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert "cut.gguf" in err
    assert err.count("\n") == 1


def test_convert_keeps_every_byte_and_never_overwrites(tmp_path, capsys):
    copy = tmp_path / "copy.apr"
    assert printed(["convert", MODEL, "-o", copy], capsys)["tensors"] == 75
    assert printed(["weights", MODEL, copy], capsys)["outside_band"] == 0
    a, b = open_artifact(MODEL), open_artifact(copy)
    assert all((a.weight(name).rows == b.weight(name).rows).all() for name in a.tensors)
    before = copy.read_bytes()
    assert run(["convert", str(MODEL), "-o", str(copy)]) == 2
    assert "--force" in capsys.readouterr().err
    assert run(["convert", str(copy), "-o", str(copy), "--force"]) == 2
    assert copy.read_bytes() == before
    shutil.copy(MODEL, tmp_path / "other.apr")
    assert run(["convert", str(copy), "-o", str(tmp_path / "other.apr"), "--force"]) == 0
    assert run(["convert", str(copy), "-o", str(tmp_path / "no" / "folder.apr")]) == 2


def test_weights_across_formats_are_identical(tmp_path, capsys):
    tiny_gguf(tmp_path / "a.gguf", "llama")
    tiny_safetensors(tmp_path / "b", "llama")
    record = printed(["weights", tmp_path / "a.gguf", tmp_path / "b"], capsys)
    assert {tensor["status"] for tensor in record["tensors"]} == {"identical"}
    assert record["compared"] == record["expected"]
    reordered = [tensor["name"] for tensor in record["tensors"] if tensor["findings"]]
    assert all(("q_proj" in name) or ("k_proj" in name) for name in reordered)
    assert reordered


def test_weights_names_the_faulty_tensor(tmp_path, capsys):
    make_copy(tmp_path / "bad.apr", "permuted_rope", layer=2)
    record = printed(["weights", MODEL, tmp_path / "bad.apr"], capsys, status=1)
    outside = [tensor for tensor in record["tensors"] if not tensor["in_band"]]
    assert [tensor["name"] for tensor in outside] == [
        f"model.layers.2.self_attn.{module}_proj.weight" for module in ("q", "k")
    ]
    assert "adjacent-pair" in outside[0]["findings"][0]
    assert run(["weights", str(MODEL), str(tmp_path / "bad.apr")]) == 1
    assert "2 outside the band" in capsys.readouterr().out


def test_weights_lists_unmatched_tensors(tmp_path, capsys):
    tiny_apr(tmp_path / "a.apr", "qwen2")
    tiny_apr(tmp_path / "b.apr", "llama")
    record = printed(["weights", tmp_path / "a.apr", tmp_path / "b.apr"], capsys, status=1)
    unmatched = {tensor["name"] for tensor in record["tensors"] if tensor["status"] == "only_a"}
    assert unmatched
    assert all(name.endswith(".bias") for name in unmatched)
    assert record["compared"] == record["expected"] - len(unmatched)
