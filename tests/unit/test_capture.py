"""Capturing a pair: figures, resuming after kills at any instant, and a child process that cannot hurt its parent."""

import itertools
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest

from kernels.errors import WorkbenchError
from kernels.machine import cache
from kernels.stages import Site
from store.errors import StoreError
from store.traces.hdf5 import open_store, partial_path
from tests.artifacts import tiny_apr, tiny_gguf, tiny_safetensors
from tests.crasher import Crasher
from tests.memory_model import spine
from tests.stores import write_store
from workbench.capture.job import (
    CaptureJob,
    CaptureProcess,
    CellReady,
    Failed,
    Finished,
    Progress,
    SideReady,
    event_from_wire,
    event_to_wire,
)
from workbench.capture.lockstep import capture, trace_side
from workbench.cells.cell import cell_to_wire
from workbench.cells.compare import PopulationError
from workbench.session.files import read_log
from workbench.session.session import Session, SessionSpec, Side

ROOT = Path(__file__).parents[2]
LAYERS = 3
TOKENS = (3, 1, 4, 1, 5)


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """The same model, quantized and not, and one that is shallower, on paths that round and that do not."""
    folder = tmp_path_factory.mktemp("models")
    tiny_gguf(folder / "q8.gguf", type="Q8_0", layers=LAYERS)
    tiny_safetensors(folder / "hf", layers=LAYERS)
    tiny_apr(folder / "shallow.apr", type="Q8_0", layers=LAYERS - 1)
    tiny_gguf(folder / "llama.gguf", arch="llama", layers=LAYERS)
    return folder


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(cache.folder().parents[1]))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def job(models, tmp_path):
    a, b = Side(str(models / "q8.gguf"), "ggml"), Side(str(models / "hf"), "f64")
    return CaptureJob(a, b, TOKENS, "drei", tmp_path / "session")


def events_of(job: CaptureJob) -> list:
    events = []
    capture(job, events.append)
    return events


def cells_of(events: list) -> list[dict]:
    return [cell_to_wire(event.cell) for event in events if isinstance(event, CellReady)]


def tensors(path: Path, partial: bool = False) -> dict[Site, bytes]:
    trace = open_store(path, partial)
    return {site: trace.read(site).tobytes() for site in trace.sites()}


# One capture


def test_a_capture_reports_every_stage_of_both_sides_and_keeps_them(job):
    events = events_of(job)
    runs = {event.side: event.run for event in events if isinstance(event, SideReady)}
    assert (runs["a"].numeric_path, runs["b"].numeric_path) == ("ggml", "f64")
    assert runs["a"].tokens == TOKENS
    assert runs["a"].settings["kv"] == "float32"
    assert len(runs["b"].sha256) == 64
    cells = [event.cell for event in events if isinstance(event, CellReady)]
    assert [cell.site for cell in cells] == spine(LAYERS)
    assert {cell.status for cell in cells} == {"ok"}
    progress = [event for event in events if isinstance(event, Progress) and event.phase == "run"]
    assert (progress[-1].done, progress[-1].total) == (len(cells), len(cells))
    assert isinstance(events[-1], Finished)
    for side in "ab":
        assert open_store(job.folder / f"{side}.h5").run == runs[side]
    assert sorted(path.name for path in job.folder.iterdir()) == ["a.h5", "b.h5", "log.jsonl"]
    (entry,) = Session(job.folder, SessionSpec(job.a, job.b, TOKENS)).entries()
    assert entry["a"]["sha256"] == runs["a"].sha256
    assert entry["cells"] == {"ok": len(cells)}


def test_figures_are_those_of_the_stored_tensors(job):
    by_site = {event.cell.site: event.cell for event in events_of(job) if isinstance(event, CellReady)}
    a, b = (open_store(job.folder / f"{side}.h5") for side in "ab")
    for site in (Site(None, "embedding"), Site(1, "ffn_swigl"), Site(None, "lm_head")):
        x, y = (trace.read(site).astype(np.float64) for trace in (a, b))
        expected = np.sqrt(((x - y) ** 2).sum() / (y**2).sum())
        assert by_site[site].measures().rel_rms == pytest.approx(expected, rel=1e-12)


def test_without_a_folder_the_figures_are_the_same(job):
    assert cells_of(events_of(replace(job, folder=None))) == cells_of(events_of(job))


def test_a_reopened_session_reads_what_it_has_and_shows_the_same_figures(job):
    first = events_of(job)
    before = {path.name: path.stat().st_mtime_ns for path in job.folder.glob("*.h5")}
    again = events_of(job)
    assert cells_of(again) == cells_of(first)
    assert not any(isinstance(event, Progress) and event.phase == "compile" for event in again)
    assert {path.name: path.stat().st_mtime_ns for path in job.folder.glob("*.h5")} == before


def test_the_log_says_what_was_compared_once_and_wherever_the_folder_stands(job, models):
    job.folder.mkdir()
    shutil.copy(models / "q8.gguf", job.folder)
    for place in (job.folder, job.folder.with_name("moved")):
        job.folder.rename(place)
        job = replace(job, a=Side(str(place / "q8.gguf"), "ggml"), folder=place)
        events_of(job)
    (place / "a.h5").unlink()
    events_of(job)
    (entry,) = read_log(place)
    assert (entry["kind"], entry["a"]["artifact"]) == ("compared", "q8.gguf")
    assert entry["b"]["artifact"] == str(models / "hf")
    events_of(replace(job, tokens=(*TOKENS, 9)))
    assert [entry["tokens"] for entry in read_log(place)] == [list(TOKENS), [*TOKENS, 9]]


def test_a_session_is_shown_without_its_models(job, models, tmp_path):
    moved = tmp_path / "b"
    tiny_safetensors(moved, layers=LAYERS)
    job = replace(job, b=Side(str(moved), "f64"))
    first = cells_of(events_of(job))
    moved.rename(tmp_path / "elsewhere")
    events = events_of(job)
    assert cells_of(events) == first
    assert any(isinstance(event, Progress) and "is gone; its recorded run is shown" in event.text for event in events)


def test_a_changed_model_is_run_again(job, tmp_path):
    path = tmp_path / "a.gguf"
    job = replace(job, a=Side(str(path), "ggml"))
    tiny_gguf(path, type="Q8_0", layers=LAYERS)
    first = cells_of(events_of(job))
    tiny_gguf(path, type="Q8_0", layers=LAYERS, seed=1)
    assert cells_of(events_of(job)) != first
    assert tensors(job.folder / "a.h5") != tensors(job.folder / "b.h5")


UNREADABLE = {
    "cut": lambda path: os.truncate(path, 5000),
    "something else": lambda path: path.write_text("notes"),
    "of another schema": lambda path: set_schema(path, 99),
    "not to be read": lambda path: path.chmod(0),
}


def set_schema(path, number):
    with h5py.File(path, "r+") as file:
        file.attrs["schema"] = number


@pytest.mark.parametrize("how", UNREADABLE)
def test_a_kept_run_that_cannot_be_read_is_not_replaced(job, how):
    events_of(job)
    kept = job.folder / "a.h5"
    UNREADABLE[how](kept)
    if how == "not to be read" and os.access(kept, os.R_OK):
        pytest.skip("this user may read everything")

    def state():
        status = kept.stat()
        return status.st_ino, status.st_size, status.st_mtime_ns

    before = state()
    with pytest.raises(StoreError, match=r"a\.h5.* (move it away and trace the model again|leave to read it)"):
        events_of(job)
    assert state() == before


def test_a_recorded_trace_is_a_side_and_is_kept_with_the_session(job, tmp_path):
    events = []
    run = trace_side(job.b, TOKENS, "drei", tmp_path / "b.h5", events.append)
    assert open_store(tmp_path / "b.h5").run == run
    assert events[-1] == Progress("run", len(spine(LAYERS)), len(spine(LAYERS)), "lm_head")
    expected = cells_of(events_of(replace(job, folder=tmp_path / "run")))
    recorded = replace(job, b=Side(str(tmp_path / "b.h5"), ""), tokens=())
    assert cells_of(events_of(recorded)) == expected
    (tmp_path / "b.h5").unlink()
    assert cells_of(events_of(recorded)) == expected


def test_sides_of_unlike_shape_stay_aligned(job, models):
    deep, shallow = job.a, Side(str(models / "shallow.apr"), "apr")
    cells = {
        event.cell.site: event.cell
        for event in events_of(replace(job, a=deep, b=shallow))
        if isinstance(event, CellReady)
    }
    assert list(cells) == spine(LAYERS)
    assert cells[Site(LAYERS - 2, "ffn_up")].status == "ok"
    missing = cells[Site(LAYERS - 1, "ffn_up")]
    assert missing.status == "uncomparable"
    assert "B does not have this stage" in missing.note
    assert cells[Site(None, "lm_head")].status == "ok"
    llama = Side(str(models / "llama.gguf"), "f32")
    for pair in ((deep, llama), (llama, deep)):
        found = cells_of(events_of(CaptureJob(*pair, TOKENS)))
        statuses = {cell["stage"]: cell["status"] for cell in found if cell["layer"] == 1}
        assert statuses.pop("qkv_bias") == "uncomparable"
        assert set(statuses.values()) == {"ok"}


def test_a_stage_that_neither_side_has_is_absent(job, models):
    llama = Side(str(models / "llama.gguf"), "f32")
    found = cells_of(events_of(replace(job, a=llama, b=llama)))
    assert {cell["status"] for cell in found if cell["stage"] == "qkv_bias"} == {"absent"}
    assert {cell["status"] for cell in found if cell["stage"] != "qkv_bias"} == {"identical"}
    assert cells_of(events_of(replace(job, a=llama, b=llama))) == found, "read back"


def test_unlike_tokens_are_refused(job, tmp_path):
    trace_side(job.b, TOKENS, None, tmp_path / "b.h5", lambda event: None)
    recorded = replace(job, b=Side(str(tmp_path / "b.h5"), ""))
    with pytest.raises(PopulationError, match="token 2 is 7 in A and 4 in B"):
        capture(replace(recorded, tokens=(3, 1, 7, 1, 5)), lambda event: None)
    with pytest.raises(PopulationError, match="A has 2 tokens and B has 5"):
        capture(replace(recorded, tokens=(3, 1)), lambda event: None)
    with pytest.raises(PopulationError, match="saw other tokens than the ones asked for"):
        capture(replace(recorded, a=recorded.b, tokens=(3, 1)), lambda event: None)
    with pytest.raises(WorkbenchError, match="no tokens"):
        capture(replace(job, tokens=()), lambda event: None)
    with pytest.raises(WorkbenchError, match="not in the vocabulary"):
        capture(replace(job, tokens=(1, 10**6)), lambda event: None)


def test_events_and_jobs_survive_the_wire(job):
    for event in [*events_of(job), Failed("why\n\x1b")]:
        line = json.dumps(event_to_wire(event))
        assert "\n" not in line
        back = event_from_wire(json.loads(line))
        assert type(back) is type(event)
        assert event_to_wire(back) == event_to_wire(event)
    assert CaptureJob.from_json(json.loads(json.dumps(job.to_json()))) == job


# Crashes


def assert_nothing_wrong(folder: Path, expected: dict[str, dict[Site, bytes]]) -> None:
    """Whatever can be read is right; a final name holds everything."""
    for side, right in expected.items():
        path = folder / f"{side}.h5"
        if path.exists():
            assert tensors(path) == right
        if partial_path(path).exists():
            try:
                found = tensors(partial_path(path), partial=True)
            except StoreError:
                continue  # killed while HDF5 was at its tables: nothing can be read, nothing is taken from it
            assert found.items() <= right.items()


@pytest.fixture
def expected(job, tmp_path):
    capture(replace(job, folder=tmp_path / "whole"), lambda event: None)
    return {side: tensors(tmp_path / "whole" / f"{side}.h5") for side in "ab"}


def test_a_capture_killed_at_random_instants_is_never_wrong_and_always_resumed(job, expected, tmp_path):
    dice, kills, resumed = random.Random(0), 0, 0
    with Crasher(job) as crasher:
        start = time.monotonic()
        assert crasher.run(replace(job, folder=tmp_path / "timed"))
        whole = time.monotonic() - start
        for attempt in itertools.count():
            chain = replace(job, folder=tmp_path / str(attempt))
            for _ in range(3):
                kills += not crasher.run(chain, delay=whole * dice.uniform(0.1, 1.0))
                assert_nothing_wrong(chain.folder, expected)
                resumed += any(has_layers(path) for path in chain.folder.glob("*.partial"))
            assert crasher.run(chain)
            assert {side: tensors(chain.folder / f"{side}.h5") for side in "ab"} == expected
            assert not list(chain.folder.glob("*.partial*"))
            if kills >= 20 and resumed >= 5:
                break


def has_layers(path: Path) -> bool:
    try:
        return open_store(path, partial=True).completed_layers > 0
    except StoreError:
        return False


def test_a_capture_killed_at_any_step_of_the_protocol_is_never_wrong(job, expected, tmp_path):
    with Crasher(job) as crasher:
        for step in range(0, 300, 13):
            chain = replace(job, folder=tmp_path / str(step))
            finished = crasher.run(chain, step=step)
            assert_nothing_wrong(chain.folder, expected)
            assert crasher.run(chain)
            assert {side: tensors(chain.folder / f"{side}.h5") for side in "ab"} == expected
            if finished:
                break
    assert step > 50
    assert finished, "the last step was passed"


def test_a_failure_while_writing_keeps_what_can_be_resumed(job, expected, monkeypatch):
    calls = 0

    def reserve(_handle, _offset, _size):
        nonlocal calls
        calls += 1
        if calls == 100:
            raise OSError(28, "No space left on device")

    with monkeypatch.context() as full:
        full.setattr(os, "posix_fallocate", reserve)
        with pytest.raises(StoreError, match=r"h5 cannot be written \(No space left on device\); make room"):
            capture(job, lambda event: None)
    assert_nothing_wrong(job.folder, expected)
    assert open_store(job.folder / "a.h5.partial", partial=True).completed_layers >= 1
    capture(job, lambda event: None)
    assert {side: tensors(job.folder / f"{side}.h5") for side in "ab"} == expected


def test_resumed_cells_are_the_same(job, tmp_path):
    whole = cells_of(events_of(replace(job, folder=tmp_path / "whole")))

    def stop(event):
        if isinstance(event, CellReady) and event.cell.site == Site(2, "attention"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        capture(job, stop)
    assert open_store(job.folder / "b.h5.partial", partial=True).completed_layers == 2
    assert cells_of(events_of(job)) == whole


# The process


def test_the_process_reports_what_a_capture_reports(job, tmp_path, monkeypatch):
    (tmp_path / "numpy.py").write_text("raise SystemExit('the working directory was searched for modules')")
    monkeypatch.chdir(tmp_path)
    events = list(CaptureProcess(job).events())
    assert isinstance(events[-1], Finished)
    assert cells_of(events) == cells_of(events_of(replace(job, folder=None)))


def test_cancelling_ends_the_process_and_keeps_finished_layers(job, expected):
    process = CaptureProcess(job)
    for event in process.events():
        if isinstance(event, CellReady) and event.cell.site == Site(1, "ffn_up"):
            process.cancel()
            assert process._process.poll() is not None
        last = event
    assert not isinstance(last, Failed | Finished)
    assert_nothing_wrong(job.folder, expected)
    assert has_layers(job.folder / "a.h5.partial")
    process.cancel()
    assert isinstance(list(CaptureProcess(job).events())[-1], Finished)


def test_a_reader_that_stops_listening_leaves_no_process(job):
    process = CaptureProcess(job)
    for _ in process.events():
        break
    assert process._process.wait(10) is not None


def test_a_damaged_copy_of_a_recorded_side_is_made_anew(tmp_path):
    sides = []
    for name in "ab":
        write_store(tmp_path / f"{name}.h5")
        sides.append(Side(str(tmp_path / f"{name}.h5"), ""))
    job = CaptureJob(*sides, TOKENS, folder=tmp_path / "s")
    capture(job, lambda _: None)
    copy = tmp_path / "s" / "b.h5"
    with h5py.File(copy) as file:
        offset = file["layers/001/ffn_up"].id.get_offset()
    content = bytearray(copy.read_bytes())
    content[offset] ^= 1
    copy.write_bytes(content)
    capture(job, lambda _: None)
    assert copy.read_bytes() == (tmp_path / "b.h5").read_bytes()


@pytest.mark.parametrize(
    ("ending", "words"),
    [
        (signal.SIGSEGV, "crashed (SIGSEGV)"),
        (signal.SIGKILL, "was killed (SIGKILL), as happens for want of memory"),
        (signal.SIGBUS, "could not read a file that it had mapped (SIGBUS)"),
        (signal.SIGRTMIN + 3, f"was ended by signal {signal.SIGRTMIN + 3}"),
    ],
)
def test_a_crash_of_the_process_is_one_failure(job, ending, words):
    job.folder.mkdir()
    process = CaptureProcess(job)
    events = process.events()
    next(events)
    process._process.send_signal(ending)
    last = list(events)[-1]
    assert isinstance(last, Failed)
    assert last.message.startswith(f"The capture process {words}")
    assert last.message.endswith("run it again, finished layers are kept.")


def test_what_nobody_foresaw_is_logged_and_named(job, monkeypatch, tmp_path):
    (tmp_path / "sitecustomize.py").write_text("import kernels.forward as f; f.check_tokens = lambda *_: 1 / 0")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    events = list(CaptureProcess(job).events())
    assert events[-1] == Failed(
        "The capture process ended with exit code 1 (ZeroDivisionError: division by zero); "
        "run it again, finished layers are kept."
    )
    (entry,) = Session(job.folder, SessionSpec(job.a, job.b, TOKENS)).entries()
    assert entry["kind"] == "capture stderr"
    assert "Traceback" in entry["text"]


def test_what_can_be_told_is_one_failure_in_one_sentence(job):
    broken = replace(job, a=Side("/none/a\x1b[31m.gguf", "ggml"))
    (failure,) = (event for event in CaptureProcess(broken).events() if isinstance(event, Failed))
    assert "a\\x1b[31m.gguf" in failure.message
    assert "\x1b" not in failure.message
    assert not (job.folder / "log.jsonl").exists(), "nothing on stderr"


PARENT = """
import json, sys
from workbench.capture.job import CaptureJob, CaptureProcess

process = CaptureProcess(CaptureJob.from_json(json.loads(sys.argv[1])))
next(process.events())
print(process._process.pid, flush=True)
sys.stdin.read()
"""


def test_the_process_ends_with_its_parent(job):
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, json.dumps(job.to_json())],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    with parent:
        child = int(parent.stdout.readline())
        parent.kill()
    end = time.monotonic() + 10
    while _runs(child) and time.monotonic() < end:
        time.sleep(0.1)
    assert not _runs(child), "the capture outlived its parent"


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
        return Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z"  # a zombie has ended
    except (ProcessLookupError, FileNotFoundError):
        return False


# Hashes


def test_hashes_are_remembered_until_a_file_changes(models, tmp_path):
    from store.open import open_artifact
    from workbench.pair.fingerprints import sha256_of

    path, calls = tmp_path / "a.gguf", []

    def digest() -> str:
        calls.clear()
        return sha256_of(open_artifact(path), lambda done, total: calls.append(total))

    path.write_bytes((models / "q8.gguf").read_bytes())
    os.utime(path, (1e9, 1e9))
    first = digest()
    assert calls
    assert first == open_artifact(path).sha256() == digest()
    assert not calls, "remembered"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    changed = digest()
    assert changed != first
    content[-1] ^= 2
    path.write_bytes(content)
    assert digest() not in (first, changed), "a file that has just changed may change again within its time stamp"
    (tmp_path / "cache" / "layer-workbench" / "sha256.json").write_bytes(b"[broken")
    os.utime(path, (1e9, 1e9))
    assert digest() == open_artifact(path).sha256()
