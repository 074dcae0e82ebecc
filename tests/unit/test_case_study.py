"""The case study says what the commands in it print: each is run, and every line below it is looked for."""

import re
import shutil
from pathlib import Path

from tests.worked_example import EXAMPLE, NOT_KEPT
from workbench.__main__ import run

DOCUMENT = Path(__file__).parents[2] / "docs" / "case-study.md"


def commands() -> list[tuple[list[str], list[str]]]:
    """The words of every command, and the lines that are shown of what it prints."""
    blocks = re.findall(r"^```console\n(.*?)^```", DOCUMENT.read_text(), re.DOTALL | re.MULTILINE)
    found: list[tuple[list[str], list[str]]] = []
    for line in "".join(blocks).splitlines():
        if line.startswith("$ workbench "):
            found.append((line.split()[2:], []))
        else:
            found[-1][1].append(line)
    return found


def words(text: str) -> str:
    return " ".join(text.split())


def test_every_figure_of_the_case_study_is_printed_by_its_command(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    shutil.copytree(EXAMPLE, tmp_path / "sessions" / EXAMPLE.name, ignore=NOT_KEPT)
    told = commands()
    assert len(told) > 10
    for command, lines in told:
        run(command)
        printed, errors = capsys.readouterr()
        told_beforehand = errors.startswith("workbench: the run ")
        assert told_beforehand or not errors.startswith("workbench:"), errors
        for line in lines:
            assert words(line) in words(printed), f"{' '.join(command)}: {line}"
