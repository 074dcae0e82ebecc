"""Does a setting of transformers look like a mistake? Records folders in each, bisects, prints a table of floors.

python -m benchmarks.peers.transformers_settings FOLDER... --python ~/hf/bin/python
"""

import argparse
import itertools
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

_TOKENS = "5,100,7,7,31,90,2,64,11,12,13,14"
_DTYPES = ("float32", "bfloat16", "float16")
_PROBE = "import torch; print(int(torch.cuda.is_available()))"


def settings(gpu: bool) -> Iterator[tuple[str, ...]]:
    """Options of `workbench record`, every combination that the machine has."""
    devices = ("cpu", "cuda") if gpu else ("cpu",)
    for device, dtype, compiled in itertools.product(devices, _DTYPES, ((), ("--compile",))):
        kinds = ("eager", "sdpa")
        if device == "cuda" and dtype != "float32":
            kinds += ("flash_attention_2",)
        for kind in kinds:
            chosen = ("--device", device, "--dtype", dtype, "--attention", kind, *compiled)
            yield chosen
            if device == "cuda" and dtype == "float32":
                yield (*chosen, "--tf32")


def answer(folder: Path, python: str, options: tuple[str, ...], trace: Path) -> list[str]:
    """The row of a folder in a setting: verdict, cells covered, and the difference of the logits."""
    recorded = _workbench(
        "record", folder, "--engine", "transformers", "--python", python, "--tokens", _TOKENS, "-o", trace, *options
    )
    name = [folder.name, " ".join(option.removeprefix("--") for option in options)]
    if recorded.returncode:
        return [*name, "not recorded", recorded.stderr.strip().splitlines()[-1], ""]
    found = json.loads(_workbench("bisect", trace, folder, "--json").stdout)
    compared = json.loads(_workbench("compare", trace, folder, "--json").stdout)
    return [*name, found["verdict"], found["headline"], _logits(compared)]


def _logits(compared: dict[str, Any]) -> str:
    cell = next(cell for cell in compared["cells"] if cell["stage"] == "lm_head")
    return f"{cell['rel_rms']:.2g}" if cell["status"] == "ok" else cell["status"]


def _workbench(*words: object) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "workbench", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - our own command


def main() -> int:
    """Print the table; 1 if a setting was called divergent."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("folders", nargs="+", type=Path)
    arguments.add_argument("--python", required=True, help="interpreter with torch and transformers")
    given = arguments.parse_args()
    probe = subprocess.run([given.python, "-c", _PROBE], capture_output=True, text=True, check=True)  # noqa: S603
    sys.stdout.write("| folder | setting | verdict | | logits, rel. RMS |\n|---|---|---|---|---|\n")
    alarms = 0
    with TemporaryDirectory() as place:
        for folder, options in itertools.product(given.folders, settings(probe.stdout.strip() == "1")):
            row = answer(folder, given.python, options, Path(place) / "trace.npz")
            (Path(place) / "trace.npz").unlink(missing_ok=True)
            alarms += row[2] == "divergent"
            sys.stdout.write(f"| {' | '.join(row)} |\n")
            sys.stdout.flush()
    return int(alarms > 0)


if __name__ == "__main__":
    sys.exit(main())
