"""Child processes of the product as forks of one that has everything loaded.

Such a child loads Numba and all kernels first, which takes many times as long as what most tests let it do. What it
does then is the same, and so are its pipes, its signals and its end; the tests of captures start real ones.
`python -m tests.forking FD` is the process that forks: a message on the socket names a module, with stdin, stdout,
stderr and a pipe for the pid and the wait status of the fork.
"""

import atexit
import gc
import importlib
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import threading
import traceback
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import BinaryIO, NoReturn

from kernels.machine.compiler import compile_all

ROOT = Path(__file__).parents[1]
POSSIBLE = sys.platform == "linux"
_LOADED = ("workbench.capture.process", "workbench.jobs.process", "workbench.jobs.answering")


class Forking:
    """The process that forks, from the side of the tests; `Popen` stands in for subprocess.Popen."""

    PIPE, TimeoutExpired = subprocess.PIPE, subprocess.TimeoutExpired

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None

    def Popen(  # noqa: N802 - the name of what it stands in for
        self, command: list[str], *, stderr: BinaryIO, env: dict[str, str], **_: object
    ) -> "Fork":
        """A process as workbench.machine.child_process starts it."""
        if self._process is None:
            self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.forking", str(theirs.fileno())],
                cwd=ROOT,
                pass_fds=[theirs.fileno()],
                start_new_session=True,  # an interruption is for the tests; it ends with the socket
            )
            theirs.close()
        assert command[1:3] == ["-P", "-m"]
        job = {"module": command[3], "env": env, "cwd": os.getcwd()}
        (stdin, to), (of, stdout), (status, told) = os.pipe(), os.pipe(), os.pipe()
        socket.send_fds(self._socket, [json.dumps(job).encode()], [stdin, stdout, stderr.fileno(), told])
        for theirs in (stdin, stdout, told):
            os.close(theirs)
        return Fork(os.fdopen(to, "wb"), os.fdopen(of, "rb"), status)

    def close(self) -> None:
        if self._process is not None:
            self._socket.close()
            self._process.wait()


class Fork:
    """What the product needs of a subprocess.Popen."""

    def __init__(self, stdin: BinaryIO, stdout: BinaryIO, status: int) -> None:
        self.stdin, self.stdout, self._status = stdin, stdout, os.fdopen(status)
        self._told = threading.Lock()  # once, and threads may ask at the same time
        self.returncode: int | None = None

    @cached_property
    def pid(self) -> int:
        return int(self._status.readline())

    def poll(self) -> int | None:
        return self._ended(0)

    def wait(self, timeout: float | None = None) -> int:
        status = self._ended(timeout)
        if status is None:
            raise subprocess.TimeoutExpired("fork", timeout or 0)
        return status

    def terminate(self) -> None:
        os.kill(self.pid, signal.SIGTERM)

    def kill(self) -> None:
        os.kill(self.pid, signal.SIGKILL)

    def _ended(self, timeout: float | None) -> int | None:
        assert self.pid
        with suppress(ValueError, OSError):  # closed, since another thread was told
            if self.returncode is None and select.select([self._status], [], [], timeout)[0]:
                with self._told:
                    if self.returncode is None:
                        self.returncode = os.waitstatus_to_exitcode(int(self._status.readline()))
                        self._status.close()
        return self.returncode


def _serve(connection: socket.socket) -> None:
    """Fork for every message until there is nobody to send one."""
    while True:
        message, files, _, _ = socket.recv_fds(connection, 1 << 18, 4)
        if not message:
            return
        if os.fork() == 0:
            connection.close()
            _keep(json.loads(message), *files)
            os._exit(0)
        for file in files:
            os.close(file)
        with suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass


def _keep(job: dict, stdin: int, stdout: int, stderr: int, told: int) -> None:
    """Fork again and tell how that one ends."""
    pid = os.fork()
    if pid == 0:
        os.close(told)
        os.setsid()
        for number, file in enumerate((stdin, stdout, stderr)):
            os.dup2(file, number)
            os.close(file)
        os.chdir(job["cwd"])
        os.environ.clear()
        os.environ.update(job["env"])
        _run(job["module"])
    for file in (stdin, stdout, stderr):
        os.close(file)
    os.write(told, f"{pid}\n".encode())
    os.write(told, f"{os.waitpid(pid, 0)[1]}\n".encode())


def _run(module: str) -> NoReturn:
    """Be that process; the interpreter is not taken down, which would touch and so copy all that is loaded."""
    try:
        sys.modules.pop(module, None)  # it is run anew, and runpy warns where it is there
        runpy.run_module(module, run_name="__main__", alter_sys=True)
        status = 0
    except BaseException:
        traceback.print_exc()
        status = 1
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


if __name__ == "__main__":
    compile_all()
    for module in _LOADED:
        importlib.import_module(module)
    gc.freeze()  # what a fork never touches is not copied
    _serve(socket.socket(fileno=int(sys.argv[1])))
