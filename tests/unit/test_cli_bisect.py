"""`workbench bisect` and `workbench patch` as a user meets them: verdict, JSON, exit code."""

import json
from pathlib import Path

import jsonschema
import numpy as np
import pytest

import workbench
from kernels.stages import Site
from store.open import open_artifact
from tests.artifacts import tiny_safetensors
from tests.foreign_dumps import run as stages_of
from tests.foreign_dumps import write_stage_dump
from workbench.__main__ import run
from workbench.demo import MODEL, make_copy
from workbench.demo.faults import FAULTS

IDS = "482,803,10,67,14,310,307"
STAGE_OF = {
    "rope_theta": (0, "q_post_rope", "config"),
    "rms_norm_eps": (0, "attn_norm", "config"),
    "permuted_rope": (3, "qkv_matmul", "weights"),
    "gate_up_swapped": (3, "ffn_gate", "weights"),
    "corrupted_blocks": (3, "attn_out", "weights"),
    "zeroed": (3, "qkv_bias", "weights"),
    "scaled": (3, "ffn_up", "weights"),
    "norm_offset": (3, "ffn_norm", "weights"),
    "wrong_layer": (3, "ffn_gate", "weights"),
}


def schema(name):
    return json.loads((Path(workbench.__file__).parent / "schemas" / f"{name}.schema.json").read_text())


def printed(command, capsys, *arguments, status):
    assert run([command, *map(str, arguments), "--json"]) == status
    out, _ = capsys.readouterr()
    assert out.count("\n") == 1
    record = json.loads(out)
    jsonschema.validate(record, schema(command))
    return record


@pytest.fixture(scope="module")
def copies(tmp_path_factory):
    """A healthy APR copy of the shipped model and one for every fault of the demo."""
    folder = tmp_path_factory.mktemp("copies")
    for fault in (None, *FAULTS):
        make_copy(folder / f"{fault or 'healthy'}.apr", fault)
    return folder


@pytest.mark.parametrize("fault", FAULTS)
def test_every_fault_of_the_demo_is_found_and_named(fault, copies, capsys):
    record = printed("bisect", capsys, MODEL, copies / f"{fault}.apr", "--tokens", IDS, status=1)
    layer, stage, factor = STAGE_OF[fault]
    assert record["verdict"] == "divergent"
    found = record["culprit"]
    assert (found["layer"], found["stage"], found["factor"], found["cause"]) == (layer, stage, factor, fault)
    assert record["first_divergent"] == {"layer": layer, "stage": stage}
    assert record["cells_checked"] < 62 < record["cells_expected"] == 99  # stops there
    assert record["a"]["sha256"] == open_artifact(MODEL).sha256()
    assert (record["a"]["numeric_path"], record["b"]["numeric_path"]) == ("ggml", "apr")
    assert record["tokens"] == [482, 803, 10, 67, 14, 310, 307]


def test_healthy_copies_are_not_accused(copies, capsys):
    healthy = copies / "healthy.apr"
    same = printed("bisect", capsys, healthy, healthy, "--prompt", "def add(a, b):", status=0)
    assert (same["verdict"], same["culprit"], same["cells_checked"]) == ("alike", None, 99)
    assert same["prompt"] == "def add(a, b):"
    other = printed("bisect", capsys, MODEL, healthy, "--tokens", IDS, status=0)
    assert other["verdict"] == "numerics_only"


def test_the_text_says_verdict_culprit_and_why(copies, capsys):
    assert run(["bisect", str(MODEL), str(copies / "scaled.apr"), "--tokens", IDS, "--cell", "3:ffn_up"]) == 1
    out, err = capsys.readouterr()
    lines = out.splitlines()
    assert lines[0] == "DIVERGENT at layer 3 ffn_up: scaled (weights)."
    for words in (
        "tensor     model.layers.3.mlp.up_proj.weight",
        "why  ",
        "shares  ",
        "checked    60 of 99 cells",
        "figures  ",
        "noise  ",
        "block  ",
        "runner-up  rows_permuted, which leaves 0.9",
    ):
        assert any(line.startswith(words) for line in lines), words
    assert "of the norm and does not reproduce it" in out
    assert err == ""


def test_a_cell_in_json_has_its_parts(copies, capsys):
    pair = (MODEL, copies / "corrupted_blocks.apr", "--tokens", IDS)
    detail = printed("bisect", capsys, *pair, "--cell", "3:attn_out", status=1)["detail"]
    assert {worst["channel"] for worst in detail["worst_channels"][:8]} == set(range(8))
    assert detail["blocks"]["worst"][0]["block"] == 0
    assert len(detail["channels"]) == 256
    assert len(detail["tokens"]) == 7
    assert detail["forecast"]["marked"]
    assert detail["forecast"]["unexplained"] > 10 * detail["forecast"]["predicted"]


@pytest.mark.parametrize(
    ("cell", "words"),
    [
        ("3:nonsense", "names no stage"),
        ("ffn_gate", "names no layer; write 0:ffn_gate"),
        ("0:lm_head", "leave out the layer"),
        ("9:ffn_gate", "neither A nor B has a stage layer 9 ffn_gate"),
    ],
)
def test_cells_that_are_not_there_are_bad_usage(cell, words, capsys):
    assert run(["bisect", str(MODEL), str(MODEL), "--tokens", "1", "--cell", cell]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert words in err


def test_no_answer_is_exit_code_2_with_the_reason(tmp_path, capsys):
    model = tiny_safetensors(tmp_path / "m", "llama", "F32")
    meta = {"tokens": [1, 2, 3], "dtype": "float32", "transformers": "5"}
    right = stages_of(model, (1, 2, 3))
    write_stage_dump(tmp_path / "a.npz", right, meta)
    write_stage_dump(tmp_path / "b.npz", {site: y * np.float32(1 + 1e-6) for site, y in right.items()}, meta)
    record = printed("bisect", capsys, tmp_path / "a.npz", tmp_path / "b.npz", status=2)
    assert (record["verdict"], record["culprit"], record["floor"]) == ("undecided", None, None)
    assert record["first_divergent"] == {"layer": None, "stage": "embedding"}
    assert (record["cells_checked"], record["cells_compared"]) == (0, 33)
    assert run(["bisect", str(tmp_path / "a.npz"), str(tmp_path / "b.npz")]) == 2
    out, err = capsys.readouterr()
    assert out.startswith("UNDECIDED")
    assert err.startswith("workbench: undecided: embedding is the first cell that differs")


def test_values_that_json_does_not_have_are_null(tmp_path, capsys):
    model = tiny_safetensors(tmp_path / "m", "llama", "F32")
    broken = dict(stages_of(model, (1, 2, 3)))
    broken[Site(None, "lm_head")] = np.full_like(broken[Site(None, "lm_head")], np.nan)
    write_stage_dump(tmp_path / "nan.npz", broken, {"tokens": [1, 2, 3], "dtype": "float32", "transformers": "5"})
    record = printed("bisect", capsys, tmp_path / "m", tmp_path / "nan.npz", "--cell", "lm_head", status=1)
    assert record["verdict"] == "divergent"
    assert record["detail"]["channels"][0] is None


def test_patch_convicts_the_guilty_tensor_and_acquits_its_neighbour(copies, capsys):
    pair = (copies / "healthy.apr", copies / "scaled.apr", "--tokens", IDS)
    guilty = "model.layers.3.mlp.up_proj.weight"
    record = printed("patch", capsys, *pair, "--tensor", guilty, status=1)
    assert (record["left"], record["brought"]) == (0.0, 1.0)
    assert [run["name"] for run in record["runs"]] == ["A", "B", f"A with B's {guilty}", f"B with A's {guilty}"]
    assert record["runs"][1]["to_a"]["kl_mean"] > 1e-3
    assert record["runs"][0]["to_a"]["identical"]
    innocent = printed("patch", capsys, *pair, "--tensor", guilty.replace("up", "gate"), status=0)
    assert (innocent["left"], innocent["brought"]) == (1.0, 0.0)
    for option in (["--layer", 3], ["--stage", "3:ffn_swigl"]):
        assert printed("patch", capsys, *pair, *option, status=1)["left"] == 0.0


def test_patch_path_is_the_factorial_of_weights_and_paths(copies, capsys):
    record = printed("patch", capsys, MODEL, copies / "scaled.apr", "--tokens", IDS, "--path", status=1)
    exact = [run["to_exact"]["rel_rms"] for run in record["runs"]]
    a, b, a_patched, b_patched = exact
    assert a == pytest.approx(a_patched, rel=0.5)  # either arithmetic errs alike
    assert min(b, b_patched) > 2 * max(a, a_patched)  # the scaled weights do not
    assert record["left"] == pytest.approx(1, abs=0.1)


def test_patch_says_what_it_did(copies, capsys):
    pair = [str(copies / "healthy.apr"), str(copies / "scaled.apr"), "--tokens", IDS]
    assert run(["patch", *pair, "--layer", "3"]) == 1
    out = capsys.readouterr().out
    assert out.startswith("A's layer 3 in B leaves 0.0% of KL(B‖A); B's layer 3 in A brings 100.0% of it.")
    assert "double swap" in out
    assert run(["patch", pair[0], pair[0], *pair[2:], "--layer", "3"]) == 0
    assert capsys.readouterr().out.startswith("A and B give the same logits")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ([], "give exactly one of --tensor, --layer, --stage, --settings, --path"),
        (["--layer", "1", "--path"], "give exactly one of"),
        (["--layer", "17"], "there is no layer 17; the layers are 0 to 5"),
        (["--tensor", "x\x1b"], "neither A nor B has a tensor x\\x1b"),
        (["--settings"], "A and B have the same settings"),
        (["--path"], "both sides run on path ggml"),
    ],
)
def test_patches_that_cannot_be_are_one_sentence(options, words, capsys):
    assert run(["patch", str(MODEL), str(MODEL), "--tokens", "1", *options]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert words in err
    assert err.count("\n") == 1


def test_a_session_stands_for_its_two_sides(copies, tmp_path, capsys):
    pair = [str(MODEL), str(copies / "gate_up_swapped.apr"), "--tokens", IDS]
    assert run(["open", *pair, "--session", str(tmp_path / "s")]) == 1
    tensors = [word for name in ("gate", "up") for word in ("--tensor", f"model.layers.3.mlp.{name}_proj.weight")]
    for command, more in (("bisect", []), ("patch", tensors)):
        capsys.readouterr()
        assert printed(command, capsys, tmp_path / "s", *more, status=1) == printed(
            command, capsys, *pair, *more, status=1
        ) | ({"prompt": None} if command == "bisect" else {})
        assert run([command, str(tmp_path / "s"), *more, "--tokens", "1"]) == 2
        assert "--tokens belongs to two sides" in capsys.readouterr().err
    assert run(["bisect", *pair[:2], "x"]) == 2
    assert "two sides are compared, not 3" in capsys.readouterr().err
