"""What an engine is asked to run: which one runs a model, and its settings where nothing else is asked for."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from kernels.errors import WorkbenchError
from store.artifact import Artifact
from store.text import printable
from store.traces.trace import Trace
from workbench.record.recording import Progress, record

# The format that an engine runs, and its settings with their values if nothing else is asked for: llama.cpp's are
# those that can be repeated to the last bit on any number of threads.
FORMATS = {"llama.cpp": "gguf", "transformers": "safetensors"}
SETTINGS: dict[str, dict[str, Any]] = {
    "llama.cpp": {"repack": False, "flash": "off", "kv": "f32", "threads": None, "batch": 512},
    "transformers": {
        "dtype": "float32",
        "attn_implementation": "eager",
        "device": "cpu",
        "tf32": False,
        "compile": False,
        "threads": None,
    },
}


def engine_of(artifact: Artifact, asked: str | None) -> str:
    """The engine that runs a model: the one asked for, else that of its format; WorkbenchError if it cannot."""
    engine = asked or next((name for name, runs in FORMATS.items() if runs == artifact.format), None)
    name = printable(str(artifact.path), 1000)
    if engine is None or FORMATS[engine] != artifact.format:
        known = " and ".join(f"{name} runs {runs}" for name, runs in FORMATS.items())
        raise WorkbenchError(f"{name} is {artifact.format}, which cannot be recorded with this engine: {known}")
    if engine == "transformers" and not artifact.path.is_dir():
        raise WorkbenchError(f"transformers loads folders; give the folder of {name}")
    return engine


def with_threads(settings: dict[str, Any]) -> dict[str, Any]:
    """The settings of an engine with all CPUs in the place of a number of threads that nobody gave."""
    return settings | {"threads": settings["threads"] or os.cpu_count() or 1}


def record_model(
    engine: str,
    artifact: Artifact,
    tokens: tuple[int, ...],
    settings: dict[str, Any],
    output: Path,
    python: str,
    progress: Progress,
    *,
    replace: bool = True,
    hashed: Callable[[int, int], None] = lambda *_: None,
) -> Trace:
    """Record a model in an engine, see `record`; the trace names the file, its hash and its architecture.

    settings : all that the engine has, and `calls`, how many tokens each call of it is given, where it is not all.
    hashed : called with bytes hashed and in all.
    """
    job = {"model": str(artifact.path.resolve()), **with_threads(settings), "tokens": list(tokens)}
    about = {
        "model": artifact.path.resolve().name,
        "model_sha256": artifact.sha256(hashed),
        "architecture": artifact.config.architecture,
        "tokens": job["tokens"],
    }
    return record(engine, job, about, output, python, progress, replace=replace, checked=artifact.require_unchanged)
