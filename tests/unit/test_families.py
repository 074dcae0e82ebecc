"""Families beyond the first: one model in every container, and the mistakes that each family invites."""

import inspect
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest

from kernels import ops
from kernels.errors import WorkbenchError
from kernels.forward import evaluate, forward
from kernels.graph import At
from kernels.kinds.choice import chosen
from kernels.models import Graph
from kernels.models import family as family_of
from kernels.paths import numeric_path
from kernels.rows.dequantize import dequantize
from kernels.stages import Site
from store.files.apr_writer import convert_to_apr, write_apr
from store.open import open_artifact
from tests.artifacts import (
    apr_metadata,
    apr_tensors,
    float_tensor,
    tiny_model,
    write_gguf,
    write_safetensors,
)
from tests.foreign_dumps import run_changed
from tests.golden.record_families import FURTHER, LAYERS, OF_FAMILY, ONLY_GGUF, OTHERS, optional_model
from tests.memory_model import MemoryModel
from workbench.__main__ import run
from workbench.bisect.models.bisection import Bisection, bisect_artifacts
from workbench.bisect.models.cell import Side
from workbench.bisect.models.element import element
from workbench.bisect.traces.bisection import bisect_trace
from workbench.bisect.traces.stages import Reader

TOKENS = (3, 17, 90, 4, 55, 21, 8, 60, 111)
HEALTHY = ("alike", "numerics_only", "quantization_only")


def model_of(family: str, **sizes: Any) -> MemoryModel:
    return tiny_model(family, **{"layers": LAYERS.get(family, 2), "head_dim": 32} | OF_FAMILY.get(family, {}) | sizes)


def bisected(a: Any, b: Any, path: str = "f32") -> Bisection:
    return bisect_artifacts(Side(a, numeric_path(path)), Side(b, numeric_path(path)), TOKENS)


@pytest.mark.parametrize("family", [*OTHERS, *ONLY_GGUF, *FURTHER])
def test_every_container_holds_one_model(tmp_path, capsys, family):
    model, folders = model_of(family), ["folder"] if family in (*OTHERS, *FURTHER) else []
    write_gguf(tmp_path / "m.gguf", model)
    config, of = model.config, family_of(model.config.architecture)
    plain = not config.num_experts and config.layer_types is None and config.rms_norm_eps > 0
    carried = family not in FURTHER and of.in_apr and (bool(folders) or plain)
    if carried:
        write_apr(tmp_path / "m.apr", apr_metadata(model), apr_tensors(model))
        convert_to_apr(open_artifact(tmp_path / "m.gguf"), tmp_path / "of-gguf.apr")
    else:
        with pytest.raises(WorkbenchError, match=r"APR has no place for"):
            convert_to_apr(open_artifact(tmp_path / "m.gguf"), tmp_path / "of-gguf.apr")
    for name in folders:
        write_safetensors(tmp_path / name, model)
    for name in folders if carried else ():
        convert_to_apr(open_artifact(tmp_path / name), tmp_path / f"of-{name}.apr")
    aprs = ("m.apr", "of-gguf.apr", *(f"of-{name}.apr" for name in folders)) if carried else ()
    for name in ("m.gguf", *folders, *aprs):
        artifact = open_artifact(tmp_path / name)
        assert artifact.problems == (), name
        spelled = "llama" if "gguf" in name and family == "mixtral" else model.config.architecture
        assert artifact.config == replace(model.config, architecture=spelled), name
        for tensor in model.weights:
            assert np.array_equal(dequantize(artifact.weight(tensor)), dequantize(model.weight(tensor))), tensor
        assert bisected(artifact, model).verdict == "alike"
    for name in ("m.gguf", *folders):
        assert run(["inspect", str(tmp_path / name)]) == 0
        assert "not understood" not in capsys.readouterr().out


@pytest.mark.parametrize("family", [*OTHERS, *FURTHER])
def test_copies_in_other_types_and_engines_are_not_divergent(tmp_path, family):
    sizes = {"hidden": 128, "ffn": 256, "head_dim": 32}
    write_gguf(tmp_path / "m.gguf", model_of(family, type="F16", **sizes))
    write_safetensors(tmp_path / "folder", model_of(family, **sizes))
    a, b = open_artifact(tmp_path / "m.gguf"), open_artifact(tmp_path / "folder")
    assert bisected(a, b).verdict in HEALTHY
    sides = Side(a, numeric_path("ggml")), Side(b, numeric_path("f32"))
    assert bisect_artifacts(*sides, TOKENS).verdict in HEALTHY


def test_factors_of_products_are_read_and_compared(tmp_path):
    model = optional_model()
    write_gguf(tmp_path / "m.gguf", model)
    artifact = open_artifact(tmp_path / "m.gguf")
    assert artifact.problems == ()
    assert bisected(artifact, model, "ggml").verdict == "alike"
    name = "model.layers.0.mlp.up_proj.output_scale"
    found = bisected(model, damaged(model, {name: lambda x: x * 2}))
    assert (found.first_divergent, found.culprit.tensor) == (Site(0, "ffn_up"), name)
    name = "model.layers.0.self_attn.k_proj.output_scale"
    without = replace(model, weights={key: w for key, w in model.weights.items() if key != name})
    assert bisected(model, without).verdict == "divergent"


def test_longrope_is_one_in_both_engines_files(tmp_path):
    model, short, long = model_of("phi3"), [1.0, 1.5, 2.0, 2.5, 3.0, 4.0], [9.0] * 6
    write_safetensors(tmp_path, model)
    config = json.loads((tmp_path / "config.json").read_text())
    config |= {"rope_parameters": {"rope_type": "longrope", "short_factor": short, "long_factor": long}}
    config |= {"original_max_position_embeddings": 64}
    (tmp_path / "config.json").write_text(json.dumps(config))
    folder = open_artifact(tmp_path)
    names = {"rope_factors_short.weight": short, "rope_factors_long.weight": long}
    tensors = {name: float_tensor(name, np.array(values, np.float32)) for name, values in names.items()}
    more = {"rope__scaling__attn_factor": folder.config.rope_attention_factor}
    more |= {"rope__scaling__original_context_length": 64}
    write_gguf(tmp_path / "m.gguf", replace(model, weights=model.weights | tensors), None, **more)
    file = open_artifact(tmp_path / "m.gguf")
    assert file.config.rope_factors == folder.config.rope_factors == tuple(short)
    assert file.config.length_limit == folder.config.length_limit == 64
    assert file.config.rope_attention_factor == pytest.approx(folder.config.rope_attention_factor, rel=1e-6)
    assert file.unused == ()
    assert bisected(file, folder).verdict in HEALTHY
    assert file.for_length(64).config == file.config
    longer = file.for_length(65).config
    assert longer.rope_factors == folder.for_length(65).config.rope_factors == tuple(long)
    assert longer.length_limit is None


@pytest.mark.parametrize("site", [Site(0, "attention"), Site(None, "lm_head")])
def test_the_slope_of_what_is_bounded(site):
    model, path = model_of("gemma2"), numeric_path("f64")
    at = At(model, path, TOKENS, Graph.of(model).stage(site))
    known = {stage.stage: values for stage, values in forward(model, TOKENS, path) if stage.layer == site.layer}
    rng = np.random.default_rng(0)
    x = {role: known[name] for role, name in at.stage.inputs.items()}
    dx = {role: rng.standard_normal(values.shape) for role, values in x.items()}
    step = 1e-6
    ahead, back = (evaluate(at, {role: x[role] + sign * step * dx[role] for role in x}) for sign in (1, -1))
    slope = at.kind.derivative(at, x, dx)
    assert np.linalg.norm(slope - (ahead - back) / (2 * step)) < 1e-7 * np.linalg.norm(slope)


def test_an_element_of_a_scaled_product_is_refused():
    model = model_of("granite")
    with pytest.raises(WorkbenchError, match="not taken apart"):
        element(model, numeric_path("f32"), Site(None, "lm_head"), np.zeros(64, np.float32), 0)


@pytest.mark.parametrize("name", ["attn_q.input_scale", "ffn_up.scale"])
def test_what_the_engine_loads_and_does_not_use_is_said(tmp_path, name):
    model = model_of("smollm3")
    raw = f"blk.0.{name}"
    weights = model.weights | {raw: float_tensor(raw, np.full(1, 2, np.float32))}
    write_gguf(tmp_path / "m.gguf", replace(model, weights=weights))
    artifact = open_artifact(tmp_path / "m.gguf")
    assert [problem for problem in artifact.problems if raw in problem and "does not use" in problem]
    assert bisected(artifact, model).verdict == "alike"


@dataclass(frozen=True)
class Fault:
    """A mistake of one family, what the bisection must say of it, and words of its explanation.

    tensors : names -> what becomes of their values, or whose values they get. config : settings of the damaged side.
    runtime : settings of a runtime that computes one stage with them. change : what a runtime makes of the stage.
    """

    family: str
    site: Site
    cause: str
    words: str = ""
    tensors: dict[str, Callable[[np.ndarray], np.ndarray]] | None = None
    config: dict[str, Any] | None = None
    runtime: dict[str, Any] | None = None
    change: Callable[..., np.ndarray] | None = None

    def __str__(self) -> str:
        return f"{self.family}-{self.site}-{self.cause}"


def of_layer(number: int, module: str) -> str:
    return f"model.layers.{number}.{module}.weight"


def damaged(model: MemoryModel, tensors: dict[str, Callable]) -> MemoryModel:
    values = model.values()
    changed = {
        name: float_tensor(name, values[change] if isinstance(change, str) else change(values[name]))
        for name, change in tensors.items()
    }
    return replace(model, weights=model.weights | changed)


# What a runtime makes of a stage by mistake, of what it knows: the model, the layer's stages, the right output.
def per_head(model, known, right):
    c, x = model.config, known["qkv_matmul"][:, model.config.q_size : model.config.q_size + model.config.kv_size]
    heads = x.reshape(len(x), -1, c.head_dim)
    scale = np.sqrt(np.square(heads).mean(axis=2, keepdims=True) + np.float32(c.rms_norm_eps))
    return (heads / scale).reshape(x.shape) * model.values()["model.layers.0.self_attn.k_norm.weight"]


def pre_normed(model, known, right):
    x = known["layer_input"] if "layer_input" in known else known["embedding"]
    x = x / np.sqrt(np.square(x).mean(axis=1, keepdims=True) + np.float32(model.config.rms_norm_eps))
    names = (f"model.layers.0.self_attn.{part}_proj.weight" for part in "qkv")
    return np.concatenate([x @ model.values()[name].T for name in names], axis=1)


def without_norm(model, known, right):
    return known["ffn_out"] if "ffn_out" in known else known["post_attn_residual"]


def unscaled(model, known, right):
    return right / np.float32(8)


def with_silu(model, known, right):
    return numeric_path("f32").silu(known["ffn_gate"])


def with_erf(model, known, right):
    from math import erf

    gate = known["ffn_gate"].astype(np.float64)
    return (gate / 2 * (1 + np.vectorize(erf)(gate / 2**0.5))).astype(np.float32)


def unbiased(model, known, right):
    return known["qkv_matmul"].copy()


def in_turn(model, known, right):
    c = model.config
    at = At(model, numeric_path("f32"), TOKENS, Graph.of(model).stage(Site(0, "attention")))
    order = [0, 2, 1, 3]
    q = known["q_post_rope"].reshape(len(right), 4, c.head_dim)[:, order].reshape(len(right), -1)
    out = evaluate(at, {"q": np.ascontiguousarray(q), "k": known["k_post_rope"], "v": known["qkv_bias"]})
    return out.reshape(len(right), 4, c.head_dim)[:, order].reshape(right.shape)


def together(model, known, right):
    c, x = model.config, known["qkv_matmul"][:, model.config.q_size : model.config.q_size + model.config.kv_size]
    scale = np.sqrt(np.square(x).mean(axis=1, keepdims=True) + np.float32(c.rms_norm_eps))
    return x / scale * np.tile(model.values()["model.layers.0.self_attn.k_norm.weight"], c.num_key_value_heads)


def without_mean_of(layer):
    """The norm before attention as an RMS norm."""

    def changed(model, known, right):
        x, w = known.get("layer_input", known.get("embedding")), model.values()
        x = x / np.sqrt(np.square(x).mean(axis=1, keepdims=True) + np.float32(model.config.rms_norm_eps))
        norm = f"model.layers.{layer}.input_layernorm"
        return x * w.get(f"{norm}.weight", 1) + w.get(f"{norm}.bias", 0)

    return changed


def rotated_together(model, known, right):
    c, x = model.config, known["k_post_rope"]
    scale = np.sqrt(np.square(x).mean(axis=1, keepdims=True) + np.float32(c.rms_norm_eps))
    weight = model.values()["model.layers.0.self_attn.key_layernorm.weight"]
    return x / scale * np.tile(weight, c.num_key_value_heads)


def rank_by_rank(model, known, right):
    """The rows of q, k and v of each half of the heads one after the other."""
    c = model.config
    halves = [np.split(part, 2, axis=1) for part in np.split(right, (c.q_size, c.q_size + c.kv_size), axis=1)]
    return np.concatenate([part[half] for half in (0, 1) for part in halves], axis=1)


def the_last_rotated(model, known, right):
    c = model.config
    x = known["qkv_matmul"][:, c.q_size : c.q_size + c.kv_size].reshape(len(right), -1, c.head_dim)
    rotation = Graph.of(model).stage(Site(0, "k_post_rope")).kind.rotation
    moved = np.ascontiguousarray(np.roll(x, -(c.head_dim - c.rotary_dim), axis=2)).reshape(right.shape)
    turned = ops.rotate(moved, ops.rope_angles_f32(np.arange(len(right)), rotation), rotation)
    return np.roll(turned.reshape(x.shape), c.head_dim - c.rotary_dim, axis=2).reshape(right.shape)


def normed(x, model, module):
    c, w = model.config, model.values()
    x = x - x.mean(axis=1, keepdims=True)
    x = x / np.sqrt(np.square(x).mean(axis=1, keepdims=True) + np.float32(c.rms_norm_eps))
    return x * w[f"{module}.weight"] + w[f"{module}.bias"]


def one_after_the_other(model, known, right):
    return normed(known["embedding"] + known["attn_out"], model, "model.layers.0.post_attention_layernorm")


def group_by_group(model, known, right):
    """Channels of q, k and v as a product has them whose rows are those of each head."""
    heads = [part.reshape(len(right), 4, -1) for part in np.split(right, 3, axis=1)]
    return np.concatenate(heads, axis=2).reshape(right.shape)


def less(name):
    """Without what a tensor adds to every token."""
    return lambda model, known, right: right - model.values()[name]


def up_with_erf(model, known, right):
    return with_erf(model, {"ffn_gate": known["ffn_up"]}, right)


def halves_of_the_first(w, size, turned):
    """The rows of every head that turn in halves, in place of adjacent pairs."""
    heads = w.reshape(-1, size, w.shape[1]).copy()
    heads[:, :turned] = np.concatenate([heads[:, 0:turned:2], heads[:, 1:turned:2]], axis=1)
    return heads.reshape(w.shape)


def with_kind(**changes):
    """The stage with other settings of its kind."""

    def change(model, known, right, site):
        at = At(model, numeric_path("f32"), TOKENS, Graph.of(model).stage(site))
        at = at.doing(replace(at.kind, **changes))
        return evaluate(at, {role: known[name] for role, name in at.stage.inputs.items()})

    return change


def next_expert(model, known, right, site):
    stage = Graph.of(model).stage(site)
    moved = replace(stage, tensors=(*stage.tensors[1:], stage.tensors[0]))
    x = {role: known[name] for role, name in stage.inputs.items()}
    return evaluate(At(model, numeric_path("f32"), TOKENS, moved), x)


def unweighted(model, known, right, site):
    return known["expert_out"].reshape(len(right), -1, right.shape[1]).sum(axis=1)


def without_last(model, known, right, site):
    kind = Graph.of(model).stage(site).kind
    weights, parts = kind.terms(
        At(model, numeric_path("f32"), TOKENS, Graph.of(model).stage(site)),
        known["expert_weights"],
        known["expert_out"],
    )
    return right - weights[:, -1:] * parts[:, -1]


def lowest(model, known, right, site):
    at = At(model, numeric_path("f32"), TOKENS, Graph.of(model).stage(site))
    scores = at.kind.scores(known["router"])
    return at.kind.weights(at, scores, at.kind.best(-scores))


def chosen_with(model, known, site, **changes):
    at = At(model, numeric_path("f32"), TOKENS, replace(Graph.of(model).stage(site), **changes))
    return evaluate(at, {"x": known["router"]})


def counted_bias(model, known, right, site):
    at = At(model, numeric_path("f32"), TOKENS, Graph.of(model).stage(site))
    scores = at.kind.selection(at, at.kind.scores(known["router"]))
    return at.kind.weights(at, scores, at.kind.best(scores))


def reversed_weights(model, known, right, site):
    experts = chosen(right, 3)
    out = np.zeros_like(right)
    np.put_along_axis(out, experts, np.take_along_axis(right, experts, axis=1)[:, ::-1], axis=1)
    return out


def swapped_experts(model, known):
    stage = Graph.of(model).stage(Site(0, "expert_up"))
    x = {role: known[name] for role, name in stage.inputs.items()}
    return evaluate(At(model, numeric_path("f32"), TOKENS, stage), x)


SHARED = [f"model.layers.0.mlp.shared_expert.{part}_proj.weight" for part in ("gate", "up")]


def expert(layer: int, number: int, part: str) -> str:
    return f"model.layers.{layer}.mlp.experts.{number}.{part}_proj.weight"


ALL, NONE = (True,) * 4, (False,) * 4
FAULTS = (
    Fault("smollm3", Site(3, "q_post_rope"), "rope_position", "3 rotate", config={"rotated_layers": None}),
    Fault("smollm3", Site(0, "q_post_rope"), "rope_position", "0, 1, 2 rotate", config={"rotated_layers": NONE}),
    Fault("smollm3", Site(3, "q_post_rope"), "rope_position", "as other layers are", runtime={"rotated_layers": None}),
    Fault("smollm3", Site(0, "k_post_rope"), "rope_position", "nothing is rotated", runtime={"rotated_layers": NONE}),
    Fault("smollm3", Site(3, "qkv_matmul"), "permuted_rope", "",
          tensors={of_layer(3, "self_attn.q_proj"): lambda w: w.reshape(4, 2, 16, -1).swapaxes(1, 2).reshape(w.shape)}),
    Fault("olmo2", Site(0, "q_norm"), "norm_offset", "", tensors={of_layer(0, "self_attn.q_norm"): lambda w: w + 1}),
    Fault("olmo2", Site(1, "post_attn_norm"), "norm_offset", "",
          tensors={of_layer(1, "post_attention_layernorm"): lambda w: w - 1}),
    Fault("olmo2", Site(0, "k_norm"), "head_grouping", "every head is normed by itself", change=per_head),
    Fault("olmo2", Site(0, "qkv_matmul"), "unknown", "", change=pre_normed),
    Fault("olmo2", Site(1, "post_ffn_norm"), "norm_missing", "the norm is left out", change=without_norm),
    Fault("gemma", Site(None, "embedding"), "scaled", "not multiplied by 8", change=unscaled),
    Fault("gemma", Site(0, "ffn_silu"), "activation_function", "SiLU stands in place of GELU", change=with_silu),
    Fault("gemma", Site(0, "ffn_silu"), "activation_function", "GELU (erf)", change=with_erf),
    Fault("gemma", Site(1, "ffn_norm"), "norm_offset", "",
          tensors={of_layer(1, "post_attention_layernorm"): lambda w: w + 1}),
    Fault("gemma", Site(0, "attn_norm"), "norm_offset", "", tensors={of_layer(0, "input_layernorm"): lambda w: w - 1}),
    Fault("gemma2", Site(0, "attention"), "attention_scale", "attention_cap is 2.0 in A and None in B",
          config={"attention_cap": None}),
    Fault("gemma2", Site(None, "lm_head"), "scaled", "logits_cap is 3.0", config={"logits_cap": None}),
    Fault("gemma2", Site(0, "attention"), "causal_mask", "the layers 0, 1 slide",
          config={"layer_types": ("full_attention", "sliding_attention")}),
    Fault("gemma2", Site(0, "attention"), "attention_scale", "not capped", runtime={"attention_cap": None}),
    Fault("gemma2", Site(None, "lm_head"), "scaled", "not bent", runtime={"logits_cap": None}),
    Fault("gemma2", Site(0, "attention"), "attention_scale", "", runtime={"attention_scale": 0.05}),
    Fault("gemma2", Site(1, "post_attn_norm"), "norm_offset", "",
          tensors={of_layer(1, "post_attention_layernorm"): lambda w: w + 1}),
    Fault("granite", Site(None, "embedding"), "scaled", "embedding_scale is 6.0", config={"embedding_scale": 1.0}),
    Fault("granite", Site(0, "post_attn_residual"), "scaled", "residual_scale is 0.22", config={"residual_scale": 1.0}),
    Fault("granite", Site(0, "attention"), "attention_scale", "", config={"attention_scale": None}),
    Fault("granite", Site(None, "lm_head"), "scaled", "logits_scale is 0.125", config={"logits_scale": 1.0}),
    Fault("granite", Site(0, "post_ffn_residual"), "scaled", "is not multiplied by 0.22",
          runtime={"residual_scale": 1.0}),
    Fault("granite", Site(None, "lm_head"), "scaled", "not multiplied by 0.125", runtime={"logits_scale": 1.0}),
    Fault("granite", Site(None, "embedding"), "scaled", "not multiplied by 6", runtime={"embedding_scale": 1.0}),
    Fault("seed_oss", Site(0, "qkv_bias"), "bias_missing", "q_proj.bias is not added", change=unbiased),
    Fault("seed_oss", Site(1, "qkv_bias"), "sign_flipped", "",
          tensors={"model.layers.1.self_attn.v_proj.bias": lambda b: -b}),
    Fault("seed_oss", Site(0, "ffn_norm"), "norm_missing", "the norm is left out", change=without_norm),
    Fault("seed_oss", Site(0, "attention"), "head_grouping", "", change=in_turn),
    Fault("seed_oss", Site(1, "q_post_rope"), "rope_theta", "rope_theta 1000000", runtime={"rope_theta": 1e6}),
    Fault("exaone4", Site(0, "q_norm"), "norm_offset", "", tensors={of_layer(0, "self_attn.q_norm"): lambda w: w + 1}),
    Fault("exaone4", Site(0, "k_norm"), "head_grouping", "heads are normed together", change=together),
    Fault("exaone4", Site(1, "post_ffn_norm"), "norm_missing", "the norm is left out", change=without_norm),
    Fault("exaone4", Site(0, "qkv_matmul"), "unknown", "", change=pre_normed),
    Fault("exaone4", Site(1, "q_post_rope"), "rope_position", "the layers 1 rotate",
          config={"rotated_layers": (True, False)}),
    Fault("exaone4", Site(1, "post_attn_norm"), "wrong_layer", "",
          change=lambda m, known, right: right / m.values()[of_layer(1, "post_attention_layernorm")]
          * m.values()[of_layer(1, "post_feedforward_layernorm")]),
    Fault("cohere", Site(0, "q_post_rope"), "rope_type", "neox instead of norm", runtime={"rope_type": "neox"}),
    Fault("cohere", Site(1, "qkv_matmul"), "permuted_rope", "",
          tensors={of_layer(1, "self_attn.q_proj"): lambda w: halves_of_the_first(w, 16, 16)}),
    Fault("cohere", Site(None, "lm_head"), "scaled", "not multiplied by 0.25", runtime={"logits_scale": 1.0}),
    Fault("cohere", Site(0, "post_ffn_residual"), "residual_missing", "attn_out is not added",
          change=lambda _, known, right: right - known["attn_out"]),
    Fault("cohere", Site(1, "attn_norm"), "unknown", "the mean is not taken away", change=without_mean_of(1)),
    Fault("cohere", Site(0, "post_ffn_residual"), "residual_missing", "what the layer is given is added twice",
          change=lambda _, known, right: right + known["embedding"]),
    Fault("cohere2", Site(1, "q_post_rope"), "rope_position", "1 rotate", config={"rotated_layers": None}),
    Fault("cohere2", Site(1, "q_post_rope"), "rope_position", "as other layers are", runtime={"rotated_layers": None}),
    Fault("cohere2", Site(1, "attention"), "causal_mask", "", runtime={"layer_types": ("sliding_attention",) * 2}),
    Fault("cohere2", Site(0, "attention"), "causal_mask", "", config={"sliding_window": 5}),
    Fault("cohere2", Site(None, "lm_head"), "scaled", "logits_scale is 0.25", config={"logits_scale": 0.0625}),
    Fault("cohere2", Site(0, "ffn_gate"), "unknown", "attn_out in place of attn_norm",
          change=lambda m, known, right: known["attn_out"] @ m.values()[of_layer(0, "mlp.gate_proj")].T),
    Fault("glm4", Site(0, "q_post_rope"), "rope_type", "all channels of a head are rotated and not only the first 16",
          runtime={"rotary_dim": None}),
    Fault("glm4", Site(0, "q_post_rope"), "rope_type", "neox instead of norm", runtime={"rope_type": "neox"}),
    Fault("glm4", Site(0, "q_post_rope"), "rope_type", "16 of the 32 channels of each head rotate in A and 32 in B",
          config={"rotary_dim": None}),
    Fault("glm4", Site(1, "qkv_matmul"), "permuted_rope", "half-split order",
          tensors={of_layer(1, "self_attn.k_proj"): lambda w: halves_of_the_first(w, 32, 16)}),
    Fault("glm4", Site(0, "post_attn_norm"), "norm_missing", "the norm is left out",
          change=lambda _, known, right: known["attn_out"]),
    Fault("glm4", Site(1, "post_ffn_norm"), "norm_offset", "",
          tensors={of_layer(1, "post_mlp_layernorm"): lambda w: w - 1}),
    Fault("glm4", Site(0, "ffn_gate"), "gate_up_swapped", "",
          change=lambda m, known, right: known["ffn_norm"] @ m.values()[of_layer(0, "mlp.up_proj")].T),
    Fault("phi3", Site(0, "qkv_matmul"), "rows_permuted", "80 channels are in another order", change=rank_by_rank),
    Fault("phi3", Site(0, "q_post_rope"), "rope_type", "all channels of a head are rotated and not only the first 12",
          runtime={"rotary_dim": None}),
    Fault("phi3", Site(0, "q_post_rope"), "rope_theta", "rope_theta 1000 instead of 10000",
          runtime={"rope_theta": 1e3}),
    Fault("phi3", Site(0, "k_post_rope"), "rope_type", "the last 12 channels of a head are rotated",
          change=the_last_rotated),
    Fault("phi3", Site(1, "ffn_gate"), "gate_up_swapped", "",
          change=lambda m, known, right: known["ffn_norm"] @ m.values()[of_layer(1, "mlp.up_proj")].T),
    Fault("phi3", Site(0, "attention"), "causal_mask", "", config={"sliding_window": 3}),
    Fault("arcee", Site(0, "ffn_silu"), "activation_function", "SiLU stands in place of",
          change=lambda m, known, right: numeric_path("f32").silu(known["ffn_up"])),
    Fault("arcee", Site(0, "ffn_silu"), "activation_function", "ReLU", change=lambda m, known, right: np.sqrt(right)),
    Fault("arcee", Site(1, "ffn_out"), "transposed", "",
          tensors={of_layer(1, "mlp.down_proj"): lambda w: w.T.reshape(w.shape)}),
    Fault("arcee", Site(1, "q_post_rope"), "rope_theta", "rope_theta 500000", runtime={"rope_theta": 5e5}),
    Fault("arcee", Site(1, "ffn_norm"), "norm_offset", "",
          tensors={of_layer(1, "post_attention_layernorm"): lambda w: w + 1}),
    Fault("ernie4_5", Site(0, "q_post_rope"), "rope_type", "norm in A and neox in B", config={"rope_type": "neox"}),
    Fault("ernie4_5", Site(0, "k_post_rope"), "rope_type", "neox instead of norm", runtime={"rope_type": "neox"}),
    Fault("ernie4_5", Site(1, "qkv_matmul"), "permuted_rope", "half-split order",
          tensors={of_layer(1, "self_attn.q_proj"): lambda w: halves_of_the_first(w, 32, 32)}),
    Fault("ernie4_5", Site(0, "q_post_rope"), "rope_theta", "500000.0 in B", config={"rope_theta": 5e5}),
    Fault("ernie4_5", Site(1, "ffn_gate"), "gate_up_swapped", "",
          change=lambda m, known, right: known["ffn_norm"] @ m.values()[of_layer(1, "mlp.up_proj")].T),
    Fault("olmo3", Site(0, "q_post_rope"), "rope_theta", "rope_theta 1000000", runtime={"rope_local_theta": 1e6}),
    Fault("olmo3", Site(0, "attention"), "causal_mask", "", config={"sliding_window": 5}),
    Fault("olmo3", Site(0, "k_norm"), "head_grouping", "every head is normed by itself", change=per_head),
    Fault("olmo3", Site(1, "post_ffn_norm"), "norm_missing", "the norm is left out", change=without_norm),
    Fault("olmo3", Site(0, "qkv_matmul"), "unknown", "", change=pre_normed),
    Fault("hunyuan_v1_dense", Site(0, "q_rope_norm"), "norm_missing", "the norm is left out",
          change=lambda m, known, right: known["q_post_rope"]),
    Fault("hunyuan_v1_dense", Site(0, "k_rope_norm"), "head_grouping", "heads are normed together",
          change=rotated_together),
    Fault("hunyuan_v1_dense", Site(0, "q_rope_norm"), "norm_offset", "",
          tensors={of_layer(0, "self_attn.query_layernorm"): lambda w: w + 1}),
    Fault("hunyuan_v1_dense", Site(1, "q_post_rope"), "rope_theta", "rope_theta 1000000", runtime={"rope_theta": 1e6}),
    Fault("hunyuan_v1_dense", Site(0, "qkv_matmul"), "permuted_rope", "adjacent-pair",
          tensors={of_layer(0, "self_attn.q_proj"): lambda w: w.reshape(4, 2, 16, -1).swapaxes(1, 2).reshape(w.shape)}),
    Fault("mixtral", Site(0, "expert_weights"), "router", "3 in A and 2", config={"num_experts_per_tok": 2}),
    Fault("mixtral", Site(0, "expert_weights"), "router", "not divided by their sum",
          change=with_kind(renormalised=False)),
    Fault("mixtral", Site(1, "expert_weights"), "router", "2 experts are chosen in place of 3",
          change=with_kind(used=2)),
    Fault("mixtral", Site(0, "expert_gate"), "expert_order", "experts.1.gate_proj",
          tensors={expert(0, 0, "gate"): expert(0, 1, "gate"), expert(0, 1, "gate"): expert(0, 0, "gate")}),
    Fault("mixtral", Site(0, "expert_out"), "expert_order", "of the next one", change=next_expert),
    Fault("mixtral", Site(1, "ffn_out"), "router", "without weights", change=unweighted),
    Fault("mixtral", Site(1, "ffn_out"), "router", "counts least is left out", change=without_last),
    Fault("mixtral", Site(0, "expert_up"), "sign_flipped", "experts.2.up_proj",
          tensors={expert(0, 2, "up"): lambda w: -w}),
    Fault("qwen3moe", Site(0, "expert_weights"), "router", "norm_topk_prob is True", config={"norm_topk_prob": False}),
    Fault("qwen3moe", Site(0, "expert_weights"), "router", "a sigmoid in place of a softmax",
          change=with_kind(scoring="sigmoid")),
    Fault("qwen3moe", Site(1, "expert_weights"), "router", "4 experts", change=with_kind(used=4)),
    Fault("qwen3moe", Site(0, "expert_silu"), "activation_function", "GELU (erf) stands in place of SiLU",
          change=lambda m, known, right, site: with_erf(m, {"ffn_gate": known["expert_gate"]}, right)),
    Fault("qwen2moe", Site(0, "expert_weights"), "router", "norm_topk_prob is False", config={"norm_topk_prob": True}),
    Fault("qwen2moe", Site(0, "expert_weights"), "router", "are divided by their sum",
          change=with_kind(renormalised=True)),
    Fault("qwen2moe", Site(1, "shared_gated"), "activation_function", "is left out",
          change=lambda m, known, right: known["shared_out"]),
    Fault("qwen2moe", Site(1, "shared_gated"), "activation_function", "does not go through a sigmoid",
          change=lambda m, known, right: known["shared_out"] * known["shared_router"]),
    Fault("qwen2moe", Site(0, "ffn_out"), "residual_missing", "shared_gated is not added",
          change=lambda m, known, right: known["expert_sum"]),
    Fault("qwen2moe", Site(0, "shared_gate"), "gate_up_swapped", "shared_expert.up_proj",
          tensors={SHARED[0]: SHARED[1], SHARED[1]: SHARED[0]}),
    Fault("olmoe", Site(0, "k_norm"), "head_grouping", "every head is normed by itself", change=per_head),
    Fault("olmoe", Site(0, "expert_weights"), "router", "in place of a softmax over all", change=with_kind(
        scoring="softmax of chosen")),
    Fault("olmoe", Site(1, "expert_weights"), "router", "the lowest scores", change=lowest),
    Fault("olmoe", Site(1, "expert_weights"), "expert_order", "of the expert after",
          change=lambda m, known, right: np.roll(right, -1, axis=1)),
    Fault("olmoe", Site(0, "expert_out"), "wrong_layer", "model.layers.1", tensors={
        expert(0, 1, "down"): expert(1, 1, "down")}),
    Fault("granitemoe", Site(1, "expert_sum"), "router", "without weights", change=unweighted),
    Fault("granitemoe", Site(0, "expert_weights"), "router", "a softmax over all experts", change=with_kind(
        scoring="sigmoid", renormalised=False)),
    Fault("granitemoe", Site(0, "ffn_out"), "residual_missing", "shared_out is not added",
          change=lambda m, known, right: known["expert_sum"]),
    Fault("granitemoe", Site(0, "expert_gate"), "gate_up_swapped", "up_proj of every expert",
          change=lambda m, known, right: swapped_experts(m, known)),
    Fault("granitemoe", Site(0, "post_ffn_residual"), "scaled", "is not multiplied by 0.22",
          runtime={"residual_scale": 1.0}),
    Fault("dots1", Site(1, "expert_weights"), "router", "nothing is added to the scores",
          change=lambda m, known, right, site: chosen_with(m, known, site, tensors=())),
    Fault("dots1", Site(1, "expert_weights"), "router", "counts in the weights too", change=counted_bias),
    Fault("dots1", Site(1, "expert_weights"), "router", "a softmax over all experts in place of a sigmoid",
          change=with_kind(scoring="softmax")),
    Fault("dots1", Site(1, "expert_weights"), "router", "not multiplied by 2.5", change=with_kind(scale=1.0)),
    Fault("dots1", Site(1, "expert_weights"), "router", "routed_scaling_factor is 2.5",
          config={"routed_scaling_factor": 1.0}),
    Fault("dots1", Site(1, "ffn_out"), "residual_missing", "shared_out is not added",
          change=lambda m, known, right: known["expert_sum"]),
    Fault("dots1", Site(1, "expert_weights"), "sign_flipped", "",
          tensors={"model.layers.1.mlp.gate.e_score_correction_bias": lambda b: -b}),
    Fault("deepseek", Site(1, "expert_weights"), "router", "are divided by their sum",
          change=with_kind(renormalised=True)),
    Fault("deepseek", Site(1, "expert_weights"), "router", "2 experts are chosen in place of 3",
          change=with_kind(used=2)),
    Fault("deepseek", Site(1, "expert_sum"), "router", "without weights", change=unweighted),
    Fault("deepseek", Site(1, "expert_out"), "expert_order", "of the next one", change=next_expert),
    Fault("deepseek", Site(0, "qkv_matmul"), "permuted_rope", "",
          tensors={of_layer(0, "self_attn.q_proj"): lambda w: w.reshape(4, 2, 8, -1).swapaxes(1, 2).reshape(w.shape)}),
    Fault("ernie4_5_moe", Site(1, "expert_weights"), "router", "nothing is added to the scores",
          change=lambda m, known, right, site: chosen_with(m, known, site, tensors=())),
    Fault("ernie4_5_moe", Site(1, "expert_weights"), "router", "counts in the weights too", change=counted_bias),
    Fault("ernie4_5_moe", Site(1, "expert_weights"), "router", "not divided by their sum",
          change=with_kind(renormalised=False)),
    Fault("ernie4_5_moe", Site(1, "ffn_out"), "residual_missing", "shared_out is not added",
          change=lambda m, known, right: known["expert_sum"]),
    Fault("ernie4_5_moe", Site(1, "expert_out"), "expert_order", "of the next one", change=next_expert),
    Fault("qwen3vlmoe", Site(1, "expert_weights"), "router", "not divided by their sum",
          change=with_kind(renormalised=False)),
    Fault("qwen3vlmoe", Site(0, "expert_weights"), "router", "2 experts", change=with_kind(used=2)),
    Fault("qwen3vlmoe", Site(1, "ffn_out"), "router", "without weights", change=unweighted),
    Fault("qwen3vlmoe", Site(1, "expert_weights"), "expert_order", "in reverse order", change=reversed_weights),
    Fault("qwen3vlmoe", Site(0, "expert_gate"), "gate_up_swapped", "up_proj of every expert",
          change=lambda m, known, right: swapped_experts(m, known)),
    Fault("bailingmoe", Site(0, "expert_weights"), "router", "not divided by their sum",
          change=with_kind(renormalised=False)),
    Fault("bailingmoe", Site(0, "expert_weights"), "router", "not multiplied by 2.5", change=with_kind(scale=1.0)),
    Fault("bailingmoe", Site(1, "expert_weights"), "router", "4 experts", change=with_kind(used=4)),
    Fault("bailingmoe", Site(1, "ffn_out"), "residual_missing", "shared_out is not added",
          change=lambda m, known, right: known["expert_sum"]),
    Fault("bailingmoe", Site(0, "expert_out"), "expert_order", "experts.3.down_proj",
          tensors={expert(0, 2, "down"): expert(0, 3, "down"), expert(0, 3, "down"): expert(0, 2, "down")}),
    Fault("llada_moe", Site(0, "attention"), "causal_mask", "", runtime={"causal": True}),
    Fault("llada_moe", Site(0, "attention"), "causal_mask", "causal is False", config={"causal": True}),
    Fault("llada_moe", Site(0, "expert_weights"), "router", "are divided by their sum",
          change=with_kind(renormalised=True)),
    Fault("llada_moe", Site(0, "k_norm"), "head_grouping", "heads are normed together", change=together),
    Fault("llada_moe", Site(1, "expert_weights"), "expert_order", "in reverse order", change=reversed_weights),
    Fault("rnd1", Site(0, "attention"), "causal_mask", "", runtime={"causal": True}),
    Fault("rnd1", Site(1, "expert_weights"), "router", "not divided by their sum",
          change=with_kind(renormalised=False)),
    Fault("rnd1", Site(0, "expert_weights"), "router", "2 experts", change=with_kind(used=2)),
    Fault("rnd1", Site(0, "expert_gate"), "gate_up_swapped", "up_proj of every expert",
          change=lambda m, known, right: swapped_experts(m, known)),
    Fault("rnd1", Site(1, "q_norm"), "norm_offset", "",
          tensors={of_layer(1, "self_attn.q_norm"): lambda w: w + 1}),
    Fault("qwen3moe", Site(1, "router"), "wrong_layer", "model.layers.0",
          tensors={of_layer(1, "mlp.gate"): of_layer(0, "mlp.gate")}),
    Fault("qwen3moe", Site(0, "q_norm"), "norm_offset", "",
          tensors={of_layer(0, "self_attn.q_norm"): lambda w: w + 1}),
)  # fmt: skip


class Recorded:
    """A trace in memory, of all tokens."""

    def __init__(self, stages: dict[Site, np.ndarray]) -> None:
        self.stages = stages

    def status(self, site: Site) -> str:
        return "ok" if site in self.stages else "unmeasured"

    def read(self, site: Site) -> np.ndarray:
        return self.stages[site]

    def positions(self, site: Site) -> tuple[int, ...]:
        return tuple(range(len(self.stages[site])))


def run_with(model: MemoryModel, fault: Fault) -> dict[Site, np.ndarray]:
    """What a runtime records that is wrong at one stage."""
    other, path = replace(model, config=replace(model.config, **(fault.runtime or {}))), numeric_path("f32")

    def change(site: Site, right: np.ndarray, known: dict[str, np.ndarray]) -> np.ndarray:
        if site != fault.site:
            return right
        if fault.change is not None:
            takes_site = "site" in inspect.signature(fault.change).parameters
            return fault.change(model, known, right, *((site,) if takes_site else ()))
        at = At(other, path, TOKENS, Graph.of(other).stage(site))
        return evaluate(at, {role: known[name] for role, name in at.stage.inputs.items()})

    return run_changed(model, TOKENS, change, "f32")


def fault_name(fault: Fault) -> str:
    return f"{fault.family}-{fault.site}-{fault.cause}"


@pytest.mark.parametrize("fault", FAULTS, ids=fault_name)
def test_a_mistake_is_named(fault):
    check_named(fault)


def check_named(fault: Fault) -> None:
    """That the bisection says of a mistake what must be said."""
    model = model_of(fault.family)
    if fault.runtime is not None or fault.change is not None:
        recorded = Recorded(run_with(model, fault))
        found = bisect_trace(Reader(model, numeric_path("f32"), recorded, TOKENS)).culprit
        site = found.site
    else:
        other = damaged(model, fault.tensors or {})
        other = replace(other, config=replace(model.config, **(fault.config or {})))
        whole = bisected(model, other)
        found, site = whole.culprit, whole.first_divergent
    assert (site, found.cause) == (fault.site, fault.cause), found.explanation
    assert fault.words in found.explanation


@pytest.mark.parametrize(
    ("family", "changes", "words"),
    [
        ("smollm3", {"no_rope_layers": [1, 0]}, "no_rope_layers"),
        ("smollm3", {"no_rope_layers": [1, 2, 3, 4]}, "no_rope_layers"),
        ("smollm3", {"use_sliding_window": True, "sliding_window": 4}, "use_sliding_window"),
    ],
)
def test_what_is_not_computed_is_refused_by_name(tmp_path, family, changes, words):
    from tests.artifacts import hf_config

    model = model_of(family)
    write_safetensors(tmp_path, model)
    (tmp_path / "config.json").write_text(json.dumps(hf_config(model) | changes))
    with pytest.raises(WorkbenchError, match=words):
        open_artifact(tmp_path)
