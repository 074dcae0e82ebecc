"""A capture in a child process that cannot hurt its parent."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import h5py
import pytest

from kernels.stages import Site
from tests.captures import TOKENS, assert_nothing_wrong, cells_of, events_of, has_layers
from tests.stores import write_store
from workbench.capture.job import (
    CaptureJob,
    CaptureProcess,
    CellReady,
    Failed,
    Finished,
)
from workbench.capture.lockstep import capture
from workbench.session.session import Session, SessionSpec, Side

ROOT = Path(__file__).parents[3]


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
