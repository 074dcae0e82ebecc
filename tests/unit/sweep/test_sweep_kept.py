"""Runs of A that are kept: the same bits as those computed, and nothing but those."""

import numpy as np
import pytest

from tests.artifacts import tiny_gguf
from workbench.sweep import kept, measuring, question
from workbench.sweep.question import Prompt, ask, program_digest

IDS = (3, 1, 4, 1, 5)


@pytest.fixture
def asked(tmp_path):
    for name, type in (("a", "Q8_0"), ("b", "Q4_0"), ("c", "Q5_0")):
        tiny_gguf(tmp_path / name, "gemma3", type)
    return {name: ask((tmp_path / "a", tmp_path / name), (None, None)) for name in "bc"}


def test_a_run_is_kept_for_all_copies_and_the_same_bits_come_back(asked, runs, monkeypatch):
    first = measuring.base(asked["b"], Prompt(IDS))
    with monkeypatch.context() as patched:
        patched.setattr(measuring, "forward", None)  # nothing is run again
        again = measuring.base(asked["c"], Prompt(IDS))
    assert (again.tokens, again.floor.flips) == (IDS, first.floor.flips)
    of_first, of_again = first.arrays(), again.arrays()
    assert of_first.keys() == of_again.keys()
    assert all(np.array_equal(of_first[name], of_again[name]) for name in of_first)
    assert all(of_first[name].dtype == of_again[name].dtype for name in of_first)
    assert again.entries.keys() == first.entries.keys()
    measuring.base(asked["b"], Prompt(IDS[:4]))
    assert len(list(runs.iterdir())) == 2


def test_a_damaged_run_is_computed_and_one_for_which_there_is_no_room_is_not_kept(asked, runs, monkeypatch):
    first = measuring.base(asked["b"], Prompt(IDS))
    (file,) = runs.iterdir()
    whole = bytearray(file.read_bytes())
    whole[len(whole) // 2] ^= 1
    file.write_bytes(whole)
    assert np.array_equal(measuring.base(asked["b"], Prompt(IDS)).reference.logits, first.reference.logits)
    assert file.read_bytes() != bytes(whole)
    monkeypatch.setattr(kept, "MOST", 2 * file.stat().st_size)
    for tokens in (IDS[:4], IDS[:3]):
        measuring.base(asked["b"], Prompt(tokens))
    assert not file.exists()  # what was used last stays
    monkeypatch.setattr(kept, "MOST", 10)
    before = set(runs.iterdir())
    measuring.base(asked["b"], Prompt(IDS))
    assert set(runs.iterdir()) == before


def test_results_are_of_all_source_that_computes_and_not_of_what_shows_them(tmp_path, monkeypatch):
    monkeypatch.setattr(question, "_ROOT", tmp_path)
    files = [tmp_path / name for name in ("kernels/a.py", "store/b/c.py", "workbench/sweep/d.py", "workbench/cli/e.py")]
    seen = []
    for file in files:
        file.parent.mkdir(parents=True)
        file.write_text("1")
    for file in (None, *files):
        if file is not None:
            file.write_text("2")
        seen.append(program_digest.__wrapped__())
    assert len(set(seen)) == 4
    assert seen[-1] == seen[-2]
