"""`python -m tests.fuzz --files N [--seed S] [FORMAT ...]`: what breaks is kept in .fuzz, named by its seed."""

import argparse
import os
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.fuzz.checking import check, check_model, check_session, check_trace, limit_memory
from tests.fuzz.models import AprFuzz, GgufFuzz, SafetensorsFuzz
from tests.fuzz.traces import DumpFuzz, SessionFuzz, StoreFuzz

FORMATS: dict[str, tuple[Callable[[], Any], Callable[[Path, bool], None]]] = {
    "gguf": (GgufFuzz, check_model),
    "apr": (AprFuzz, check_model),
    "safetensors": (SafetensorsFuzz, check_model),
    "store": (StoreFuzz, check_trace),
    "dump": (DumpFuzz, check_trace),
    "session": (SessionFuzz, check_session),
}
KEPT = Path(".fuzz")


def fuzz(name: str, files: int, seed: int) -> int:
    """Make and check that many files; how many broke a promise."""
    make, check_one = FORMATS[name]
    source, broken, start = make(), 0, time.monotonic()
    with tempfile.TemporaryDirectory(prefix="fuzz-") as place:
        for number in range(seed, seed + files):
            rng = random.Random(f"{name} {number}")
            folder = Path(place) / "f"
            folder.mkdir()
            path = source.write(rng, folder)
            print(number, end="\r", file=sys.stderr, flush=True)  # the last word of a process that dies
            what = check(check_one, path, json=bool(number % 2))
            if what:
                broken += 1
                kept = KEPT / f"{name}-{number}"
                shutil.rmtree(kept, ignore_errors=True)
                shutil.copytree(folder, kept)
                print(f"{name} {number}: {' '.join(what.split())[:600]}", flush=True)
            shutil.rmtree(folder)
    taken = time.monotonic() - start
    print(f"{name}: {broken} of {files} files broke a promise, {1000 * taken / max(files, 1):.1f} ms each", flush=True)
    return broken


def main() -> None:
    """Fuzz the formats that are named, all by default."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("formats", nargs="*", choices=[*FORMATS, []], metavar="FORMAT")
    parser.add_argument("--files", type=int, default=2000, help="files of each format")
    parser.add_argument("--seed", type=int, default=0, help="number of the first file")
    asked = parser.parse_args()
    limit_memory()
    with tempfile.TemporaryDirectory(prefix="fuzz-") as state:
        os.environ["XDG_STATE_HOME"] = state
        broken = sum(fuzz(name, asked.files, asked.seed) for name in asked.formats or FORMATS)
    sys.exit(broken > 0)


if __name__ == "__main__":
    main()
