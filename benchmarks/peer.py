"""A peer: a program of benchmarks/peers that runs in an interpreter of its own and waits to be told to go."""

import json
import os
import subprocess
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

ROOT = Path(__file__).resolve().parents[1]


class PeerError(Exception):
    """A peer that cannot be measured, in one sentence."""


class Peer:
    """Starts the program, and ends it when the `with` block is left."""

    def __init__(self, python: Path, program: str, threads: int, **job: Any) -> None:  # noqa: ANN401
        if not python.exists():
            raise PeerError(f"{python} is not there; run `make bench-peers`, or give PEER_PYTHON=")
        self._child = subprocess.Popen(  # noqa: S603
            [python, "-m", f"benchmarks.peers.{program}", json.dumps(job | {"threads": threads})],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=ROOT,
            env=os.environ | {"OMP_NUM_THREADS": str(threads)},
            text=True,
        )

    def __enter__(self) -> Self:
        try:
            self._answer()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._child.kill()
        self._child.communicate()

    def run(self) -> float:
        """Let the peer do its work once; returns the seconds it measured."""
        assert self._child.stdin is not None
        with suppress(BrokenPipeError):
            self._child.stdin.write("\n")
            self._child.stdin.flush()
        return float(self._answer())

    def _answer(self) -> str:
        assert self._child.stdout is not None
        line = self._child.stdout.readline()
        if not line:
            _, complaint = self._child.communicate()
            raise PeerError(f"the peer ended: {complaint.strip().splitlines()[-1:] or 'without a word'}")
        return line
