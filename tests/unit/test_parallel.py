"""Work in shares: every row once, whoever asks and however many; errors reach who asked; the same bits."""

import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kernels import ops
from kernels.kinds.attention import Attention
from kernels.machine.parallel import over_rows


@given(
    rows=st.integers(0, 300),
    least=st.integers(1, 40),
    most=st.none() | st.integers(40, 80),
    threads=st.integers(1, 5),
    callers=st.integers(1, 4),
)
@settings(max_examples=60, deadline=None)
def test_every_row_is_computed_once(rows, least, most, threads, callers):
    def ask(_):
        seen = np.zeros(rows, np.int64)

        def compute(start, stop):
            assert (stop - start) % least == 0 or stop == rows
            assert stop - start < (most or rows) + least
            seen[start:stop] += 1

        over_rows(compute, rows, least, most)
        return seen

    with pytest.MonkeyPatch.context() as environment, ThreadPoolExecutor(callers) as pool:
        environment.setenv("WORKBENCH_THREADS", str(threads))
        assert all((seen == 1).all() for seen in pool.map(ask, range(callers)))


@pytest.mark.parametrize("threads", ["1", "3"])
def test_an_error_reaches_who_asked_no_share_is_begun_after_it_and_the_threads_work_on(threads, monkeypatch):
    monkeypatch.setenv("WORKBENCH_THREADS", threads)
    done = []

    def compute(start, stop):
        if start == 7:
            raise KeyboardInterrupt
        time.sleep(0.01)
        done.extend(range(start, stop))

    with pytest.raises(KeyboardInterrupt):
        over_rows(compute, 100, most=1)
    assert set(range(5)) <= set(done) <= set(range(12))
    over_rows(lambda start, stop: done.extend(range(start, stop)), 5)
    assert sorted(done[-5:]) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(("causal", "window"), [(True, None), (True, 5), (False, None)])
def test_attention_in_blocks_of_tokens_has_the_same_bits(causal, window, monkeypatch):
    how = Attention(4, 2, 8, 0.3, 48, causal, window)
    q, k, v = (np.random.default_rng(heads).standard_normal((23, heads * 8), np.float32) for heads in (4, 2, 3))
    whole = ops.attention(q, k, v[:, :16], how)
    monkeypatch.setattr(ops, "_SCORES", 23 * 4)
    assert np.array_equal(ops.attention(q, k, v[:, :16], how), whole)
