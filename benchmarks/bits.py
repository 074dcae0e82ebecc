"""How much of llama.cpp's run of a file has the bits of the ggml path: a table, as docs/numerics.md has it.

usage: python -m benchmarks.bits --peer-python PYTHON FILE.gguf... (PYTHON has llama-cpp-python)

Every file is recorded as `workbench record` does it, with 1, 7, 64 and 300 tokens and without the tiled products, and
then run from its tokens alone. Exit code 1 where a value differs.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from kernels.forward import forward
from store.open import open_artifact
from store.traces.open import open_trace
from workbench.pair.engines import arithmetic_of

LENGTHS = (1, 7, 64, 300)


def tokens(count: int, vocabulary: int) -> tuple[int, ...]:
    """Ids from all over a vocabulary."""
    return tuple((37 * i * i + 11 * i + 5) % vocabulary for i in range(count))


def record(python: str, file: Path, ids: tuple[int, ...], output: Path) -> None:
    """Record a run of llama.cpp."""
    command = [sys.executable, "-m", "workbench", "record", str(file), "-o", str(output), "--force"]
    command += ["--tokens", ",".join(map(str, ids)), "--python", python]
    environment = os.environ | {"GGML_CPU_TILED_MM": "0"}
    subprocess.run(command, check=True, env=environment, stdout=subprocess.DEVNULL)  # noqa: S603


def counted(file: Path, output: Path) -> tuple[str, int, int, int]:
    """Lanes of the build, identical stages, all that were recorded, and values that differ."""
    model, trace = open_artifact(file), open_trace(output)
    assert trace.tokens is not None
    bound, path = trace.bind(trace.tokens, model.config), arithmetic_of(trace).path
    identical = stages = unlike = 0
    for site, values in forward(model, trace.tokens, path):
        if bound.status(site) == "ok":
            theirs, rows = bound.read(site), list(bound.positions(site) or ())
            ours = np.ascontiguousarray(values[rows]).view(np.uint32)
            off = int((ours != np.ascontiguousarray(theirs).view(np.uint32)).sum())
            stages, identical, unlike = stages + 1, identical + (off == 0), unlike + off
    return str(getattr(path, "width", "")), identical, stages, unlike


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer-python", required=True)
    parser.add_argument("files", nargs="+", type=Path)
    asked = parser.parse_args()
    print("| file | tokens | lanes | stages identical / all | values that differ |\n|---|---|---|---|---|")  # noqa: T201
    differ = 0
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "run.npz"
        for file in asked.files:
            vocabulary = open_artifact(file).config.vocab_size
            for count in LENGTHS:
                record(asked.peer_python, file, tokens(count, vocabulary), output)
                lanes, identical, stages, unlike = counted(file, output)
                print(f"| {file.name} | {count} | {lanes} | {identical} / {stages} | {unlike} |", flush=True)  # noqa: T201
                differ += unlike
    return int(differ > 0)


if __name__ == "__main__":
    sys.exit(main())
