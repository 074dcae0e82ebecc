"""Captures that are killed: a process that has everything loaded forks one child per capture and ends it as told.

A job comes on stdin, run to warm up; then one order per line, {"job": ..., "delay": seconds or null, "step": number or
null}. "ready" and one wait status per line go to stdout. SIGKILL comes after `delay`, or just before the `step`-th time
that room is reserved, a file is brought to the disk, renamed or removed.
"""

import itertools
import json
import os
import signal
import subprocess
import sys
import time
import traceback
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Self

from workbench.capture.job import CaptureJob
from workbench.capture.lockstep import capture

ROOT = Path(__file__).parents[1]


class Crasher:
    """The process, from the side of a test; `job` is one to warm up with."""

    def __init__(self, job: CaptureJob) -> None:
        self.job = job

    def __enter__(self) -> Self:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.crasher"],
            cwd=ROOT,
            env=os.environ | {"WORKBENCH_THREADS": "1"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._say(self.job.to_json()) == "ready"
        return self

    def __exit__(self, *_: object) -> None:
        self.process.stdin.close()
        self.process.wait()
        self.process.stdout.close()

    def run(self, job: CaptureJob, delay: float | None = None, step: int | None = None) -> bool:
        """Run a capture; whether it came to its end."""
        status = int(self._say({"job": job.to_json(), "delay": delay, "step": step}))
        assert status in (0, signal.SIGKILL), "the child must work or be killed, nothing else"
        return status == 0

    def _say(self, order: dict) -> str:
        self.process.stdin.write(json.dumps(order) + "\n")
        self.process.stdin.flush()
        return self.process.stdout.readline().strip()


def main() -> None:
    job = CaptureJob.from_json(json.loads(sys.stdin.readline()))
    with TemporaryDirectory() as folder:  # loads everything, once for every child
        capture(replace(job, folder=Path(folder)), lambda event: None)
    print("ready", flush=True)  # noqa: T201
    for line in sys.stdin:
        order = json.loads(line)
        child = os.fork()
        if child == 0:
            _capture(order)
        if order["delay"] is not None:
            time.sleep(order["delay"])
            os.kill(child, signal.SIGKILL)
        print(os.waitpid(child, 0)[1], flush=True)  # noqa: T201


def _capture(order: dict) -> None:
    try:
        if order["step"] is not None:
            _die_before_step(order["step"])
        capture(CaptureJob.from_json(order["job"]), lambda event: None)
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    os._exit(0)


def _die_before_step(step: int) -> None:
    left = itertools.count(step, -1)

    def counted(function):
        def call(*arguments, **options):
            if next(left) == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*arguments, **options)

        return call

    for name in ("posix_fallocate", "fsync", "replace", "unlink"):
        setattr(os, name, counted(getattr(os, name)))


if __name__ == "__main__":
    main()
