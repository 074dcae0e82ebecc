"""The tour: once, on the demo, led by the user's own keys, and gone when it is not wanted."""

from tests.tui import fakes
from tests.tui.conftest import screen_text, until, until_filled
from workbench.app.app import WorkbenchApp
from workbench.app.preferences import Preferences
from workbench.app.tour import STEPS, mark_path


class Silent:
    """An inquiry that never says anything."""

    def __init__(self, inquiry: object) -> None:
        self.inquiry = inquiry

    def events(self):
        return iter(())

    def cancel(self) -> None:
        pass


def touring_app(session, tour: bool = True, **options) -> WorkbenchApp:
    return WorkbenchApp(session, lambda: fakes.FakeCapture(*fakes.whole_capture()), Silent, tour=tour, **options)


async def test_the_tour_goes_on_with_the_key_that_it_names(session):
    fakes.write_traces(session)
    app = touring_app(session)
    async with app.run_test(size=(80, 24), notifications=True) as pilot:
        await until_filled(pilot)
        assert " 1/5  press  m " in screen_text(pilot)
        await pilot.press("n", "right", "question_mark", "escape")
        assert app.touring == 0
        for step, key in enumerate(("m", "b", "enter", "P")):
            assert STEPS[step].key == key
            await pilot.press(key)
            await until(pilot, lambda step=step: app.touring == step + 1)
            await until(pilot, lambda: app.map_screen.query("#tour"))
            while app.screen is not app.map_screen:
                await pilot.press("escape")
            await until(pilot, lambda step=step: f" {step + 2}/5  press" in screen_text(pilot))
        await pilot.press("e")
        await until(pilot, lambda: app.touring is None)
        await until(pilot, lambda: "That was the tour." in screen_text(pilot))
        await until(pilot, lambda: not app.map_screen.query("#tour"))


async def test_it_is_shown_once_and_again_only_when_asked_for(session):
    for first in (True, False):
        app = touring_app(session)
        async with app.run_test(size=(80, 24)) as pilot:
            await until_filled(pilot)
            assert ("1/5" in screen_text(pilot)) is first
            if first:
                await pilot.press("T")
            assert "1/5" not in screen_text(pilot)
            await pilot.press("T")
            assert "1/5" in screen_text(pilot)
        assert mark_path().exists()


async def test_nobody_is_led_who_did_not_ask(session):
    app = touring_app(session, tour=False)
    async with app.run_test(size=(80, 24)) as pilot:
        await until_filled(pilot)
        assert "1/5" not in screen_text(pilot)
    assert not mark_path().exists()


async def test_it_names_keys_of_ones_own(session):
    app = touring_app(session, preferences=Preferences(keys={("map", "metric"): ("f3",), ("map", "tour"): ("Z",)}))
    async with app.run_test(size=(120, 24)) as pilot:
        await until_filled(pilot)
        assert "press  f3 " in screen_text(pilot)
        assert "(Z ends the tour)" in screen_text(pilot)
        await pilot.press("f3")
        assert app.touring == 1


async def test_where_nothing_can_be_kept_it_is_not_shown_every_time(session, monkeypatch, tmp_path):
    (tmp_path / "state").write_text("a file")
    app = touring_app(session)
    async with app.run_test(size=(80, 24)) as pilot:
        await until_filled(pilot)
        assert app.touring is None
