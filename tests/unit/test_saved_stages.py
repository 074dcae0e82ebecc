"""Chosen stages of a run: the same bytes at any time, every bit of every value, read by others and by us."""

import json
import os
import shutil
import signal
import struct
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
from safetensors.numpy import load_file

from kernels.forward import forward
from kernels.models import execution_order
from kernels.paths import numeric_path
from kernels.stages import Site
from store.open import open_artifact
from store.traces.dump_writer import FORMATS, Dump, dump_writer
from store.traces.open import open_trace
from tests.artifacts import tiny_gguf
from tests.stores import place as place_in_store
from tests.stores import run_record
from tests.unit.test_structure import ROOT
from workbench.__main__ import run
from workbench.cli.trace import FORMAT_NAMES
from workbench.demo import MODEL

TOKENS = (482, 803, 10, 67, 14, 310, 307)
IDS = ["--tokens", ",".join(map(str, TOKENS))]
ENGINE = ROOT / "tests/golden/llama-cpp-tiny-qwen2-q4_k_m.npz"


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copy(MODEL, "model.gguf")
    return tmp_path


@pytest.fixture(scope="module")
def computed():
    """Every stage of the run, from the forward itself."""
    stages = forward(open_artifact(MODEL), TOKENS, numeric_path("ggml"))
    return {site: np.float32(values) for site, values in stages}


def save(output, format, stages="all", *more):
    return run(["trace", "model.gguf", *IDS, "--save-tensor", stages, "--format", format, "-o", output, *more])


def content(path):
    """The bytes of a file, or of every file of a folder by its name."""
    path = Path(path)
    files = sorted(path.rglob("*")) if path.is_dir() else [path]
    return {file.relative_to(path).as_posix(): file.read_bytes() for file in files if file.is_file()}


def aprt(path):
    """An APRT file read as its definition says: layer, values."""
    raw = Path(path).read_bytes()
    magic, layer, count = struct.unpack_from("<4sII", raw)
    assert (magic, len(raw)) == (b"APRT", 12 + 4 * count)
    return layer, raw[12:]


def values_in(path, format, site):
    """The bytes of a stage as somebody else's reader finds them."""
    key = f"stage|{-1 if site.layer is None else site.layer}|{site.stage}"
    if format == "npz":
        with np.load(path) as archive:
            return archive[key].tobytes()
    if format == "safetensors":
        return load_file(path)[key].tobytes()
    if format == "h5":
        with h5py.File(path) as file:
            return file[place_in_store(site)][()].tobytes()
    layer = 0 if site.stage == "embedding" else site.layer
    name = "post_ffn_residual" if site.stage == "layer_output" else site.stage
    told, values = aprt(f"{path}/{name}.bin" if layer is None else f"{path}/layer-{layer}/{name}.bin")
    assert told == (0xFFFFFFFF if layer is None else layer)
    return values


def test_the_formats_of_the_option_are_those_that_are_written():
    assert tuple(FORMATS) == FORMAT_NAMES


@pytest.mark.parametrize("format", FORMAT_NAMES)
def test_every_bit_is_there_and_the_bytes_are_those_of_any_other_day(format, computed, monkeypatch):
    assert save("one", format) == 0
    tomorrow, ns = time.time() + 90_000, time.time_ns() + 90_000 * 10**9
    monkeypatch.setattr("time.time", lambda: tomorrow)
    monkeypatch.setattr("time.time_ns", lambda: ns)
    monkeypatch.setattr("store.traces.run.now", lambda: "2031-01-01T00:00:00.000+00:00")
    monkeypatch.setattr("workbench.capture.lockstep.now", lambda: "2031-01-01T00:00:00.000+00:00")
    assert save("two", format) == 0
    assert content("one") == content("two")
    for site, values in computed.items():
        kept = values[-1:] if format == "aprt" and site.stage == "lm_head" else values
        assert values_in("one", format, site) == kept.tobytes(), site


@pytest.mark.parametrize("format", FORMAT_NAMES)
def test_only_the_chosen_stages_are_there_and_the_run_ends_with_them(format, computed, capsys):
    assert save("out", format, " FFN_gate,lm_head , embedding", "--layers", "0,3-4") == 0
    chosen = {Site(None, "embedding"), *(Site(n, "ffn_gate") for n in (0, 3, 4)), Site(None, "lm_head")}
    trace = open_trace("out")
    assert set(trace.sites()) == chosen
    assert all(values_in("out", format, site) for site in chosen)
    assert save("short", format, "attn_norm", "--layers", "0", "--json") == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["stages"] == [{"layer": 0, "stage": "attn_norm"}]


@pytest.mark.parametrize("format", FORMAT_NAMES)
def test_a_trace_of_ours_says_the_same(format, capsys):
    assert save("out", format, "all", "--path", "apr") == 0
    assert run(["inspect", "out"]) == 0
    assert run(["compare", "out", "model.gguf", *IDS, "--path-b", "apr", "--scope", "last"]) == 0
    assert "0 with differences" not in capsys.readouterr().out
    assert run(["bisect", "model.gguf", "out", *IDS, "--path-a", "apr", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["verdict"] == "alike"


def test_the_layout_of_an_aprt_folder_is_aprs(computed):
    assert save("out", "aprt", "embedding,ffn_gate,layer_output,final_norm,lm_head", "--layers", "0,5") == 0
    sizes = {name: len(raw) for name, raw in content("out").items()}
    assert sizes == {
        "final_norm.bin": 12 + 4 * 7 * 256,
        "lm_head.bin": 12 + 4 * 2048,
        "layer-0/embedding.bin": 12 + 4 * 7 * 256,
        "layer-0/ffn_gate.bin": 12 + 4 * 7 * 768,
        "layer-0/post_ffn_residual.bin": 12 + 4 * 7 * 256,
        "layer-5/ffn_gate.bin": 12 + 4 * 7 * 768,
        "layer-5/post_ffn_residual.bin": 12 + 4 * 7 * 256,
    }


def test_what_is_saved_is_what_llama_cpp_computes():
    assert save("out", "npz", "ffn_gate") == 0
    with np.load("out") as ours, np.load(ENGINE) as theirs:
        layers = [int(key.split(".")[0]) for key in theirs.files if key.endswith(".ffn_gate")]
        assert layers
        for layer in layers:
            a, b = ours[f"stage|{layer}|ffn_gate"], theirs[f"{layer}.ffn_gate"]
            assert np.linalg.norm(a - b) < 1e-5 * np.linalg.norm(b)


@pytest.mark.parametrize("format", FORMAT_NAMES)
def test_a_nan_keeps_its_payload(format, folder):
    record = run_record(layers=1)
    record = replace(record, versions={"layer-workbench": "1"})
    patterns = np.array([[0x7FC01234, 0xFF800001, 0x7F800000, 0x80000000, 1, 0x7FFFFFFF, 0, 0xFFC00000]], np.uint32)
    values, site = np.repeat(patterns, 5, axis=0).view(np.float32), Site(0, "ffn_out")
    absent = frozenset(execution_order(record.config)) - {site}
    with dump_writer(format, folder / "out", Dump(record, {site: values.shape}, absent, True)) as write:
        write(site, values)
    assert values_in("out", format, site) == values.tobytes()
    assert np.asarray(open_trace("out").stages[site].load()).tobytes() == values.tobytes()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (
            ["--save-tensor", "ffn_gat", "-o", "x"],
            "'ffn_gat' names no stage; did you mean ffn_gate?",
        ),
        (["--save-tensor", "ffn_gate,,ffn_up", "-o", "x"], "names no stage"),
        (["--save-tensor", "\x1b[2J", "-o", "x"], "\\x1b[2j"),
        (["--save-tensor", "q_norm", "-o", "x"], "model.gguf has no stage q_norm; its stages are embedding, attn_norm"),
        (["--save-tensor", "all", "--layers", "2-6", "-o", "x"], "has no layer 6; its layers are 0 to 5"),
        (["--save-tensor", "all", "--layers", "5-2", "-o", "x"], "is no layer and no range"),
        (["--save-tensor", "all", "--layers", "", "-o", "x"], "is no layer and no range"),
        (["--save-tensor", "embedding", "--layers", "3", "-o", "x"], "would hold nothing"),
        (["--save-tensor", "all"], "give -o OUT"),
        (["--layers", "3", "-o", "x"], "--layers belongs to --save-tensor"),
        (["--format", "npz", "-o", "x"], "--format belongs to --save-tensor"),
        (["--scope", "last", "-o", "x"], "--scope belongs to --stats"),
        ([], "give -o OUT for what is kept, or --stats"),
    ],
)
def test_what_cannot_be_saved_is_refused_before_anything_is_run(arguments, words, folder, capsys):
    before = sorted(folder.iterdir())
    assert run(["trace", "model.gguf", *IDS, *arguments]) == 2
    err = capsys.readouterr().err
    assert words in err
    assert err.count("\n") == 1
    assert sorted(folder.iterdir()) == before


@pytest.mark.parametrize("format", FORMAT_NAMES)
def test_an_output_is_never_an_input_a_link_or_somebody_elses(format, folder, capsys):
    Path("theirs/layer-0").mkdir(parents=True)
    Path("theirs/layer-0/ffn_gate.bin").write_bytes(b"APRT but a text")
    Path("theirs/notes.txt").write_text("somebody's")
    Path("empty").mkdir()
    for name, target in (("link", "model.gguf"), ("dangling", "nowhere"), ("way", "empty")):
        os.symlink(target, name)
    os.mkfifo("pipe")
    before = content(folder)
    for output in ("model.gguf", "link", "dangling", "way", "pipe", "theirs", ".", "..", "no/folder", "/dev/null"):
        assert save(output, format, "ffn_gate", "--force") == 2, output
        assert capsys.readouterr().err.count("\n") == 1
    assert content(folder) == before
    assert sorted(p.name for p in folder.iterdir()) == sorted(
        ["model.gguf", "theirs", "empty", "link", "dangling", "way", "pipe"]
    )


@pytest.mark.parametrize("format", FORMAT_NAMES)
def test_what_is_there_is_replaced_as_a_whole_and_only_if_asked_to(format, capsys):
    assert save("out", format, "ffn_gate", "--layers", "2") == 0
    before = content("out")
    assert save("out", format, "ffn_up", "--layers", "1") == 2
    assert "--force" in capsys.readouterr().err
    assert content("out") == before
    assert save("out", format, "ffn_up", "--layers", "1", "--force") == 0
    assert open_trace("out").sites() == [Site(1, "ffn_up")]


@pytest.mark.parametrize("format", FORMAT_NAMES)
def test_a_run_that_is_killed_leaves_nothing_half(format, folder):
    tiny_gguf(Path("large.gguf"), hidden=512, layers=2)
    tokens = ",".join("1" for _ in range(1500))
    arguments = ["trace", "large.gguf", "--tokens", tokens, "--save-tensor", "all", "--format", format, "-o", "out"]
    command = [sys.executable, "-m", "workbench", *arguments]
    with subprocess.Popen(command, env=os.environ | {"PYTHONPATH": str(ROOT)}, stderr=subprocess.DEVNULL) as process:
        deadline = time.monotonic() + 60
        while not (left := [p for p in folder.iterdir() if p.name.startswith(".workbench-")]):
            assert time.monotonic() < deadline
            assert process.poll() is None
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
    assert [p.exists() for p in left] == [True]
    assert not Path("out").exists()
    assert save("out", format, "ffn_gate") == 0
    assert sorted(p.name for p in folder.iterdir()) == ["large.gguf", "model.gguf", "out"]


def test_statistics_and_chosen_stages_come_from_one_run(capsys):
    assert save("out", "npz", "ffn_gate", "--layers", "1", "--stats", "--json") == 0
    record = json.loads(capsys.readouterr().out)
    assert len(record["cells"]) == 99
    with np.load("out") as archive:
        values = archive["stage|1|ffn_gate"].astype(np.float64)
    cell = next(cell for cell in record["cells"] if (cell["layer"], cell["stage"]) == (1, "ffn_gate"))
    assert cell["std"] == pytest.approx(values.std(), rel=1e-12)
