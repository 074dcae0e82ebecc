"""Latent attention: against both engines and loops, in every form that files have it, and its mistakes."""

import json
from dataclasses import replace

import numpy as np
import pytest

from kernels.config import same_value
from kernels.errors import WorkbenchError
from kernels.forward import evaluate, forward
from kernels.graph import At
from kernels.kinds.apart import ProductsApart
from kernels.kinds.product import Product
from kernels.models import Graph
from kernels.paths import numeric_path
from kernels.rows.dequantize import dequantize
from kernels.stages import Site
from kernels.weight import TensorType, Weight
from store.open import open_artifact, open_model
from store.traces.open import open_trace
from tests import family_faults as families
from tests.family_faults import Fault, bisected, chosen_with, counted_bias, float_tensor, model_of, with_kind
from tests.gguf_files import gguf_architecture, write_gguf
from tests.golden.record_families import LATENT, TYPE, gguf_shape, shape
from tests.hf_files import hf_config, hf_weights, write_safetensors
from tests.memory_model import random_model
from tests.reference.forward import literal_forward
from tests.unit.test_forward import TOKENS, dump, forced, relative_rms

# What transformers does not have, which makes keys and values of all tokens first.
_JOINED = {"q_absorbed", "q_latent", "k_latent", "latent_attention"}


@pytest.mark.parametrize("family", LATENT)
def test_every_stage_agrees_with_transformers(family):
    expected, model = dump(f"transformers-{family}-float32.npz"), random_model(family, **shape(family))
    ours = dict(forward(model, TOKENS, numeric_path("f32")))
    assert {site.stage for site in ours.keys() - expected.keys()} == _JOINED
    assert expected.keys() <= ours.keys()
    worst = max((relative_rms(ours[site], expected[site]), site) for site in expected)
    assert worst[0] < 2e-6, worst


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"rope_type": "neox", "causal": False},
        {"rope_factors": (1.0, 4.0), "rope_attention_factor": 1.25, "attention_scale": None, "latent_eps": 0.5},
        {"temperature": 0.5, "temperature_length": 2},
        {"n_group": 3, "topk_group": 2, "group_best": 1},
    ],
)
@pytest.mark.parametrize("family", LATENT)
def test_the_oracle_agrees_with_a_literal_forward(family, changes):
    sizes = {"layers": 2, "heads": 3, "head_dim": 12, "hidden": 20, "ffn": 24, "vocab": 32, "seed": 3}
    model = random_model(family, **sizes)
    model.config = replace(model.config, **changes)
    ours = dict(forward(model, (3, 1, 30, 1), numeric_path("f64")))
    if "temperature" in changes:  # which has no place where keys are made first
        at = At(model, numeric_path("f64"), (3, 1, 30, 1), Graph.of(model).stage(Site(0, "q_tempered")))
        factors = [1 + 0.5 * np.log(1 + t // 2) for t in range(4)]
        assert np.allclose(ours[at.stage.site], ours[Site(0, "q_latent")] * np.array(factors)[:, None], rtol=1e-14)
        return
    expected = literal_forward(model.config, model.values(), (3, 1, 30, 1))
    assert {tuple(site) for site in ours} == expected.keys()
    worst = max((relative_rms(ours[Site(*site)], expected[site]), site) for site in expected)
    assert worst[0] < 1e-12, worst


@pytest.mark.parametrize("family", LATENT)
def test_each_operation_agrees_with_llama_cpp(family):
    model, path = random_model(family, TensorType[TYPE], **gguf_shape(family)), numeric_path("ggml")
    recorded = dump(f"llama-cpp-{family}-{TYPE.lower()}.npz")
    pairs = {site: (ours, theirs) for site, ours, theirs in forced(model, path, recorded)}
    graph = Graph.of(model)
    for site, (ours, theirs) in pairs.items():
        if isinstance(graph.stage(site).kind, Product | ProductsApart):
            assert np.array_equal(ours, theirs), site
        else:
            assert relative_rms(ours, theirs) < 1e-6, site
    assert pairs.keys() >= {site for site in recorded if site.stage not in ("embedding", "layer_output")}
    assert {site.stage for site in pairs} >= {"q_absorbed", "latent_attention", "attention", "kv_a", "q_matmul"}
    run = dict(forward(model, TOKENS, path))
    assert relative_rms(run[Site(None, "lm_head")], recorded[Site(None, "lm_head")]) < 1e-5


@pytest.mark.parametrize("family", LATENT)
def test_both_containers_hold_one_model(tmp_path, family):
    model = model_of(family)
    write_gguf(tmp_path / "m.gguf", model)
    write_safetensors(tmp_path / "folder", model)
    for name, architecture in (("m.gguf", gguf_architecture(model)), ("folder", family)):
        artifact = open_artifact(tmp_path / name)
        assert artifact.problems == ()
        wanted = replace(model.config, architecture=architecture)
        fields = wanted.__dataclass_fields__
        assert not [f for f in fields if not same_value(getattr(artifact.config, f), getattr(wanted, f))]
        for tensor in model.weights:
            assert np.array_equal(dequantize(artifact.weight(tensor)), dequantize(model.weight(tensor))), tensor
    a, b = (open_artifact(tmp_path / name) for name in ("m.gguf", "folder"))
    assert bisected(a, b).verdict == "alike"


@pytest.mark.parametrize("type", ["F16", "Q8_0"])
def test_copies_in_other_types_and_engines_are_not_divergent(tmp_path, type):
    quantized, model = (model_of("deepseek3", type=kind, hidden=128, ffn=256) for kind in (type, "F32"))
    if type == "Q8_0":  # a copy as llama.cpp makes it, and what it was made of
        values = quantized.values()
        model = replace(model, weights={name: float_tensor(name, values[name]) for name in values})
    write_gguf(tmp_path / "m.gguf", quantized)
    write_safetensors(tmp_path / "folder", model)
    a, b = open_artifact(tmp_path / "m.gguf"), open_artifact(tmp_path / "folder")
    assert bisected(a, b).verdict in families.HEALTHY
    sides = families.Side(a, numeric_path("ggml")), families.Side(b, numeric_path("f32"))
    assert families.bisect_artifacts(*sides, families.TOKENS).verdict in families.HEALTHY


def whole(model, type="F32"):
    """The model with keys and values in one tensor, as old GGUF files have them, under GGUF's name."""
    weights = {name: w for name, w in model.weights.items() if not name.split(".")[-2].isdigit() or "experts" in name}
    for name, weight in hf_weights(model).items():
        if "kv_b_proj" in name:
            raw = f"blk.{name.split('.')[2]}.attn_kv_b.weight"
            rows = weight.rows if type == "F32" else np.zeros((weight.shape[0], weight.shape[1] // 32 * 34), np.uint8)
            weights[raw] = Weight(raw, TensorType[type], weight.shape, rows)
    return replace(model, weights=weights)


_OLD = {"attention__key_length_mla": 0, "attention__value_length_mla": 0}


def test_an_old_file_with_keys_and_values_in_one_tensor_is_the_same_model(tmp_path):
    model = model_of("deepseek2")
    more = _OLD | {"attention__key_length": 48, "attention__value_length": 32}
    write_gguf(tmp_path / "m.gguf", whole(model), **more)
    assert bisected(open_artifact(tmp_path / "m.gguf"), model).verdict == "alike"
    write_gguf(tmp_path / "q.gguf", whole(model, "Q8_0"), **more)
    found = open_model(tmp_path / "q.gguf")
    assert "in one tensor of the type Q8_0" in str(found.refusal)


@pytest.mark.parametrize(
    ("changes", "fields"),
    [
        (
            {"rope__scaling__type": "linear"},
            {"rope_attention_factor": 1.0, "scale": (1 + 0.1 * np.log(4)) ** 2 * 1.0693147**2},
        ),
        ({"rope__scaling__yarn_log_multiplier": 0.0}, {"rope_attention_factor": 1.1386294, "scale": 1.1386294**2}),
        ({"rope__scaling__type": "none"}, {"rope_attention_factor": 1.0, "scale": 1.0}),
        ({"rope__scaling__attn_factor": 2.0}, {"rope_attention_factor": 2.0, "scale": 4 * 1.0693147**2}),
        ({"block_count": 27}, {"q_lora_rank": None}),
        ({"expert_gating_func": 2}, {"expert_scoring": "sigmoid"}),
        ({}, {"expert_scoring": "softmax"}),
        ({"attention__temperature_scale": 0.25, "attention__temperature_length": 8}, {"temperature_length": 8}),
    ],
)
def test_what_llama_cpp_makes_of_its_keys(tmp_path, changes, fields):
    from store.files.gguf_config import config_of
    from store.files.model_file import ModelFile

    write_gguf(tmp_path / "m.gguf", model_of("deepseek2"), **changes)
    found = open_model(tmp_path / "m.gguf")
    config = config_of(ModelFile.at(tmp_path / "m.gguf"), families_of("deepseek2"), found, found.tensors)[0]
    scale = fields.pop("scale", None)
    assert {name: getattr(config, name) for name in fields} == pytest.approx(fields, rel=1e-6)
    if scale is not None:
        assert (config.attention_scale or config.head_dim**-0.5) * config.head_dim**0.5 == pytest.approx(
            scale, rel=1e-6
        )


def families_of(name):
    from kernels.models import family

    return family(name)


@pytest.mark.parametrize(
    ("family", "changes", "words"),
    [
        ("deepseek2", {"topk_method": "noaux_tc"}, "topk_method"),
        ("deepseek2", {"attention_bias": True}, "attention_bias"),
        ("deepseek3", {"num_key_value_heads": 1}, "key/value heads"),
        ("deepseek3", {"qk_rope_head_dim": 48, "qk_nope_head_dim": 0}, "qk_nope_head_dim"),
        ("deepseek3", {"n_group": None}, "n_group"),
        ("deepseek3", {"n_shared_experts": None}, "n_shared_experts"),
    ],
)
def test_what_is_not_computed_is_refused_by_name(tmp_path, family, changes, words):
    model = model_of(family)
    write_safetensors(tmp_path, model)
    (tmp_path / "config.json").write_text(json.dumps(hf_config(model) | changes))
    with pytest.raises(WorkbenchError, match=words):
        open_artifact(tmp_path)


def test_settings_of_transformers_that_gguf_has_otherwise(tmp_path):
    model = model_of("deepseek2")
    write_safetensors(tmp_path, model)
    changes = {"topk_method": "group_limited_greedy", "n_group": 3, "topk_group": 2, "rms_norm_eps": 1e-5}
    (tmp_path / "config.json").write_text(json.dumps(hf_config(model) | changes))
    config = open_artifact(tmp_path).config
    assert (config.n_group, config.topk_group, config.group_best) == (3, 2, 1)
    assert (config.rms_norm_eps, config.latent_eps) == (1e-5, 1e-6)


@pytest.mark.parametrize("stage", ["latent_attention", "q_absorbed", "attention", "q_latent", "q_post_rope"])
def test_the_slope_of_what_is_latent(stage):
    model, path = model_of("deepseek2"), numeric_path("f64")
    known = {site.stage: values for site, values in forward(model, families.TOKENS, path) if site.layer == 0}
    at = At(model, path, families.TOKENS, Graph.of(model).stage(Site(0, stage)))
    rng = np.random.default_rng(0)
    x = {role: known[name] for role, name in at.stage.inputs.items()}
    dx = {role: rng.standard_normal(values.shape) for role, values in x.items()}
    ahead, back = (evaluate(at, {role: x[role] + sign * 1e-6 * dx[role] for role in x}) for sign in (1, -1))
    slope = at.kind.derivative(at, x, dx)
    assert np.linalg.norm(slope - (ahead - back) / 2e-6) < 1e-7 * np.linalg.norm(slope)


def head(layer, part, number):
    return f"model.layers.{layer}.self_attn.{part}_b_proj.{number}.weight"


def halves(model, known, right):
    return evaluate_with(model, Site(0, "q_post_rope"), known, rope_type="neox")


def evaluate_with(model, site, known, **settings):
    other = replace(model, config=replace(model.config, **settings))
    at = At(other, numeric_path("f32"), families.TOKENS, Graph.of(other).stage(site))
    return evaluate(at, {role: known[name] for role, name in at.stage.inputs.items()})


def turned_weights(model, known, right, site):
    x = known["q_matmul"].reshape(len(right), 4, -1)[:, :, :32]
    weights = (model.values()[head(0, "k", number)] for number in range(4))
    return np.concatenate([x[:, n] @ w.reshape(32, 64) for n, w in enumerate(weights)], axis=1)


FAULTS = (
    Fault("deepseek2", Site(0, "latent_attention"), "attention_scale", "scaled by 1/sqrt(head_dim)",
          change=with_kind(scale=48**-0.5)),
    Fault("deepseek2", Site(1, "latent_attention"), "attention_scale", "scaled by 1/sqrt(80)",
          change=with_kind(scale=80**-0.5)),
    Fault("deepseek2", Site(0, "latent_attention"), "attention_scale", "attention_scale is",
          config={"attention_scale": None}),
    Fault("deepseek2", Site(0, "q_post_rope"), "rope_type", "neox instead of norm", change=halves),
    Fault("deepseek3", Site(1, "k_post_rope"), "rope_theta", "rotary scaling is left out",
          runtime={"rope_factors": None}),
    Fault("deepseek3", Site(0, "q_absorbed"), "transposed", "rows and columns exchanged", change=turned_weights),
    Fault("deepseek3", Site(0, "q_absorbed"), "transposed", "k_b_proj.0",
          tensors={head(0, "k", 0): lambda w: w.T.reshape(w.shape)}),
    Fault("deepseek3", Site(1, "attention"), "rows_permuted", "of the next one",
          change=lambda m, known, right, site: families.next_expert(m, known, right, site)),
    Fault("deepseek3", Site(1, "attention"), "rows_permuted", "v_b_proj.2",
          tensors={head(1, "v", 1): head(1, "v", 2), head(1, "v", 2): head(1, "v", 1)}),
    Fault("deepseek3", Site(0, "kv_a_norm"), "norm_missing", "the norm is left out",
          change=lambda m, known, right: known["kv_a"][:, :64]),
    Fault("deepseek3", Site(0, "q_a_norm"), "rms_norm_eps", "0.001", runtime={"latent_eps": 1e-3}),
    Fault("deepseek3", Site(0, "q_a_norm"), "rms_norm_eps", "latent_eps is None in A and 0.001",
          config={"latent_eps": 1e-3}),
    Fault("deepseek3", Site(1, "expert_weights"), "router", "a softmax over all experts in place of a sigmoid",
          change=with_kind(scoring="softmax")),
    Fault("deepseek3", Site(1, "expert_weights"), "router", "counts in the weights too", change=counted_bias),
    Fault("deepseek3", Site(1, "expert_weights"), "router", "nothing is added to the scores",
          change=lambda m, known, right, site: chosen_with(m, known, site, tensors=())),
    Fault("deepseek3", Site(1, "expert_weights"), "router", "not multiplied by 2.5", change=with_kind(scale=1.0)),
    Fault("deepseek3", Site(1, "expert_weights"), "router", "experts of all groups", change=with_kind(groups=1)),
    Fault("deepseek2", Site(1, "expert_weights"), "router", "are divided by their sum",
          change=with_kind(renormalised=True)),
)  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: f"{fault.family}-{fault.site}-{fault.cause}")
def test_a_mistake_is_named(fault):
    families.check_named(fault)


def test_keys_and_values_that_were_not_split_head_by_head():
    model = replace(model_of("deepseek3", heads=2), weights=dict(model_of("deepseek3", heads=2).weights))
    values, weights = model.values(), dict(model.weights)
    keys, others = head(0, "k", 1), head(0, "v", 0)  # of rows K0 V0 K1 V1 read as K0 K1 V0 V1
    weights[keys], weights[others] = float_tensor(keys, values[others].T), float_tensor(others, values[keys].T)
    found = bisected(model, replace(model, weights=weights)).culprit
    assert (found.cause, found.tensor) == ("rows_permuted", keys)
    assert "not split head by head" in found.explanation


def test_a_mistake_between_stages_that_only_one_form_has_is_named():
    """As transformers records it, which has no stage between latents and what attention gives."""
    model = model_of("deepseek2")
    fault = Fault("deepseek2", Site(0, "latent_attention"), "", change=with_kind(scale=48**-0.5))
    stages = {site: y for site, y in families.run_with(model, fault).items() if site.stage not in _JOINED}
    reader = families.Reader(model, numeric_path("f32"), families.Recorded(stages), families.TOKENS)
    found = families.bisect_trace(reader).culprit
    assert found.cause == "attention_scale"
    assert "1/sqrt(head_dim)" in found.explanation
    right = dict(forward(model, families.TOKENS, numeric_path("f32")))
    stages = {site: y for site, y in right.items() if site.stage not in _JOINED}
    reader = families.Reader(model, numeric_path("f32"), families.Recorded(stages), families.TOKENS)
    assert families.bisect_trace(reader).culprit is None


def test_flash_attention_to_latents_is_read_from_its_own_nodes(tmp_path):
    tokens, heads, latent, size = 3, 2, 8, 4
    rng = np.random.default_rng(2)
    seen, made = rng.random((tokens, heads, latent), np.float32), rng.random((heads, tokens, size), np.float32)
    nodes = {
        "00000|inp_embd|GET_ROWS": np.zeros((tokens, 16), np.float32),
        "00001|Qcur-0|CONCAT": np.zeros((tokens, heads, latent), np.float32),
        "00002|node_2|FLASH_ATTN_EXT": seen,
        "00003|fattn_mla-0|MUL_MAT": made,
    }
    np.savez(tmp_path / "t.npz", __meta__=json.dumps({"tokens": [1, 2, 3]}), **nodes)
    trace = open_trace(tmp_path / "t.npz")
    assert np.array_equal(trace.read(Site(0, "latent_attention")), seen.reshape(tokens, -1))
    assert np.array_equal(trace.read(Site(0, "attention")), made.swapaxes(0, 1).reshape(tokens, -1))
