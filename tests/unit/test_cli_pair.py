"""trace, compare, open and demo, without a terminal."""

import json
import shutil
from dataclasses import replace
from importlib.resources import files

import jsonschema
import numpy as np
import pytest

from kernels.stages import Site
from store.traces.hdf5 import open_store
from tests.artifacts import tiny_gguf
from tests.gguf_files import write_gguf
from tests.memory_model import random_model
from workbench.__main__ import run
from workbench.demo import MODEL, PROMPT, make_copy
from workbench.session.session import Session

TOKENS = "482,803,10,67,14,310,307"
SCHEMA = json.loads((files("workbench") / "schemas" / "compare.schema.json").read_text())


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A healthy copy, one with exchanged projections, and a trace of the original."""
    place = tmp_path_factory.mktemp("pair")
    make_copy(place / "healthy.apr")
    make_copy(place / "swapped.apr", "gate_up_swapped")
    assert run(["trace", str(MODEL), "-o", str(place / "a.h5"), "--tokens", TOKENS]) == 0
    return place


def called(arguments, capsys, status):
    capsys.readouterr()
    assert run([*map(str, arguments), "--json"]) == status
    out, err = capsys.readouterr()
    assert out.count("\n") == (1 if out else 0)
    return json.loads(out) if out else None, err


def refused(arguments, capsys):
    capsys.readouterr()
    assert run([*map(str, arguments)]) == 2
    err = capsys.readouterr().err
    assert err.startswith("workbench: ")
    assert err.count("\n") == 1
    return err


def test_trace_holds_all_stages_of_the_run(folder):
    trace = open_store(folder / "a.h5")
    assert len(trace.sites()) == 1 + 6 * 16 + 2
    assert trace.run.numeric_path == "ggml"
    assert ",".join(map(str, trace.run.tokens)) == TOKENS
    assert trace.read(Site(None, "lm_head")).shape == (7, 2048)


def test_trace_never_overwrites_unasked(folder, capsys):
    before = (folder / "a.h5").read_bytes()
    assert "--force" in refused(["trace", MODEL, "-o", folder / "a.h5", "--tokens", "1"], capsys)
    assert (folder / "a.h5").read_bytes() == before


def test_compare_follows_its_schema_and_finds_the_exchanged_projections(folder, capsys):
    record, _ = called(["compare", MODEL, folder / "swapped.apr", "--prompt", PROMPT], capsys, 1)
    jsonschema.validate(record, SCHEMA)
    assert record["tokens"] == [int(token) for token in TOKENS.split(",")]
    assert record["first_outside_band"] == {"layer": 3, "stage": "ffn_gate"}
    assert record["compared"] == record["expected"] == 99
    for cell in record["cells"]:
        assert abs(cell["inherited"] - cell["local"]) <= cell["rel_rms"] * (1 + 1e-6)
        assert cell["rel_rms"] <= (cell["inherited"] + cell["local"]) * (1 + 1e-6)
        assert cell["status"] == "identical" or abs(cell["inherited_share"] + cell["local_share"] - 1) < 1e-6
        assert cell["beyond_floor"] == ((cell["layer"], cell["stage"]) in ((3, "ffn_gate"), (3, "ffn_up")))
    assert (record["a"]["numeric_path"], record["b"]["numeric_path"]) == ("ggml", "apr")


def test_compare_says_on_request_which_cells_add_what_rounding_does_not(folder, capsys):
    pair = ["compare", str(MODEL), str(folder / "swapped.apr"), "--tokens", TOKENS]
    assert run([*pair, "--local"]) == 1
    words = "99 cells run again: 2 add more than rounding can cause, the first is layer 3 ffn_gate, local "
    assert words in capsys.readouterr().out
    record, _ = called([*pair, "--no-local"], capsys, 1)
    assert {cell["floor"] for cell in record["cells"]} == {None}


def with_nan(model):
    """The model with one NaN in the gate of its first layer."""
    name = "model.layers.0.mlp.gate_proj.weight"
    rows = model.weights[name].rows.view(np.float32).copy()
    rows[3, 5] = np.nan
    return replace(model, weights=model.weights | {name: replace(model.weights[name], stored=rows.view(np.uint8))})


def test_values_that_are_not_finite_are_null_with_the_reason(tmp_path, capsys):
    model = random_model("llama")
    write_gguf(tmp_path / "right.gguf", model)
    write_gguf(tmp_path / "nan.gguf", with_nan(model))
    record, _ = called(["compare", tmp_path / "right.gguf", tmp_path / "nan.gguf", "--tokens", "1,2"], capsys, 1)
    cells = {(cell["layer"], cell["stage"]): cell for cell in record["cells"]}
    assert cells[0, "ffn_gate"]["local"] is None
    assert cells[0, "ffn_gate"]["note"].endswith("local not known: not finite")  # the floor is that of the others
    assert cells[0, "ffn_gate"]["beyond_floor"]
    assert not cells[0, "ffn_up"]["beyond_floor"]


def test_models_that_both_lose_their_numbers_are_not_called_alike(tmp_path, capsys):
    write_gguf(tmp_path / "nan.gguf", with_nan(random_model("llama")))
    pair = ["compare", str(tmp_path / "nan.gguf"), str(tmp_path / "nan.gguf"), "--tokens", "1,2"]
    assert run([*pair, "--path-b", "f64", "--local"]) == 2
    out, err = capsys.readouterr()
    record, _ = called([*pair, "--path-b", "f64"], capsys, 2)
    there = [cell for cell in record["cells"] if "shape" in cell]
    lost = [cell for cell in there if cell["nonfinite_a"] == np.prod(cell["shape"])]
    judged = [cell for cell in there if cell["floor"] is not None]
    assert f"{len(lost)} of {len(there)} cells, the first is layer 0 ffn_out, hold no number" in err
    assert "hold NaN or infinite values, the first is layer 0 ffn_gate: 2 of" in out
    assert f"{len(judged)} of {len(there)} cells run again: none adds" in out
    assert all(cell["nonfinite_a"] < np.prod(cell["shape"]) for cell in judged)
    assert run(pair) == 0  # the same bits throughout


def test_a_healthy_copy_is_alike_on_one_path_and_within_the_band_on_two(folder, capsys):
    pair = ["compare", MODEL, folder / "healthy.apr", "--tokens", TOKENS]
    same, _ = called([*pair, "--path-b", "ggml"], capsys, 0)
    assert {cell["status"] for cell in same["cells"]} == {"identical"}
    other, _ = called(pair, capsys, 0)
    assert {cell["status"] for cell in other["cells"]} == {"ok", "identical"}


def test_a_trace_of_a_run_is_that_run(folder, capsys):
    record, _ = called(["compare", folder / "a.h5", MODEL], capsys, 0)
    assert {cell["status"] for cell in record["cells"]} == {"identical"}
    assert record["prompt"] is None
    assert {cell["local"] for cell in record["cells"]} == {None}
    assert all("A is a recorded trace, which cannot be run again" in cell["note"] for cell in record["cells"])


def test_scope_covers_the_same_token_of_both_sides(folder, capsys):
    record, _ = called(["compare", folder / "a.h5", folder / "healthy.apr", "--scope", "last"], capsys, 0)
    gate = next(cell for cell in record["cells"] if (cell["layer"], cell["stage"]) == (0, "ffn_gate"))
    assert gate["shape"] == [1, 768]
    other, _ = called(["compare", folder / "a.h5", folder / "healthy.apr", "--scope", "6"], capsys, 0)
    assert gate == next(cell for cell in other["cells"] if (cell["layer"], cell["stage"]) == (0, "ffn_gate"))
    values = open_store(folder / "a.h5").read(Site(0, "ffn_gate"))[6].astype(np.float64)
    assert gate["std_a"] == pytest.approx(values.std(), rel=1e-12)
    assert "all tokens together" in gate["note"]
    assert "tokens 0 to 6" in refused(["compare", folder / "a.h5", MODEL, "--scope", "7"], capsys)


def test_another_configuration_is_different_however_wide_the_band(folder, tmp_path, capsys):
    make_copy(tmp_path / "rope.apr", "rope_theta")
    record, _ = called(["compare", MODEL, tmp_path / "rope.apr", "--tokens", TOKENS], capsys, 1)
    assert record["config_differences"] == {"rope_theta": [1e6, 1e4]}
    assert record["outside_band"] == 0


def test_what_cannot_be_compared_is_refused_with_the_reason(folder, tmp_path, capsys):
    assert "--tokens" in refused(["compare", MODEL, folder / "healthy.apr"], capsys)
    assert "--prompt" in refused(["compare", MODEL, MODEL, "--tokens", "1", "--prompt", "x"], capsys)
    assert "vocabulary" in refused(["compare", MODEL, MODEL, "--tokens", "2048"], capsys)
    assert "different tokens" in refused(["compare", folder / "a.h5", MODEL, "--tokens", "1,2"], capsys)
    error = refused(["compare", folder / "a.h5", MODEL, "--path-a", "f32"], capsys)
    assert "a.h5 is a recorded trace, computed on path ggml; leave out --path-a" in error
    tiny_gguf(tmp_path / "other.gguf")
    record, err = called(["compare", MODEL, tmp_path / "other.gguf", "--tokens", "1,2"], capsys, 2)
    jsonschema.validate(record, SCHEMA)
    assert record["population"]["alike"] is False
    assert "256 channels" in err


def test_open_without_a_terminal_keeps_a_session_that_reopens_alike(folder, tmp_path, capsys):
    session = tmp_path / "session"
    pair = ["open", MODEL, folder / "swapped.apr", "--tokens", TOKENS, "--session", session]
    first, _ = called(pair, capsys, 1)
    assert {path.name for path in session.iterdir()} >= {"session.json", "a.h5", "b.h5", "log.jsonl", "findings.md"}
    stored = (session / "a.h5").stat().st_mtime_ns
    again, _ = called(["open", session], capsys, 1)
    assert again == first
    assert called(pair, capsys, 1)[0] == first
    assert (session / "a.h5").stat().st_mtime_ns == stored
    assert "another pair" in refused(
        ["open", MODEL, folder / "swapped.apr", "--tokens", "1", "--session", session], capsys
    )
    assert "--tokens" in refused(["open", session, "--tokens", "1"], capsys)
    assert "3" in refused(["open", "a", "b", "c"], capsys)
    assert run(["open", str(session)]) == 1
    assert str(session / "findings.md") in capsys.readouterr().out


def test_open_without_a_prompt_runs_one_that_it_names(folder, tmp_path, capsys):
    named, _ = called(
        ["open", MODEL, folder / "healthy.apr", "--prompt", PROMPT, "--session", tmp_path / "a"], capsys, 0
    )
    record, err = called(["open", MODEL, folder / "healthy.apr", "--session", tmp_path / "b"], capsys, 0)
    assert err.startswith(
        f'workbench: no prompt was given, so both run "{PROMPT}" (7 tokens); '
        "--prompt TEXT or --tokens 1,2,3 choose others\nworkbench: the run writes about 2.5 MiB to "
    )
    assert (record["tokens"], record["prompt"], record["cells"]) == (named["tokens"], PROMPT, named["cells"])
    assert called(["open", tmp_path / "b"], capsys, 0)[1] == ""
    err = called(["open", MODEL, folder / "a.h5", "--session", tmp_path / "c"], capsys, 0)[1]
    assert "no prompt was given" not in err  # its own tokens


def test_open_without_a_prompt_runs_the_one_that_the_user_prefers(folder, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    preferences = tmp_path / "layer-workbench" / "preferences.toml"
    preferences.parent.mkdir()
    preferences.write_text('prompt = "x = 1"')
    pair = ["open", MODEL, folder / "healthy.apr", "--session"]
    record, err = called([*pair, tmp_path / "a"], capsys, 0)
    assert record["prompt"] == "x = 1"
    assert err.startswith('workbench: no prompt was given, so both run "x = 1" of your preferences (')
    record, err = called([*pair, tmp_path / "b", "--prompt", PROMPT], capsys, 0)
    assert record["prompt"] == PROMPT
    assert "no prompt was given" not in err
    preferences.write_text("promt = 1")
    assert "line 1: there is no preference promt; did you mean prompt?" in refused([*pair, tmp_path / "c"], capsys)


def test_open_without_a_prompt_and_a_tokenizer_runs_the_first_ids(tmp_path, capsys):
    tiny_gguf(tmp_path / "a.gguf")
    record, err = called(["open", *[tmp_path / "a.gguf"] * 2, "--session", tmp_path / "s"], capsys, 0)
    assert record["tokens"] == list(range(1, min(9, record["population"]["vocab_size"])))
    assert err.startswith(
        "workbench: no prompt was given and neither side has a tokenizer, so both run the tokens 1,2,"
    )


def test_the_end_says_the_verdict_and_where_the_session_is(folder, tmp_path, capsys):
    pair = ["open", MODEL, folder / "swapped.apr", "--tokens", TOKENS, "--session", tmp_path / "s"]
    headline = called(pair, capsys, 1)[0]["headline"]
    assert run([*map(str, pair)]) == 1
    ended = [f"verdict  {headline}", f"session  {tmp_path / 's'}", f"report   {tmp_path / 's' / 'findings.md'}"]
    assert capsys.readouterr().out.splitlines()[-3:] == ended


def test_the_app_ends_with_them_too_and_with_its_own_exit_code(tmp_path, capsys, monkeypatch):
    demo = ["demo", "--fault", "zeroed", "--session", str(tmp_path / "s")]
    assert run(demo) == 1
    shown = capsys.readouterr().out
    assert shown.startswith("DIVERGENT at layer 3 qkv_bias: zeroed (weights).")
    assert "\nculprit " in shown
    monkeypatch.setattr("workbench.machine.terminal.is_there", lambda: True)
    for code in (0, 2):
        monkeypatch.setattr("workbench.app.run", lambda session, *_, code=code: code)
        assert run(demo) == code
        assert capsys.readouterr().out.splitlines() == shown.splitlines()[-3:-1]
    monkeypatch.setattr("workbench.app.run", lambda session, *_: shutil.rmtree(session.folder) or 0)
    assert run(demo) == 0
    assert capsys.readouterr().out.startswith("verdict  ")


def test_without_bisecting_the_bands_decide_and_the_document_says_so(tmp_path, capsys):
    demo = ["demo", "--fault", "zeroed", "--no-bisect", "--session", str(tmp_path / "s")]
    record, _ = called(demo, capsys, 0)
    assert record["bisection"] is None
    assert "--no-bisect was given" in (tmp_path / "s" / "findings.md").read_text()
    assert run(demo[:3] + demo[4:]) == 1
    assert called(demo, capsys, 1)[0]["bisection"]["verdict"] == "divergent", "a verdict that is there stands"


def test_default_sessions_of_different_questions_do_not_mix(folder, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(Session, "default_folder", staticmethod(lambda name: tmp_path / name))
    places = [called(["open", MODEL, folder / "a.h5"], capsys, 0)[0]["session"]]
    for path in ("f32", "f32", "f64"):
        places.append(called(["open", MODEL, folder / "a.h5", "--path-a", path], capsys, 0)[0]["session"])
    assert [place.rpartition("-vs-")[2] for place in places] == ["a", "a-2", "a-2", "a-3"]


def test_demo_makes_its_pair_in_a_folder_that_can_be_moved(tmp_path, capsys):
    record, _ = called(["demo", "--fault", "zeroed", "--layer", "1", "--session", tmp_path / "demo"], capsys, 1)
    assert record["bisection"]["culprit"]["cause"] == "zeroed"
    assert record["outside_band"] == 0  # no band sees it, so the verdict is what the exit code tells
    shutil.move(tmp_path / "demo", tmp_path / "moved")
    again, _ = called(["open", tmp_path / "moved"], capsys, 1)
    assert again["cells"] == record["cells"]
    assert again["bisection"] == record["bisection"]
    for name in ("*.gguf", "*.apr", "*.h5"):
        for file in (tmp_path / "moved").glob(name):
            file.unlink()
    restored, _ = called(["open", tmp_path / "moved"], capsys, 1)
    assert restored["cells"] == record["cells"]
    assert "no fault gremlin" in refused(["demo", "--fault", "gremlin", "--session", tmp_path / "x"], capsys)
    assert not (tmp_path / "x").exists()


def test_a_verdict_is_kept_for_the_files_it_is_about_and_decides_every_exit_code(folder, tmp_path, capsys):
    place = tmp_path / "pair"
    copy = place.with_suffix(".apr")
    shutil.copy(folder / "healthy.apr", copy)

    def verdicts():
        return [entry["verdict"] for entry in Session.open(place).entries() if entry["kind"] == "bisected"]

    pair = [MODEL, copy, "--tokens", TOKENS]
    assert run([str(word) for word in ["open", *pair, "--session", place]]) == 0
    assert run(["open", str(place)]) == run(["export", str(place)]) == 0
    assert verdicts() == ["numerics_only"]
    assert capsys.readouterr().out.startswith("NUMERICS ONLY")
    make_copy(copy, "scaled", 1)
    assert run(["open", str(place)]) == run(["export", str(place)]) == 1
    assert capsys.readouterr().out.startswith("DIVERGENT at layer 1 ffn_up: scaled")
    assert verdicts() == ["numerics_only", "divergent"]
    (place / "log.jsonl").unlink()  # nobody has bisected: the export does
    assert run(["export", str(place)]) == 1
    assert verdicts() == ["divergent"]
    (place / "log.jsonl").unlink()
    copy.unlink()  # it cannot: the comparison decides, and the document says so
    assert run(["export", str(place)]) == 0
    document = (place / "findings.md").read_text()
    assert "nobody has bisected the pair" in document
    assert "**Not measured.** The pair was not bisected: " in document


def test_demo_lists_its_faults(capsys):
    assert run(["demo", "--list-faults"]) == 0
    assert len(capsys.readouterr().out.splitlines()) >= 5
