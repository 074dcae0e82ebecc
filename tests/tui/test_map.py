"""The map: it fills while the capture runs, says everything without colour, and is left as it was."""

import pytest

from kernels.stages import Site
from tests.tui import fakes
from tests.tui.conftest import app_for, screen_text, until, until_filled
from workbench.app.map.view import MapView
from workbench.capture.job import CellReady, Failed, Finished, SideReady
from workbench.cells.cell import Cell
from workbench.jobs.bisected import keep
from workbench.session.session import Session

SIZES = [(80, 24), (120, 40)]


def rows(pilot) -> dict[str, str]:
    """Cells of the map by row label."""
    view = pilot.app.map_screen.query_one(MapView)
    lines = (view.render_line(y).text for y in range(view.size.height))
    return {line[1:].split(" ")[0]: line[20:].rstrip() for line in lines if line.strip()}


@pytest.mark.parametrize("size", SIZES)
async def test_the_map_fills_while_the_capture_runs(session, size):
    app, capture = app_for(session, SideReady("a", fakes.run_record()), SideReady("b", fakes.run_record("b.apr")))
    cells, narrow = fakes.cells(), size[0] == 80  # figures where there is room for them
    async with app.run_test(size=size) as pilot:
        await until(pilot, lambda: "0/67 compared" in screen_text(pilot))
        capture.say(*(CellReady(cell) for cell in cells[:45]))
        await until(pilot, lambda: "45/67 compared" in screen_text(pilot))
        assert rows(pilot)["ffn_gate"].split() == ["=", "=", "7!" if narrow else "3!"]
        capture.say(*(CellReady(cell) for cell in cells[45:]), Finished(2.0), None)
        await until_filled(pilot)
        assert rows(pilot)["ffn_gate"].split() == (["=", "=", "7!", "4"] if narrow else ["=", "=", "3!", "1.001"])
        assert rows(pilot)["lm_head"].split() == ["4" if narrow else "1.001"]
        assert "1 out of band" in screen_text(pilot)
        assert "all 4 tokens" in screen_text(pilot)


@pytest.mark.parametrize("size", SIZES)
async def test_next_out_of_band_and_what_is_said_of_it(session, size):
    app, _ = app_for(session)
    async with app.run_test(size=size) as pilot:
        screen = await until_filled(pilot)
        await pilot.press("n", "n")
        assert screen.model.cursor == fakes.FAULTY
        text = screen_text(pilot)
        assert "▸ffn_gate" in text
        assert "[7!" in text or "3!]" in text
        for words in ("OUT OF BAND", "proves rel. error ≥ 2", "compared 32 of 32", "all 4 tokens × 8 channels"):
            assert words in text
        await pilot.press("G")
        assert screen.model.cursor == Site(None, "lm_head")
        assert "KL(B||A)" in screen_text(pilot)
        await pilot.press("N")
        assert screen.model.cursor == fakes.FAULTY


async def test_metric_and_tokens_change_what_every_cell_says(session):
    app, _ = app_for(session)
    async with app.run_test(size=(80, 24)) as pilot:
        screen = await until_filled(pilot)
        await pilot.press("m", "t")
        assert screen_text(pilot).splitlines()[1].startswith(" relative RMS │ last token (3) │")
        await pilot.press("t", "]", "]")
        assert "token 2 only" in screen_text(pilot)
        site = Site(3, "attn_norm")
        assert screen.model.measures(site) == screen.model.cells[site].measures(2)
        await pilot.press("s", "end", "enter")
        assert screen_text(pilot).splitlines()[1].startswith(" identical share")
        assert "no band" in screen_text(pilot)


async def test_a_reopened_session_shows_what_it_showed(session):
    app, _ = app_for(session)
    async with app.run_test(size=(80, 24)) as pilot:
        await until_filled(pilot)
        await pilot.press("n", "m", "t", "x", "slash", *"ffn 1-2", "enter")
        left = app.map_screen.model.view
    again, _ = app_for(Session.open(session.folder))
    async with again.run_test(size=(80, 24)) as pilot:
        await until_filled(pilot)
        view = again.map_screen.model.view
        assert view == left
        assert (view.cursor, view.metric, view.filter) == (fakes.FAULTY, "rel_rms", "ffn 1-2")
        assert (view.transposed, view.tokens.kind) == (False, "last")
        assert "/ffn 1-2" in screen_text(pilot)
        assert "embedding" not in rows(pilot)


async def test_the_view_is_saved_while_the_app_runs(session):
    app, _ = app_for(session)
    async with app.run_test(size=(80, 24)) as pilot:
        screen = await until_filled(pilot)
        await pilot.press("n", "m")
        shown = screen.model.view.to_json()
        await until(pilot, lambda: Session.open(session.folder).spec.view == shown)
        assert (shown["cursor"], shown["metric"]) == (list(fakes.FAULTY), "rel_rms")


async def test_looking_alone_writes_nothing(session):
    def state():
        files = sorted(session.folder.rglob("*"))
        return {file: (file.stat().st_ino, file.stat().st_mtime_ns) for file in files}

    before = state()
    app, _ = app_for(session)
    async with app.run_test(size=(80, 24)) as pilot:
        await until_filled(pilot)
        await pilot.press("question_mark", "escape")
    assert state() == before


async def test_a_filter_that_matches_nothing_is_asked_again(session):
    app, _ = app_for(session)
    async with app.run_test(size=(80, 24)) as pilot:
        screen = await until_filled(pilot)
        await pilot.press("slash", "9", "enter")
        assert "The layers are 0-3." in screen_text(pilot)
        await pilot.press(*"[b]", "enter")
        assert "No stage is named like '9[b]'" in screen_text(pilot)
        await pilot.press("escape")
        assert screen.model.view.filter == ""


async def test_stopping_is_clean_and_can_be_resumed(session):
    captures = []

    def start():
        told = fakes.whole_capture()
        captures.append(fakes.FakeCapture(*(told[:20] if not captures else told)))
        return captures[-1]

    app, _ = app_for(session)
    app.map_screen._start_capture = start
    async with app.run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: "17/67 compared" in screen_text(pilot))
        await pilot.press("escape")
        await until(pilot, lambda: "stopped; r resumes" in screen_text(pilot))
        assert captures[0].cancelled
        assert "r Resume" in screen_text(pilot)
        await pilot.press("r")
        screen = await until_filled(pilot)
        assert len(screen.model.cells) == 67
        assert "r Resume" not in screen_text(pilot)


async def test_leaving_ends_the_capture(session):
    app, capture = app_for(session, SideReady("a", fakes.run_record()))
    async with app.run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: app.map_screen.runs)
        await pilot.press("q")
    assert capture.cancelled
    assert app.return_value == 2  # nothing was compared


async def test_the_exit_code_is_the_answer(session):
    app, _ = app_for(session)
    async with app.run_test(size=(80, 24)) as pilot:
        await until_filled(pilot)
        await pilot.press("q")
    assert app.return_value == 1


@pytest.mark.parametrize(("verdict", "other", "status"), [("quantization_only", "", 0), ("alike", "another", 1)])
async def test_the_exit_code_is_the_verdict_on_these_files(session, verdict, other, status):
    keep(session, fakes.bisected(verdict, other or fakes.run_record().sha256), "told")
    app, _ = app_for(session)
    async with app.run_test(size=(80, 24)) as pilot:
        await until_filled(pilot)
        await pilot.press("q")
    assert app.return_value == status  # the map alone says 1


async def test_a_failed_capture_is_told_in_its_own_sentence(session):
    app, _ = app_for(session, Failed("evil[red].gguf is truncated\x1b[2J; download it again."), None)
    async with app.run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: "│ FAILED: evil[red].gguf is" in screen_text(pilot))
        assert "truncated\\x1b[2J;" in screen_text(pilot)
        await pilot.press("q")
    assert app.return_value == 2


async def test_statuses_are_signs_and_words_never_numbers(session):
    places = [Site(0, "ffn_up"), Site(1, "ffn_up"), Site(2, "ffn_up")]
    states = dict(zip(places, ("absent", "unmeasured", "uncomparable"), strict=True))
    cells = [
        Cell(c.site, states[c.site], f"why [b]{states[c.site]}[/b]") if c.site in states else c for c in fakes.cells()
    ]
    runs = [SideReady("a", fakes.run_record()), SideReady("b", fakes.run_record("[bold]b.apr"))]
    app, _ = app_for(session, *runs, *(CellReady(cell) for cell in cells), Finished(1.0), None)
    async with app.run_test(size=(120, 40)) as pilot:
        screen = await until_filled(pilot)
        assert rows(pilot)["ffn_up"].split() == ["·", "?", "≠", "1.001"]
        assert "64/66 compared" in screen_text(pilot)
        screen.show_site(places[2])
        await until(pilot, lambda: "UNCOMPARABLE" in screen_text(pilot))
        assert "why [b]uncomparable[/b]" in screen_text(pilot)


async def test_cells_of_unlike_populations_are_compared_at_the_last_token(session):
    site = Site(None, "lm_head")
    fakes.write_traces(session, last_only={("b", site)})
    cells = [
        Cell(site, "uncomparable", "A holds all 4 tokens, B holds 1 row") if c.site == site else c
        for c in fakes.cells()
    ]
    runs = [SideReady("a", fakes.run_record()), SideReady("b", fakes.run_record("b.apr"))]
    app, _ = app_for(session, *runs, *(CellReady(cell) for cell in cells), Finished(1.0), None)
    async with app.run_test(size=(80, 24)) as pilot:
        screen = await until_filled(pilot)
        assert rows(pilot)["lm_head"].split() == ["≠"]
        await pilot.press("t", "G")
        await until(pilot, lambda: rows(pilot)["lm_head"].split() == ["[4]"])
        assert screen.model.cell(site).positions == (3,)
        assert "compared 8 of 8" in screen_text(pilot)
        await pilot.press("t")
        assert rows(pilot)["lm_head"].split() == ["[≠]"]


async def test_layers_as_rows_scroll_by_half_a_page_and_the_map_keeps_its_heads(tmp_path):
    app, _ = app_for(fakes.new_session(tmp_path / "pair", transposed=False), layers=80)
    async with app.run_test(size=(80, 24)) as pilot:
        screen = await until_filled(pilot)
        view = screen.query_one(MapView)
        screen.show_site(Site(0, "ffn_gate"))
        starts = []
        for _ in range(79):
            screen.action_move(1, 0)
            starts.append(round(view.scroll_y))
        assert screen.model.cursor == Site(79, "ffn_gate")
        assert len(set(starts)) < 14
        assert view.render_line(0).text.split()[:3] == ["emb", "att", "qkv"]
        line = view.render_line(view.size.height - 2).text
        assert line.startswith("▸ 79")
        assert "[4 ]" in line
        await pilot.press("left")
        assert screen.model.cursor == Site(79, "ffn_norm")


@pytest.mark.parametrize(("there", "back", "stage_rows"), [("right", "left", True), ("down", "up", False)])
async def test_arrows_move_the_cursor_on_a_map_that_scrolls(tmp_path, there, back, stage_rows):
    app, _ = app_for(fakes.new_session(tmp_path / "pair", transposed=stage_rows), layers=80)
    async with app.run_test(size=(80, 24)) as pilot:
        screen = await until_filled(pilot)
        screen.show_site(Site(0, "ffn_gate"))
        await pilot.press(*[there] * 40)
        assert screen.model.cursor == Site(40, "ffn_gate")
        await pilot.press(*[back] * 40)
        assert screen.model.cursor == Site(0, "ffn_gate")


async def test_a_terminal_too_small_says_so_and_recovers(session):
    app, _ = app_for(session)
    async with app.run_test(size=(50, 12)) as pilot:
        await until(pilot, lambda: app.map_screen.phase == "finished")
        assert "The map needs 60x20 characters." in screen_text(pilot)
        await pilot.resize_terminal(60, 20)
        await until(pilot, lambda: "ffn_gate" in screen_text(pilot))


async def test_the_mouse_does_what_the_keys_do(session):
    app, _ = app_for(session)
    fakes.write_traces(session)
    async with app.run_test(size=(80, 24)) as pilot:
        screen = await until_filled(pilot)
        view = screen.query_one(MapView)
        place = view.render_line(11).text.index("7!"), 11
        await pilot.click(MapView, offset=place)
        assert screen.model.cursor == fakes.FAULTY
        await pilot.click(MapView, offset=place)
        await until(pilot, lambda: app.screen is not screen)


async def test_a_session_folder_that_is_gone_costs_the_view_but_not_the_app(session):
    app, _ = app_for(session)
    async with app.run_test(size=(80, 24), notifications=True) as pilot:
        await until_filled(pilot)
        (session.folder / "session.json").unlink()
        await pilot.press("m", "t")
        await until(pilot, lambda: any("is not a session" in each.message for each in app._notifications))
        assert "relative RMS │ last token (3)" in screen_text(pilot)


async def test_rows_and_columns_are_exchanged(session):
    app, _ = app_for(session)
    async with app.run_test(size=(120, 40)) as pilot:
        screen = await until_filled(pilot)
        await pilot.press("n", "x")
        view = screen.query_one(MapView)
        head, third = view.render_line(0).text, view.render_line(4).text
        assert head.split()[:4] == ["emb", "att", "qkv", "qkv"]
        assert third.startswith("▸  2")
        assert third.split()[2:][9:11] == ["[7!]", "4"]
        await pilot.press("x")
        assert view.stage_rows
