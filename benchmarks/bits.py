"""How much of llama.cpp's run of a file has the bits of the ggml path: a table, as docs/numerics.md has it.

usage: python -m benchmarks.bits --peer-python PYTHON [--types TYPE...] [FILE.gguf...]

PYTHON has llama-cpp-python. Without files, three trained models are fetched from the Python index into a temporary
folder, and copies of them in other types made there with llama.cpp's quantizer. Every file is recorded as `workbench
record` does it, with 1, 7, 64 and 300 tokens, and then run from its tokens alone: with the clean settings, without
tiled products, and the fetched files with llama.cpp's own settings as well. Exit code 1 where a value differs.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.real_models import MODELS, TYPES, fetched, requantized
from kernels.forward import activation_codes, forward
from kernels.graph import Array, Model
from kernels.models import Graph
from kernels.paths import F32Path
from kernels.stages import Site
from store.open import open_artifact
from store.traces.open import open_trace
from workbench.cells.flips import flips
from workbench.pair.engines import arithmetic_of

LENGTHS = (1, 7, 64, 300)
CLEAN, OWN = (), ("--repack", "--flash", "auto", "--kv", "f16")
_HEAD = "| file | tokens | settings | stages identical / all | flips | logits |\n|---|---|---|---|---|---|"
_TILES = "GGML_CPU_TILED_MM"
_LOGITS = Site(None, "lm_head")


@dataclass
class Count:
    """What a run has of a recording: stages, those identical, the first other one, and activation codes that differ."""

    path: str
    stages: int = 0
    identical: int = 0
    first: Site | None = None
    flipped: int = 0
    logits: bool = False

    def see(self, site: Site, same: bool) -> None:
        """Take note of a stage."""
        self.stages, self.identical = self.stages + 1, self.identical + same
        if not same and self.first is None:
            self.first = site
        if site == _LOGITS:
            self.logits = same

    @property
    def row(self) -> str:
        """Cells of the table, behind the file and the tokens."""
        first = "" if self.first is None else f", first other: {self.first}"
        logits = "equal" if self.logits else "not equal"
        return f"`{self.path}` | {self.identical} / {self.stages}{first} | {self.flipped} | {logits} |"


def tokens(count: int, vocabulary: int) -> tuple[int, ...]:
    """Ids from all over a vocabulary."""
    return tuple((37 * i * i + 11 * i + 5) % vocabulary for i in range(count))


def record(python: str, file: Path, ids: tuple[int, ...], settings: tuple[str, ...], output: Path) -> None:
    """Record a run of llama.cpp."""
    command = [sys.executable, "-m", "workbench", "record", str(file), "-o", str(output), "--force"]
    command += ["--tokens", ",".join(map(str, ids)), "--python", python, *settings]
    environment = os.environ | ({} if settings else {_TILES: "0"})
    subprocess.run(command, check=True, env=environment, stdout=subprocess.DEVNULL)  # noqa: S603


def counted(file: Path, output: Path) -> Count:
    """Run a file from the tokens of a recording, with its settings, and compare what was recorded."""
    model, trace = open_artifact(file), open_trace(output)
    assert trace.tokens is not None
    bound, path = trace.bind(trace.tokens, model.config), arithmetic_of(trace).path
    count = Count(path.name)
    for site, values in forward(model, trace.tokens, path):
        if bound.status(site) == "ok":
            ours = np.ascontiguousarray(values[list(bound.positions(site) or ())])
            theirs = np.ascontiguousarray(bound.read(site))
            same = bool(np.array_equal(ours.view(np.uint32), theirs.view(np.uint32)))
            count.see(site, same)
            count.flipped += 0 if same else _flipped(model, path, site, ours, theirs)
    return count


def _flipped(model: Model, path: F32Path, site: Site, ours: Array, theirs: Array) -> int:
    """Codes that the next product makes otherwise of one than of the other."""
    graph = Graph.of(model)
    codes = [activation_codes(model, graph, path, site, values) for values in (ours, theirs)]
    found = flips(codes[0], codes[1], ours, theirs)
    return 0 if found is None else found.flipped


def cases(asked: argparse.Namespace, folder: Path) -> Iterator[tuple[Path, tuple[str, ...]]]:
    """The files, each as long as it is looked at, and settings to record it with."""
    for file in asked.files:
        yield file, CLEAN
    for model in () if asked.files else MODELS:
        published = fetched(model, folder)
        for settings in (CLEAN, OWN):
            yield published, settings
        for type in asked.types:
            if type != model.type:
                made = requantized(published, type, asked.peer_python, folder)
                yield made, CLEAN
                made.unlink()
        published.unlink()


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer-python", required=True)
    parser.add_argument("--types", nargs="+", choices=list(TYPES), default=list(TYPES), metavar="TYPE")
    parser.add_argument("files", nargs="*", type=Path)
    asked = parser.parse_args()
    print(_HEAD, flush=True)  # noqa: T201
    differ = 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for file, settings in cases(asked, folder):
            vocabulary = open_artifact(file).config.vocab_size
            for length in LENGTHS:
                record(asked.peer_python, file, tokens(length, vocabulary), settings, folder / "run.npz")
                count = counted(file, folder / "run.npz")
                print(f"| {file.stem} | {length} | {count.row}", flush=True)  # noqa: T201
                differ += count.identical != count.stages
    return int(differ > 0)


if __name__ == "__main__":
    sys.exit(main())
