"""Another build of the product beside this one: a folder with its sources, or a revision taken out of git."""

import io
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.peer import ROOT


@dataclass(frozen=True)
class Build:
    """The product as the sources in a folder make it, with the libraries of this interpreter."""

    folder: Path

    @property
    def command(self) -> list[str]:
        """What runs `workbench`; `environment` belongs to it."""
        return [sys.executable, "-P", "-m", "workbench"]

    @property
    def environment(self) -> dict[str, str]:
        """Where Python finds this build before any other."""
        return {"PYTHONPATH": str(self.folder)}


THIS = Build(ROOT)


@contextmanager
def build(given: str | None) -> Iterator[Build | None]:
    """The build in a folder, or that of a git revision in a temporary one; SystemExit if it is neither."""
    if given is None or (Path(given) / "workbench").is_dir():
        yield None if given is None else Build(Path(given).absolute())
        return
    taken = subprocess.run(["git", "archive", "--format=tar", given], cwd=ROOT, capture_output=True, check=False)  # noqa: S603, S607
    if taken.returncode:
        raise SystemExit(
            f"--against {given}: neither a folder with the product in it nor a revision of this repository"
        )
    with TemporaryDirectory() as folder:
        with tarfile.open(fileobj=io.BytesIO(taken.stdout)) as archive:
            archive.extractall(folder, filter="data")
        yield Build(Path(folder))
