"""Settings that change the numbers, against what transformers and llama.cpp compute with them."""

import json
from pathlib import Path

import numpy as np
import pytest

from kernels.errors import UnsupportedModelError, WorkbenchError
from kernels.forward import forward
from kernels.models import family
from kernels.paths import numeric_path
from store.files.apr_writer import write_apr
from store.known_settings import settings_of
from store.open import open_artifact
from tests.artifacts import apr_metadata, apr_tensors, tiny_model
from tests.gguf_files import write_gguf
from tests.hf_files import hf_config, write_safetensors
from tests.reference.forward import literal_forward
from tests.settings_cases import CASES, KEPT, ROWS, TOKENS, Case

GOLDEN = Path(__file__).parents[1] / "golden" / "settings.npz"


def stages_of(case: Case, folder: Path) -> dict:
    path = "ggml" if case.engine == "llama.cpp" else "f32"
    model = open_artifact(case.write(folder)).for_length(case.room)
    computed = dict(forward(model, TOKENS, numeric_path(path)))
    return {site: computed[site][list(ROWS)] for site in KEPT}


@pytest.mark.parametrize("name", CASES)
def test_every_setting_does_what_it_does_in_its_engine(tmp_path, name):
    with np.load(GOLDEN) as recorded:
        expected = {site: recorded[f"{name}|{site}"] for site in KEPT}
    for site, ours in stages_of(CASES[name], tmp_path).items():
        assert np.linalg.norm(ours - expected[site]) < 2e-6 * np.linalg.norm(expected[site]), site


def test_the_recorded_settings_are_no_trifles():
    """Each case that is obeyed and not ignored is far from the plain model, so ignoring it would be seen."""
    with np.load(GOLDEN) as recorded:
        plain = {"llama": recorded["a window that llama does not have|lm_head"]}
        plain["qwen2"] = recorded["a window that is not reached|lm_head"]
        for name in ("old scaling beside new", "yarn", "yarn with everything", "longrope", "not causal", "defaults"):
            logits = recorded[f"{name}|lm_head"]
            assert np.linalg.norm(logits - plain[CASES[name].architecture]) > 1e-4 * np.linalg.norm(logits), name


@pytest.mark.parametrize(
    ("changes", "limit"),
    [
        ({"sliding_window": 5}, None),
        ({"rope_scaling": {"type": "dynamic", "factor": 2.0}, "max_position_embeddings": 6}, 6),
    ],
)
def test_a_setting_that_holds_up_to_a_length_is_refused_by_name_beyond(tmp_path, changes, limit):
    model = tiny_model("qwen2")
    write_safetensors(tmp_path, model)
    (tmp_path / "config.json").write_text(json.dumps(hf_config(model) | changes))
    artifact, path = open_artifact(tmp_path), numeric_path("f32")
    assert artifact.config.length_limit == limit
    assert len(list(forward(artifact, TOKENS[: limit or 20], path))) == 35
    if limit is not None:
        with pytest.raises(UnsupportedModelError, match=rf"dynamic.* at most {limit} tokens"):
            next(forward(artifact, TOKENS[: limit + 1], path))


@pytest.mark.parametrize(
    ("changes", "windows"),
    [
        ({"use_sliding_window": True, "max_window_layers": 1}, (None, 5)),
        ({"use_sliding_window": True, "max_window_layers": 2}, (None, None)),
        ({"use_sliding_window": True, "layer_types": ["sliding_attention", "full_attention"]}, (5, None)),
        ({"max_window_layers": 1}, (None, None)),
    ],
)
def test_layers_slide_as_the_settings_say(tmp_path, changes, windows):
    model = tiny_model("qwen2")
    write_safetensors(tmp_path, model)
    (tmp_path / "config.json").write_text(json.dumps(hf_config(model) | {"sliding_window": 5} | changes))
    artifact = open_artifact(tmp_path)
    assert tuple(map(artifact.config.window, range(2))) == windows
    expected = literal_forward(artifact.config, model.values(), TOKENS[:12])
    for site, ours in forward(artifact, TOKENS[:12], numeric_path("f64")):
        assert np.abs(ours - expected[site]).max() < 1e-12 * np.abs(expected[site]).max(), site


def test_a_window_from_no_layer_on_and_an_activation_of_no_name_are_refused(tmp_path):
    write_safetensors(tmp_path, tiny_model("qwen3"))
    for changes, words in (
        ({"use_sliding_window": True, "sliding_window": 3, "max_window_layers": None}, "neither max_window_layers"),
        ({"hidden_act": ""}, "the activation"),
    ):
        (tmp_path / "config.json").write_text(json.dumps(hf_config(tiny_model("qwen3")) | changes))
        with pytest.raises(WorkbenchError, match=words):
            open_artifact(tmp_path)


def test_every_key_of_a_file_is_used_irrelevant_or_not_understood(tmp_path):
    model = tiny_model("llama")
    more = {"use_cache": True, "rope_parameters": {"rope_type": "default", "waves": 3}, "magic_gain": 2.0, "qk_norm": 0}
    write_safetensors(tmp_path, model)
    (tmp_path / "config.json").write_text(json.dumps(hf_config(model) | more))
    known = settings_of("safetensors", family("llama"), hf_config(model) | more)
    uses = {setting.key: setting.use for setting in known}
    assert uses["hidden_size"] == uses["rope_parameters.rope_type"] == uses["qk_norm"] == "used"
    assert uses["use_cache"] == uses["architectures"] == "irrelevant"
    assert [key for key, use in uses.items() if use == "not understood"] == ["rope_parameters.waves", "magic_gain"]
    write_gguf(tmp_path / "m.gguf", model, vocabulary=None, magic__gain=2.0)
    artifact = open_artifact(tmp_path / "m.gguf")
    uses = {setting.key: setting.use for setting in settings_of("gguf", family("llama"), artifact.metadata)}
    assert [key for key, use in uses.items() if use == "not understood"] == ["llama.magic.gain"]
    assert uses["llama.rope.freq_base"] == "used"
    assert uses["tokenizer.ggml.model"] == "irrelevant"


def test_a_setting_of_an_apr_file_that_is_not_computed_is_refused_by_name(tmp_path):
    model = tiny_model("qwen2")
    write_apr(tmp_path / "m.apr", apr_metadata(model, hidden_act="silu", sliding_window=64), apr_tensors(model))
    assert open_artifact(tmp_path / "m.apr").problems == ()
    for setting in ({"hidden_act": "gelu"}, {"use_sliding_window": True}, {"partial_rotary_factor": 0.5}):
        write_apr(tmp_path / "m.apr", apr_metadata(model, **setting), apr_tensors(model))
        with pytest.raises(UnsupportedModelError, match=next(iter(setting))):
            open_artifact(tmp_path / "m.apr")


@pytest.mark.parametrize(
    ("architecture", "changes"),
    [
        ("cohere2", {"rope__dimension_count_swa": 8}),  # llama.cpp turns half of a head in sliding layers
        ("qwen3vl", {"rope__dimension_sections": [8, 0, 0, 0]}),  # two pairs of three stand still
    ],
)
def test_what_only_some_families_of_llama_cpp_read_is_refused_there(tmp_path, architecture, changes):
    write_gguf(tmp_path / "m.gguf", tiny_model(architecture), **changes)
    with pytest.raises(WorkbenchError, match=next(iter(changes)).replace("__", ".")):
        open_artifact(tmp_path / "m.gguf")


def test_sliding_layers_without_a_window_that_is_in_use_are_refused(tmp_path):
    model = tiny_model("qwen2moe")
    write_safetensors(tmp_path, model)
    (tmp_path / "config.json").write_text(json.dumps(hf_config(model) | {"layer_types": ["sliding_attention"] * 2}))
    with pytest.raises(WorkbenchError, match="sliding_window"):
        open_artifact(tmp_path)
