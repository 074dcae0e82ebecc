#!/usr/bin/env bash
# A Dask LocalCluster gives up a killed worker for good if it is not back within 15 s, and the computation waits for ever.
#
# Version: distributed 2026.8.0, Python 3.11.
# Behaviour: each worker has a nanny, which starts it again when it is killed, for want of memory say. The cluster has a
#   clock of its own, `distributed.deploy.lost-worker-timeout`, 15s if not set: where the worker is not registered again
#   by then, the cluster closes the nanny. The nanny waits until the worker is up, lets it take the waiting task, and ends
#   both. From then on nothing starts a worker: the task stays "pending", the status of the cluster "running", and no
#   line of the log at its usual level says that a worker was given up. `cluster.scale(n)`, n as before, brings one back.
#   With `distributed.scheduler.no-workers-timeout`, which is not set by default, a NoWorkerError ends the wait.
# Why it matters: a worker that loads a model before it registers, or starts on a busy machine, can take longer than that.
#   One kill in a night's comparison of models then costs a worker, the kill of the last one the rest of the night.
# Output seen on 2026-11-28 (a worker that takes 3 s more to start again):
#   the setting, by default: 15s
#   lost-worker-timeout 1s                            pending after 14 s, workers 0, cluster running; scaled: computed
#   lost-worker-timeout 1s, no-workers-timeout 5s     NoWorkerError
#   lost-worker-timeout 60s                           computed
# The script fails if this changes.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check distributed==2026.8.0
cat >"$work/slow.py" <<'PY'
# What a worker loads as it starts. The first one is quick, those after it are not.
import time
from pathlib import Path

started = Path(__file__).with_name("started")
if started.exists():
    time.sleep(3)
started.touch()
PY
cat >"$work/lose.py" <<'PY'
import os
import signal
import time
from pathlib import Path

import dask
from distributed import Client, LocalCluster

LOST, NONE = "distributed.deploy.lost-worker-timeout", "distributed.scheduler.no-workers-timeout"
here = Path(__file__).parent
small = {"n_workers": 1, "threads_per_worker": 1, "memory_limit": 0, "host": "127.0.0.1", "dashboard_address": None}
small |= {"preload": [str(here / "slow.py")], "local_directory": str(here)}


def double(value):
    time.sleep(1)
    return 2 * value


def outcome(settings, seconds):
    """What becomes of a task that is asked for when the only worker has been killed."""
    (here / "started").unlink(missing_ok=True)
    with dask.config.set(settings), LocalCluster(**small) as cluster, Client(cluster) as client:
        os.kill(client.submit(os.getpid).result(30), signal.SIGKILL)
        future = client.submit(double, 21)
        try:
            return "computed" if future.result(seconds) == 42 else "otherwise"
        except TimeoutError:
            workers = len(client.scheduler_info()["workers"])
            waits = f"{future.status} after {seconds} s, workers {workers}, cluster {cluster.status.name}"
        except Exception as error:
            return type(error).__name__
        cluster.scale(1)
        return f"{waits}; scaled: {'computed' if future.result(30) == 42 else 'otherwise'}"


if __name__ == "__main__":
    print(f"the setting, by default: {dask.config.get(LOST)}")
    assert dask.config.get(LOST) == "15s" and dask.config.get(NONE) is None
    for settings, seconds, expected in (
        ({LOST: "1s"}, 14, "pending after 14 s, workers 0, cluster running; scaled: computed"),
        ({LOST: "1s", NONE: "5s"}, 40, "NoWorkerError"),
        ({LOST: "60s"}, 40, "computed"),
    ):
        found = outcome(settings, seconds)
        named = ", ".join(f"{name.rsplit('.', 1)[1]} {value}" for name, value in settings.items())
        print(f"{named:<49} {found}")
        assert found == expected, "lost workers are treated otherwise now"
PY
timeout 110 "$work/venv/bin/python" "$work/lose.py" 2>"$work/warnings"
