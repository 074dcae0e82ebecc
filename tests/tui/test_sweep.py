"""The screen of a sweep: it fills, stops after what is under way, goes on, and shows parts and prompts."""

import json
import threading

import numpy as np
import pytest

from kernels.errors import WorkbenchError
from tests.tui.conftest import screen_text, until
from workbench.app.sweep.app import SweepApp
from workbench.cli import sweep as cli
from workbench.sweep.figures import Figures
from workbench.sweep.parts import Part
from workbench.sweep.planning import Plan
from workbench.sweep.question import Named, Prompt, Question
from workbench.sweep.tally import Tally

SIDE = Named("/m/model.gguf", "gguf", "0" * 64, "ggml", 1000)
PARTS = [Part({}), *(Part({"tensor": f"model.layers.{n}.mlp.up_proj.weight"}) for n in range(3))]
PROMPTS = [Prompt((1, 2), "first"), Prompt((3, 4), "second\x1b[2J")]


class Steps:
    """An engine whose units are let through one by one."""

    def __init__(self):
        self.permits, self.fails, self.scale = threading.Semaphore(0), False, 1.0

    def results(self, question, works):
        for work in works:
            for place, part in enumerate(work.parts):
                self.permits.acquire()
                if self.fails:
                    raise WorkbenchError("the scheduler of this sweep is lost")
                size = self.scale * 10.0 ** (work.number - 3) * (10 - place)
                yield work, part, Figures(np.array([size, size / 2]), place % 2).to_json() | {"kl_floor": 1e-6}


@pytest.mark.parametrize("size", [(80, 24), (160, 40)])
async def test_a_sweep_is_stopped_and_resumed_on_the_screen(tmp_path, size):
    engine, output = Steps(), tmp_path / "out.jsonl"
    plan = Plan(Question(SIDE, SIDE, "0"), "tensor", PROMPTS, PARTS, 10, 4, 3)
    app = SweepApp(plan, engine, output, False, Tally(), "kl")
    async with app.run_test(size=size) as pilot:
        screen = app.sweep_screen
        engine.permits.release(3)
        await until(pilot, lambda: output.exists() and output.read_bytes().count(b"\n") == 3)
        await pilot.press("escape")
        assert screen.state == "stopping"
        engine.permits.release()
        await until(pilot, lambda: screen.state == "stopped" and "4/8 units, 50%" in screen_text(pilot))
        assert "layers.0.mlp.up_proj" in screen.list.render_line(1).text
        engine.fails = True
        engine.permits.release()
        await pilot.press("r")
        await until(pilot, lambda: screen.state == "failed" and "is lost" in screen_text(pilot))
        engine.fails = False
        engine.permits.release(10)
        await pilot.press("r")
        await until(pilot, lambda: screen.state == "finished" and "8/8 units, 100%" in screen_text(pilot))
        await pilot.press("t")
        assert screen.list.count == 2
        assert "second" in screen_text(pilot)
        assert "\x1b[2J" not in screen_text(pilot)
        await pilot.press("s", "s")
        assert "by max" in screen_text(pilot)
        await pilot.press("question_mark")
        await until(pilot, lambda: "Go on with a sweep that was stopped" in screen_text(pilot))
        await pilot.press("escape", "q")
    units = [json.loads(line)["unit"] for line in output.read_text().splitlines()]
    assert sorted(map(str, units)) == sorted(str(p.name | {"prompt": n}) for n in range(2) for p in PARTS)


async def test_a_sweep_that_was_stopped_and_left_gives_no_all_clear(tmp_path, capsys):
    engine, tally = Steps(), Tally()
    engine.scale = 0.0
    plan = Plan(Question(SIDE, SIDE, "0"), "tensor", PROMPTS, PARTS, 10, 4, 3)
    app = SweepApp(plan, engine, tmp_path / "out.jsonl", False, tally, "kl")
    async with app.run_test(size=(80, 24)) as pilot:
        engine.permits.release(2)
        await until(pilot, lambda: tally.done == 2)
        await pilot.press("escape")
        engine.permits.release()
        await until(pilot, lambda: app.sweep_screen.state == "stopped")
        await pilot.press("q")
    assert cli._show(tally, "kl", None, False) == 2
    assert "only 3 of 8 units are there; --resume does the rest" in capsys.readouterr().err
