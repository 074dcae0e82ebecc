#!/usr/bin/env bash
# A cancelled Dask future comes out of `as_completed(..., with_results=True)` as a result: an exception in place of the value.
#
# Version: distributed 2026.8.0, Python 3.11.
# Behaviour: `raise_errors=True`, the default, raises where the status of a future is "error". A cancelled one has the status
#   "cancelled", so the loop goes on and its "result" is a FutureCancelledError object. `future.result()` and
#   `client.gather` raise that same error. A program need not cancel anything to meet it: where the scheduler is lost,
#   the client cancels every future that it waits for, and the loop ends as if all were computed.
# Why it matters: whoever spreads comparisons over a cluster and writes each result to a file as it comes gets, after a
#   lost scheduler, a full list with exceptions for measurements, and no traceback. Look at `future.status`, or call
#   `future.result()`.
# Output seen on 2026-11-28:
#   failed                 as_completed raises ValueError           future.result() raises ValueError
#   cancelled              as_completed gives FutureCancelledError  future.result() raises FutureCancelledError
#   scheduler was killed   as_completed gives FutureCancelledError  future.result() raises FutureCancelledError
# The script fails if this changes.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check distributed==2026.8.0
cd "$work"
timeout 90 "$work/venv/bin/python" - 2>"$work/warnings" <<'PY'
import subprocess
import sys
import threading
import time

from distributed import Client, LocalCluster, as_completed


def divide(seconds, by):
    time.sleep(seconds)
    if by == 0:
        raise ValueError("by zero")
    return 1 / by


def taken(future):
    """What the loop makes of a future."""
    try:
        [(_, result)] = as_completed([future], with_results=True, raise_errors=True)
    except Exception as error:
        return f"raises {type(error).__name__}"
    return f"gives {type(result).__name__}"


def asked(future):
    try:
        return f"gives {type(future.result()).__name__}"
    except Exception as error:
        return f"raises {type(error).__name__}"


def show(name, future, expected):
    found = taken(future), asked(future)
    print(f"{name:<22} as_completed {found[0]:<27} future.result() {found[1]}")
    assert found == expected, "cancelled futures are treated otherwise now"


small = {"processes": False, "n_workers": 1, "threads_per_worker": 1, "dashboard_address": None}
cancelled = ("gives FutureCancelledError", "raises FutureCancelledError")
with LocalCluster(**small) as cluster, Client(cluster) as client:
    assert taken(client.submit(divide, 0, 2)) == asked(client.submit(divide, 0, 2)) == "gives float"
    show("failed", client.submit(divide, 0, 0), ("raises ValueError", "raises ValueError"))
    future = client.submit(divide, 2, 4)
    future.cancel()
    show("cancelled", future, cancelled)

command = [sys.executable, "-m", "distributed.cli.dask_scheduler", "--host", "127.0.0.1", "--port", "0", "--no-dashboard"]
scheduler = subprocess.Popen([*command, "--scheduler-file", "scheduler.json"])
try:
    with Client(scheduler_file="scheduler.json", timeout=30) as client:
        future = client.submit(divide, 0, 8)
        threading.Timer(1, scheduler.kill).start()
        show("scheduler was killed", future, cancelled)
finally:
    scheduler.kill()
PY
