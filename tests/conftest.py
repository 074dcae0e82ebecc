import pytest

from kernels.machine.compiler import compile_all


def pytest_configure(config: pytest.Config) -> None:
    """Compile all kernels before workers start that would compile them at the same time."""
    if not hasattr(config, "workerinput"):
        compile_all()
