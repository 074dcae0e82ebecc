"""Record runtime-faults.npz: stages of a transformers run, and what they become by every mistake of a runtime.

usage: PYTHONPATH=. .venv/bin/python tests/golden/record_runtime_faults.py .venv-peers/bin/python
"""

import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from tests.faults.models import plain
from tests.faults.runtime_fault import RuntimeFault, expected_of, fits, value_of
from tests.faults.runtime_faults import RUNTIME_FAULTS
from tests.faults.torch_runs import run_jobs, write_plain

MODEL, LAYER = "qwen2-small", 1


def _one_of_each(faults: Iterable[RuntimeFault]) -> list[RuntimeFault]:
    """The first fault of every edit, whatever part of the model it is made in."""
    found = {}
    for fault in faults:
        found.setdefault((fault.edit.rsplit(" ", 1)[0], fault.silu), fault)
    return list(found.values())


def main() -> None:
    model = plain(MODEL)
    faults = _one_of_each(fault for fault in RUNTIME_FAULTS if fits(fault, model) and not fault.dtype)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_plain(model, folder)
        usual = {"model": str(folder), "tokens": list(model.tokens()), "dtype": "float32", "edit": "", "value": 0}
        jobs = [usual | {"layers": [], "out": str(folder / "right.npz")}]
        for number, fault in enumerate(faults):
            job = {"edit": fault.edit, "value": value_of(fault, model), "silu": fault.silu, "layers": [LAYER]}
            jobs.append(usual | job | {"out": str(folder / f"{number}.npz")})
        run_jobs(jobs, folder, sys.argv[1])
        right = dict(np.load(folder / "right.npz"))
        found = dict(right)
        for number, fault in enumerate(faults):
            wrong = np.load(folder / f"{number}.npz")
            for site in expected_of(fault, LAYER).cells:
                key = f"stage|{-1 if site.layer is None else site.layer}|{site.stage}"
                if key in wrong and not np.array_equal(wrong[key], right.get(key)):
                    found[f"{fault.kind}|{key}"] = wrong[key]
    np.savez_compressed(Path(__file__).with_name("runtime-faults.npz"), **found)


if __name__ == "__main__":
    main()
