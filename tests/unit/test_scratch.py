"""Temporary folders: gone at the end, and at the next start if the process was killed."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from store.scratch import remove_left_behind, scratch_folder
from tests.artifacts import tiny_gguf
from workbench.__main__ import run

ROOT = Path(__file__).parents[2]
KILLED = """
import sys
from store.scratch import scratch_folder
with scratch_folder() as folder:
    (folder / "a.h5").write_bytes(b"half of a trace")
    print(folder, flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def temporary(tmp_path, monkeypatch):
    place = tmp_path / "tmp"
    place.mkdir()
    monkeypatch.setenv("TMPDIR", str(place))
    monkeypatch.setattr("tempfile.tempdir", None)
    return place


def test_what_a_killed_process_left_is_removed_and_nothing_else(temporary):
    for name in ("layer-workbench", "layer-workbench-1", f"layer-workbench-{'0' * 32}.bak"):
        (temporary / name).mkdir()
    (temporary / f"layer-workbench-{'1' * 32}").write_text("a file")
    (temporary / f"layer-workbench-{'2' * 32}").symlink_to("layer-workbench")
    kept = set(temporary.iterdir())
    with subprocess.Popen(
        [sys.executable, "-c", KILLED], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        left = Path(process.stdout.readline().strip())
        remove_left_behind()
        assert (left / "a.h5").exists(), "it is in use"
        process.send_signal(signal.SIGKILL)
    with scratch_folder() as own:
        remove_left_behind()
        assert os.listdir(own) == []
        assert set(temporary.iterdir()) == {*kept, own}
    assert set(temporary.iterdir()) == kept


def test_comparing_begins_with_tidying_up(temporary, tmp_path):
    (temporary / f"layer-workbench-{'f' * 32}").mkdir()
    tiny_gguf(tmp_path / "m.gguf", layers=1)
    assert run(["compare", *[str(tmp_path / "m.gguf")] * 2, "--tokens", "1,2"]) == 0
    assert list(temporary.iterdir()) == []
