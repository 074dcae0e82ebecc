"""One question to a process of its own, which may crash or be ended without harm to this one."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any


def ask(module: str, job: dict[str, Any], patience: float) -> subprocess.CompletedProcess[str]:
    """Run `python -m MODULE` with a job as JSON on stdin; what it writes, and its exit status, are the answer.

    patience : seconds, after which it is killed and subprocess.TimeoutExpired raised.
    """
    root = str(Path(__file__).resolve().parents[2])
    others = os.environ.get("PYTHONPATH")
    return subprocess.run(  # noqa: S603 - -P: modules in the working directory are none of ours
        [sys.executable, "-P", "-m", module],
        input=json.dumps(job),
        capture_output=True,
        text=True,
        timeout=patience,
        env=os.environ | {"PYTHONPATH": os.pathsep.join([root, others] if others else [root])},
        check=False,
    )
