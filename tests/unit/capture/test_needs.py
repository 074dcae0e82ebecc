"""What a run says beforehand that it will write and hold, and what it writes."""

import shutil
from collections import namedtuple

import numpy as np
import pytest

from kernels.errors import WorkbenchError
from store.open import open_artifact
from store.traces.statistics import open_statistics
from tests.artifacts import tiny_gguf
from workbench.__main__ import run
from workbench.capture.alone import trace_side
from workbench.capture.job import CaptureJob
from workbench.capture.lockstep import capture
from workbench.capture.needs import needs, together
from workbench.session.session import Side

TOKENS = tuple(range(20))


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("needs")
    for layers in (2, 5):
        tiny_gguf(folder / f"{layers}.gguf", "gemma2", "Q8_0", layers=layers)
    return {layers: folder / f"{layers}.gguf" for layers in (2, 5)}


@pytest.mark.parametrize("path", ["ggml", "f64"])
def test_a_store_is_as_long_as_was_said(models, tmp_path, path):
    told = needs(open_artifact(models[5]), len(TOKENS), path)
    trace_side(Side(str(models[5]), path), TOKENS, None, tmp_path / "a.h5", lambda _: None)
    written = (tmp_path / "a.h5").stat().st_size
    assert written <= told.written < 1.25 * written + (1 << 17)
    assert told.held == needs(open_artifact(models[2]), len(TOKENS), path).held  # whatever the depth
    assert together([told, told]).written == 2 * told.written


def test_nothing_is_begun_for_which_the_disk_has_no_room(models, tmp_path, monkeypatch):
    usage = namedtuple("usage", "free")
    told = needs(open_artifact(models[2]), len(TOKENS), "ggml").written
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(told - 1))
    side = Side(str(models[2]), "ggml")
    said = rf"needs about {told:,} bytes, and its disk has room for {told - 1:,}; make room, .*--statistics-only$"
    with pytest.raises(WorkbenchError, match=said):
        trace_side(side, TOKENS, None, tmp_path / "a.h5", lambda _: None)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(2 * told - 1))  # for one of the two sides
    with pytest.raises(WorkbenchError, match=f"needs about {2 * told:,} bytes"):
        capture(CaptureJob(side, side, TOKENS, None, tmp_path / "session"), lambda _: None)
    assert not list(tmp_path.rglob("*.h5*"))


def test_statistics_alone_are_a_table_and_no_tensor(models, tmp_path, capsys):
    output = tmp_path / "only.json"
    asked = ["trace", str(models[2]), "--tokens", ",".join(map(str, TOKENS)), "--json"]
    assert run([*asked, "--statistics-only", "-o", str(output)]) == 0
    said = capsys.readouterr()
    assert "memory beside the mapped files" in said.err
    assert run([*asked, "--stats"]) == 0
    assert capsys.readouterr().out == said.out
    table = open_statistics(output)
    assert table.tokens == TOKENS
    assert all(np.isfinite(found.rms) for found in table.cells.values())
    assert not list(tmp_path.rglob("*.h5*"))
    assert run([*asked, "--statistics-only", "-o", str(output)]) == 2
    assert "only.json exists" in capsys.readouterr().err
    assert run([*asked, "--statistics-only"]) == 2
    assert "give -o OUT.json" in capsys.readouterr().err
