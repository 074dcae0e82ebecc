"""gemma3: three containers of one model, what is refused, and the mistakes that its parts invite."""

import json
import re
from dataclasses import replace

import numpy as np
import pytest

from kernels.config import FULL, SLIDING
from kernels.errors import WorkbenchError
from kernels.gelu import gelu, gelu_ggml
from kernels.kinds.gelu import GeluTanh
from kernels.models import Graph
from kernels.paths import numeric_path
from kernels.rows.dequantize import dequantize
from kernels.stages import Site
from store.files.apr_writer import convert_to_apr, write_apr
from store.open import open_artifact
from tests.artifacts import apr_metadata, apr_tensors, tiny_model
from tests.foreign_dumps import run as forward_of
from tests.foreign_dumps import run_changed, write_stage_dump
from tests.gguf_files import write_gguf
from tests.hf_files import float_tensor, hf_config, hf_weights, write_safetensors, write_safetensors_entries
from tests.memory_model import MemoryModel
from workbench.__main__ import run
from workbench.bisect.models.bisection import Bisection, bisect_artifacts
from workbench.bisect.models.cell import Side
from workbench.bisect.traces.bisection import bisect_trace
from workbench.bisect.traces.stages import Reader

TOKENS = (3, 17, 90, 4, 55, 21, 8, 60, 111)
HEALTHY = ("alike", "numerics_only", "quantization_only")
FFN_NORM = "model.layers.1.pre_feedforward_layernorm.weight"
Q_NORM = "model.layers.1.self_attn.q_norm.weight"
WORDS = "the norm is left out"


@pytest.fixture(scope="module")
def model() -> MemoryModel:
    """With one key head, and four layers of which every other one slides."""
    return tiny_model("gemma3", layers=4, kv_heads=1, head_dim=32, tied=True)


def with_tensors(model: MemoryModel, **changed: np.ndarray) -> MemoryModel:
    named = {name.replace("__", "."): values for name, values in changed.items()}
    return replace(model, weights=model.weights | {name: float_tensor(name, x) for name, x in named.items()})


def bisected(a, b, path: str = "f32") -> Bisection:
    return bisect_artifacts(Side(a, numeric_path(path)), Side(b, numeric_path(path)), TOKENS)


def test_three_containers_hold_one_model(tmp_path, model):
    write_gguf(tmp_path / "m.gguf", model)
    write_safetensors(tmp_path / "folder", model)
    write_apr(tmp_path / "m.apr", apr_metadata(model), apr_tensors(model))
    convert_to_apr(open_artifact(tmp_path / "m.gguf"), tmp_path / "of-gguf.apr")
    convert_to_apr(open_artifact(tmp_path / "folder"), tmp_path / "of-folder.apr")
    for name in ("m.gguf", "folder", "m.apr", "of-gguf.apr", "of-folder.apr"):
        artifact = open_artifact(tmp_path / name)
        assert artifact.problems == (), name
        assert artifact.config == model.config, name
        for tensor in model.weights:
            assert np.array_equal(dequantize(artifact.weight(tensor)), dequantize(model.weight(tensor))), tensor
        assert bisected(artifact, model).verdict == "alike"
    assert any("ffn_norm" in info.raw_name for info in open_artifact(tmp_path / "of-gguf.apr").tensors.values())
    assert open_artifact(tmp_path / "of-folder.apr").less_one


def test_what_is_told_of_a_file(tmp_path, model, capsys):
    write_gguf(tmp_path / "m.gguf", model)
    assert run(["inspect", str(tmp_path / "m.gguf")]) == 0
    words = capsys.readouterr().out
    assert re.search(r"layer_types +2 × sliding_attention, 2 × full_attention", words)
    assert "not understood" not in words
    write_safetensors(tmp_path / "folder", model)
    assert run(["inspect", str(tmp_path / "folder")]) == 0
    assert "not understood" not in capsys.readouterr().out


@pytest.mark.parametrize("path", ["f32", "ggml", "apr"])
def test_copies_in_other_types_are_not_divergent(tmp_path, path):
    plain = tiny_model("gemma3", "F32", hidden=256, head_dim=64, ffn=512)
    write_gguf(tmp_path / "m.gguf", tiny_model("gemma3", "F16", hidden=256, head_dim=64, ffn=512))
    write_safetensors(tmp_path / "folder", plain)
    a, b = open_artifact(tmp_path / "m.gguf"), open_artifact(tmp_path / "folder")
    assert bisected(a, b, path).verdict in HEALTHY
    sides = Side(a, numeric_path("ggml")), Side(b, numeric_path("f32"))
    assert bisect_artifacts(*sides, TOKENS).verdict in HEALTHY


@pytest.mark.parametrize("types", [("F32", "BF16"), ("F16", "F32"), ("BF16", "F16")])
def test_norms_are_as_coarse_as_what_is_stored_less_one(tmp_path, model, types):
    sides = []
    for folder, type in zip("ab", types, strict=True):
        write_safetensors(tmp_path / folder, model)
        entries = {name: (type, w.shape, floats(dequantize(w), type)) for name, w in hf_weights(model).items()}
        write_safetensors_entries(tmp_path / folder / "model.safetensors", entries)
        sides.append(open_artifact(tmp_path / folder))
    assert bisected(*sides).verdict == "quantization_only"
    shifted = {FFN_NORM: model.values()[FFN_NORM] + np.float32(1)}
    assert bisected(sides[0], with_tensors(model, **shifted)).culprit.cause == "norm_offset"


def floats(values: np.ndarray, type: str) -> bytes:
    """The bytes of float32 values in a type, rounded to the nearest."""
    if type == "BF16":
        bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
        return ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype(np.uint16).tobytes()
    return values.astype(np.float16 if type == "F16" else np.float32).tobytes()


@pytest.mark.parametrize("offset", [1, -1])
@pytest.mark.parametrize("tensor", [FFN_NORM, Q_NORM, "model.layers.0.post_feedforward_layernorm.weight"])
def test_a_norm_with_one_added_twice_or_never(model, tensor, offset):
    found = bisected(model, with_tensors(model, **{tensor: model.values()[tensor] + np.float32(offset)})).culprit
    assert (found.cause, found.tensor) == ("norm_offset", tensor)


@pytest.mark.parametrize("times", [0, 2])
def test_a_file_with_one_added_twice_or_never_to_all_norms(tmp_path, model, times):
    norms = {name: x + np.float32(times - 1) for name, x in model.values().items() if name.endswith("norm.weight")}
    write_gguf(tmp_path / "m.gguf", with_tensors(model, **norms))
    found = bisected(model, open_artifact(tmp_path / "m.gguf"))
    assert {found.culprit.cause, *(other.cause for other in found.others)} == {"norm_offset"}
    assert len(found.others) == len(norms) - 1
    assert found.first_divergent == Site(0, "attn_norm")


@pytest.mark.parametrize(
    ("change", "site", "cause"),
    [
        ({"sliding_window": 2}, Site(0, "attention"), "causal_mask"),
        ({"sliding_window": None}, Site(0, "attention"), "causal_mask"),
        ({"rope_local_theta": 1e6}, Site(0, "q_post_rope"), "rope_theta"),
        ({"rope_theta": 1e4}, Site(1, "q_post_rope"), "rope_theta"),
        ({"attention_scale": 0.1}, Site(0, "attention"), "attention_scale"),
        ({"layer_types": (FULL, FULL, SLIDING, FULL)}, Site(0, "q_post_rope"), "causal_mask"),
        ({"layer_types": (FULL,) * 4, "rope_local_theta": None}, Site(0, "q_post_rope"), "causal_mask"),
        (
            {"sliding_window": None, "layer_types": None, "rope_local_theta": None},
            Site(0, "q_post_rope"),
            "causal_mask",
        ),
    ],
)
def test_a_setting_of_one_side(model, change, site, cause):
    found = bisected(model, replace(model, config=replace(model.config, **change)))
    assert (found.first_divergent, found.culprit.factor, found.culprit.cause) == (site, "config", cause)


def test_a_side_without_sliding_layers_lacks_one_thing(model):
    none = {"sliding_window": None, "layer_types": None, "rope_local_theta": None}
    found = bisected(model, replace(model, config=replace(model.config, **none)))
    words = "sliding_window is 3 in A and None in B, layer_types are given in A only, rope_local_theta is 10000.0 in A"
    assert words in found.culprit.explanation
    assert found.others == ()


def test_gate_and_up_exchanged(model):
    names = [f"model.layers.2.mlp.{part}_proj.weight" for part in ("gate", "up")]
    swapped = with_tensors(model, **dict(zip(names, (model.values()[name] for name in names[::-1]), strict=True)))
    found = bisected(model, swapped)
    assert (found.first_divergent, found.culprit.cause) == (Site(2, "ffn_gate"), "gate_up_swapped")


@pytest.mark.parametrize(
    ("names", "stage"),
    [
        (("self_attn.q_norm", "self_attn.k_norm"), "q_norm"),
        (("pre_feedforward_layernorm", "post_feedforward_layernorm"), "ffn_norm"),
        (("post_attention_layernorm", "pre_feedforward_layernorm"), "post_attn_norm"),
    ],
)
def test_norms_exchanged(model, names, stage):
    one, other = (f"model.layers.1.{name}.weight" for name in names)
    values = model.values()
    found = bisected(model, with_tensors(model, **{one: values[other], other: values[one]}))
    assert (found.first_divergent, found.culprit.cause) == (Site(1, stage), "wrong_layer")
    assert f"holds the values of {other}" in found.culprit.explanation


class Recorded:
    """A trace in memory, of all tokens, without some stages."""

    def __init__(self, stages, without=()):
        self.stages = {site: values for site, values in stages.items() if site.stage not in without}

    def status(self, site):
        return "ok" if site in self.stages else "unmeasured"

    def read(self, site):
        return self.stages[site]

    def positions(self, site):
        return tuple(range(len(self.stages[site])))


def traced(model, change, path="f32", without=()):
    stages = run_changed(model, TOKENS, change, path)
    return bisect_trace(Reader(model, numeric_path(path), Recorded(stages, without), TOKENS)).culprit


def instead(model: MemoryModel, config: dict[str, object], stage: str, path: str = "f32"):
    """What a runtime with another setting makes of a stage."""
    from kernels.forward import evaluate
    from kernels.graph import At

    other = replace(model, config=replace(model.config, **config))

    def change(site, right, known):
        if site.stage != stage:
            return right
        at = At(other, numeric_path(path), TOKENS, Graph.of(other).stage(site))
        return evaluate(at, {role: known[name] for role, name in at.stage.inputs.items()})

    return change


@pytest.mark.parametrize(
    ("config", "stage", "cause", "words"),
    [
        ({"sliding_window": 2}, "attention", "causal_mask", "a token sees the last 2 only"),
        ({"sliding_window": None}, "attention", "causal_mask", "a token sees itself and what precedes"),
        ({"rope_local_theta": 1e6}, "k_post_rope", "rope_theta", "rope_theta 1000000 instead of 10000"),
        ({"attention_scale": 1.0}, "attention", "attention_scale", "not scaled"),
    ],
)
def test_a_setting_of_a_runtime(model, config, stage, cause, words):
    found = traced(model, instead(model, config, stage))
    assert (found.site, found.cause) == (Site(0, stage), cause)
    assert words in found.explanation


def changed_at(stage, make):
    return lambda site, right, known: make(right, known) if site.stage == stage else right


def test_a_runtime_without_a_norm_of_heads(model):
    size = model.config.q_size
    bare = changed_at("q_norm", lambda _right, known: known["qkv_matmul"][:, :size].copy())
    found = traced(model, bare)
    assert (found.site, found.factor) == (Site(0, "q_norm"), "graph")
    assert WORDS in found.explanation
    found = traced(model, bare, without=("q_norm",))  # a dump of such a runtime has no stage of that name
    assert (found.site, found.shown_at) == (Site(0, "q_norm"), Site(0, "q_post_rope"))
    assert WORDS in found.explanation


def test_a_runtime_that_norms_all_heads_together(model):
    def together(_right, known):
        x, w = known["qkv_matmul"][:, : model.config.q_size], model.values()["model.layers.0.self_attn.q_norm.weight"]
        scale = np.sqrt(np.square(x).mean(axis=1, keepdims=True) + np.float32(model.config.rms_norm_eps))
        return x / scale * np.tile(w, model.config.num_attention_heads)

    found = traced(model, lambda site, right, known: together(right, known) if site == Site(0, "q_norm") else right)
    assert (found.site, found.cause) == (Site(0, "q_norm"), "head_grouping")
    assert "all 4 heads are normed together" in found.explanation


def test_a_runtime_that_does_not_scale_embeddings(model):
    found = traced(model, changed_at("embedding", lambda right, _known: right / np.float32(8)))
    assert (found.site, found.cause) == (Site(None, "embedding"), "scaled")
    assert "not multiplied by 8" in found.explanation


@pytest.mark.parametrize("path", ["f32", "ggml"])
def test_a_runtime_that_activates_up_instead_of_gate(model, path):
    rule = gelu_ggml if path == "ggml" else gelu
    swapped = changed_at("ffn_swigl", lambda _right, known: rule(known["ffn_up"]) * known["ffn_gate"])
    assert traced(model, swapped, path, without=("ffn_silu",)).cause == "gate_up_swapped"
    silu = changed_at("ffn_silu", lambda _right, known: numeric_path(path).silu(known["ffn_gate"]))
    found = traced(model, silu, path)
    assert (found.cause, found.site) == ("activation_function", Site(0, "ffn_silu"))
    assert "SiLU stands in place of GELU (tanh)" in found.explanation


@pytest.mark.parametrize("times", [0, 2])
def test_a_runtime_that_adds_one_to_norms_twice_or_never(model, times):
    def change(site, right, known):
        if site.stage != "post_ffn_norm":
            return right
        w = model.values()[f"model.layers.{site.layer}.post_feedforward_layernorm.weight"]
        return right / w * (w + np.float32(times - 1))

    found = traced(model, change)
    assert (found.site, found.cause) == (Site(0, "post_ffn_norm"), "norm_offset")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"use_bidirectional_attention": True}, "use_bidirectional_attention"),
        ({"hidden_activation": "gelu"}, "activation gelu"),
        ({"layer_types": [SLIDING]}, "fewer than layers"),
        ({"rope_parameters": {"rope_type": "default", "rope_theta": 1e4}}, "for all layers at once"),
        (
            {"rope_parameters": {SLIDING: {"rope_type": "linear", "factor": 2.0}}},
            "scales the rotary embedding of sliding",
        ),
        ({"rope_parameters": {SLIDING: {"partial_rotary_factor": 0.5}}}, f"{SLIDING}.partial_rotary_factor"),
        ({"rope_parameters": {FULL: 3}}, f"gives {FULL} as something else"),
        ({"rope_scaling": 4}, "gives rope_scaling as something else"),
        ({"sliding_window": None}, "absent or null"),
        ({"layer_types": None, "sliding_window_pattern": None}, "absent or null"),
        ({"query_pre_attn_scalar": None}, "query_pre_attn_scalar, by which scores are scaled; add it"),
        ({"rope_parameters": None, "rope_local_base_freq": None}, "absent or null"),
    ],
)
def test_what_is_not_computed_is_refused_by_name(tmp_path, model, changes, words):
    write_safetensors(tmp_path, model)
    (tmp_path / "config.json").write_text(json.dumps(hf_config(model) | changes))
    with pytest.raises(WorkbenchError, match=words.replace("(", r"\(")):
        open_artifact(tmp_path)


def test_caps_that_are_null_do_nothing_and_the_text_model_of_a_wrapper_is_tied(tmp_path, model):
    text = hf_config(model) | {"attn_logit_softcapping": None, "final_logit_softcapping": None}
    del text["tie_word_embeddings"]
    write_safetensors(tmp_path, model)
    wrapped = {"model_type": "gemma3", "text_config": text, "vision_config": {}, "mm_tokens_per_image": 256}
    (tmp_path / "config.json").write_text(json.dumps(wrapped))
    artifact = open_artifact(tmp_path)
    assert artifact.config == model.config
    assert artifact.adds_one(FFN_NORM)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"rope__scaling__type": "yarn", "rope__scaling__factor": 4.0}, "by YaRN"),
        ({"attention__sliding_window_pattern": [True]}, "for fewer layers"),
        ({"attention__sliding_window": "wide"}, "sliding_window"),
        ({"rope__dimension_count_swa": 8}, "rope.dimension_count_swa as 8"),
        ({"attention__key_length_swa": 8}, "attention.key_length_swa as 8"),
    ],
)
def test_a_gguf_that_is_not_computed_is_refused_by_name(tmp_path, model, changes, words):
    write_gguf(tmp_path / "m.gguf", model, **changes)
    with pytest.raises(WorkbenchError, match=words):
        open_artifact(tmp_path / "m.gguf")


def test_logits_are_bounded_where_a_file_says_so(tmp_path, model):
    write_gguf(tmp_path / "m.gguf", model, final_logit_softcapping=30.0)
    assert open_artifact(tmp_path / "m.gguf").config == replace(model.config, logits_cap=30.0)
    write_safetensors(tmp_path / "folder", replace(model, config=replace(model.config, logits_cap=30.0)))
    assert bisected(open_artifact(tmp_path / "folder"), open_artifact(tmp_path / "m.gguf")).verdict == "alike"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"layer_types": None}, "absent or null"),
        ({"sliding_window": None}, "absent or null"),
        ({"rope_parameters": 4}, "for all layers"),
        ({"rope_parameters": {FULL: {"rope_theta": 5.0}}}, "for all layers"),
    ],
)
def test_an_apr_file_that_leaves_windows_open_is_refused(tmp_path, model, changes, words):
    write_apr(tmp_path / "m.apr", apr_metadata(model, **changes), apr_tensors(model))
    with pytest.raises(WorkbenchError, match=words):
        open_artifact(tmp_path / "m.apr")


def test_llama_cpp_scales_the_scores_of_62_layers_by_the_share_of_a_head(tmp_path):
    model = tiny_model("gemma3", layers=62, hidden=32, ffn=32, vocab=32, heads=2, kv_heads=1, head_dim=32)
    write_gguf(tmp_path / "m.gguf", model)
    assert open_artifact(tmp_path / "m.gguf").config.attention_scale == 0.25
    write_safetensors(tmp_path / "folder", replace(model, config=replace(model.config, attention_scale=0.25)))
    assert open_artifact(tmp_path / "folder").config.attention_scale == 0.25


def test_the_slope_of_gelu_and_its_table():
    x = np.linspace(-12, 12, 4001)[None]
    step = 1e-6
    slope = (GeluTanh().of(x + step) - GeluTanh().of(x - step)) / (2 * step)
    assert np.abs(GeluTanh().slope(x) - slope).max() < 1e-8
    single = x.astype(np.float32)
    found, right = gelu_ggml(single), GeluTanh().of(x)
    assert np.abs(found - right).max() < 2.0**-10 * 8
    assert (found[single <= -10] == 0).all()
    assert np.array_equal(found[single >= 10], single[single >= 10])
    assert np.array_equal(
        found[(single > -10) & (single < 10)], found[(single > -10) & (single < 10)].astype(np.float16)
    )


def test_models_and_traces_of_other_stages_are_not_comparable(tmp_path, capsys):
    write_safetensors(tmp_path / "gemma3", tiny_model("gemma3"))
    write_safetensors(tmp_path / "llama", tiny_model("llama"))
    a, b, trace = (str(tmp_path / name) for name in ("gemma3", "llama", "t.npz"))
    assert run(["bisect", a, b, "--tokens", "3,17"]) == 2
    assert "A alone has q_norm, k_norm, post_attn_norm, post_ffn_norm" in capsys.readouterr().out
    write_stage_dump(tmp_path / "t.npz", forward_of(tiny_model("gemma3"), (3, 17)), {"tokens": [3, 17]})
    assert run(["bisect", trace, b, "--path-b", "f32"]) == 2
    assert "has layer 0 q_norm, which llama models do not have" in capsys.readouterr().out
