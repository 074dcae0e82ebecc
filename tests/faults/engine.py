"""llama.cpp in a process of its own, for as long as there is something to quantize."""

import json
import subprocess
import tempfile
from pathlib import Path

import numpy as np

from kernels.weight import TensorType
from tests.faults import engine_quantizer


class Engine:
    """python : an interpreter with llama-cpp-python."""

    def __init__(self, python: str) -> None:
        command = [python, engine_quantizer.__file__]
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, text=True)
        self._folder = tempfile.TemporaryDirectory()

    def quantize(self, **job: object) -> None:
        """Have a file written (engine_quantizer.py says what of); RuntimeError if there is none."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(job) + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        if answer != "\n":
            raise RuntimeError(answer.strip() or "llama.cpp has ended")

    def rows(self, values: np.ndarray, type: TensorType) -> np.ndarray:
        """uint8 rows of a float32 matrix."""
        matrix, out = (Path(self._folder.name) / name for name in ("values.npy", "rows.npy"))
        np.save(matrix, values)
        self.quantize(matrix=str(matrix), out=str(out), type=int(type))
        return np.load(out)


_started: list[Engine] = []


def start(python: str) -> None:
    """Have an engine for whatever needs one."""
    _started.append(Engine(python))


def engine() -> Engine:
    """The engine that was started; IndexError if there is none."""
    return _started[-1]
