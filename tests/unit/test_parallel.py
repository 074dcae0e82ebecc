"""Work in shares: every row once, whoever asks and however many; errors reach who asked."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kernels.machine.parallel import over_rows


@given(rows=st.integers(0, 300), least=st.integers(1, 40), threads=st.integers(1, 5), callers=st.integers(1, 4))
@settings(max_examples=60, deadline=None)
def test_every_row_is_computed_once(rows, least, threads, callers):
    def ask(_):
        seen = np.zeros(rows, np.int64)

        def compute(start, stop):
            assert (stop - start) % least == 0 or stop == rows
            seen[start:stop] += 1

        over_rows(compute, rows, least)
        return seen

    with pytest.MonkeyPatch.context() as environment, ThreadPoolExecutor(callers) as pool:
        environment.setenv("WORKBENCH_THREADS", str(threads))
        assert all((seen == 1).all() for seen in pool.map(ask, range(callers)))


def test_an_error_reaches_who_asked_and_the_threads_work_on(monkeypatch):
    monkeypatch.setenv("WORKBENCH_THREADS", "3")
    done = []

    def compute(start, stop):
        if 7 in range(start, stop):
            raise ValueError("row 7")
        done.extend(range(start, stop))

    with pytest.raises(ValueError, match="row 7"):
        over_rows(compute, 12)
    assert {0, 11} <= set(done)
    over_rows(lambda start, stop: done.extend(range(start, stop)), 5)
    assert sorted(done[-5:]) == [0, 1, 2, 3, 4]
