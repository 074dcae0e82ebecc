"""A program that is told to end: at any instant, in one sentence, within a moment."""

import io
import signal
import subprocess
import sys
import textwrap
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.interrupting import interrupt
from workbench.demo import MODEL
from workbench.machine import terminal

ROOT = Path(__file__).parents[2]
PAIR = [str(MODEL), str(MODEL), "--path-b", "f32", "--tokens", "1,2,3"]


@pytest.mark.parametrize("delay", [0.0, 0.05, 0.2, 0.5, 1.0])
def test_an_interrupted_command_is_over(delay):
    found = interrupt(["compare", *PAIR], delay, signal.SIGINT)
    assert found.complaint == "", found.output


@pytest.mark.parametrize(
    ("delay", "number"), [(0.4, signal.SIGTERM), (1.5, signal.SIGHUP), (2.0, signal.SIGTERM), (2.0, signal.SIGINT)]
)
def test_the_app_gives_the_terminal_back(delay, number, tmp_path):
    found = interrupt(["open", *PAIR, "--session", str(tmp_path / "s")], delay, number)
    assert found.complaint == "", found.output[-2000:]


@pytest.mark.parametrize("elsewhere", ["stdin", "stdout", "stderr"])
def test_without_all_of_a_terminal_the_app_is_not_opened(elsewhere, monkeypatch):
    for name in ("stdin", "stdout", "stderr"):
        monkeypatch.setattr(sys, name, SimpleNamespace(isatty=lambda: True))
    assert terminal.is_there()
    monkeypatch.setattr(sys, elsewhere, io.StringIO())
    assert not terminal.is_there()
    monkeypatch.setattr(sys, elsewhere, None)  # it was closed
    assert not terminal.is_there()


# Programs that are told to end, or that end, at instants at which the terminal is being taken or is held.
HOLDING = """
import os, signal, sys, threading, time
import numpy as np
from textual.drivers.linux_driver import LinuxDriver
from workbench.machine import interrupts
from workbench.app.app import WorkbenchApp

taking, loading = LinuxDriver.start_application_mode, WorkbenchApp.on_load

def told():
    os.kill(os.getpid(), signal.SIGTERM)

{body}
from workbench.__main__ import main
main()
"""
TOLD_WHERE_NOTHING_IS_RAISED = """
def load(app):
    exec("told()", globals() | {"__name__": "llvmlite.binding"})
    loading(app)

def take(driver):
    taking(driver)
    time.sleep(0.1)

WorkbenchApp.on_load, LinuxDriver.start_application_mode = load, take
"""
TOLD_WHILE_IT_IS_TAKEN = """
def take(driver):
    taking(driver)
    told()
    time.sleep(0.1)

LinuxDriver.start_application_mode = take
"""
NEVER_COMES_TO_ITS_END = """
interrupts._GRACE = 0.2
WorkbenchApp.exit = lambda app, *_: None
WorkbenchApp.on_ready = lambda app: told()
"""
CUT_SHORT = """
def ready(app):
    values = np.memmap("/proc/self/fd/" + str(file.fileno()), np.uint8, "c")
    file.truncate(0)
    threading.Thread(target=values.sum).start()

import tempfile
file = tempfile.TemporaryFile()
file.truncate(1 << 20)
WorkbenchApp.on_ready = ready
"""


@pytest.mark.parametrize(
    ("body", "code", "sentence"),
    [
        (TOLD_WHERE_NOTHING_IS_RAISED, 143, "ended by SIGTERM"),
        (TOLD_WHILE_IT_IS_TAKEN, 143, "ended by SIGTERM"),
        (NEVER_COMES_TO_ITS_END, 143, "ended by SIGTERM"),
        (CUT_SHORT, 2, "a file was cut short while it was read; run it again once the file is whole"),
    ],
    ids=["told where nothing is raised", "told while it is taken", "never comes to its end", "cut short"],
)
def test_the_terminal_is_given_back_from_wherever_the_app_ends(body, code, sentence, tmp_path):
    program = ("-c", HOLDING.format(body=body))
    found = interrupt(["open", *PAIR, "--session", str(tmp_path / "s")], 20, signal.SIGKILL, program)
    assert (found.code, found.complaint) == (code, ""), found.output[-2000:]
    assert found.output.endswith(f"workbench: {sentence}\r\n".encode())


def program(body: str) -> "subprocess.CompletedProcess[str]":
    code = "import os, signal, sys, time\nfrom workbench.machine import interrupts\n"
    code += "interrupts._GRACE = 0.3\ninterrupts.unwind()\n"
    return subprocess.run(
        [sys.executable, "-c", code + textwrap.dedent(body)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def test_an_interrupt_that_a_finalizer_swallows_comes_again():
    done = program("""
        class Thing:
            def __del__(self):
                os.kill(os.getpid(), signal.SIGINT)
                for _ in range(10): pass
        try:
            thing = Thing()
            del thing
            time.sleep(30)
        except interrupts.Ended as error:
            print("again", error.number)
            interrupts.leave(0)
    """)
    assert (done.returncode, done.stdout, done.stderr) == (130, "again 2\n", "")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_program_that_does_not_come_to_its_end_is_ended(number):
    done = program(f"""
        import threading
        try:
            os.kill(os.getpid(), {number:d})
        except KeyboardInterrupt:
            lock = threading.Lock()
            lock.acquire()
            lock.acquire()
    """)
    words = {signal.SIGINT: "interrupted", signal.SIGTERM: "ended by SIGTERM"}
    assert (done.returncode, done.stderr) == (128 + number, f"workbench: {words[number]}\n")


INSIDE = """
    work = "def work(): os.kill(os.getpid(), signal.SIGTERM); time.sleep({seconds}); print('whole')"
    exec(work, space := globals() | {{"__name__": "llvmlite.binding"}})
"""


def test_the_compiler_is_not_interrupted_in_the_middle():
    done = program(f"""{INSIDE.format(seconds=0.1)}
    try:
        space["work"]()
        time.sleep(30)
    except interrupts.Ended:
        print("then")
        interrupts.leave(0)
    """)
    assert (done.returncode, done.stdout, done.stderr) == (143, "whole\nthen\n", "")


def test_the_compiler_is_not_waited_for_long():
    done = program(f"""{INSIDE.format(seconds=30)}
    interrupts._GRACE_WHERE_UNSAFE = 0.05
    space["work"]()
    """)
    assert (done.returncode, done.stdout, done.stderr) == (143, "", "workbench: ended by SIGTERM\n")


def test_what_was_to_be_ignored_stays_ignored():
    done = program("""
        print(signal.getsignal(signal.SIGHUP) is signal.SIG_IGN)
        interrupts.leave(7)
    """)
    assert (done.returncode, done.stdout) == (7, "False\n")
    inspect = f"{sys.executable} -m workbench inspect {MODEL} --json >/dev/null"
    ignoring = ["sh", "-c", f"trap '' HUP; exec {inspect} & kill -HUP $!; wait $!"]
    done = subprocess.run(ignoring, cwd=ROOT, check=False)
    assert done.returncode == 0
