"""Memory that goes round: lent again only when nothing refers to it, and kept up to a limit."""

import subprocess
import sys

import numpy as np
import pytest

from kernels.machine import memory

SHAPE = (3, 5000)
BYTES = 4 * 15000


@pytest.fixture(autouse=True)
def nothing_kept(monkeypatch):
    monkeypatch.setattr(memory, "_free", {})


def place(array):
    return array.__array_interface__["data"][0]


def test_memory_is_lent_again_when_no_array_refers_to_it():
    first = memory.lent(SHAPE, np.float32)
    where = place(first)
    del first
    assert place(memory.lent((5000, 3), np.float32)) == where


def test_a_view_keeps_the_memory_of_its_array():
    first = memory.lent(SHAPE, np.float32)
    first[:] = 7
    rows = [first[1], first.T[2:4].reshape(-1)[::3], memoryview(first)]
    del first
    later = memory.lent(SHAPE, np.float32)
    later[:] = 9
    assert all((np.asarray(row) == 7).all() for row in rows)


def test_no_more_than_the_limit_is_kept(monkeypatch):
    monkeypatch.setattr(memory, "_MOST", 3 * BYTES)
    arrays = [memory.lent(SHAPE, np.float32) for _ in range(5)]
    for number in range(5):
        arrays[number] = None
        assert sum(block.size for blocks in memory._free.values() for block in blocks) <= 3 * BYTES


@pytest.mark.parametrize("shape", [(), (1,), (7, 3)])
def test_arrays_begin_with_a_cache_line(shape):
    for array in (memory.lent(shape, np.float64), memory.aligned(shape, np.float32)):
        assert array.shape == shape
        assert place(array) % memory.LINE == 0
        assert array.flags.writeable


def test_a_process_ends_in_silence_while_arrays_are_left():
    program = """
import threading, time
import numpy as np
from kernels.machine import memory
memory.left_behind = memory.lent((8,), np.float32)
np.left_behind = memory.lent((7,), np.float32)
threading.Thread(target=lambda x=memory.lent((9,), np.float32): time.sleep(60), daemon=True).start()
"""
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=False)
    assert (ended.returncode, ended.stderr) == (0, "")
