"""Stores that are damaged or lie: one sentence, never a crash, never a wrong value."""

import os
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

from store.errors import StoreError
from store.traces import hdf5
from store.traces.hdf5 import open_store
from store.traces.hdf5_index import read_index
from store.traces.open import open_trace
from store.traces.written import mark_ours
from tests.memory_model import spine
from tests.stores import LAYERS, MISSING, expected_values, place, write_store
from workbench.__main__ import run

ROOT = Path(__file__).parents[2]
SITES = [site for site in spine(LAYERS) if site.stage != MISSING]


def broken(path, change):
    write_store(path)
    with h5py.File(path, "r+") as file:
        change(file)
    return path


def _replace(file, name, **how):
    del file[name]
    file.create_dataset(name, **how)


def _link(file, name, link):
    del file[name]
    file[name] = link


HUGE = 2**40
CHANGES = {
    "has schema 2": lambda f: f.attrs.modify("schema", 2),
    "has schema None": lambda f: f.attrs.pop("schema"),
    "has no field sha256": lambda f: f.attrs.pop("artifact_sha256"),
    "has no field tokens": lambda f: f.attrs.pop("token_ids"),
    "field tokens is of the wrong kind": lambda f: f.attrs.create("token_ids", [1.5]),
    "is not a number or a text of fixed length": lambda f: f.attrs.create("path", "f32"),
    "holds no tokens, or a negative one": lambda f: f.attrs.create("token_ids", [1, -1]),
    "field size is of the wrong kind": lambda f: f.attrs.create("artifact_size", np.bytes_("big")),
    "config record has no field architecture": lambda f: f.attrs.create("config", np.bytes_("{}")),
    "config record is not an object|field config is of the wrong kind": lambda f: f.attrs.create(
        "config", np.bytes_("[]")
    ),
    "field settings is of the wrong kind": lambda f: f.attrs.create("settings", np.bytes_("7")),
    "is damaged": lambda f: f.attrs.create("settings", np.bytes_("[" * 50_000)),
    "is float64": lambda f: _replace(f, "lm_head", data=np.ones((5, 4))),
    r"shape \(5,\)": lambda f: _replace(f, "lm_head", data=np.ones(5, np.float32)),
    r"shape \(0, 4\)": lambda f: _replace(f, "lm_head", shape=(0, 4), dtype="<f4"),
    "not contiguous": lambda f: _replace(f, "lm_head", data=np.ones((5, 4), np.float32), chunks=(1, 4)),
    "contiguous and uncompressed": lambda f: _replace(f, "lm_head", shape=(HUGE, 4), dtype="<f4", chunks=(1, 4)),
    "h5repack": lambda f: _replace(f, "lm_head", shape=(5, 4), dtype="<f4"),  # never written: reads as zeros
    "external|not contiguous": lambda f: _replace(
        f, "lm_head", shape=(5, 4), dtype="<f4", external=[("/etc/passwd", 0, 80)]
    ),
    "is a link to another place": lambda f: _link(f, "lm_head", h5py.ExternalLink("/etc/passwd", "/x")),
    "lm_head is a link": lambda f: _link(f, "lm_head", h5py.SoftLink("/embedding")),
    "layers is a link": lambda f: _link(f, "layers", h5py.ExternalLink("other.h5", "/layers")),
    "is not a dataset": lambda f: _link(f, "lm_head", f["layers"]),
    "unfinished": lambda f: _link(f, "layers", f["embedding"]),
    "positions of /lm_head": lambda f: f["lm_head"].attrs.create("positions", [0, 1, 2, 3, 9]),
    "give each of its 5 rows": lambda f: f["lm_head"].attrs.create("positions", [0, 1]),
    "one token": lambda f: f["lm_head"].attrs.create("positions", [0, 0, 0, 0, 0]),
    "positions of": lambda f: f["lm_head"].attrs.create("positions", np.array(["a"] * 5, "S")),
}


@pytest.mark.parametrize("sentence", CHANGES)
def test_a_lying_store_is_refused_in_a_sentence(tmp_path, sentence):
    path = broken(tmp_path / "run.h5", CHANGES[sentence])
    with pytest.raises(StoreError, match=sentence) as refused:
        read_index(path, partial=False)  # as the process does that looks into what others wrote
    assert str(path) in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("content", [b"", b"hello", b"\x89HDF\r\n\x1a\n", b"GGUF" + bytes(100), b"\0" * 5000])
def test_what_is_no_hdf5_file_is_refused_in_a_sentence(tmp_path, content):
    (tmp_path / "x\x1b[31m.h5").write_bytes(content)
    with pytest.raises(StoreError, match="is damaged or is not an HDF5 store") as refused:
        read_index(tmp_path / "x\x1b[31m.h5", partial=False)
    assert "\x1b" not in str(refused.value)
    for missing in (tmp_path, tmp_path / "none.h5"):
        with pytest.raises(StoreError, match="There is no store"):
            open_store(missing)


DAMAGE = """
import sys, random
from pathlib import Path
from store.errors import StoreError
from store.traces.open import open_trace
from store.traces.hdf5 import open_store
from store.traces.written import mark_ours
whole, victim = Path(sys.argv[1]).read_bytes(), Path(sys.argv[2])
dice = random.Random(103)
refused = 0
for attempt in range(400):
    content = bytearray(whole)
    if attempt % 2:
        del content[dice.randrange(len(content)):]
    else:
        for _ in range(dice.choice((1, 3, 30))):
            place = dice.randrange(min(len(content), dice.choice((600, 5000, 10**9))))
            content[place] = dice.choice((0, 255, dice.randrange(256)))
    victim.unlink(missing_ok=True)
    victim.write_bytes(content)
    mark_ours(victim)  # or each would be opened by a process of its own
    try:
        trace = open_store(victim)
        for site in trace.sites():
            trace.read(site).sum(), trace.positions(site)
    except StoreError as error:
        refused += 1
        assert len(str(error).splitlines()) == 1, error
print(refused)
"""


def test_damaged_stores_never_crash_the_reader(tmp_path):
    write_store(tmp_path / "run.h5")
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", DAMAGE, tmp_path / "run.h5", tmp_path / "victim.h5"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 200


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_bit_that_flips_in_any_tensor_is_told_when_it_is_read(tmp_path, dtype):
    path = tmp_path / "run.h5"
    write_store(path, dtype=dtype)
    whole = path.read_bytes()
    with h5py.File(path) as file:
        offsets = {site: file[place(site)].id.get_offset() for site in SITES}
    for site, offset in offsets.items():
        content = bytearray(whole)
        content[offset + 5] ^= 1
        path.write_bytes(content)
        mark_ours(path)
        trace = open_store(path)
        with pytest.raises(StoreError, match=f"the values of {site} are not those"):
            trace.read(site)
        with pytest.raises(StoreError, match="are not those"):
            open_trace(path).read(site)
        others = [other for other in SITES if offsets[other] != offset]
        assert all(np.array_equal(trace.read(other), expected_values(other, dtype)) for other in others)


def processes(monkeypatch) -> list[object]:
    """Count the processes that look into stores."""
    started: list[object] = []
    run = subprocess.run
    monkeypatch.setattr(hdf5.subprocess, "run", lambda *a, **more: started.append(a) or run(*a, **more))
    return started


def test_only_what_was_written_here_and_not_touched_is_opened_in_this_process(tmp_path, monkeypatch):
    path, copy = tmp_path / "run.h5", tmp_path / "copy.h5"
    write_store(path)
    started = processes(monkeypatch)
    own = open_store(path)
    assert not started
    copy.write_bytes(path.read_bytes())
    others = open_store(copy)
    assert len(started) == 1
    assert (own.run, own.absent, own.completed_layers) == (others.run, others.absent, others.completed_layers)
    for site in SITES:
        assert own.positions(site) == others.positions(site)
        assert np.array_equal(own.read(site), others.read(site))
    status = path.stat()
    path.write_bytes(path.read_bytes())
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))  # the time of change stays
    open_store(path)
    open_store(path)
    assert len(started) == 2  # once for each file as it is


def test_a_lie_is_told_in_the_words_of_the_process_that_saw_it(tmp_path):
    path = broken(tmp_path / "run.h5", CHANGES["is a link to another place"])
    with pytest.raises(StoreError, match=r"run\.h5: //lm_head is a link to another place"):
        open_store(path)


@pytest.mark.parametrize(
    ("does", "words"),
    [
        ("os.abort()", "end with SIGABRT"),
        ("os.kill(os.getpid(), 11)", "end with SIGSEGV"),
        ("time.sleep(60)", "takes more than 1 seconds"),
        ("[0] * 10**10", "end with exit code 1"),
    ],
)
def test_a_crash_there_is_a_sentence_here(tmp_path, monkeypatch, does, words):
    (tmp_path / "crash_of_process.py").write_text(
        f"import os, sys, time\nfrom store.traces.hdf5_index import _limit\n_limit()\n{does}\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(hdf5, "_PROCESS", "crash_of_process")
    monkeypatch.setattr(hdf5, "_PATIENCE", 1.0 if "sleep" in does else 30.0)
    write_store(tmp_path / "run.h5")
    (tmp_path / "copy.h5").write_bytes((tmp_path / "run.h5").read_bytes())
    with pytest.raises(StoreError, match=words) as refused:
        open_store(tmp_path / "copy.h5")
    assert "copy.h5" in str(refused.value)
    assert "\n" not in str(refused.value)


def test_inspect_of_such_a_store_ends_with_a_sentence(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(hdf5, "_PROCESS", "no_such_module")
    write_store(tmp_path / "run.h5")
    (tmp_path / "copy.h5").write_bytes((tmp_path / "run.h5").read_bytes())
    assert run(["inspect", str(tmp_path / "copy.h5")]) == 2
    assert "made the process that looked into it end with exit code 1" in capsys.readouterr().err
