import os
import shutil
import tempfile
from collections.abc import Iterator

import pytest
from hypothesis import settings

from kernels.machine.compiler import compile_all
from kernels.matmul.ggml import DOTS, product
from tests import forking
from workbench.machine import child_process

settings.register_profile("any machine", deadline=None)  # nothing here is a test of time
settings.load_profile("any machine")

STATE = pytest.StashKey[str]()
# What compiles for other processors and what computes most: at the end they would run alone.
_FIRST = ("test_targets.py", "test_weight_causes.py", "test_trace_causes.py", "test_spans.py", "test_families.py")


def pytest_configure(config: pytest.Config) -> None:
    """Compile all kernels before workers start that would compile them at the same time."""
    if not hasattr(config, "workerinput"):
        os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # or each of all child processes compiles every source anew
        os.environ["XDG_STATE_HOME"] = config.stash.setdefault(STATE, tempfile.mkdtemp(prefix="workbench-tests-"))
        for dot in DOTS:  # of rare types too, which users wait for when they meet one
            product(dot)
        compile_all()


def pytest_unconfigure(config: pytest.Config) -> None:
    """Remove what tests keep of this user."""
    if STATE in config.stash:
        shutil.rmtree(config.stash[STATE], ignore_errors=True)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the files that take longest; workers take whole files, in this order."""
    items.sort(key=lambda item: item.path.name not in _FIRST)


def pytest_xdist_auto_num_workers() -> int:
    """One more than there are processors: half of the time a test waits for screens and other processes."""
    return (os.cpu_count() or 1) + 1


@pytest.fixture(scope="session", autouse=True)
def forks() -> Iterator[None]:
    """Child processes at work on a pair have everything loaded; the tests of captures start real ones."""
    if not forking.POSSIBLE:
        yield
        return
    forks = forking.Forking()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(child_process, "subprocess", forks)
        yield
    forks.close()
