"""The lab on the command line: what is printed, what is written, and what is refused."""

import csv
import json
from importlib.resources import files
from xml.etree import ElementTree

import jsonschema
import pytest

from tests.artifacts import tiny_safetensors
from tests.unit.test_cli_pair import TOKENS, called, refused
from workbench.__main__ import run
from workbench.demo import MODEL, make_copy
from workbench.lab.experiments import experiments

MADE = [known.id for known in experiments() if known.on != "model"]
KEYS = {"experiment", "inputs", "series", "value", "published", "reproduced", "verdict", "hides", "against"}


def test_the_contract_of_json(capsys):
    found, _ = called(["lab", "009"], capsys, 0)
    assert found.keys() >= KEYS
    assert found["series"][0]["step"] == 1
    assert (f"{found['value']:.6f}", found["published"], found["reproduced"]) == ("0.004391", "0.4391 %", True)


@pytest.mark.parametrize("known", experiments(), ids=lambda known: known.word)
def test_results_follow_the_schema_on_made_input_and_on_a_model(known, capsys):
    schema = json.loads((files("workbench") / "schemas" / "lab.schema.json").read_text())
    calls = [["lab", known.id]] if known.on != "model" else []
    calls += [["lab", known.id, str(MODEL), "--tokens", TOKENS]] if known.on != "made" else []
    for arguments in calls:
        status = run([*arguments, "--json"])
        found = json.loads(capsys.readouterr().out)
        jsonschema.validate(found, schema)
        assert set(found["figures"]) <= found.keys()
        assert status == (found["verdict"] in ("PARTIAL", "FALSIFIED"))


@pytest.mark.parametrize(("name", "status"), [("chain", 0), ("determinism", 0), ("block-scale", 1), ("softmax", 1)])
def test_the_verdict_is_the_exit_code(name, status, capsys):
    assert run(["lab", name]) == status


def test_the_list_names_every_experiment_with_its_parameters(capsys):
    found, _ = called(["lab"], capsys, 0)
    chain = next(each for each in found["experiments"] if each["name"] == "chain")
    assert [each["name"] for each in chain["parameters"]] == ["depth", "token", "path"]
    assert run(["lab"]) == 0
    text = capsys.readouterr().out
    assert all(known.question in text for known in experiments())


@pytest.mark.parametrize("name", MADE)
def test_the_text_fits_eighty_columns_and_shows_series_and_what_is_hidden(name, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("FORCE_COLOR", "1")
    run(["lab", name])
    text = capsys.readouterr().out
    assert max(map(len, text.splitlines())) <= 80
    assert "x1b" not in text
    for part in ("claim ", "verdict ", "hides ", "input "):
        assert f"\n{part}" in text


@pytest.mark.parametrize("name", MADE)
def test_tables_and_pictures_hold_the_series(name, tmp_path, capsys):
    table, picture = tmp_path / "series.csv", tmp_path / "plot.svg"
    run(["lab", name, "--csv", str(table), "--svg", str(picture), "--json"])
    found = json.loads(capsys.readouterr().out)
    with table.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [list(row) for row in rows] == [list(row) for row in found["series"]]
    numbers = [
        (row[key], value) for row, made in zip(rows, found["series"], strict=True) for key, value in made.items()
    ]
    assert all(float(text) == value for text, value in numbers if isinstance(value, float))
    drawn = ElementTree.fromstring(picture.read_text())
    assert drawn.tag.endswith("svg")
    assert "http" not in picture.read_text().replace("http://www.w3.org/2000/svg", "")


def test_a_copy_with_a_mistake_is_further_off_than_a_tenth(tmp_path, capsys):
    good, bad = tmp_path / "good.apr", tmp_path / "bad.apr"
    make_copy(good)
    make_copy(bad, "gate_up_swapped")
    cell = ["--tokens", TOKENS, "--layer", "3", "--stage", "ffn_gate", "--path-a", "f32"]
    alike, _ = called(["lab", "path-difference", MODEL, good, *cell], capsys, 0)
    unlike, _ = called(["lab", "path-difference", MODEL, bad, *cell], capsys, 1)
    assert alike["inputs"]["path_b"] == "apr"
    assert alike["inputs"]["weights"] == "the same on both sides"
    assert unlike["inputs"]["weights"].startswith("UNLIKE")
    assert alike["against"]["vector_rel_rms"] < 0.01 < 0.1 < unlike["against"]["vector_rel_rms"]


@pytest.mark.parametrize("name", ["rows", "tokens"])
def test_unlike_weights_are_no_evidence_of_what_rounding_does(name, tmp_path, capsys):
    make_copy(tmp_path / "scaled.apr", "scaled")
    cell = ["--tokens", TOKENS, "--layer", "3", "--stage", "ffn_up"]
    found, _ = called(["lab", name, MODEL, tmp_path / "scaled.apr", *cell], capsys, 2)
    assert "the weights of A and B differ" in found["error"]
    assert found["verdict"] is None
    assert len(found["series"]) > 1
    assert called(["lab", name, MODEL, *cell], capsys, 1)[0]["inputs"]["weights"] == "the same on both sides"


def test_outputs_are_not_overwritten_nor_inputs(tmp_path, capsys):
    there = tmp_path / "there.csv"
    there.write_text("mine")
    assert "exists; give --csv another name, or --force" in refused(["lab", "009", "--csv", there], capsys)
    assert run(["lab", "009", "--csv", str(there), "--force"]) == 0
    assert there.read_text().startswith("step,rel,")
    assert "is one of the files" in refused(["lab", "014", MODEL, "--csv", MODEL, "--force"], capsys)
    assert "the same file" in refused(["lab", "009", "--csv", there, "--svg", there, "--force"], capsys)


def test_no_shard_of_a_model_is_an_output(tmp_path, capsys):
    tiny_safetensors(tmp_path, "llama", shards=2)
    index, shard = tmp_path / "model.safetensors.index.json", max(tmp_path.glob("*.safetensors"))
    before = shard.read_bytes()
    words = refused(["lab", "rows", index, "--svg", shard, "--force"], capsys)
    assert "is one of the files that this command reads" in words
    assert shard.read_bytes() == before


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nonsense"], "it has 005 determinism"),
        (["\x1b[2J"], r"no experiment \x1b[2J; it"),
        (["014"], "needs a model; give A, or A and B"),
        (["016"], "needs a model"),
        (["layers"], "needs a model"),
        (["009", MODEL], "published input only; leave out A and B"),
        (["008", MODEL], "give --tokens"),
        (["009", "--layer", "3"], "are about a model"),
        (["009", "--set", "depth"], "is not KEY=VALUE"),
        (["009", "--set", "depth=5", "--set", "depth=5"], "is given twice"),
        (["009", "--set", "depth=65"], "--set depth=65: give a whole number from 1 to 64"),
        (["009", "--set", "path=f64"], "give one of apr, ggml"),
        (["009", "--set", "depth=\x1b]0;x\x07"], r"depth=\x1b]0;x\x07: give"),
        (["heads", "--set", "heads=7", "--set", "kv_heads=2"], "no multiple of kv_heads=2"),
        (["rope", "--set", "head_dim=7"], "give an even number"),
        (["--set", "depth=3"], "name an experiment"),
        (
            ["014", MODEL, "--stage", "qkv_matmul", "--set", "path=apr"],
            "choose another --stage, or leave out --set path",
        ),
        (["scope", MODEL, "--tokens", "1,2", "--stage", "lm_head"], "no layer of both sides"),
    ],
)
def test_what_cannot_be_run_is_told_in_one_sentence(arguments, words, capsys):
    assert words in refused(["lab", *arguments], capsys)
    found, _ = called(["lab", *arguments], capsys, 2)
    assert words in found["error"]


def test_a_trace_has_no_weights_to_try(tmp_path, capsys):
    assert run(["trace", str(MODEL), "-o", str(tmp_path / "a.h5"), "--tokens", TOKENS]) == 0
    assert "is a recorded trace and cannot be run; give a model" in refused(["lab", "014", tmp_path / "a.h5"], capsys)
