"""Foreign packages called like ours: named in one sentence in either order of installation, with what mends it."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOREIGN = "import nothing_that_is_there\n"


def site(folder: Path, installer: str = "pip") -> Path:
    """A folder as an installer leaves it, with our packages in it."""
    for package in ("workbench", "kernels", "store"):
        shutil.copytree(ROOT / package, folder / package, ignore=shutil.ignore_patterns("__pycache__", "*.gguf"))
    info = folder / "layer_workbench-0.1.0.dist-info"
    info.mkdir()
    (info / "INSTALLER").write_text(f"{installer}\n")
    (info / "direct_url.json").write_text('{"url": "file:///src/workbench", "dir_info": {}}')
    return folder


def foreign(folder: Path, package: str) -> None:
    (folder / f"{package}-9.1.dist-info").mkdir()
    (folder / package / "__init__.py").write_text(FOREIGN)


def overwritten(folder: Path, package: str) -> None:
    foreign(folder, package)


def overwriting(folder: Path, package: str) -> None:
    ours = (folder / package / "__init__.py").read_text()
    foreign(folder, package)
    (folder / package / "__init__.py").write_text(ours)


def uninstalled(folder: Path, package: str) -> None:
    (folder / package / "__init__.py").unlink()


def gone(folder: Path, package: str) -> None:
    shutil.rmtree(folder / package)


def shadowed(folder: Path, package: str) -> None:
    (folder.parent / "other" / package).mkdir(parents=True)
    (folder.parent / "other" / package / "__init__.py").write_text(FOREIGN)


def command(folder: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    code = (
        f"import sys; sys.path[:0] = [{str(folder.parent / 'other')!r}, {str(folder)!r}]\n"
        f"sys.argv = ['/bin/workbench', *{list(arguments)!r}]\n"
        "from workbench.__main__ import main; main()"
    )
    return subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True, check=False)


CLASHES = {
    overwritten: "the foreign package {} 9.1 has been installed over that",
    overwriting: "the foreign package {} 9.1 is installed in the same folder",
    uninstalled: "that is gone from",
    gone: "that is gone from",
    shadowed: "uninstall the foreign package '{}'",
}


@pytest.mark.parametrize("package", ["kernels", "store"])
@pytest.mark.parametrize("clash", CLASHES)
def test_a_clash_is_named_with_what_mends_it(tmp_path, clash, package):
    folder = site(tmp_path / "site")
    assert command(folder, "--version").returncode == 0
    clash(folder, package)
    done = command(folder, "--version")
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith(f"workbench: workbench needs its own package {package!r}, but ")
    assert done.stderr.count("\n") == 1
    assert CLASHES[clash].format(package) in done.stderr
    assert done.stderr.endswith(
        f"{sys.executable} -m pip uninstall -y {package} && "
        f"{sys.executable} -m pip install --force-reinstall --no-deps /src/workbench\n"
    )


def test_doctor_names_a_clash_among_other_things(tmp_path):
    folder = site(tmp_path / "site", installer="uv")
    overwritten(folder, "kernels")
    done = command(folder, "doctor", "--json")
    assert (done.returncode, done.stderr) == (1, "")
    found = json.loads(done.stdout)
    assert not found["fine"]
    wrong = [check for check in found["checks"] if check["state"] == "wrong"]
    assert [check["name"] for check in wrong] == ["package kernels"]
    assert f"uv pip uninstall --python {sys.executable} kernels && uv pip install" in wrong[0]["advice"]
