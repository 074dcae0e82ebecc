"""The installation and the machine, looked over."""

import json
from importlib import metadata

import pytest

from kernels.machine import cache, target
from workbench.__main__ import run
from workbench.app.map.screen import SMALLEST
from workbench.machine import doctor


@pytest.fixture
def found(tmp_path, monkeypatch):
    monkeypatch.setattr(cache, "folder", lambda: tmp_path / "kernels")
    monkeypatch.setattr(cache, "_problems", [])
    return lambda: {check.name: check for check in doctor.checks()}


def test_a_sound_machine_has_nothing_wrong(found, capsys):
    assert {check.state for check in found().values()} <= {"fine", "slow"}
    assert run(["doctor", "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["fine"]
    names = {check["name"] for check in printed["checks"]}
    assert {"python", "numpy", "numba", "h5py", "textual", "gguf", "safetensors"} < names
    assert {"package kernels", "kernel cache", "threads", "processor", "terminal", "colours"} < names
    assert run(["doctor"]) == 0
    assert capsys.readouterr().out.splitlines()[-1].startswith("0 wrong, ")


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
