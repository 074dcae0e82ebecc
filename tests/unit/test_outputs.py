"""Outputs: never an input, by whatever name; never through a link; nothing that stands there unless asked to."""

import errno
import hashlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from store import whole_files
from store.outputs import OutputError, require_writable
from store.whole_files import give_folder_name
from tests.artifacts import tiny_gguf, tiny_safetensors
from tests.stores import write_store
from workbench.__main__ import run
from workbench.session.session import Session, SessionSpec, Side

ROOT = Path(__file__).parents[2]


def content(folder):
    """What every regular file below a folder holds."""
    return {path: hashlib.sha256(path.read_bytes()).digest() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder that holds a model under several names, a Hugging Face folder, and what is no regular file."""
    monkeypatch.chdir(tmp_path)
    tiny_gguf(Path("model.gguf"))
    tiny_safetensors(Path("hf"), shards=2)
    Path("hf/tokenizer.json").write_text("{}")
    os.link("model.gguf", "hard")
    os.symlink("model.gguf", "link")
    os.symlink("nowhere", "dangling")
    os.mkfifo("pipe")
    Path("other").write_text("somebody's")
    return tmp_path


COMMANDS = (["trace", "--tokens", "1,2"], ["convert"], ["record", "--tokens", "1,2", "--python", "nowhere"])


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command[0])
@pytest.mark.parametrize(
    ("source", "output"),
    [
        ("model.gguf", "model.gguf"),
        ("model.gguf", "hard"),
        ("model.gguf", "link"),
        ("link", "model.gguf"),
        ("model.gguf", "pipe"),
        ("model.gguf", "dangling"),
        ("model.gguf", "/dev/null"),
        ("model.gguf", "."),
        ("model.gguf", ""),
        ("model.gguf", "no/folder"),
        ("hf", "hf/tokenizer.json"),
        ("hf", "hf/config.json"),
        ("hf", "hf/model-00002-of-00002.safetensors"),
        ("hf/model.safetensors.index.json", "hf/model-00001-of-00002.safetensors"),
    ],
)
def test_no_output_replaces_an_input_or_what_is_no_file(place, capsys, command, source, output):
    before, device = content(place), os.stat("/dev/null").st_rdev
    assert run([command[0], source, *command[1:], "-o", output, "--force"]) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert content(place) == before
    assert os.stat("/dev/null").st_rdev == device
    assert sorted(path.name for path in place.iterdir()) == sorted(
        ["model.gguf", "hf", "hard", "link", "dangling", "pipe", "other"]
    )


@pytest.mark.parametrize("command", COMMANDS[:2], ids=lambda command: command[0])
def test_what_stands_there_is_replaced_only_if_asked_to(place, capsys, command):
    arguments = [command[0], "model.gguf", *command[1:], "-o", "other"]
    assert run(arguments) == 2
    assert "--force" in capsys.readouterr().err
    assert Path("other").read_text() == "somebody's"
    assert run([*arguments, "--force"]) == 0
    assert Path("other").stat().st_size > 1000


def test_a_file_that_comes_meanwhile_is_kept(tmp_path):
    with whole_files.temporary_beside(tmp_path / "x") as (temporary, file):
        file.write(b"ours")
        (tmp_path / "x").write_text("theirs")
        with pytest.raises(FileExistsError):
            whole_files.give_name(file, temporary, tmp_path / "x", replace=False)
    assert (tmp_path / "x").read_text() == "theirs"
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


def test_what_is_not_ours_is_not_taken_for_an_unfinished_store(place, capsys):
    Path("out.h5.partial").write_bytes(Path("model.gguf").read_bytes())
    for source in ("model.gguf", "out.h5.partial"):
        assert run(["trace", source, "-o", "out.h5", "--tokens", "1,2", "--force"]) == 2
        assert "out.h5.partial" in capsys.readouterr().err
    assert Path("out.h5.partial").read_bytes() == Path("model.gguf").read_bytes()


def test_an_export_replaces_neither_the_session_nor_its_models_nor_a_picture(place, capsys):
    for side in "ab":
        write_store(place / f"{side}.h5")
    assert run(["open", "a.h5", "b.h5", "--session", "S"]) == 0
    Path("y.svg").write_text("a picture of somebody's")
    before = content(place)
    del before[place / "S" / "log.jsonl"]
    for output in ("a.h5", "S/session.json", "S/a.h5", "S/log.jsonl", "x.svg", "x.SVG", ".", "..", "pipe", "link"):
        assert run(["export", "S", "-o", output, "--force"]) == 2, output
    assert run(["export", "S", "-o", "page.html"]) == 2
    assert "write the page with --html page.html" in capsys.readouterr().err
    assert run(["export", "S", "--html", "S/log.jsonl", "--force"]) == 2
    assert "give --html another name" in capsys.readouterr().err
    for output in ("other", "y.md", "S/findings.md"):
        assert run(["export", "S", "-o", output]) == 2, output
    assert "S/findings.md exists" in capsys.readouterr().err
    assert {path: found for path, found in content(place).items() if path.name != "log.jsonl"} == before
    assert run(["export", "S"]) == 0
    assert run(["export", "S", "-o", "y.md", "--force"]) == 0
    assert Path("y.svg").read_text().startswith("<svg")


def test_a_folder_that_is_no_session_keeps_what_it_holds(place, capsys):
    Path("W").mkdir()
    for side in "ab":
        write_store(place / "W" / f"{side}.h5")
    for name, text in (("T", "findings.md"), ("U", "findings.svg"), ("V", "log.jsonl"), ("X", "hypotheses/01-x.md")):
        (Path(name) / text).parent.mkdir(parents=True)
        (Path(name) / text).write_text("somebody's")
    before = content(place)
    for folder in "WTUVX":
        assert run(["open", "W/b.h5", "W/a.h5", "--session", folder]) == 2
        assert "is not a session and holds" in capsys.readouterr().err
        assert run(["demo", "--session", folder]) == 2
    assert content(place) == before


@pytest.mark.parametrize(
    ("a", "b"), [("b.h5", "a.h5"), ("a.h5", "a.h5"), ("log.jsonl", "b.h5"), ("findings.md", "b.h5")]
)
def test_a_session_whose_side_it_would_replace_is_refused(tmp_path, capsys, a, b):
    session = Session.create(tmp_path / "s", SessionSpec(Side(str(tmp_path / "s" / a), ""), Side("/nowhere", ""), (1,)))
    write_store(tmp_path / "s" / "a.h5")
    for name in ("b.h5", "log.jsonl", "findings.md"):
        (tmp_path / "s" / name).write_bytes((tmp_path / "s" / "a.h5").read_bytes())
    text = (session.folder / "session.json").read_text()
    (session.folder / "session.json").write_text(text.replace("/nowhere", b))
    before = content(tmp_path)
    assert run(["open", str(tmp_path / "s")]) == 2
    assert "would be replaced" in capsys.readouterr().err
    assert content(tmp_path) == before


def test_writable_is_what_is_new_or_given_up(tmp_path):
    (tmp_path / "in").write_text("x")
    require_writable(tmp_path / "new", [tmp_path / "in"], force=False)
    (tmp_path / "old").touch()
    require_writable(tmp_path / "old", [tmp_path / "in"], force=True)
    with pytest.raises(OutputError, match="exists"):
        require_writable(tmp_path / "old", [], force=False)
    with pytest.raises(OutputError, match="one of the files that this command reads"):
        require_writable(tmp_path / "in", [tmp_path], force=True)


def test_a_folder_that_cannot_be_replaced_is_still_there(tmp_path, monkeypatch):
    old, new = tmp_path / "old", tmp_path / "new"
    for folder in (old, new):
        folder.mkdir()
        (folder / "which").write_text(folder.name)
    rename = os.rename

    def failing(source, target):
        if source == new:
            raise OSError(errno.ENOSPC, "no space left")
        rename(source, target)

    monkeypatch.setattr(os, "rename", failing)
    with pytest.raises(OSError, match="no space left"):
        give_folder_name(new, old)
    assert (old / "which").read_text() == "old"
    monkeypatch.undo()
    give_folder_name(new, old)
    assert [path.name for path in tmp_path.iterdir()] == ["old"]
    assert (old / "which").read_text() == "new"


KILLED = """
import os, sys
from pathlib import Path
from store.whole_files import temporary_beside
with temporary_beside(Path(sys.argv[1])) as (_, file):
    file.write(b"half of a model")
    file.flush()
    print("writing", flush=True)
    sys.stdin.read()
"""


def test_what_a_killed_process_left_is_removed_and_nothing_else(tmp_path):
    command = [sys.executable, "-c", KILLED, tmp_path / "model.apr"]
    for name in ("mine.tmp", "x.partial", ".workbench-1.tmp", f".workbench-{'0' * 32}.tmp.gguf"):
        (tmp_path / name).touch()
    os.symlink("mine.tmp", tmp_path / f".workbench-{'1' * 32}.tmp")
    kept = set(tmp_path.iterdir())
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"writing\n"
        (left,) = set(tmp_path.iterdir()) - kept
        whole_files.remove_leftovers(tmp_path)
        assert left.exists(), "it is being written"
        process.send_signal(signal.SIGKILL)
    require_writable(tmp_path / "model.apr", [], force=False)
    assert set(tmp_path.iterdir()) == kept
