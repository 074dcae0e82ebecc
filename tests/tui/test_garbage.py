"""A look among all objects takes a tenth of a second, and must not come between a key and its answer."""

import gc
import weakref

import pytest

from tests.tui.conftest import app_for, until, until_filled
from workbench.app import garbage


@pytest.fixture
def put_off():
    """Garbage as `run` leaves it until the first frame is there."""
    thresholds = gc.get_threshold()
    gc.disable()
    yield
    gc.unfreeze()
    gc.set_threshold(*thresholds)
    gc.enable()


class _Cycle:
    def __init__(self) -> None:
        self.itself = self


def aged() -> weakref.ref:
    """Garbage among the oldest objects."""
    cycle = _Cycle()
    gc.collect(0)
    gc.collect(1)
    return weakref.ref(cycle)


async def test_old_garbage_goes_while_no_key_comes_and_never_after_one(session, put_off, monkeypatch):
    monkeypatch.setattr(garbage, "_WORTH", 1)
    app, _ = app_for(session)
    async with app.run_test(size=(80, 24)) as pilot:
        await until_filled(pilot)
        assert gc.get_threshold()[2] > 1_000_000  # Python itself never looks among all
        monkeypatch.setattr(garbage, "_REST", 3600.0)
        app._last_input = -7200.0
        await pilot.press("j")
        old = aged()
        app._look()
        assert old() is not None
        app._last_input = -7200.0
        await until(pilot, lambda: old() is None)
