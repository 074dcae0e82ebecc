"""Two programs on one session: one captures, the other waits for it and then shows the same cells."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from store.whole_files import alone_in
from tests.captures import cells_of
from workbench.capture.job import CaptureProcess, Finished, Progress
from workbench.pair.pairing import open_or_create
from workbench.session.session import Session, SessionSpec, Side


def never() -> None:
    raise AssertionError("nobody else is at work")


def test_a_capture_waits_for_the_one_that_is_at_work_and_says_so(job):
    job.folder.mkdir()
    with alone_in(job.folder, never):
        events = CaptureProcess(job).events()
        first = next(events)
    rest = list(events)
    assert isinstance(first, Progress)
    assert f"{first.phase} {first.text}" == "wait for another process at work on it"
    assert isinstance(rest[-1], Finished)
    with alone_in(job.folder, never):
        pass


def test_two_captures_of_one_session_at_the_same_time_both_end_with_all_cells(job):
    processes = [CaptureProcess(job) for _ in range(3)]
    with ThreadPoolExecutor(3) as threads:
        told = list(threads.map(lambda process: list(process.events()), processes))
    assert [type(events[-1]) for events in told] == [Finished] * 3
    assert cells_of(told[0]) == cells_of(told[1]) == cells_of(told[2])


def test_a_capture_that_is_given_up_while_it_waits_is_gone(job):
    job.folder.mkdir()
    with alone_in(job.folder, never):
        process = CaptureProcess(job)
        events = process.events()
        next(events)
        process.cancel()
        assert list(events) == []


def test_a_session_made_by_another_process_this_instant_is_opened(tmp_path, monkeypatch):
    spec = SessionSpec(Side("/models/a.gguf", "ggml"), Side("/models/b.apr", "apr"), (1, 2))
    create = Session.create

    def late(folder, wanted):
        create(folder, spec)
        return create(folder, wanted)

    monkeypatch.setattr(Session, "create", late)
    assert open_or_create(tmp_path / "pair", spec).spec.tokens == (1, 2)
    with pytest.raises(Exception, match="another pair or other tokens"):
        open_or_create(tmp_path / "other", replace(spec, tokens=(3,)))
