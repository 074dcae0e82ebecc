"""Source, copy and engine: the side that a fault was planted in is the one that is named."""

import json
from dataclasses import replace
from pathlib import Path

import gguf
import jsonschema
import numpy as np
import pytest

import workbench
from kernels.rows.dequantize import dequantize
from kernels.stages import Site
from kernels.weight import TensorType, Weight
from tests.artifacts import tiny_model
from tests.foreign_dumps import run as stages_of
from tests.foreign_dumps import run_changed, write_stage_dump
from tests.gguf_files import write_gguf
from tests.reference.forward import literal_forward
from workbench.__main__ import run
from workbench.sides.requantized import Tensors, made

SCHEMA = json.loads((Path(workbench.__file__).parent / "schemas/sides.schema.json").read_text(encoding="utf-8"))
TOKENS = (5, 10, 7, 7, 31, 12)
SIZES = {"heads": 2, "kv_heads": 1, "head_dim": 32, "hidden": 64, "ffn": 64, "vocab": 64, "layers": 1, "seed": 3}
UP = "model.layers.0.mlp.up_proj.weight"
LOGITS = Site(None, "lm_head")


def quantized(weight, type):
    """A matrix as gguf-py quantizes it; a vector as it is."""
    if len(weight.shape) == 1:
        return weight
    rows = gguf.quants.quantize(dequantize(weight), gguf.GGMLQuantizationType[type]).view(np.uint8)
    return Weight(weight.name, TensorType[type], weight.shape, np.ascontiguousarray(rows.reshape(weight.shape[0], -1)))


def copied(model, type, change=lambda _name, weight: weight):
    weights = {name: quantized(change(name, weight), type) for name, weight in model.weights.items()}
    return replace(model, weights=weights)


@pytest.fixture
def source(tmp_path):
    model = tiny_model("llama", "F32", **SIZES)
    write_gguf(tmp_path / "source.gguf", model)
    return model


def asked(capsys, folder, status, copy, stages, path="ggml", **meta):
    """The answer on a copy and what an engine computed with it."""
    write_gguf(folder / "copy.gguf", copy)
    about = {"engine": "workbench", "numeric_path": path, "tokens": list(TOKENS)} | meta
    write_stage_dump(folder / "t.npz", stages, about)
    files = [str(folder / name) for name in ("source.gguf", "copy.gguf")]
    assert run(["bisect", *files, "--trace", str(folder / "t.npz"), "--json"]) == status
    answer = json.loads(capsys.readouterr().out)
    jsonschema.validate(answer, SCHEMA)
    return answer


def scaled(name, weight):
    return replace(weight, stored=(dequantize(weight) * np.float32(1.5)).view(np.uint8)) if name == UP else weight


def reversed_rows(site, values, _known):
    return values[:, ::-1].copy() if site == Site(0, "ffn_up") else values


def test_where_all_is_well_nobody_is_named(source, tmp_path, capsys):
    copy = copied(source, "Q8_0")
    answer = asked(capsys, tmp_path, 0, copy, stages_of(copy, TOKENS, "ggml"))
    assert (answer["verdict"], answer["faults"]) == ("none", [])
    counts = answer["artifact"]["tensors"]
    matrices = sum(len(weight.shape) > 1 for weight in copy.weights.values())
    assert counts == {
        **{"copied": len(copy.weights) - matrices, "requantized": matrices},
        **{"explained": 0, "uncomparable": [], "wrong": []},
    }
    p, q = (np.exp(literal_forward(m.config, m.values(), TOKENS)[None, "lm_head"]) for m in (copy, source))
    p, q = (x / x.sum(axis=1, keepdims=True) for x in (p, q))
    assert answer["arbiter"]["copy"]["kl"] == pytest.approx((p * np.log(p / q)).sum(axis=1).mean(), rel=1e-6)


def test_coarse_types_are_a_recipe_and_no_fault(source, tmp_path, capsys):
    copy = copied(source, "Q4_0")
    answer = asked(capsys, tmp_path, 0, copy, stages_of(copy, TOKENS, "f32"), "f32")
    assert (answer["verdict"], answer["faults"], answer["engine"]["verdict"]) == ("recipe", [], "alike")
    assert answer["arbiter"]["copy"]["kl"] > 8 * answer["arbiter"]["engine"]["kl"]


def test_a_fault_in_the_copy_is_the_artifacts(source, tmp_path, capsys):
    copy = copied(source, "Q8_0", scaled)
    answer = asked(capsys, tmp_path, 1, copy, stages_of(copy, TOKENS, "ggml"))
    assert (answer["verdict"], answer["faults"]) == ("artifact", ["artifact"])
    assert answer["artifact"]["culprit"]["cause"] == "scaled"
    assert answer["artifact"]["tensors"]["wrong"] == [UP]


def test_a_fault_in_the_recording_is_the_engines(source, tmp_path, capsys):
    copy = copied(source, "Q8_0")
    answer = asked(capsys, tmp_path, 1, copy, run_changed(copy, TOKENS, reversed_rows, "ggml"))
    assert (answer["verdict"], answer["faults"], answer["artifact"]["verdict"]) == (
        *("engine", ["engine"]),
        "quantization_only",
    )
    assert answer["engine"]["culprit"]["stage"] == "ffn_up"


def test_of_two_faults_the_one_that_moves_the_output_further(source, tmp_path, capsys):
    copy = copied(source, "Q8_0", scaled)
    answer = asked(capsys, tmp_path, 1, copy, run_changed(copy, TOKENS, reversed_rows, "ggml"))
    assert answer["faults"] == ["artifact", "engine"]
    moved = {"artifact": answer["arbiter"]["copy"]["kl"], "engine": answer["arbiter"]["engine"]["kl"]}
    assert answer["verdict"] == max(moved, key=moved.get)


def test_a_tensor_of_another_shape_is_named_and_explained_by_nothing(source, tmp_path, capsys):
    copy = copied(tiny_model("llama", "F32", **SIZES | {"ffn": 96}), "Q8_0")
    answer = asked(capsys, tmp_path, 2, copy, stages_of(copy, TOKENS, "ggml"))
    of_the_block = {name for name in copy.weights if ".mlp." in name}
    assert (answer["verdict"], set(answer["artifact"]["tensors"]["uncomparable"])) == ("undecided", of_the_block)
    assert "not comparable" in Tensors(uncomparable=(UP,)).words


def test_what_cannot_be_told_is_undecided(source, tmp_path, capsys):
    copy = copied(source, "Q8_0")
    wrong = run_changed(copy, TOKENS, reversed_rows, "ggml")
    answer = asked(capsys, tmp_path, 2, copy, wrong, model_sha256="0" * 64)
    assert (answer["verdict"], "another file than the copy" in answer["error"]) == ("undecided", True)
    right = stages_of(copy, TOKENS, "ggml")
    silent = {site: values for site, values in right.items() if site != LOGITS}
    answer = asked(capsys, tmp_path, 2, copy, silent)
    assert answer["verdict"] == "undecided"
    files = [str(tmp_path / name) for name in ("source.gguf", "copy.gguf", "t.npz")]
    for arguments, words in (
        ([*files[:2], "--trace", files[1]], "copy.gguf is not a recorded trace"),
        ([files[0], files[2], "--trace", files[2]], "t.npz is not a model"),
        ([files[0], "--trace", files[2]], "--trace is the third side"),
        ([*files[:2], "--trace", files[2], "--path-a", "f32"], "--path-a belongs to two sides"),
    ):
        assert run(["bisect", *arguments]) == 2
        assert words in capsys.readouterr().err


@pytest.mark.parametrize("type", ["F16", "BF16", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0"])
def test_a_tensor_is_what_its_quantizer_makes_byte_for_byte(type):
    rng = np.random.default_rng(0)
    values = rng.normal(size=(3, 64)).astype(np.float32)
    weight = Weight("x", TensorType.F32, (3, 64), values.view(np.uint8))
    copy = quantized(weight, type)
    assert made(weight, copy) == "requantized"
    assert made(copy, copy) == "copied"
    touched = copy.stored.copy()
    touched[1, -1] ^= 1
    assert made(weight, replace(copy, stored=touched)) == "explained"
