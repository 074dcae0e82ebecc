"""Runs of Hugging Face models by torch_side/run.py, in the interpreter that has torch."""

import json
import os
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np

from kernels.models import family
from store.stored_model import NORM
from tests.faults.models import Plain
from tests.hf_files import hf_config
from tests.memory_model import MemoryModel

_SCRIPT = Path(__file__).parent / "torch_side" / "run.py"


def write_plain(plain: Plain, folder: Path) -> Path:
    """What torch_side/run.py builds a model from: configuration and values as Hugging Face has them."""
    folder.mkdir(parents=True, exist_ok=True)
    less_one = family(plain.config.architecture).less_one
    np.savez(
        folder / "weights.npz",
        **{
            name: values - np.float32(1) if less_one and name.endswith(NORM) else values
            for name, values in plain.values.items()
        },
    )
    (folder / "config.json").write_text(json.dumps(hf_config(MemoryModel(plain.config))))
    return folder


def loud(model: Plain, layer: int) -> Plain:
    """The model with one of two channels of a gated product far beyond 65504, of which the rest of it sees nothing."""
    gate, up, down = (f"model.layers.{layer}.mlp.{name}_proj.weight" for name in ("gate", "up", "down"))
    values = {name: model.values[name].copy() for name in (gate, up, down)}
    values[gate][11] *= 512
    values[gate][12] = -values[gate][11]  # SiLU lets one of the two pass
    values[up][11:13] = values[up][11] * 4096
    values[down][:, 11:13] /= 4096
    return replace(model, name=f"{model.name} loud {layer}", values=model.values | values)


def run_jobs(jobs: list[dict], folder: Path, python: str) -> None:
    """Let the interpreter with torch run all jobs in one go."""
    path = folder / "jobs.json"
    path.write_text(json.dumps(jobs))
    alone = {**os.environ, "PYTHONPATH": ""}  # transformers would take our kernels for a package of that name
    done = subprocess.run(
        [python, str(_SCRIPT), str(path)], capture_output=True, text=True, check=False, cwd=folder, env=alone
    )
    if done.returncode:
        raise RuntimeError(done.stderr[-2000:])
