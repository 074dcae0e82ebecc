import os

import pytest

from kernels.machine.compiler import compile_all


def pytest_configure(config: pytest.Config) -> None:
    """Compile all kernels before workers start that would compile them at the same time."""
    if not hasattr(config, "workerinput"):
        compile_all()


def pytest_xdist_auto_num_workers() -> int:
    """One more than there are processors: half of the time a test waits for screens and other processes."""
    return (os.cpu_count() or 1) + 1
