"""The list of weights: in the order of the model, or with what is worst on top and under the cursor."""

import numpy as np
import pytest

from kernels.measures import summarise
from kernels.metrics import profile
from store.open import open_artifact
from tests.artifacts import tiny_gguf, tiny_safetensors
from tests.tui.conftest import app_for, screen_text, until, until_filled
from workbench.app.pages.weights_screen import WeightsScreen
from workbench.tensors.sweep import TensorDifference, tensor_names

B = np.random.default_rng(0).normal(size=(6, 32)).astype(np.float32)


def difference(name: str, a=B, **facts) -> TensorDifference:
    measures = summarise(profile(a, B))
    status = "identical" if measures.identical else "ok"
    known = {"shape_a": B.shape, "shape_b": B.shape, "type_a": "F32", "type_b": "Q8_0", "note": None}
    return TensorDifference(**{"name": name, "status": status, "measures": measures} | known | facts)


def spoilt_row() -> np.ndarray:
    a = B.copy()
    a[3] *= np.float32(1.9)
    return a


TENSORS = [
    difference("model.layers.0.mlp.up_proj.weight", B * np.float32(1.3)),
    difference("model.layers.10.self_attn.q_proj.weight", spoilt_row(), worst_row=3, worst_row_rel_rms=0.9),
    difference("model.layers.11.post_attention_layernorm.weight"),
    difference("of the same bytes", status="identical", measures=None, note="the same bytes"),
    difference("x[b]\x1b[2J", B * np.float32(np.nan)),
    *(difference(f"model.layers.{n}.mlp.down_proj.weight") for n in range(20, 50)),
]


@pytest.mark.parametrize("size", [(60, 20), (80, 24), (200, 60)])
async def test_s_goes_to_the_worst_tensor_and_back_to_its_place_in_the_model(session, size):
    app, _ = app_for(session)
    async with app.run_test(size=size) as pilot:
        await until_filled(pilot)
        screen = WeightsScreen(lambda: ((each, len(TENSORS)) for each in TENSORS), TENSORS[-1].name)
        await app.push_screen(screen)
        await until(pilot, lambda: screen.list.count == len(TENSORS))
        assert screen.list.cursor == len(TENSORS) - 1
        await pilot.press("s")
        lines = [screen.list.render_line(y).text for y in range(1, 6)]
        assert screen.list.cursor == 0
        assert screen_text(pilot).splitlines()[0].count("worst first") == (size[0] > 60)
        assert lines[0].startswith("▸ ! x[b]\\x1b[2J")
        assert lines[1].startswith("  ! layers.10.self_attn.q_proj.weight ")
        assert lines[2].startswith("    layers.0.mlp.up_proj.weight ")
        await pilot.press("j", "s")
        assert screen.list.cursor == 1
        assert (screen.list.render_line(2).text.rstrip()[-1] == "…") == (size[0] < 80)


async def test_a_filter_that_leaves_no_tensor_says_so(session):
    app, _ = app_for(session)
    async with app.run_test(size=(80, 24)) as pilot:
        await until_filled(pilot)
        await app.push_screen(WeightsScreen(lambda: ((each, len(TENSORS)) for each in TENSORS)))
        await until(pilot, lambda: app.screen.list.count == len(TENSORS))
        await pilot.press("slash", *"[none", "enter")
        await until(pilot, lambda: "No name of a tensor holds [none" in screen_text(pilot))
        await pilot.press("s", "j", "G", "slash", "end", "ctrl+u", "enter")
        await until(pilot, lambda: app.screen.list.count == len(TENSORS))


def test_tensors_come_in_the_order_in_which_a_forward_uses_them(tmp_path):
    tiny_safetensors(tmp_path / "hf", layers=11)
    tiny_gguf(tmp_path / "b.gguf", layers=11)
    a, b = open_artifact(tmp_path / "hf"), open_artifact(tmp_path / "b.gguf")
    names = tensor_names(a, b)
    assert names == tensor_names(b, a)
    assert set(names) == {*a.tensors, *b.tensors}
    assert names[0] == "model.embed_tokens.weight"
    assert names[-2:] == ["model.norm.weight", "lm_head.weight"] or names[-1] == "model.norm.weight"
    layers = [int(name.split(".")[2]) for name in names if ".layers." in name]
    assert layers == sorted(layers)
    first = [name.removeprefix("model.layers.0.") for name in names if ".layers.0." in name]
    assert first[0] == "input_layernorm.weight"
    assert first.index("self_attn.q_proj.weight") < first.index("self_attn.o_proj.weight")
    assert first[-2:] == ["mlp.up_proj.weight", "mlp.down_proj.weight"]
