"""The ledger of both sides on a screen."""

import pytest

from kernels.errors import WorkbenchError
from store.open import open_model
from tests.gguf_files import write_gguf
from tests.tui.conftest import app_for, screen_text, until, until_filled
from tests.unit.test_conventions import gemma3
from workbench.app.pages.conventions_screen import ConventionsScreen
from workbench.conventions.ledger import ledgers


@pytest.mark.parametrize("size", [(60, 20), (80, 24), (200, 60)])
async def test_what_is_wrong_stands_first_and_every_line_has_its_figure(session, tmp_path, size):
    write_gguf(tmp_path / "a.gguf", gemma3())
    write_gguf(tmp_path / "b.gguf", gemma3(1))
    app, _ = app_for(session)
    async with app.run_test(size=size) as pilot:
        await until_filled(pilot)
        await app.push_screen(
            ConventionsScreen(lambda: ledgers(*(open_model(tmp_path / f"{side}.gguf") for side in "ab")))
        )
        await until(pilot, lambda: app.screen.list.count)
        text = screen_text(pilot)
        assert "B  ✗ +1 applied twice to 13 norm tensors" in text
        await pilot.press("G", "k")
        await until(pilot, lambda: "different values" in screen_text(pilot))
        lines = screen_text(pilot).splitlines()
        assert any(line.startswith("▸ ✗ norm.weight") for line in lines)
        assert any(line.strip() == "model.norm.weight" for line in lines)
        assert size[0] == 60 or any("once      twice" in line for line in lines)


async def test_k_opens_it_and_says_why_there_is_none(session, monkeypatch):
    def refuse(session):
        raise WorkbenchError("there is no such file")

    monkeypatch.setattr("workbench.app.app.open_artifacts", refuse)
    app, _ = app_for(session)
    async with app.run_test(size=(80, 24)) as pilot:
        await until_filled(pilot)
        await pilot.press("K")
        await until(pilot, lambda: "there is no such file" in screen_text(pilot))
        await pilot.press("escape")
        await until(pilot, lambda: app.screen is app.map_screen)
