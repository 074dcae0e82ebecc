"""Commands that are told to end: `python -m tests.interrupting 60` tries that many instants of each.

Each runs in a terminal of its own. What must hold: the program is gone within a moment, with 128 + the signal's number,
no traceback, the terminal as it was, and no process left behind.
"""

import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import tempfile
import termios
import time
from contextlib import suppress
from dataclasses import dataclass
from fcntl import ioctl
from pathlib import Path

from workbench.demo import MODEL

ROOT = Path(__file__).parents[1]
PATIENCE = 20.0  # seconds; the machine may be busy
OVER = 0.1  # seconds that the system takes to clear a process away that has ended by itself
WRAPS, CURSOR = 7, 25  # the modes of a terminal that are set in the ordinary


@dataclass
class Outcome:
    """How a command ended: its exit code (None: not at all), seconds after the signal, what it wrote, what is wrong."""

    code: int | None
    seconds: float
    output: bytes
    complaint: str


def interrupt(
    arguments: list[str], delay: float, number: int, program: tuple[str, ...] = ("-m", "workbench")
) -> Outcome:
    """Run a command in a terminal, send it a signal `delay` seconds after it has begun to load, and look how it ends.

    What comes while Python itself still starts is not ours to answer. program : what Python runs.
    """
    terminal, inside = pty.openpty()
    ioctl(inside, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 120, 0, 0))
    before = termios.tcgetattr(inside)
    child = subprocess.Popen(
        [sys.executable, *program, *arguments],
        cwd=ROOT,
        env=os.environ | {"TERM": "xterm-256color", "PYTHONPATH": str(ROOT)},
        stdin=inside,
        stdout=inside,
        stderr=inside,
        start_new_session=True,
    )
    while child.poll() is None and not _catches(child.pid, signal.SIGTERM):
        time.sleep(0.002)
    output = _read(terminal, child, delay)
    running = child.poll() is None
    child.send_signal(number)
    sent = time.monotonic()
    output += _read(terminal, child, PATIENCE)
    seconds, code = time.monotonic() - sent, child.poll()
    running &= not (code in (0, 1) and seconds < OVER)
    complaint = _complaint(code, running, number, output, before == termios.tcgetattr(inside))
    with suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()
    os.close(inside)
    os.close(terminal)
    return Outcome(code, seconds, output, complaint)


def _catches(process: int, number: int) -> bool:
    caught = re.search(r"^SigCgt:\s*(\w+)", Path(f"/proc/{process}/status").read_text(), re.MULTILINE)
    return caught is None or bool(int(caught[1], 16) >> number - 1 & 1)


def _read(terminal: int, child: "subprocess.Popen[bytes]", seconds: float) -> bytes:
    output, end = b"", time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        ended = child.poll() is not None
        if select.select([terminal], [], [], 0 if ended else min(left, 0.02))[0]:
            output += os.read(terminal, 1 << 16)
        elif ended:
            break
    return output


def _complaint(code: int | None, running: bool, number: int, output: bytes, same_terminal: bool) -> str:
    if code is None:
        return "it hangs"
    if running and code != 128 + number:
        return f"its exit code is {code}"
    if re.search(rb"Traceback|Exception ignored|Fatal", output):
        return "it shows a traceback"
    if changed := changed_modes(output):
        return f"it leaves the terminal changed: {changed}"
    return "" if same_terminal else "it leaves the terminal raw"


def changed_modes(output: bytes) -> list[int]:
    """Return the private modes that a terminal has after this output and had not before; 0 for keys of its own."""
    state = dict.fromkeys((WRAPS, CURSOR), True)
    for modes, verb in re.findall(rb"\x1b\[\?([\d;]+)([hl])", output):
        state |= {int(mode): verb == b"h" for mode in modes.split(b";")}
    wrong = [mode for mode, is_set in state.items() if is_set != (mode in (WRAPS, CURSOR))]
    screen, keys = b"ordinary", {b"ordinary": 0, b"other": 0}  # each screen has a stack of keyboard protocols
    for part in re.findall(rb"\x1b\[(?:\?1049[hl]|>\d+u|<\d*u)", output):
        if b"?" in part:
            screen = b"other" if part.endswith(b"h") else b"ordinary"
        else:
            keys[screen] = max(0, keys[screen] + (1 if b">" in part else -1))
    return sorted(wrong) + [0] * any(keys.values())


def main() -> None:
    """Try instants that are spread over the time that each command takes."""
    instants = int(sys.argv[1]) if len(sys.argv) > 1 else 60
    chosen = sys.argv[2:] or ["SIGINT", "SIGTERM", "SIGHUP"]
    wrong = 0
    with tempfile.TemporaryDirectory() as folder:
        for command in ("compare", "bisect", "open"):
            pair = [command, str(MODEL), str(MODEL), "--path-b", "f32", "--tokens", "1,2,3,4,5"]
            start = time.monotonic()
            interrupt([*pair, *(["--session", f"{folder}/warm"] if command == "open" else [])], 8, signal.SIGKILL)
            length = min(time.monotonic() - start, 8)
            for n in range(instants):
                number = getattr(signal, chosen[n % len(chosen)])
                session = ["--session", f"{folder}/{n}"] if command == "open" else []
                found = interrupt([*pair, *session], length * (n + 0.5) / instants, number)
                wrong += bool(found.complaint)
                if found.complaint or found.seconds > 2:
                    print(
                        command, n, signal.Signals(number).name, f"{found.seconds:.1f} s", found.code, found.complaint
                    )
                    print("   ", found.output[-700:])
            print(f"{command}: {instants} instants over {length:.1f} s")
    sys.exit(wrong > 0)


if __name__ == "__main__":
    main()
