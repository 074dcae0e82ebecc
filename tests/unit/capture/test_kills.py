"""A capture killed at any instant is never wrong, and is resumed."""

import itertools
import os
import random
import time
from dataclasses import replace

import pytest

from kernels.stages import Site
from store.errors import StoreError
from store.traces.hdf5 import open_store
from tests.captures import assert_nothing_wrong, cells_of, events_of, has_layers, tensors
from tests.crasher import Crasher
from workbench.capture.job import CellReady
from workbench.capture.lockstep import capture


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
