"""A session of somebody else: nothing in its folder leads out of it, holds the reader up, or is read without bound."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.stores import write_store
from workbench.__main__ import run
from workbench.lab import hypotheses
from workbench.session.files import OWN_FILES, SPEC_FILE, SessionError, read_log
from workbench.session.session import Session, SessionSpec, Side

HUGE = 1 << 38  # bytes of a file with nothing in it


@pytest.fixture
def session(tmp_path):
    for side in "ab":
        write_store(tmp_path / f"{side}.h5")
    sides = (Side(str(tmp_path / f"{side}.h5"), "") for side in "ab")
    return Session.create(tmp_path / "s", SessionSpec(*sides, (3, 1, 4, 1, 5)))


def link(path):
    secret = path.parents[1] / "secret"
    secret.write_text("secret")
    os.symlink(secret, path)


def device(path):
    os.symlink("/dev/zero", path)


def huge(path):
    path.touch()
    os.truncate(path, HUGE)


@pytest.mark.parametrize("kind", [link, os.mkfifo, device, os.mkdir], ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("name", [SPEC_FILE, *OWN_FILES, "hypotheses"])
def test_what_is_no_file_of_its_own_is_refused_at_once(session, capsys, name, kind):
    path = session.folder / name
    if path.is_dir():
        path.rmdir()
        kind = os.mkfifo if kind is os.mkdir else kind
    path.unlink(missing_ok=True)
    kind(path)
    for command in (["open", session.folder], ["export", session.folder]):
        assert run([str(word) for word in command]) == 2
        out, err = capsys.readouterr()
        assert (out, err.count("\n")) == ("", 1)
        assert name in err
    if name == "log.jsonl":
        with pytest.raises(SessionError):
            session.log("x")
    if kind is link:
        assert (session.folder.parent / "secret").read_text() == "secret"


@pytest.mark.parametrize("name", [SPEC_FILE, "log.jsonl", "drafts.json"])
def test_a_huge_file_is_refused_and_not_read(session, name):
    huge(session.folder / name)
    with pytest.raises(SessionError, match=f"{name} cannot be read .it has more than"):
        Session.open(session.folder)


@pytest.mark.parametrize("kind", [link, os.mkfifo, device, huge], ids=lambda kind: kind.__name__)
def test_a_note_that_is_no_file_of_its_own_is_a_problem(session, kind):
    kind(session.hypotheses_folder / "01-x.md")
    started = time.monotonic()
    shelf = hypotheses.load(session.hypotheses_folder)
    assert time.monotonic() - started < 5
    assert shelf.hypotheses == []
    assert "01-x.md cannot be read" in shelf.problems[0]


def test_a_log_that_is_a_file_elsewhere_too_is_not_appended_to_there(session):
    session.log("one")
    elsewhere = session.folder.parent / "elsewhere"
    os.link(session.folder / "log.jsonl", elsewhere)
    before = elsewhere.read_bytes()
    session.log("two")
    assert elsewhere.read_bytes() == before
    assert [entry["kind"] for entry in session.entries()] == ["one", "two"]


@pytest.mark.parametrize("path", ["a\0b", "\ud800", ""])
def test_a_path_that_cannot_be_is_refused(session, path):
    file = session.folder / SPEC_FILE
    record = json.loads(file.read_text())
    record["b"]["path"] = path
    file.write_text(json.dumps(record))
    with pytest.raises(SessionError, match="field b is not"):
        Session.open(session.folder)


TORN = """
import resource, sys
from pathlib import Path
from workbench.session.files import SessionError, append_log
folder = Path(sys.argv[1])
size = (folder / "log.jsonl").stat().st_size
resource.setrlimit(resource.RLIMIT_FSIZE, (size + int(sys.argv[2]), resource.RLIM_INFINITY))
try:
    append_log(folder, "verdict", text="x" * 1000)
except SessionError as error:
    print(error)
    sys.exit(3)
"""


@pytest.mark.parametrize("room", [0, 1, 500])
def test_an_entry_is_written_whole_or_not_at_all(session, room):
    """The system takes as many bytes as there is room for, and calls that a success."""
    session.log("one")
    before = (session.folder / "log.jsonl").read_bytes()
    command = [sys.executable, "-c", TORN, session.folder, str(room)]
    done = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True, check=False)
    assert done.returncode == 3, done.stderr
    assert "log.jsonl cannot be written (File too large)" in done.stdout
    assert (session.folder / "log.jsonl").read_bytes() == before
    session.log("two")
    assert [entry["kind"] for entry in read_log(session.folder)] == ["one", "two"]
