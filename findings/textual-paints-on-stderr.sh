#!/usr/bin/env bash
# A Textual app draws on stderr: `app 2>log` leaves the terminal empty, `app >out` changes nothing on the screen.
#
# Version: textual 8.2.8 on Linux, Python's own pty.
# Behaviour: the driver writes the screen to the stderr that Python started with, and reads keys from stdin. With stderr
#   in a file the whole interface goes into that file, escape sequences and all, the terminal stays as it was but for echo,
#   and keys still work, unseen. With stdout in a file the app is on screen as always, and `print` after the app writes to
#   the file. `sys.stdout.isatty()`, which programs ask before they open an interface, is the wrong question in both cases.
# Why it matters: a tool that opens its screen if stdout is a terminal hangs, to all appearances, under the usual
#   `2>errors.log`, and refuses a screen it could have shown under `| tee`.
# Output seen on 2026-11-28:
#   stderr in a file: on the terminal False, in the file True, ended by a key True
#   stdout in a file: on the terminal True, in the file False, ended by a key True
# The script fails if this changes.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check textual==8.2.8
cat >"$work/app.py" <<'PY'
from textual.app import App
from textual.widgets import Label


class Hello(App):
    BINDINGS = [("q", "quit", "Quit")]

    def compose(self):
        yield Label("MARK" + "ER")


Hello().run()
PY
"$work/venv/bin/python" - "$work" <<'PY'
import os
import pty
import select
import sys
import time
from pathlib import Path

work = Path(sys.argv[1])


def run(redirected):
    """What the app writes to its terminal and to the file, and whether the key that quits was heard."""
    kept = work / f"{redirected}.txt"
    child, terminal = pty.fork()
    if child == 0:
        os.environ |= {"TERM": "xterm-256color", "COLUMNS": "80", "LINES": "24"}
        os.dup2(os.open(kept, os.O_WRONLY | os.O_CREAT), {"stdout": 1, "stderr": 2}[redirected])
        os.execv(sys.executable, [sys.executable, str(work / "app.py")])
    shown, heard, end, pressed = b"", False, time.monotonic() + 30, 0.0
    while time.monotonic() < end and not heard:
        if select.select([terminal], [], [], 0.1)[0]:
            try:
                shown += os.read(terminal, 1 << 16)
            except OSError:
                break
        if b"MARKER" in shown + kept.read_bytes() and time.monotonic() - pressed > 1:
            os.write(terminal, b"q")
            pressed = time.monotonic()
        heard = os.waitpid(child, os.WNOHANG)[0] != 0
    if not heard:
        heard = os.waitpid(child, 0)[0] != 0
    return b"MARKER" in shown, b"MARKER" in kept.read_bytes(), heard


for redirected, expected in (("stderr", (False, True, True)), ("stdout", (True, False, True))):
    found = run(redirected)
    print(f"{redirected} in a file: on the terminal {found[0]}, in the file {found[1]}, ended by a key {found[2]}")
    assert found == expected, "Textual draws elsewhere now"
PY
