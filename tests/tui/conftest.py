import asyncio
import time
from collections.abc import Callable

import pytest
from textual.pilot import Pilot, WaitForScreenTimeout
from textual.screen import Screen

from tests.tui import fakes
from workbench.app.app import WorkbenchApp
from workbench.app.map.screen import MapScreen
from workbench.app.pages.list_screen import ListScreen
from workbench.session.session import Session

HOPELESS = 300.0  # seconds after which a state that is waited for will not come; kernels may be compiled meanwhile


@pytest.fixture(autouse=True)
def still(monkeypatch):
    monkeypatch.setenv("TEXTUAL_ANIMATIONS", "none")


@pytest.fixture(autouse=True)
def own_folders(monkeypatch, tmp_path):
    """The user who runs the tests prefers nothing, and has seen nothing yet."""
    for kind in ("CONFIG", "STATE"):
        monkeypatch.setenv(f"XDG_{kind}_HOME", str(tmp_path / kind.lower()))


@pytest.fixture(autouse=True)
def patient(monkeypatch):
    """A key is pressed only when what the last one has brought about is on the screen, however slow the machine.

    A pilot waits for the answer of every widget; one that has gone meanwhile never answers, so it is asked anew.
    """
    press, wait = Pilot.press, Pilot._wait_for_screen

    async def wait_for_those_that_stay(pilot: Pilot, timeout: float = HOPELESS) -> bool:
        end = time.monotonic() + timeout
        while True:
            try:
                return await wait(pilot, 1.0)
            except WaitForScreenTimeout:
                if time.monotonic() > end:
                    raise

    async def press_when_ready(pilot: Pilot, *keys: str) -> None:
        for key in keys:
            await press(pilot, key)
            await until(
                pilot, lambda: pilot.app._exit or (pilot.app.screen.is_mounted and not pending(pilot.app.screen))
            )

    monkeypatch.setattr(Pilot, "_wait_for_screen", wait_for_those_that_stay)
    monkeypatch.setattr(Pilot, "press", press_when_ready)


@pytest.fixture
def session(tmp_path) -> Session:
    return fakes.new_session(tmp_path / "pair")


def app_for(session: Session, *events: object, layers: int = 4) -> tuple[WorkbenchApp, fakes.FakeCapture]:
    """An app whose capture says `events`, or everything there is to say about the fake pair."""
    capture = fakes.FakeCapture(*(events or fakes.whole_capture(layers)))
    return WorkbenchApp(session, lambda: capture, bisects=False), capture


async def until(pilot: Pilot, condition: Callable[[], object]) -> None:
    """Let the app run until the condition holds."""
    end = time.monotonic() + HOPELESS
    while not condition():
        assert time.monotonic() < end, f"never came true; the screen shows\n{screen_text(pilot)}"
        await asyncio.sleep(0.01)
    await pilot.pause()


def pending(screen: Screen) -> bool:
    """Whether something will follow the cursor, or is painted with the next refresh."""
    late = isinstance(screen, MapScreen) and screen._changed
    return late or (isinstance(screen, MapScreen | ListScreen) and screen.follow.pending)


async def until_filled(pilot: Pilot) -> MapScreen:
    screen = pilot.app.map_screen
    await until(pilot, lambda: screen.phase == "finished" and not screen._changed)
    return screen


def screen_text(pilot: Pilot) -> str:
    return "\n".join(strip.text for strip in pilot.app.screen._compositor.render_strips())
