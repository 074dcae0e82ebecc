"""One file against itself: what is the same, what rounding explains, and what it does not.

An engine is played by a program that gives back recordings made here, one for every way that it is asked to run.
"""

import json
import os
import sys
from pathlib import Path

import jsonschema
import numpy as np
import pytest

import workbench
from kernels import paths
from kernels.batches import in_batches
from kernels.forward import forward
from kernels.ggml_settings import GgmlSettings
from kernels.machine.threads import thread_count
from kernels.paths import GgmlPath, numeric_path
from kernels.stages import Site
from store.open import open_artifact
from store.traces.open import open_trace
from tests.artifacts import tiny_gguf, tiny_model, tiny_safetensors
from tests.foreign_dumps import run as stages_of
from tests.foreign_dumps import write_stage_dump
from workbench.__main__ import run
from workbench.cli.record import ENGINES
from workbench.cli.sweep import VARY_NAMES
from workbench.record.jobs import FORMATS
from workbench.vary.change import NAMES, Change, changes
from workbench.vary.recorded import Recording, judged

GOLDEN = Path(__file__).parents[1] / "golden"
SCHEMA = json.loads((Path(workbench.__file__).parent / "schemas/vary.schema.json").read_text(encoding="utf-8"))
ENGINE = os.environ.get("WORKBENCH_ENGINE_PYTHON")
TOKENS = (5, 10, 7, 7, 31, 12, 3)
IDS = ",".join(map(str, TOKENS))
SIZES = {"heads": 2, "kv_heads": 1, "hidden": 64, "head_dim": 64, "ffn": 64, "vocab": 64, "layers": 1, "seed": 3}
ATTENTION = Site(0, "attention")


@pytest.fixture(autouse=True)
def no_engine(monkeypatch):
    monkeypatch.delenv("WORKBENCH_ENGINE_PYTHON", raising=False)


def asked(capsys, status, file, *arguments):
    """The answer to --vary by setting, and all of it."""
    assert run(["sweep", str(file), "--tokens", IDS, "--json", *arguments]) == status
    answer = json.loads(capsys.readouterr().out)
    jsonschema.validate(answer, SCHEMA)
    return {row["setting"]: (row["verdict"], row["runs"][0]) for row in answer["settings"]}, answer


def test_names_stand_in_the_command_as_they_are():
    assert VARY_NAMES == NAMES
    assert tuple(FORMATS) == ENGINES


def test_our_own_paths_say_per_setting_what_a_plain_comparison_says(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("WORKBENCH_THREADS", "2")
    model = tiny_gguf(tmp_path / "m.gguf", "llama", "Q4_0", **SIZES)
    found, answer = asked(capsys, 0, tmp_path / "m.gguf", "--vary", ",".join(NAMES))
    assert (answer["engine"], answer["numeric_path"], answer["verdict"]) == (None, "ggml", "numerics_only")
    plain = stages_of(model, TOKENS, "ggml")
    for name, words in (("kv", "k=f16,v=f16"), ("flash", "flash"), ("repack", "repack")):
        other = stages_of(model, TOKENS, f"ggml:{words}")
        unlike = [site for site in plain if plain[site].tobytes() != other[site].tobytes()]
        verdict, told = found[name]
        assert verdict == ("numerics_only" if unlike else "alike"), name
        assert told["identical"] == len(plain) - len(unlike)
        if unlike:
            first = told["first"]
            assert Site(first["layer"], first["stage"]) == unlike[0]
            token, channel = np.argwhere(plain[unlike[0]] != other[unlike[0]])[0]
            assert (first["token"], first["channel"]) == (token, channel)
            assert 0 < first["floors"] < 8
            assert told["logits"]["flips"] == sum(
                plain[Site(None, "lm_head")].argmax(1) != other[Site(None, "lm_head")].argmax(1)
            )
    assert found["flash"][0] == found["kv"][0] == "numerics_only"
    assert found["threads"][0] == "alike"
    assert [found[name][1]["after"] for name in ("tokens", "batch", "prefix")] == [
        *("one by one", "3 at a time", "4 first, then 3")
    ]


def test_products_of_a_batch_are_those_of_its_tokens_alone():
    model = tiny_model("qwen2", "Q4_K", heads=4, kv_heads=2, layers=1, vocab=64, seed=3)
    how, tokens = GgmlSettings(tiled=True), tuple(i * 7 % 64 for i in range(23))
    site = Site(0, "ffn_gate")
    plain = dict(forward(model, tokens, GgmlPath(how)))
    parts = dict(forward(model, tokens, in_batches(GgmlPath(how), (16, 7))))
    weight, x = model.weight("model.layers.0.mlp.gate_proj.weight"), parts[Site(0, "ffn_norm")]
    alone = np.concatenate([GgmlPath(how).matmul(x[part].copy(), weight) for part in (slice(0, 16), slice(16, 23))])
    assert np.array_equal(parts[site], alone)
    assert not np.array_equal(parts[site], plain[site]), "seven tokens are not tiled"
    for name in ("f32", "f64", "apr"):
        path = numeric_path(name)
        for (place, whole), (_, split) in zip(
            forward(model, tokens, path), forward(model, tokens, in_batches(path, (9, 9, 5))), strict=True
        ):
            np.testing.assert_allclose(split, whole, rtol=1e-4, atol=1e-5, err_msg=str(place))


def test_a_fault_of_one_setting_is_no_rounding(tmp_path, capsys, monkeypatch):
    tiny_gguf(tmp_path / "m.gguf", "llama", "Q4_0", **SIZES)
    flash, norm = paths.ggml_flash.flash, paths.ops.rms_norm_ggml
    monkeypatch.setattr(paths.ggml_flash, "flash", lambda *given: flash(*given) * np.float32(1.02))
    found, answer = asked(capsys, 1, tmp_path / "m.gguf", "--vary", "kv,flash")
    assert (found["kv"][0], found["flash"][0], answer["verdict"]) == ("numerics_only", "divergent", "divergent")
    assert "BROKEN at layer 0 attention" in found["flash"][1]["why"]
    assert found["flash"][1]["first"]["floors"] > 8
    monkeypatch.setenv("WORKBENCH_THREADS", "2")
    by_threads = {1: np.float32(1), 2: np.float32(1 + 1e-6)}
    monkeypatch.setattr(paths.ops, "rms_norm_ggml", lambda *given: norm(*given) * by_threads[thread_count()])
    found, _ = asked(capsys, 1, tmp_path / "m.gguf", "--vary", "threads")
    assert "same bits on any number of threads" in found["threads"][1]["why"]


def engine(folder, variants):
    """A Python that passes for one with transformers and gives back what was recorded here."""
    for name, stages in variants.items():
        write_stage_dump(folder / f"{name}.npz", stages, {})
    path = folder / "python"
    path.write_text(f"""#!{sys.executable}
import json, sys
import numpy as np
job = json.load(sys.stdin)
calls = job.get("calls", [])
name = "sdpa" if job["attn_implementation"] == "sdpa" else "x".join(map(str, calls)) or "base"
def send(payload, **header):
    text = json.dumps(header | {{"bytes": len(payload)}}).encode()
    sys.stdout.buffer.write(len(text).to_bytes(4, "little") + text + payload)
with np.load("{folder}/" + name + ".npz") as arrays:
    for key in arrays:
        if key != "__meta__":
            y = arrays[key]
            send(y.tobytes(), kind="array", name=key, dtype=y.dtype.str, shape=y.shape)
meta = {{"engine": "transformers", "engine_version": "played", "dtype": "float32"}}
send(json.dumps(meta).encode(), kind="text", name="__meta__")
send(b"", kind="end")
""")
    path.chmod(0o755)
    return str(path)


@pytest.fixture
def recorded(tmp_path):
    """A model, what an engine computes with it, the same a little otherwise, and with a cache that forgets."""
    tiny_safetensors(tmp_path / "hf", "llama", **SIZES)
    model = open_artifact(tmp_path / "hf")
    right = stages_of(model, TOKENS)
    nudged = right | {ATTENTION: np.nextafter(right[ATTENTION], np.float32(9))}
    forgetful = right | {ATTENTION: right[ATTENTION].copy()}
    forgetful[ATTENTION][4:] = stages_of(model, TOKENS[4:])[ATTENTION]
    return tmp_path, right, nudged, forgetful


def test_an_engine_is_judged_by_every_stage_of_both_runs(recorded, capsys):
    folder, right, nudged, forgetful = recorded
    python = engine(folder, {"base": right, "sdpa": nudged, "4x3": forgetful, "3x3x1": right})
    arguments = ("--python", python, "--vary", "flash,prefix,batch,kv,repack")
    found, answer = asked(capsys, 1, folder / "hf", *arguments)
    assert {name: verdict for name, (verdict, _) in found.items()} == {
        **{"flash": "numerics_only", "prefix": "divergent", "batch": "alike"},
        **{"kv": "undecided", "repack": "undecided"},
    }
    assert (answer["engine"], answer["prompts"][0]["base"]["verdict"]) == ("transformers", "alike")
    first = found["prefix"][1]["first"]
    assert (first["layer"], first["stage"], first["token"]) == (0, "attention", 4)
    assert first["floors"] > 8 > found["flash"][1]["first"]["floors"] > 0
    assert "transformers never rearranges weights" in found["repack"][1]["why"]
    assert run(["sweep", str(folder / "hf"), "--tokens", IDS, *arguments]) == 1
    text = capsys.readouterr().out
    assert text.startswith("DIVERGENT: Something is wrong")
    assert "prefix  DIVERGENT        all at once → 4 first, then 3" in text


def test_what_cannot_be_varied_is_no_all_clear(recorded, capsys):
    folder, right, *_ = recorded
    python = engine(folder, {"base": right})
    found, answer = asked(capsys, 2, folder / "hf", "--python", python, "--vary", "kv")
    assert (found["kv"][0], answer["error"]) == ("undecided", f"kv: {found['kv'][1]['why']}")
    found, _ = asked(capsys, 2, folder / "hf", "--vary", "threads,flash,prefix=7")
    assert (found["threads"][0], found["flash"][0]) == ("alike", "undecided")
    assert "prefix of 7 leaves nothing of 7 tokens" in found["prefix"][1]["why"]


def test_a_run_that_is_wrong_with_and_without_the_change_is_no_all_clear(recorded, capsys):
    folder, _, _, forgetful = recorded
    python = engine(folder, {"base": forgetful, "sdpa": forgetful})
    found, answer = asked(capsys, 1, folder / "hf", "--engine", "transformers", "--python", python, "--vary", "flash")
    assert (found["flash"][0], answer["prompts"][0]["base"]["verdict"]) == ("alike", "divergent")


def test_caches_of_llama_cpp_beside_each_other(tmp_path):
    """Two recordings of the engine itself, see test_kv_cache.py; and one with heads exchanged behind the cache."""
    sizes = {"hidden": 128, "heads": 2, "kv_heads": 1, "head_dim": 64, "ffn": 64, "layers": 1, "vocab": 64}
    tiny_gguf(tmp_path / "m.gguf", **sizes)
    model, tokens = open_artifact(tmp_path / "m.gguf"), TOKENS[:6]
    with np.load(GOLDEN / "llama-cpp-kv-q4_0.npz") as arrays:
        changed = dict(arrays)
    key = next(key for key in changed if key.endswith("|node_36|MUL_MAT"))  # what turns attention back
    changed[key] = changed[key].reshape(6, 2, 64)[:, ::-1].reshape(12, 64)
    np.savez(tmp_path / "wrong.npz", **changed)
    files = GOLDEN / "llama-cpp-kv-q8_0.npz", GOLDEN / "llama-cpp-kv-q4_0.npz", tmp_path / "wrong.npz"
    base, coarser, wrong = (Recording.checked(model, open_trace(file), tokens, lambda *_: None) for file in files)
    change = Change("kv", "q4_0")
    assert judged(change, 0, ("q8_0", "q4_0"), base, base).verdict == "alike"
    found = judged(change, 0, ("q8_0", "q4_0"), base, coarser)
    assert (found.verdict, found.beside.first.site) == ("numerics_only", ATTENTION)
    assert judged(change, 0, ("q8_0", "q4_0"), base, wrong).verdict == "divergent"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--vary", "cache"], "'cache' is no setting that can be varied"),
        (["--vary", "flash=2"], "flash takes no value"),
        (["--vary", "batch=0"], "batch=0 is no number from 1 to 65536"),
        (["--vary", "kv="], "kv= names no type"),
        (["--vary", "kv", "--recipe", "1M"], "--recipe belongs to two models, and --vary runs one"),
        (["--vary", "kv", "--engine", "llama.cpp", "--path-a", "f32"], "give one of them"),
        (["--vary", "kv", "--prompt", "a"], "give one of --prompt, --tokens"),
        (["m.gguf", "--vary", "kv"], "--vary takes one file"),
        (["m.gguf", "--engine", "llama.cpp"], "--tokens belongs to --vary"),
    ],
)
def test_questions_that_cannot_be_asked(tmp_path, monkeypatch, capsys, arguments, words):
    monkeypatch.chdir(tmp_path)
    tiny_gguf(tmp_path / "m.gguf", **SIZES)
    assert run(["sweep", "m.gguf", "--tokens", IDS, *arguments]) == 2
    assert words in capsys.readouterr().err


def test_changes_are_read_once_each():
    assert changes("kv,kv=q8_0, kv") == (Change("kv"), Change("kv", "q8_0"))


@pytest.mark.skipif(ENGINE is None, reason="WORKBENCH_ENGINE_PYTHON names no Python with llama-cpp-python")
@pytest.mark.parametrize("kind", ["gguf", "hf"])
def test_engines_themselves_run_in_several_calls(tmp_path, capsys, kind):
    file = tmp_path / kind
    (tiny_gguf if kind == "gguf" else tiny_safetensors)(file, "llama", "F32", **SIZES)
    found, answer = asked(capsys, 0, file, "--python", ENGINE, "--vary", "tokens,prefix,batch,threads")
    assert answer["engine"] == ("llama.cpp" if kind == "gguf" else "transformers")
    assert all(run["stages"] > 15 for _, run in found.values())
    assert found["prefix"][1]["after"] == "4 first, then 3"
