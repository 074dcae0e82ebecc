"""`python -m benchmarks.scale memory|workers`: what docs/scale.md says, measured again; Linux, as root.

memory : models of 8 GB and of half that depth, run in a control group of 2 GB.
workers A B PROMPTS : a sweep on a dask scheduler with 1, 2 and 4 workers, each in a network namespace of its own.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.models import write_gguf
from benchmarks.peer import ROOT
from benchmarks.processes import WORKBENCH, own_memory
from benchmarks.shapes import QWEN_7B, Tensor, tensors
from tests.random_weights import random_rows

GROUPS = Path("/sys/fs/cgroup/memory")  # version 1; version 2 has memory.max and memory.peak
LIMIT = 2 << 30
_ROWS = 512  # rows that are made; a matrix is these again and again
_TOKENS = "1,2,3,4"


def _repeated(tensor: Tensor) -> Iterator[NDArray[np.uint8]]:
    _, type, shape = tensor
    if len(shape) == 1:
        yield np.ones(shape, np.float32).view(np.uint8)
        return
    rows = random_rows(np.random.default_rng(0), type, _ROWS, shape[1])
    for start in range(0, shape[0], _ROWS):
        yield rows[: shape[0] - start]


def _model(folder: Path, layers: int) -> Path:
    config, path = replace(QWEN_7B, num_hidden_layers=layers), folder / f"layers-{layers}.gguf"
    if not path.exists():
        write_gguf(path, config, tensors(config, "Q8_0"), _repeated, vocabulary=False)
    return path


def _forget(path: Path) -> None:
    """Let the system forget the pages of a file, which else count where they were read or written first."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


@contextmanager
def _control_group() -> Iterator[Path]:
    """A new group whose processes have LIMIT bytes, the pages of files that they read included."""
    group = GROUPS / f"workbench-{os.getpid()}"
    group.mkdir()
    try:
        (group / "memory.limit_in_bytes").write_text(str(LIMIT))
        yield group
    finally:
        group.rmdir()


def _run_within(group: Path, command: list[str]) -> tuple[float, int]:
    """Seconds of the processor, and the largest memory beyond mapped pages, of a command in a group."""
    enter = f"echo $$ > {group}/cgroup.procs; exec "
    before, largest = os.times(), 0
    child = subprocess.Popen(["sh", "-c", enter + '"$@"', "sh", *command], cwd=ROOT, stdout=subprocess.DEVNULL)  # noqa: S603, S607
    while child.poll() is None:
        largest = max(largest, own_memory(child.pid))
        time.sleep(0.05)
    if child.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {child.returncode}")
    after = os.times()
    return after.children_user + after.children_system - before.children_user - before.children_system, largest


def measure_memory(folder: Path) -> None:
    """Run a model four times as large as the memory that it may use, and one of half its depth."""
    for layers in (28, 14):
        model = _model(folder, layers)
        for how in ("statistics", "store"):
            _forget(model)
            output = folder / f"out-{how}"
            wanted = ["--statistics-only"] if how == "statistics" else []
            command = [*WORKBENCH, "trace", str(model), "--tokens", _TOKENS, "-o", str(output), "--force", *wanted]
            with _control_group() as group:
                seconds, largest = _run_within(group, command)
                most = int((group / "memory.max_usage_in_bytes").read_text())
            facts = {"layers": layers, "bytes": model.stat().st_size, "kept": how, "written": output.stat().st_size}
            print(json.dumps(facts | {"processor_seconds": seconds, "own_memory": largest, "group_memory": most}))  # noqa: T201
            output.unlink()


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True)  # noqa: S603, S607


@contextmanager
def _network(count: int) -> Iterator[list[str]]:
    """Namespaces that reach each other over a bridge, as machines do; the commands that enter each."""
    names = [f"wb{number}" for number in range(count)]
    with ExitStack() as undone:
        _ip("link", "add", "wbbridge", "type", "bridge")
        undone.callback(_ip, "link", "del", "wbbridge")
        _ip("link", "set", "wbbridge", "up")
        for number, name in enumerate(names):
            _ip("netns", "add", name)
            undone.callback(_ip, "netns", "del", name)
            _ip("link", "add", f"{name}out", "type", "veth", "peer", "name", f"{name}in", "netns", name)
            undone.callback(_ip, "link", "del", f"{name}out")  # the system removes those of a namespace when it likes
            _ip("link", "set", f"{name}out", "master", "wbbridge", "up")
            _ip("-n", name, "addr", "add", f"10.77.0.{number + 1}/24", "dev", f"{name}in")
            _ip("-n", name, "link", "set", f"{name}in", "up")
            _ip("-n", name, "link", "set", "lo", "up")
        yield names


def _started(stack: ExitStack, space: str, *words: str) -> None:
    environment = os.environ | {"WORKBENCH_THREADS": "1", "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    command = ["ip", "netns", "exec", space, sys.executable, "-m", "dask", *words]
    child = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)  # noqa: S603
    stack.callback(child.wait)
    stack.callback(child.terminate)


def measure_workers(a: Path, b: Path, prompts: Path, folder: Path) -> None:
    """Sweep the same pair with 1, 2 and 4 workers, every one of them on a network address of its own."""
    address = "tcp://10.77.0.1:8786"
    for workers in (1, 2, 4):
        output = folder / f"out-{workers}.jsonl"
        with _network(workers + 1) as spaces, ExitStack() as stack:
            _started(stack, spaces[0], "scheduler", "--host", "10.77.0.1", "--no-dashboard")
            for number, space in enumerate(spaces[1:], 2):
                settings = ("--nthreads", "1", "--memory-limit", "0", "--no-dashboard", "--host", f"10.77.0.{number}")
                _started(stack, space, "worker", address, *settings)
            client = ["ip", "netns", "exec", spaces[0], *WORKBENCH, "sweep", str(a), str(b), "--plain", "--force"]
            client += ["--prompts", str(prompts), "--cluster", address, "-o", str(output)]
            start, largest = time.perf_counter(), 0
            child = subprocess.Popen(client, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)  # noqa: S603
            while child.poll() is None:
                largest = max(largest, own_memory(child.pid))
                time.sleep(0.05)
            seconds = time.perf_counter() - start
        print(json.dumps(_shares(output) | {"workers": workers, "seconds": seconds, "client_memory": largest}))  # noqa: T201


def _shares(output: Path) -> dict[str, object]:
    """Processor seconds of all units, of the changed ones each, and by worker."""
    by_worker = Counter[str]()
    lines = [json.loads(line) for line in output.read_text().splitlines()]
    for line in lines:
        by_worker[line["worker"]] += line["processor_seconds"]
    changed = [line["processor_seconds"] for line in lines if not line["identical"]]
    of_each = {"changed": len(changed), "processor_seconds_of_a_changed_one": sum(changed) / max(len(changed), 1)}
    return {
        "units": len(lines),
        "processor_seconds": by_worker.total(),
        "by_worker": sorted(by_worker.values()),
    } | of_each


def main() -> None:
    """Print a line of JSON a measurement."""
    arguments = argparse.ArgumentParser(prog="python -m benchmarks.scale", description=__doc__)
    arguments.add_argument("what", choices=("memory", "workers"))
    arguments.add_argument("files", nargs="*", type=Path, help="of workers: A, B and a file of prompts")
    arguments.add_argument("--folder", type=Path, default=ROOT / ".bench", help="where models and results are kept")
    given = arguments.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # namespaces and groups are undone by either
    if given.what == "memory":
        measure_memory(given.folder)
    else:
        measure_workers(*given.files, folder=given.folder)


if __name__ == "__main__":
    main()
