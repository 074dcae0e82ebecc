"""What is copied: to the clipboard, to a file that is named, and never by halves."""

import base64
import json

from kernels.stages import Site
from tests.tui import fakes
from tests.tui.conftest import app_for, screen_text, until, until_filled
from workbench.app.pages.copy_screen import CopyScreen
from workbench.jobs.bisected import keep
from workbench.session.files import COPIED


def toast(pilot) -> str:
    """What the notifications say, without what stands left of them."""
    return " ".join(" ".join(line.partition("▌")[2] for line in screen_text(pilot).splitlines()).split())


async def copied(pilot, app, *keys: str) -> str:
    """Press keys; what is on the clipboard then, and in the file."""
    path = app.session.folder / COPIED
    path.unlink(missing_ok=True)
    await pilot.press("y", *keys)
    await until(pilot, path.exists)
    assert path.read_text() == f"{app.clipboard}\n"
    return app.clipboard


async def test_cell_row_verdict_and_command_of_the_map(session):
    record = fakes.bisected("numerics_only")
    keep(session, record, "NUMERICS ONLY: [b]nothing[/b] is broken\nchecked  67 cells")
    app, _ = app_for(session)
    async with app.run_test(size=(120, 40), notifications=True) as pilot:
        screen = await until_filled(pilot)
        screen.show_site(fakes.FAULTY)
        cell = dict(line.partition("\t")[::2] for line in (await copied(pilot, app, "c")).splitlines())
        assert "layer 2 ffn_gate" in cell
        assert (cell["A"], cell["std ratio A/B"]) == ("a.gguf [ggml]", "3")
        await until(pilot, lambda: "Copied the cell" in toast(pilot))
        assert str(session.folder / COPIED).replace(" ", "") in toast(pilot).replace(" ", "")
        row = (await copied(pilot, app, "r")).splitlines()
        assert row[0] == "ffn_gate\tstd ratio A/B, all 4 tokens"
        assert row[1:] == ["layer 0\t1", "layer 1\t1", "layer 2\t3", "layer 3\t1.001"]
        assert (await copied(pilot, app, "v")).splitlines()[0] == "NUMERICS ONLY: [b]nothing[/b] is broken"
        command = await copied(pilot, app, "s")
        assert command.startswith(
            f"cd {session.folder} && workbench bisect /models/a.gguf /models/b.apr --tokens 1,5,9,2"
        )


async def test_the_terminal_is_sent_the_text(session):
    app, _ = app_for(session)
    async with app.run_test(size=(80, 24)) as pilot:
        await until_filled(pilot)
        written = []
        app._driver.write = written.append
        text = await copied(pilot, app, "c")
    sent = next(each for each in written if each.startswith("\x1b]52;c;"))
    assert base64.b64decode(sent[7:-1]).decode() == text


async def test_what_there_is_not_is_said_and_nothing_is_written(session):
    app, _ = app_for(session)
    async with app.run_test(size=(120, 40), notifications=True) as pilot:
        await until_filled(pilot)
        await pilot.press("y", "v")
        assert isinstance(app.screen, CopyScreen)
        await until(pilot, lambda: "There is no verdict to copy: nobody has bisected the pair yet." in toast(pilot))
        await pilot.press("escape")
    assert not (session.folder / COPIED).exists()


async def test_without_a_verdict_the_command_is_that_of_the_map(session):
    app, _ = app_for(session)
    async with app.run_test(size=(120, 40)) as pilot:
        await until_filled(pilot)
        await pilot.press("m", "t")
        command = await copied(pilot, app, "s")
        assert "workbench compare /models/a.gguf /models/b.apr --tokens 1,5,9,2" in command
        assert "--metric rel_rms --scope last --json" in command


async def test_a_line_of_a_list_is_copied_whole(session):
    fakes.write_traces(session)
    app, _ = app_for(session)
    async with app.run_test(size=(80, 24)) as pilot:
        await until_filled(pilot)
        await pilot.press("n", "enter")
        await until(pilot, lambda: "largest |d| first" in screen_text(pilot))
        element = app.screen.elements.element(int(app.screen._indices[0]))
        row = (await copied(pilot, app, "r")).split()
        assert row[:3] == [str(element.token), str(element.channel), f"{element.a:.7g}"]
        assert (await copied(pilot, app, "c")).startswith(str(fakes.FAULTY))


async def test_the_mouse_chooses_too_and_a_file_that_is_none_is_refused(session):
    app, _ = app_for(session)
    async with app.run_test(size=(120, 40), notifications=True) as pilot:
        screen = await until_filled(pilot)
        screen.show_site(Site(None, "lm_head"))
        (session.folder / COPIED).symlink_to(session.folder / "elsewhere")
        await pilot.press("y")
        await pilot.click("OptionList", offset=(4, 1))
        await until(pilot, lambda: "cannot be written" in toast(pilot))
        assert app.clipboard.startswith("lm_head")
    assert not (session.folder / "elsewhere").exists()
    assert json.loads((session.folder / "session.json").read_text())["schema"] == 1
