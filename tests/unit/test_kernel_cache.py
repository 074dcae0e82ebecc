"""Compiled kernels on disk: whatever happens to the files, the answer is the same."""

import errno
import json
import os
import pickle
import shutil
import subprocess
import sys
import time
from hashlib import sha256
from pathlib import Path

import pytest

from kernels.machine import cache
from kernels.machine.compiler import kernel
from kernels.machine.sources import source_digest
from workbench.__main__ import run
from workbench.demo import MODEL

ROOT = Path(__file__).parents[2]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(cache, "folder", lambda: tmp_path)
    monkeypatch.setattr(cache, "_problems", [])
    return tmp_path


def compiled():
    @kernel()
    def tripled(x):
        return 3 * x

    tripled.compile("int64(int64)")
    assert tripled(14) == 42
    return sum(tripled.stats.cache_hits.values())


def test_a_call_loads_what_was_compiled_ahead(folder):
    """Under whichever words: `compile_all` has a signature as text, a call the types of its arguments."""
    assert compiled() == 0
    (file,) = folder.iterdir()

    @kernel()
    def tripled(x):
        return 3 * x

    tripled._cache._name = file.name.rpartition("-")[0]
    assert tripled(14) == 42
    assert sum(tripled.stats.cache_hits.values()) == 1
    assert [file] == list(folder.iterdir())


def stored(content: bytes) -> bytes:
    return sha256(content).digest() + content


DAMAGES = {
    "nothing": lambda data: b"",
    "the first half": lambda data: data[: len(data) // 2],
    "a flipped bit of machine code": lambda data: data[:2000] + bytes([data[2000] ^ 1]) + data[2001:],
    "zeros": lambda data: bytes(len(data)),
    "no pickle, with its checksum": lambda data: stored(b"x"),
    "another pickle, with its checksum": lambda data: stored(pickle.dumps((1, 2))),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_what_a_spoiled_file_held_is_compiled_again(folder, damage):
    assert compiled() == 0
    (file,) = folder.iterdir()
    whole = file.read_bytes()
    assert compiled() == 1
    file.write_bytes(DAMAGES[damage](whole))
    assert compiled() == 0
    assert compiled() == 1
    assert [file] == list(folder.iterdir())


def test_what_a_killed_process_was_writing_is_removed_later(folder):
    for name, age in (("unfinished-1", 3600), ("unfinished-2", 0), ("other", 3600)):
        (folder / name).touch()
        os.utime(folder / name, (time.time() - age,) * 2)
    assert compiled() == 0
    assert {path.name for path in folder.iterdir() if path.suffix != ".kernel"} == {"unfinished-2", "other"}


@pytest.mark.parametrize("obstacle", [errno.ENOSPC, errno.EROFS, errno.EACCES])
def test_without_a_place_for_the_cache_it_is_said_once_beside_the_answer(folder, obstacle, monkeypatch, capsys):
    def fails(*_):
        raise OSError(obstacle, os.strerror(obstacle))

    monkeypatch.setattr(Path, "replace", fails)
    assert [compiled(), compiled()] == [0, 0]
    assert list(folder.iterdir()) == []
    assert run(["inspect", str(MODEL), "--json"]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["config"]["num_hidden_layers"] == 6
    assert err.startswith(f"workbench: compiled kernels cannot be kept in {folder} ({os.strerror(obstacle).lower()})")
    assert err.count("\n") == 1


def test_a_folder_that_cannot_be_made_is_told_from_one_that_can(folder, monkeypatch):
    assert cache.writable()
    (folder / "file").touch()
    monkeypatch.setattr(cache, "folder", lambda: folder / "file" / "kernels")
    assert not cache.writable()


def test_a_source_in_a_subfolder_names_another_cache_and_another_run(tmp_path):
    for package in ("kernels", "store"):
        shutil.copytree(ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    code = (
        "from kernels.machine import cache\n"
        "from store.traces.run import versions\n"
        "print(cache.folder(), versions()['kernels'])"
    )

    def names():
        done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
        return done.stdout.split()

    before = names()
    (tmp_path / "kernels/deeper/still").mkdir(parents=True)
    (tmp_path / "kernels/deeper/still/new.py").write_text("x = 1")
    after = names()
    assert before[0] != after[0]
    assert before[1] != after[1]


def test_a_source_that_moves_or_changes_is_another(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a/x.py").write_text("1")
    digests = [source_digest.__wrapped__(tmp_path)]
    (tmp_path / "a/x.py").rename(tmp_path / "x.py")
    digests.append(source_digest.__wrapped__(tmp_path))
    (tmp_path / "x.py").write_text("2")
    digests.append(source_digest.__wrapped__(tmp_path))
    assert len(set(digests)) == 3
