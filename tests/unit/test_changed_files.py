"""A model that is written to or replaced while it is open: one sentence, up to the last part of every piece of work."""

import os
import shutil

import pytest

from store.errors import ArtifactError
from store.files.apr_writer import convert_to_apr
from store.open import open_artifact
from store.traces.hdf5 import open_store, partial_path
from tests.artifacts import tiny_gguf
from workbench.bisect.pair import bisect_pair
from workbench.capture.alone import trace_side
from workbench.capture.job import CaptureJob, CellReady, Progress
from workbench.capture.lockstep import capture
from workbench.pair.pair import open_pair
from workbench.session.session import Side
from workbench.tensors.sweep import sweep

TOKENS = (3, 1, 4)


def replaced(path):
    shutil.copy2(path, path.with_name("new"))
    os.replace(path.with_name("new"), path)  # the same size and time


def written(path):
    with path.open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        file.write(b"\x55")


@pytest.fixture
def models(tmp_path):
    for name in "ab":
        tiny_gguf(tmp_path / f"{name}.gguf", layers=3)
    return tmp_path


def at_the_end(change, path):
    """A progress callback that changes a file when the last step is reached."""

    def progress(done, total, *_text):
        if total and done >= total - 4 and not changed:  # the last step may be four bytes of checksum
            changed.append(True)
            change(path)

    changed = []
    return progress


@pytest.mark.parametrize("change", [replaced, written])
def test_every_work_ends_in_a_sentence(models, change):
    a, b = models / "a.gguf", models / "b.gguf"
    (models / "out").mkdir()

    def tracing(progress):
        def emit(event):
            if isinstance(event, Progress) and event.phase == "run":
                progress(event.done, event.total)

        trace_side(Side(str(a), "ggml"), TOKENS, None, models / "out" / "o.h5", emit)

    def comparing(progress):
        cells = []

        def emit(event):
            if isinstance(event, CellReady):
                cells.append(event.cell)
                progress(len(cells), 3 * 16 + 3)

        capture(CaptureJob(Side(str(a), "ggml"), Side(str(b), "f32"), TOKENS), emit)

    works = {
        "trace": tracing,
        "compare": comparing,
        "bisect": lambda progress: bisect_pair(open_pair((a, b), (None, None), TOKENS, None), progress),
        "weights": lambda progress: list(sweep(open_artifact(a), open_artifact(b), progress)),
        "convert": lambda progress: convert_to_apr(open_artifact(a), models / "out" / "o.apr", progress),
    }
    for work, do in works.items():
        shutil.copy(b, a)
        with pytest.raises(ArtifactError, match=r"a\.gguf has changed since it was opened; open it again") as told:
            do(at_the_end(change, a))
        assert str(told.value).count("\n") == 0, work
    assert {path.name for path in (models / "out").iterdir()} <= {"o.h5.partial"}, "no output of two models"


def test_a_layer_of_other_weights_is_not_resumed(models):
    path = models / "a.gguf"

    def emit(event):
        if isinstance(event, Progress) and event.text == "layer 1 post_ffn_residual":
            written(path)

    with pytest.raises(ArtifactError, match="has changed"):
        trace_side(Side(str(path), "ggml"), TOKENS, None, models / "o.h5", emit)
    assert open_store(partial_path(models / "o.h5"), partial=True).completed_layers == 1
