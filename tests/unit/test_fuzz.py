"""Two thousand changed files of every format: one sentence or a readable file, at once, without much memory."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.fuzz.__main__ import FORMATS

ROOT = Path(__file__).parents[2]
FILES = 2000


@pytest.fixture(scope="module")
def running():
    """All formats side by side, in processes of their own: a library may crash, and memory is limited."""
    command = [sys.executable, "-m", "tests.fuzz", "--files", str(FILES)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return {name: subprocess.Popen([*command, name], cwd=ROOT, **pipes) for name in FORMATS}


@pytest.mark.parametrize("name", FORMATS)
def test_no_file_breaks_a_promise(running, name):
    found, last = running[name].communicate()
    assert running[name].returncode == 0, f"{found}last file: {last[-300:]}"
    assert f"0 of {FILES} files broke a promise" in found


def test_a_broken_promise_is_found(tmp_path):
    """The checks themselves: each of what they are to find."""
    code = f"""
import sys
from pathlib import Path
from tests.fuzz.checking import MEMORY, check, command, limit_memory
from workbench import cli
import click

path = Path({str(tmp_path)!r}) / "m.gguf"
def says(words, code=2):
    @click.command()
    def said():
        click.echo(words, err=True)
        return code
    def check_one(path, json):
        cli.workbench.get_command = lambda *_: said
        command(["inspect"], path)
    return check_one

limit_memory()
cases = [
    (lambda *_: any(iter(lambda: 0, 1)), "more than 2"),
    (lambda *_: bytearray(2 * MEMORY), "MemoryError"),
    (lambda *_: [][0], "IndexError"),
    (says("workbench: m.gguf \\x1b[31m"), "unprintable"),
    (says("workbench: it is broken"), "names m.gguf"),
    (says("workbench: m.gguf is\\nbroken"), "names m.gguf"),
    (says("m.gguf", 3), "exit code 3"),
    (says("m.gguf: internal error"), "internal error"),
    (says("workbench: m.gguf is broken"), ""),
]
for do, words in cases:
    found = check(do, path, False)
    assert words in found and bool(words) == bool(found), (words, found)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
