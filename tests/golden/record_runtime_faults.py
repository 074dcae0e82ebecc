"""Record what stages of transformers become by every mistake of a runtime: runtime-faults.npz, family-faults.npz.

usage: PYTHONPATH=. .venv/bin/python tests/golden/record_runtime_faults.py .venv-peers/bin/python [RECORDING...]
"""

import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from tests.faults.family_faults import FAMILY_FAULTS
from tests.faults.models import plain
from tests.faults.runtime_fault import RuntimeFault, expected_of, fits, value_of
from tests.faults.runtime_faults import RUNTIME_FAULTS
from tests.faults.torch_runs import run_jobs, write_plain

GOLDEN = Path(__file__).parent
RECORDED = {  # model and faults, by name of the recording
    "runtime-faults": ("qwen2-small", RUNTIME_FAULTS),
    "family-faults": ("gemma3-one-key-head", FAMILY_FAULTS),
}


def layer_of(fault: RuntimeFault, model: str) -> int:
    """The last layer that can have it."""
    return fault.layers(plain(model).config)[-1]


def _one_of_each(faults: Iterable[RuntimeFault]) -> list[RuntimeFault]:
    """The first fault of every edit, whatever part of the model it is made in."""
    found = {}
    for fault in faults:
        found.setdefault((fault.edit.rsplit(" ", 1)[0], fault.silu, fault.sliding), fault)
    return list(found.values())


def record(name: str, python: str) -> None:
    model, faults = plain(RECORDED[name][0]), RECORDED[name][1]
    faults = _one_of_each(fault for fault in faults if fits(fault, model) and not fault.dtype)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        write_plain(model, folder)
        usual = {"model": str(folder), "tokens": list(model.tokens()), "dtype": "float32", "edit": "", "value": 0}
        jobs = [usual | {"layers": [], "out": str(folder / "right.npz")}]
        for number, fault in enumerate(faults):
            job = {"edit": fault.edit, "value": value_of(fault, model), "silu": fault.silu}
            job["layers"] = [layer_of(fault, model.name)]
            jobs.append(usual | job | {"out": str(folder / f"{number}.npz")})
        run_jobs(jobs, folder, python)
        right = dict(np.load(folder / "right.npz"))
        found = dict(right)
        for number, fault in enumerate(faults):
            wrong = np.load(folder / f"{number}.npz")
            for site in expected_of(fault, layer_of(fault, model.name)).cells:
                key = f"stage|{-1 if site.layer is None else site.layer}|{site.stage}"
                if key in wrong and not np.array_equal(wrong[key], right.get(key)):
                    found[f"{fault.kind}|{key}"] = wrong[key]
    np.savez_compressed(GOLDEN / f"{name}.npz", **found)


if __name__ == "__main__":
    for name in sys.argv[2:] or RECORDED:
        record(name, sys.argv[1])
