"""`python -m tests.fuzz.guided FORMAT [OPTIONS of libFuzzer]`: files that reach code which no file reached before.

Needs atheris, which is of no other use here, so it has an environment of its own (`make fuzz-guided`). Guided is
the Python of the readers. Half of the inputs are files of `tests.fuzz.models`, changed field by field, the others are
bytes changed by libFuzzer. What breaks a promise ends the run, and libFuzzer keeps the file in .fuzz, as the corpus.
"""

import json
import os
import random
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import atheris

from kernels.errors import WorkbenchError

with atheris.instrument_imports(include=["store"]):
    from store.open import open_model
    from store.traces.kind import is_trace
    from store.traces.open import open_trace

from tests.fuzz.checking import BrokenError
from tests.fuzz.models import AprFuzz, GgufFuzz, SafetensorsFuzz
from tests.fuzz.traces import DumpFuzz

PLACE = Path(tempfile.mkdtemp(prefix="guided-", dir="/dev/shm" if os.path.isdir("/dev/shm") else None))


def check_model(path: Path) -> None:
    """Open it, and touch every value."""
    model = open_model(path)
    for name, info in model.tensors.items():
        if info.unread is None:
            model.weight(name).rows[:1].sum()


def check_trace(path: Path) -> None:
    """Open it if it says that it is a trace, and read every stage."""
    if not is_trace(path):
        return
    trace = open_trace(path)
    for site in trace.sites():
        if trace.shape(site) is not None:
            trace.read(site)


FORMATS: dict[str, tuple[Callable[[], Any], str, Callable[[Path], None]]] = {
    "gguf": (GgufFuzz, "m.gguf", check_model),
    "apr": (AprFuzz, "m.apr", check_model),
    "safetensors": (SafetensorsFuzz, "model.safetensors", check_model),
    "dump": (DumpFuzz, "x.npz", check_trace),
}


def main() -> None:
    """Fuzz one format until an option of libFuzzer, or a find, ends it."""
    name, *options = sys.argv[1:]
    make, file_name, check_one = FORMATS[name]
    source, path = make(), PLACE / file_name
    corpus = Path(".fuzz") / f"{name}-corpus"
    corpus.mkdir(parents=True, exist_ok=True)
    if isinstance(source, SafetensorsFuzz):  # without which a model is not looked at further
        (PLACE / "config.json").write_text(json.dumps(source.config))

    def changed_file(rng: random.Random) -> bytes:
        with tempfile.TemporaryDirectory(dir=PLACE) as folder:
            source.write(rng, Path(folder))
            files = [file for file in sorted(Path(folder).rglob("*")) if file.suffix == path.suffix] or [path]
            return rng.choice(files).read_bytes() if files[0].exists() else b""

    def mutate(data: bytes, most: int, seed: int) -> bytes:
        rng = random.Random(seed)
        if rng.random() < 0.5:
            return changed_file(rng)[:most]
        return bytes(atheris.Mutate(data, most))

    def one(data: bytes) -> None:
        path.write_bytes(data)
        try:
            check_one(path)
        except WorkbenchError as error:
            said = str(error)
            if not said.isprintable() or (file_name not in said and PLACE.name not in said):
                raise BrokenError(f"not a sentence that names {file_name}: {said!r}") from error

    for seed in range(20):
        (corpus / f"seed-{seed}").write_bytes(changed_file(random.Random(seed)))
    limits = ["-timeout=2", "-rss_limit_mb=1024", "-max_len=65536", f"-artifact_prefix=.fuzz/{name}-"]
    atheris.Setup([sys.argv[0], *limits, *options, str(corpus)], one, custom_mutator=mutate)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
