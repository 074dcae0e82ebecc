"""compare and open with traces of other engines: dumps of a tiny model's own forward must be that forward."""

import json
from importlib.resources import files

import jsonschema
import numpy as np
import pytest

from kernels.matmul.activations import quantize_q8_0
from kernels.stages import Site
from store.open import open_artifact
from store.traces.hdf5 import open_store
from tests.artifacts import tiny_gguf
from tests.foreign_dumps import run as stages_of
from tests.foreign_dumps import write_aprt, write_llama_dump, write_stage_dump
from workbench.__main__ import run

TOKENS = (1, 5, 2, 9)
IDS = "1,5,2,9"
LM_HEAD = Site(None, "lm_head")
SCHEMA = json.loads((files("workbench") / "schemas" / "compare.schema.json").read_text())


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("foreign")


@pytest.fixture(scope="module")
def gguf(place):
    tiny_gguf(place / "model.gguf", type="Q8_0")
    return place / "model.gguf"


@pytest.fixture(scope="module")
def model(gguf):
    return open_artifact(gguf)


@pytest.fixture(scope="module")
def stages(model):
    return stages_of(model, TOKENS, "ggml")


def printed(capsys, status, command, *arguments):
    capsys.readouterr()
    assert run([command, *map(str, arguments), "--json"]) == status
    record = json.loads(capsys.readouterr().out)
    jsonschema.validate(record, SCHEMA)
    return record


def refused(capsys, *arguments):
    capsys.readouterr()
    assert run(["compare", *map(str, arguments)]) == 2
    err = capsys.readouterr().err
    assert err.startswith("workbench: ")
    assert err.count("\n") == 1
    return err


def statuses(record):
    return {(cell["layer"], cell["stage"]): cell["status"] for cell in record["cells"]}


def cells(record):
    return {(cell["layer"], cell["stage"]): cell for cell in record["cells"]}


def test_a_llama_dump_is_the_run_and_what_it_does_not_hold_is_unmeasured(gguf, model, stages, tmp_path, capsys):
    write_llama_dump(tmp_path / "dump.npz", model, stages, TOKENS)
    record = printed(capsys, 0, "compare", gguf, tmp_path / "dump.npz")
    found = statuses(record)
    assert {site for site, status in found.items() if status == "unmeasured"} == {(0, "ffn_silu"), (1, "ffn_silu")}
    assert {status for site, status in found.items() if site[1] != "ffn_silu"} == {"identical"}
    b = record["b"]
    assert (b["format"], b["numeric_path"]) == ("llama.cpp", "ggml")
    assert b["settings"]["repack"] == 0
    assert "No checksum of the model" in b["settings"]["not_carried"]
    assert record["flipped_codes"]["flipped"] == 0


def test_the_biases_that_a_dump_proves_away_are_absent(tmp_path, capsys):
    tiny_gguf(tmp_path / "llama.gguf", "llama")
    model = open_artifact(tmp_path / "llama.gguf")
    write_llama_dump(tmp_path / "dump.npz", model, stages_of(model, TOKENS, "ggml"), TOKENS)
    found = statuses(printed(capsys, 0, "compare", tmp_path / "dump.npz", tmp_path / "llama.gguf"))
    assert found[0, "qkv_bias"] == "absent"
    assert found[0, "qkv_matmul"] == found[1, "k_post_rope"] == "identical"  # in whatever order ggml keeps heads


def test_flipped_codes_are_counted_stage_by_stage_and_in_total(gguf, model, stages, tmp_path, capsys):
    site = Site(1, "ffn_norm")
    moved = stages | {site: stages[site] * np.linspace(0.9, 1.1, stages[site].shape[1], dtype=np.float32)}
    write_llama_dump(tmp_path / "moved.npz", model, moved, TOKENS)
    expected = int((quantize_q8_0(stages[site]).codes != quantize_q8_0(moved[site]).codes).sum())
    assert expected > 0
    record = printed(capsys, 0, "compare", gguf, tmp_path / "moved.npz")
    assert cells(record)[1, "ffn_norm"]["flipped_codes"]["flipped"] == expected
    c = model.config
    of = len(TOKENS) * (2 * (2 * c.hidden_size + c.q_size + c.intermediate_size) + c.hidden_size)
    assert record["flipped_codes"] == {"flipped": expected, "of": of, "tokens": "all"}
    run(["compare", str(gguf), str(tmp_path / "moved.npz")])
    assert f"{expected} of {of} activation codes flipped" in capsys.readouterr().out


def test_codes_are_not_counted_for_a_dump_of_another_file(gguf, model, stages, tmp_path, capsys):
    write_llama_dump(tmp_path / "other.npz", model, stages, TOKENS, meta={"model_sha256": "0" * 64})
    assert printed(capsys, 0, "compare", gguf, tmp_path / "other.npz")["flipped_codes"] is None


def test_only_the_last_token_is_comparable_where_a_dump_holds_only_that(gguf, model, stages, tmp_path, capsys):
    write_llama_dump(tmp_path / "last.npz", model, stages, TOKENS, outputs=(3,))
    whole = printed(capsys, 2, "compare", gguf, tmp_path / "last.npz")
    assert statuses(whole)[None, "lm_head"] == "uncomparable"
    assert statuses(whole)[0, "layer_output"] == "identical"
    last = printed(capsys, 0, "compare", gguf, tmp_path / "last.npz", "--scope", "last")
    assert statuses(last)[None, "lm_head"] == "identical"
    assert cells(last)[None, "lm_head"]["shape"] == [1, model.config.vocab_size]


def test_tokens_of_an_aprt_folder_are_the_users_word(gguf, model, tmp_path, capsys):
    write_aprt(tmp_path / "aprt", stages_of(model, TOKENS, "apr"))
    pair = (gguf, tmp_path / "aprt", "--path-a", "apr")
    assert "--tokens" in refused(capsys, *pair)
    record = printed(capsys, 0, "compare", *pair, "--tokens", IDS, "--scope", "last")
    assert set(statuses(record).values()) == {"identical"}
    assert record["b"]["numeric_path"] == "apr"
    assert "the prompt has 2 tokens" in refused(capsys, *pair, "--tokens", "1,5")


def test_a_store_of_ours_binds_a_dump_as_a_model_does(gguf, model, tmp_path, capsys):
    assert run(["trace", str(gguf), "-o", str(tmp_path / "a.h5"), "--tokens", IDS, "--path", "f64"]) == 0
    write_stage_dump(tmp_path / "hf.npz", stages_of(model, TOKENS, "f64"), {"transformers": "5", "dtype": "float64"})
    record = printed(capsys, 0, "compare", tmp_path / "a.h5", tmp_path / "hf.npz")
    assert set(statuses(record).values()) == {"identical"}
    assert record["b"]["numeric_path"] == "f64"


def test_what_cannot_be_answered_is_told_in_a_sentence(gguf, model, stages, tmp_path, capsys):
    dump = tmp_path / "dump.npz"
    write_llama_dump(dump, model, stages, TOKENS)
    assert "4 tokens, not 2" in refused(capsys, gguf, dump, "--tokens", "1,5")
    assert "recorded trace" in refused(capsys, gguf, dump, "--path-b", "ggml")
    tiny_gguf(tmp_path / "wide.gguf", hidden=128, head_dim=32)
    assert "channels" in refused(capsys, tmp_path / "wide.gguf", dump)
    write_stage_dump(tmp_path / "unknown.npz", stages, {"tokens": list(TOKENS)})
    assert "engine that is not known" in refused(capsys, gguf, tmp_path / "unknown.npz")
    assert printed(capsys, 0, "compare", gguf, tmp_path / "unknown.npz", "--path-a", "ggml")["outside_band"] == 0
    dump.write_bytes(dump.read_bytes()[:2000])
    assert "dump.npz" in refused(capsys, gguf, dump)


def test_two_dumps_without_a_model_are_compared_by_names_and_shapes(model, stages, tmp_path, capsys):
    wrong = {site: values * np.float32(3) if site == Site(1, "ffn_up") else values for site, values in stages.items()}
    npz, other, changed = (tmp_path / f"{name}.npz" for name in ("a", "b", "changed"))
    meta = {"tokens": list(TOKENS), "engine": "transformers", "architecture": "qwen2"}
    write_stage_dump(npz, stages, meta)
    write_stage_dump(other, stages, {"engine": "my own"})
    write_stage_dump(changed, wrong, meta)
    record = printed(capsys, 0, "compare", npz, other)
    assert (record["compared"], record["outside_band"]) == (len(stages), 0)
    assert set(statuses(record).values()) == {"identical"}
    assert [note.split(":")[0] for note in record["notes"]] == [
        "Neither trace tells its model",
        "Two traces carry no weights, so no stage can be run again",
    ]
    record = printed(capsys, 1, "compare", npz, changed, "--metric", "rel_rms")
    assert record["first_outside_band"] == {"layer": 1, "stage": "ffn_up"}
    found = cells(record)[1, "ffn_up"]
    assert found["rel_rms"] == pytest.approx(2 / 3, rel=1e-6)
    assert (found["local"], "a recorded trace, which cannot be run again" in found["note"]) == (None, True)
    write_stage_dump(other, stages, {"engine": "my own", "tokens": [1, 5, 2, 8]})
    assert "token 3 is 9 in A and 8 in B" in refused(capsys, npz, other)
    write_stage_dump(other, stages, meta | {"architecture": "llama"})
    assert "A was recorded from a qwen2 model and B from a llama one" in refused(capsys, npz, other)
    write_stage_dump(other, stages, {"engine": "my own"})
    assert "give --tokens" in refused(capsys, other, other)
    short = {site: values[:, :-1] if site.stage == "ffn_up" else values for site, values in stages.items()}
    write_stage_dump(other, short, meta)
    width = stages[Site(0, "ffn_up")].shape[1]
    record = printed(capsys, 2, "compare", npz, other)
    assert f"the first is layer 0 ffn_up: A has {width} channels, B has {width - 1}" in record["error"]


def test_q_and_k_of_unlike_orders_are_not_set_side_by_side(tmp_path, capsys):
    tiny_gguf(tmp_path / "llama.gguf", "llama")
    llama = open_artifact(tmp_path / "llama.gguf")
    right = stages_of(llama, TOKENS, "ggml")
    write_llama_dump(tmp_path / "dump.npz", llama, right, TOKENS)
    write_stage_dump(tmp_path / "hf.npz", right, {"tokens": list(TOKENS), "engine": "transformers"})
    record = printed(capsys, 2, "compare", tmp_path / "dump.npz", tmp_path / "hf.npz")
    unlike = {stage for (_, stage), status in statuses(record).items() if status == "uncomparable"}
    assert unlike == {"qkv_matmul", "q_post_rope", "k_post_rope"}
    assert record["outside_band"] == 0, "no alarm on what is right"
    assert "q and k of the two may stand in unlike orders (A: " in record["error"]


def test_dumps_of_the_last_token_are_aligned_with_those_of_all(model, stages, tmp_path, capsys):
    write_aprt(tmp_path / "folder", stages)
    write_stage_dump(tmp_path / "all.npz", stages, {"tokens": list(TOKENS)})
    record = printed(capsys, 2, "compare", tmp_path / "folder", tmp_path / "all.npz")
    assert "lm_head: A holds" in record["error"]
    record = printed(capsys, 0, "compare", tmp_path / "folder", tmp_path / "all.npz", "--scope", "last")
    assert cells(record)[None, "lm_head"]["status"] == "identical"


def test_a_session_keeps_the_dump_and_reopens_without_it(gguf, model, stages, tmp_path, capsys):
    dump, session = tmp_path / "last.npz", tmp_path / "session"
    write_llama_dump(dump, model, stages, TOKENS, outputs=(3,))
    verdict = run(["bisect", str(gguf), str(dump)])
    first = printed(capsys, verdict, "open", gguf, dump, "--session", session)
    written = (session / "b.h5").stat().st_mtime_ns
    stored = open_store(session / "b.h5")
    assert stored.positions(LM_HEAD) == (3,)
    assert stored.status(Site(0, "ffn_silu")) == "unmeasured"
    assert stored.run.tokens == TOKENS
    assert printed(capsys, verdict, "open", session) == first
    dump.unlink()
    assert printed(capsys, verdict, "open", session) == first
    assert (session / "b.h5").stat().st_mtime_ns == written
    findings = (session / "findings.md").read_text()
    assert "activation codes flipped" in findings


def test_a_session_of_nothing_but_logits(gguf, stages, tmp_path, capsys):
    stages[LM_HEAD][-1].astype("<f4").tofile(tmp_path / "logits.bin")
    np.array(TOKENS, "<i4").tofile(tmp_path / "logits-tokens.bin")
    pair = (gguf, tmp_path / "logits.bin")
    record = printed(capsys, 0, "compare", *pair, "--scope", "last")
    assert (record["compared"], statuses(record)[None, "lm_head"]) == (1, "identical")
    verdict = run(["bisect", *map(str, pair)])
    printed(capsys, verdict, "open", *pair, "--session", tmp_path / "session")
    stored = open_store(tmp_path / "session/b.h5")
    assert stored.sites() == [LM_HEAD]
    assert not stored.absent


def test_a_changed_dump_is_written_into_its_session_again(gguf, model, stages, tmp_path, capsys):
    dump, session = tmp_path / "dump.npz", tmp_path / "session"
    write_llama_dump(dump, model, stages, TOKENS)
    printed(capsys, 0, "open", gguf, dump, "--session", session)
    write_llama_dump(dump, model, stages | {LM_HEAD: stages[LM_HEAD] * 10}, TOKENS)
    changed = printed(capsys, 1, "open", session)
    assert changed["first_outside_band"] == {"layer": None, "stage": "lm_head"}
    assert changed["bisection"]["culprit"]["stage"] == "lm_head"
    assert np.array_equal(open_store(session / "b.h5").read(LM_HEAD), stages[LM_HEAD] * 10)
