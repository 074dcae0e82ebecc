"""Record settings.npz: a few stages of each model of tests/settings_cases.py, as its engine computes them.

usage: PYTHONPATH=. .venv/bin/python tests/golden/record_settings.py .venv-peers/bin/python [CASE ...]
"""

import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from kernels.forward import forward
from kernels.paths import numeric_path
from store.open import open_artifact
from store.traces.open import open_trace
from tests.settings_cases import CASES, KEPT, ROWS, TOKENS

GOLDEN = Path(__file__).with_name("settings.npz")


def main() -> None:
    found = dict(np.load(GOLDEN)) if sys.argv[2:] else {}
    for name in sys.argv[2:] or CASES:
        case = CASES[name]
        with tempfile.TemporaryDirectory() as place:
            folder = Path(place)
            path = case.write(folder)
            tokens = ",".join(map(str, TOKENS))
            arguments = ["record", path, "-o", folder / "trace.npz", "--engine", case.engine, "--tokens", tokens]
            command = [sys.executable, "-m", "workbench", *map(str, arguments), "--python", sys.argv[1]]
            done = subprocess.run(command, check=False, capture_output=True, text=True)
            if done.returncode:
                sys.exit(f"{name}: {done.stderr.strip()}")
            model = open_artifact(path).for_length(case.room)
            trace = open_trace(folder / "trace.npz").bind(TOKENS, model.config)
            recorded = {site: trace.read(site) for site in trace.sites()}
            ours = dict(forward(model, TOKENS, numeric_path("ggml" if case.engine == "llama.cpp" else "f32")))
            worst = max(
                (float(np.linalg.norm(ours[site] - values) / np.linalg.norm(values)), str(site))
                for site, values in recorded.items()
                if site in ours
            )
            sys.stdout.write(f"{name}: {len(recorded)} stages, worst {worst[0]:.1e} at {worst[1]}; {model.problems}\n")
            found |= {f"{name}|{site}": recorded[site][list(ROWS)] for site in KEPT}
    np.savez_compressed(GOLDEN, **found)


if __name__ == "__main__":
    main()
