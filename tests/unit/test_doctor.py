"""The installation and the machine, looked over."""

import json
import re
from importlib import metadata

import pytest

from kernels.machine import cache, target
from workbench.__main__ import run
from workbench.app.map.screen import SMALLEST
from workbench.machine import doctor
from workbench.session.session import Session


@pytest.fixture
def found(tmp_path, monkeypatch):
    monkeypatch.setattr(cache, "folder", lambda: tmp_path / "kernels")
    monkeypatch.setattr(cache, "_problems", [])
    return lambda: {check.name: check for check in doctor.checks()}


def test_a_sound_machine_has_nothing_wrong(found, capsys):
    assert {check.state for check in found().values()} <= {"fine", "missing", "slow"}
    assert run(["doctor", "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["fine"]
    names = {check["name"] for check in printed["checks"]}
    assert {"python", "numpy", "numba", "h5py", "textual", "gguf", "safetensors"} < names
    assert {"package kernels", "kernel cache", "threads", "processor", "terminal", "colours", "sessions"} < names
    assert run(["doctor"]) == 0
    assert capsys.readouterr().out.splitlines()[-1].startswith("0 wrong, ")


def test_every_library_that_is_needed_is_looked_at():
    needed = {
        re.split(r"[\s<>=;~!\[]", line)[0] for line in metadata.requires("layer-workbench") if "extra" not in line
    }
    assert needed == set(doctor.LIBRARIES)


def test_what_can_be_done_without_is_missing_and_how_to_get_it_is_said(found, monkeypatch, capsys):
    wanted = ["some-engine>=1.2; extra == 'engine'", "numpy>=2.0", "numpy>=1; extra == 'there'"]
    monkeypatch.setattr(metadata, "requires", lambda name: wanted)
    monkeypatch.setattr(doctor, "EXTRAS", {"engine": "recording", "there": "nothing", "unheard": "nothing"})
    check = found()["extra engine"]
    assert (check.state, check.sentence) == ("missing", "It is needed for recording, and for nothing else.")
    assert check.advice.endswith("-m pip install 'some-engine>=1.2'")
    assert found()["extra there"].state == "fine"
    assert "extra unheard" not in found()
    assert run(["doctor"]) == 0
    assert ", 1 missing, " in capsys.readouterr().out.splitlines()[-1]


@pytest.mark.parametrize(
    ("variables", "terminal", "value"),
    [
        ({"COLORTERM": "truecolor"}, True, "16 million (COLORTERM=truecolor)"),
        ({"TERM": "xterm-256color"}, True, "256 (TERM=xterm-256color, no COLORTERM)"),
        ({"TERM": "xterm"}, True, "16 (TERM=xterm, no COLORTERM)"),
        ({"NO_COLOR": "1", "COLORTERM": "truecolor"}, True, "none"),
        ({"COLORTERM": "truecolor"}, False, "none"),
    ],
)
def test_colours_are_what_the_terminal_offers(variables, terminal, value, monkeypatch):
    for name in ("COLORTERM", "NO_COLOR", "TERM"):
        monkeypatch.delenv(name, raising=False)
    for name, text in variables.items():
        monkeypatch.setenv(name, text)
    stdout = type("Stdout", (), {"encoding": "utf-8", "isatty": lambda self: terminal})()
    monkeypatch.setattr(doctor.sys, "stdout", stdout)
    assert doctor._colours().value == value


def test_a_place_for_sessions_that_cannot_be_written_is_wrong(found, tmp_path, monkeypatch):
    monkeypatch.setattr(Session, "default_folder", staticmethod(lambda name: tmp_path / "sessions" / name))
    assert found()["sessions"].value.startswith(str(tmp_path / "sessions"))
    monkeypatch.setattr(doctor.os, "access", lambda path, mode: False)
    assert found()["sessions"].state == "wrong"


@pytest.mark.parametrize("threads", ["", "0", "-1", "²", "٣", "1.5", "1025", "9" * 5000, "two"])
def test_a_number_of_threads_that_is_none_is_one_sentence(threads, found, monkeypatch, capsys):
    monkeypatch.setenv("WORKBENCH_THREADS", threads)
    assert run(["inspect", "nowhere.gguf"]) == 2
    out, err = capsys.readouterr()
    assert err.startswith("workbench: WORKBENCH_THREADS is ")
    assert (out, err.count("\n"), len(err) < 200) == ("", 1, True)
    assert found()["threads"].state == "wrong"
    assert run(["doctor", "--json"]) == 1


def test_threads_are_held_against_what_a_container_may_use(found, monkeypatch):
    monkeypatch.setattr(doctor, "_quota", lambda: 1.5)
    monkeypatch.setenv("WORKBENCH_THREADS", "64")
    assert found()["threads"].state == "slow"
    monkeypatch.setattr(doctor, "_quota", lambda: None)
    monkeypatch.delenv("WORKBENCH_THREADS")
    assert found()["threads"].state == "fine"


def test_looking_leaves_no_folder_behind(found, tmp_path):
    assert found()["kernel cache"].state == "fine"
    assert not (tmp_path / "kernels").exists()


def test_damaged_kernels_and_a_folder_that_cannot_be_written_are_slow(found, tmp_path, monkeypatch):
    (tmp_path / "kernels").mkdir()
    (tmp_path / "kernels/some.kernel").touch()
    check = found()["kernel cache"]
    assert (check.state, check.sentence[:18]) == ("slow", "1 of 1 kernels are")
    (tmp_path / "file").touch()
    monkeypatch.setattr(cache, "folder", lambda: tmp_path / "file/kernels")
    check = found()["kernel cache"]
    assert (check.state, "cannot be kept" in check.sentence) == ("slow", True)


def test_a_target_beyond_this_processor_is_wrong(found, monkeypatch):
    monkeypatch.setattr(target, "_stated", lambda: {"amx-tile": True, "nonsense": True})
    monkeypatch.setattr(target, "missing_here", lambda: ["nonsense"])
    assert found()["processor"].state == "wrong"


@pytest.mark.parametrize(("version", "wanted"), [("8.1.9", ">=8.2,<9"), ("9.0", ">=8.2,<9"), ("0.9", ">=0.10")])
def test_a_library_of_another_version_is_wrong(version, wanted, found, monkeypatch):
    monkeypatch.setattr(doctor, "_wanted", lambda name: wanted)
    monkeypatch.setattr(metadata, "version", lambda name: version)
    check = found()["numpy"]
    assert check.state == "wrong"
    assert f"'numpy{wanted}'" in check.advice
    assert "threads" not in found()  # what would need the library


@pytest.mark.parametrize(
    ("version", "wanted"), [("8.10", ">=8.2,<9"), ("2.0.0", ">=2"), ("1.0rc1", ">=0.64"), ("3", "")]
)
def test_versions_are_compared_as_numbers(version, wanted):
    assert doctor._fits(version, wanted)


def test_a_library_that_cannot_be_loaded_is_wrong(found, monkeypatch):
    monkeypatch.setattr(doctor, "import_module", lambda name: 1 / 0)
    assert "cannot be loaded (ZeroDivisionError" in found()["h5py"].sentence


def test_the_size_that_is_asked_for_is_that_of_the_map():
    assert doctor.SMALLEST == SMALLEST
