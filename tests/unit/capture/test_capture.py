"""Capturing a pair: figures, what is kept, refused and run again."""

import json
import os
import shutil
from dataclasses import replace

import h5py
import numpy as np
import pytest

from kernels.errors import WorkbenchError
from kernels.stages import Site
from store.errors import StoreError
from store.traces.hdf5 import open_store
from tests.artifacts import tiny_gguf, tiny_safetensors
from tests.captures import LAYERS, TOKENS, cells_of, events_of, tensors
from tests.memory_model import spine
from tests.stores import run_record, write_store
from workbench.capture.alone import trace_side
from workbench.capture.job import (
    CaptureJob,
    CellReady,
    Failed,
    Finished,
    Progress,
    SideReady,
    event_from_wire,
    event_to_wire,
)
from workbench.capture.lockstep import capture
from workbench.cells.compare import PopulationError
from workbench.session.files import read_log
from workbench.session.session import Session, SessionSpec, Side


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


def test_the_hash_of_a_trace_is_remembered_too_and_tells_how_far_it_is(tmp_path):
    from store.traces.open import open_trace
    from workbench.pair.fingerprints import sha256_of

    write_store(tmp_path / "a.h5")
    os.utime(tmp_path / "a.h5", (1e9, 1e9))
    size, calls = (tmp_path / "a.h5").stat().st_size, []
    for _ in range(2):
        trace = open_trace(tmp_path / "a.h5")
        assert sha256_of(trace, lambda done, total: calls.append((done, total))) == trace.sha256
    assert calls[-1] == (size, size)
    assert len(calls) == -(-size // (1 << 20)), "read once"
    write_store(tmp_path / "other.h5", run_record(prompt="vier"))
    (tmp_path / "a.h5").write_bytes((tmp_path / "other.h5").read_bytes())
    os.utime(tmp_path / "a.h5", (1e9, 1e9))
    assert sha256_of(open_trace(tmp_path / "a.h5")) != trace.sha256


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
    os.utime(path, (1e9, 1e9))
    settled = digest()
    content[-1] ^= 4
    path.write_bytes(content)
    os.utime(path, (1e9, 1e9))
    assert digest() != settled, "new bytes under the old size, time and inode"
    (tmp_path / "cache" / "layer-workbench" / "sha256.json").write_bytes(b"[broken")
    os.utime(path, (1e9, 1e9))
    assert digest() == open_artifact(path).sha256()
