"""A trace that holds only some stages: what lies between is judged by spans, and what is not judged is never right."""

from dataclasses import replace
from functools import cache

import numpy as np
import pytest

import tests.reference.forward as reference
from kernels.forward import evaluate, forward
from kernels.graph import At
from kernels.kinds.elementwise import Copy
from kernels.kinds.product import Product
from kernels.models import Graph
from kernels.paths import numeric_path
from kernels.precision import BFLOAT16, FLOAT16
from kernels.stages import Site
from kernels.weight import TensorType, Weight
from store.open import open_artifact
from tests.artifacts import tiny_safetensors
from tests.faults.models import plain
from tests.faults.storing import FORMATS, stored
from tests.foreign_dumps import run, run_changed, write_stage_dump
from tests.memory_model import random_model
from tests.unit.test_forward import PROMPT, SHIPPED, dump, model_of
from tests.unit.test_forward import TOKENS as RECORDED_TOKENS
from tests.unit.test_question import rounded_to_q8_0
from workbench.bisect.answer import answer_text, exit_code, reason
from workbench.bisect.models.substitution import Mixed
from workbench.bisect.pair import bisect_pair
from workbench.bisect.traces.bisection import bisect_trace
from workbench.bisect.traces.stages import Reader, recorded_stages
from workbench.pair.pair import open_pair

TOKENS = (3, 1, 30, 1, 5, 9)
ENDS = ("embedding", "layer_output", "final_norm", "lm_head")
SUBSETS = {
    "hidden states": ENDS,
    "module outputs": (*ENDS, "attn_norm", "attn_out", "ffn_norm", "ffn_out"),
    "attention outputs": ("attn_out", "lm_head"),
    "logits": ("lm_head",),
}
HF = {"tokens": list(TOKENS), "dtype": "float32", "transformers": "5.0"}


class Trace:
    """Stages in memory."""

    def __init__(self, stages, rows=None):
        self.stages, self.rows = stages, rows or {}

    def status(self, site):
        return "ok" if site in self.stages else "unmeasured"

    def read(self, site):
        return self.stages[site]

    def positions(self, site):
        return self.rows.get(site, tuple(range(len(self.stages[site]))))


def some(stages, kept):
    return {site: values for site, values in stages.items() if site.stage in kept}


def check(model, stages, path="f32", tokens=TOKENS, **how):
    with np.errstate(all="ignore"):
        return bisect_trace(Reader(model, numeric_path(path), Trace(stages), tokens, **how))


def with_weight(model, name, values):
    values = np.ascontiguousarray(values, dtype=np.float32)
    rows = values.view(np.uint8).reshape(len(values) if values.ndim > 1 else 1, -1)
    return replace(model, weights=model.weights | {name: Weight(name, TensorType.F32, values.shape, rows)})


def literal(model, attend=None):
    """A float64 run of the literal decoder, which has nothing to do with ours."""
    right = reference.attend
    reference.attend = attend or right
    try:
        found = reference.literal_forward(model.config, model.values(), TOKENS)
    finally:
        reference.attend = right
    return {Site(*site): values for site, values in found.items()}


def unmasked(q, k, v, c, *_limits):
    """Attention without a causal mask."""
    groups = [
        np.repeat(x.reshape(len(x), -1, c.head_dim), c.num_attention_heads // n, axis=1)
        for x, n in ((q, c.num_attention_heads), (k, c.num_key_value_heads), (v, c.num_key_value_heads))
    ]
    scores = np.einsum("qhd,khd->hqk", groups[0], groups[1]) * c.head_dim**-0.5
    weights = np.exp(scores - scores.max(axis=2, keepdims=True))
    weights /= weights.sum(axis=2, keepdims=True)
    return np.einsum("hqk,khd->qhd", weights, groups[2]).reshape(q.shape)


def small():
    return random_model("qwen2", heads=4, kv_heads=2, head_dim=8, hidden=32, ffn=40, vocab=32, seed=3)


KINDS = {
    "biases": (Site(0, "qkv_bias"), "bias_missing"),
    "pairs": (Site(0, "q_post_rope"), "rope_type"),
    "base": (Site(0, "q_post_rope"), "rope_theta"),
    "epsilon": (Site(0, "attn_norm"), "rms_norm_eps"),
    "mask": (Site(0, "attention"), "causal_mask"),
    "projection": (Site(1, "attn_out"), "transposed"),
    "silent MLP": (Site(1, "ffn_out"), "zeroed"),
}


@cache
def planted(kind):
    """The run of an engine that makes a mistake."""
    model = small()
    values, config = model.values(), model.config
    out, down = "model.layers.1.self_attn.o_proj.weight", "model.layers.1.mlp.down_proj.weight"
    unbiased = {name: weight for name, weight in model.weights.items() if not name.endswith("_proj.bias")}
    changed = {
        "biases": replace(model, weights=unbiased),
        "pairs": replace(model, config=replace(config, rope_type="norm")),
        "base": replace(model, config=replace(config, rope_theta=1e6)),
        "epsilon": replace(model, config=replace(config, rms_norm_eps=1e-6)),
        "mask": model,
        "projection": with_weight(model, out, values[out].T),
        "silent MLP": with_weight(model, down, values[down] * 0),
    }
    return literal(changed[kind], unmasked if kind == "mask" else None)


@pytest.mark.parametrize("kept", [kept for kept in SUBSETS if kept != "logits"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_mistake_between_recorded_stages_is_found_where_it_sits(kind, kept):
    site, cause = KINDS[kind]
    found = check(small(), some(planted(kind), SUBSETS[kept]), "f64")
    assert (found.verdict, found.culprit.cause, found.culprit.site.layer) == ("divergent", cause, site.layer)
    if kind != "silent MLP":  # whatever part of an MLP is zero, nothing comes out
        assert found.culprit.site.stage == site.stage


def test_a_model_without_biases_has_spans_as_well():
    model = random_model("llama")
    config = replace(model.config, rope_theta=1e6)
    stages = dict(forward(Mixed(model, config), TOKENS, numeric_path("f32")))
    wrong = check(model, some(stages, SUBSETS["hidden states"]))
    assert (wrong.verdict, wrong.culprit.site, wrong.culprit.cause) == (
        "divergent",
        Site(0, "q_post_rope"),
        "rope_theta",
    )
    name = "model.layers.1.self_attn.o_proj.weight"
    turned = with_weight(model, name, model.values()[name].T)
    stages = some(dict(forward(turned, TOKENS, numeric_path("f32"))), SUBSETS["hidden states"])
    assert check(model, stages).culprit.site == Site(1, "attn_out")


@pytest.mark.parametrize("kept", SUBSETS)
@pytest.mark.parametrize("name", ["qwen2", "llama"])
def test_a_right_engine_stays_right_however_little_it_shows(name, kept):
    stages = some(dump(f"transformers-{name}-float32.npz"), SUBSETS[kept])
    found = check(model_of(name), stages, tokens=RECORDED_TOKENS)
    assert found.verdict == "numerics_only"
    assert found.covered == found.cells
    assert max(cell.b_off for cell in found.checked) < 3


@pytest.mark.parametrize("kept", SUBSETS)
def test_llama_cpp_with_8_bit_activations_stays_right(kept):
    recorded = dump("llama-cpp-tiny-qwen2-q4_k_m.npz")
    found = check(open_artifact(SHIPPED), some(recorded, SUBSETS[kept]), "ggml", PROMPT)
    assert (found.verdict, found.covered) == ("numerics_only", found.cells)


def test_a_floor_has_the_same_bits_and_reckons_with_turned_codes():
    model = random_model("llama", TensorType.Q8_0, layers=1)
    floors = {}
    for path in ("f32", "ggml", "ggml"):
        stages = some(dict(forward(model, TOKENS, numeric_path(path))), SUBSETS["hidden states"])
        found = check(model, stages, path)
        floors.setdefault(path, []).append(found.checked[1].floor)
    assert floors["ggml"][0] == floors["ggml"][1]
    assert floors["ggml"][0] > 10 * floors["f32"][0]


def test_a_turned_code_inside_a_span_is_no_mistake():
    """An engine whose floats are off by a few units in the last place rounds some activations to the next code."""
    model, path = random_model("llama", TensorType.Q8_0, layers=1, hidden=256, ffn=512, seed=2), numeric_path("ggml")
    right, turned = dict(forward(model, TOKENS, path)), []
    for seed in range(12):
        rng, values = np.random.default_rng(seed), {"layer_input": right[Site(None, "embedding")]}
        for stage in Graph.of(model).layer(0):
            read = {role: values[name] for role, name in stage.inputs.items()}
            y = evaluate(At(model, path, TOKENS, stage), read)
            exact = isinstance(stage.kind, Product | Copy)
            noisy = y if exact else (y * (1 + rng.choice((-1, 1), y.shape) * 2.0**-20)).astype(np.float32)
            values[stage.site.stage] = noisy
        found = check(model, {Site(0, "layer_output"): values["layer_output"]}, "ggml")
        assert found.culprit is None
        turned.append(found.checked[0].local)
    assert max(turned) > 10 * min(turned)


def test_what_no_recorded_stage_shows_is_not_called_right():
    model = small()
    whole = dict(forward(model, TOKENS, numeric_path("f32")))
    found = check(model, some(whole, ("layer_output",)))
    assert (found.verdict, found.cells, found.covered) == ("undecided", 35, 33)
    assert "2 of 35 cells, the first is final_norm" in found.notes[-1]
    late = {site: y for site, y in whole.items() if site.layer is None or site.layer > 0}
    del late[Site(None, "embedding")]
    found = check(model, late)  # what comes before is run from the token ids
    assert (found.verdict, found.cells_in_spans, found.covered) == ("numerics_only", 17, 35) or found.verdict == "alike"
    gone = {site: y for site, y in whole.items() if site.layer != 0}
    gone[Site(0, "attention")] = whole[Site(0, "attention")][:4]
    found = check(model, gone)  # rows of four tokens, which nobody knows what to do with
    assert found.verdict == "undecided"


def test_a_mistake_within_rounding_is_told_by_how_much_of_it_is_there():
    """All of it, none of it, or a part, of which nothing can be said."""
    model = small()
    base = replace(model.config, rope_theta=1e6)
    right = some(dict(forward(model, TOKENS, numeric_path("f64"))), SUBSETS["hidden states"])
    wrong = some(dict(forward(Mixed(model, base), TOKENS, numeric_path("f64"))), SUBSETS["hidden states"])
    how = {"kept": BFLOAT16, "attention": BFLOAT16}  # as of an engine in bfloat16, whose rounding is larger
    whole = check(model, wrong, **how)
    assert (whole.verdict, whole.culprit.site, whole.culprit.cause) == (
        "divergent",
        Site(0, "q_post_rope"),
        "rope_theta",
    )
    assert whole.culprit.shown_at == Site(0, "layer_output")
    part = check(model, {site: y + 0.6 * (wrong[site] - y) for site, y in right.items()}, **how)
    assert part.verdict == "undecided"
    assert any("a rotary base of 1e+06 in layer 0 would make" in note for note in part.notes)
    assert check(model, right, **how).verdict in ("alike", "numerics_only")


@pytest.mark.parametrize("kept", ["hidden states", "module outputs", "attention outputs"])
def test_one_bias_that_is_left_out_shows_over_all_elements_though_no_element_shows_it(kept):
    model, tokens = random_model("qwen2", layers=3), tuple((37 * n + 11) % 128 for n in range(60))
    name = "model.layers.2.self_attn.k_proj.bias"
    unbiased = with_weight(model, name, 0 * model.values()[name])

    def half(_site, right, _known):
        return right.astype(np.float16).astype(np.float32)

    healthy, wrong = (
        check(model, some(run_changed(of, tokens, half), SUBSETS[kept]), tokens=tokens, kept=FLOAT16, attention=FLOAT16)
        for of in (model, unbiased)
    )
    assert (healthy.verdict, healthy.culprit) == ("numerics_only", None)
    assert wrong.verdict == "divergent"
    assert all(cell.b_off < 8 for cell in wrong.checked)
    found = wrong.culprit
    assert (found.site, found.factor, found.cause, found.tensor) == (
        Site(2, "qkv_bias"),
        "weights",
        "bias_missing",
        name,
    )
    assert wrong.others == ()


def test_logits_alone_tell_one_bias_of_one_layer_that_is_left_out():
    """There is more to be tried in so long a span than time, but this is common and tried first."""
    model, tokens = stored(plain("qwen2-mha"), FORMATS["st-f32"]), plain("qwen2-mha").tokens(12)
    name = "model.layers.1.self_attn.k_proj.bias"
    wrong = dict(forward(with_weight(model, name, 0 * model.values()[name]), tokens, numeric_path("f64")))
    found = check(model, some(wrong, SUBSETS["logits"]), tokens=tokens).culprit
    assert (found.site, found.cause, found.tensor) == (Site(1, "qkv_bias"), "bias_missing", name)


def test_logits_alone_do_not_tell_a_mistake_from_coarser_weights():
    model, values = small(), small().values()
    wrong = model
    for name in ("model.layers.0.self_attn.o_proj.weight", "model.layers.1.mlp.up_proj.weight"):  # no catalogue has it
        wrong = with_weight(wrong, name, values[name] + 0.1 * values[name][::-1])
    logits, right = (run(of, TOKENS)[Site(None, "lm_head")] for of in (wrong, model))
    found = check(model, {Site(None, "lm_head"): logits})
    assert (found.verdict, found.culprit) == ("undecided", None)
    off = np.linalg.norm(logits - right) / np.linalg.norm(right)
    assert found.notes[-1].startswith(f"lm_head is {off:.2g} of its norm off")
    assert "none of 12 products" in found.notes[-1]
    assert "Every product" not in "".join(found.notes)


@pytest.mark.parametrize("seed", [1, 2])
def test_two_additions_of_one_size_do_not_take_the_floor_of_one_token_away(seed):
    """A channel whose end is small errs by what the sum before it does, in whatever draw of the floor."""
    model, token = random_model("llama", hidden=512, seed=seed), (5,)
    halves = run_changed(model, token, lambda _site, y, _known: y.astype(np.float16).astype(np.float64), "f64")
    found = check(model, some(halves, SUBSETS["module outputs"]), "f64", token, kept=FLOAT16, attention=FLOAT16)
    assert found.culprit is None
    assert max(cell.b_off for cell in found.checked) < 3


def test_a_recorded_bias_of_a_model_without_any_is_seen():
    model = random_model("llama")
    stages = dict(forward(random_model("llama"), TOKENS, numeric_path("f32")))
    for layer in range(2):
        stages[Site(layer, "qkv_bias")] = stages[Site(layer, "qkv_matmul")] + np.float32(0.1)
    found = check(model, stages)
    assert (found.verdict, found.culprit.site, found.culprit.cause) == (
        "divergent",
        Site(0, "qkv_bias"),
        "bias_missing",
    )


def test_hidden_states_of_the_source_do_not_accuse_a_quantized_copy():
    model = random_model("qwen2")
    copy, values = rounded_to_q8_0(model), model.values()
    stages = some(dict(forward(model, TOKENS, numeric_path("f32"))), SUBSETS["hidden states"])
    assert check(copy, stages).verdict in ("quantization_only", "undecided")
    down = "model.layers.1.mlp.down_proj.weight"
    silent = with_weight(model, down, values[down] * 0)
    found = check(copy, some(dict(forward(silent, TOKENS, numeric_path("f32"))), SUBSETS["hidden states"]))
    assert (found.verdict, found.culprit.site.layer, found.culprit.cause) == ("divergent", 1, "zeroed")


def test_a_silent_attention_accuses_no_bias():
    model = random_model("qwen2")
    out = "model.layers.1.self_attn.o_proj.weight"
    silent = with_weight(model, out, model.values()[out] * 0)
    found = check(model, some(dict(forward(silent, TOKENS, numeric_path("f32"))), SUBSETS["hidden states"]))
    assert (found.verdict, found.culprit.site.layer, found.culprit.cause) == ("divergent", 1, "zeroed")
    assert (found.culprit.tensor, found.culprit.factor) in ((None, "graph"), (out, "weights"))


def test_the_answer_says_of_how_many_cells_it_speaks(tmp_path):
    model = tiny_safetensors(tmp_path / "hf", "qwen2", "F32")
    stages = run(model, TOKENS)
    for name, kept in (("hidden", ENDS), ("early", ("embedding", "layer_output"))):
        write_stage_dump(tmp_path / f"{name}.npz", some(stages, kept), HF)
    answer = bisect_pair(open_pair((tmp_path / "hf", tmp_path / "hidden.npz"), (None, None), None, None))
    assert exit_code(answer) == 0
    assert "5 of 35 cells, 30 more inside spans" in answer_text(answer, None)
    early = bisect_pair(open_pair((tmp_path / "hf", tmp_path / "early.npz"), (None, None), None, None))
    assert exit_code(early) == 2
    assert "2 of 35 cells, the first is final_norm" in reason(early)
    assert "broken" not in answer_text(early, None)
    pair = open_pair((tmp_path / "early.npz", tmp_path / "early.npz"), (None, None), None, None)
    traces = bisect_pair(pair)
    assert (traces.bisection.verdict, exit_code(traces)) == ("undecided", 2)
    assert "beyond, nothing is known" in reason(traces)


def test_the_way_to_a_stage_is_what_was_recorded_before_it():
    model = small()
    whole = dict(forward(model, TOKENS, numeric_path("f32")))
    reader = Reader(model, numeric_path("f32"), Trace(some(whole, ("attn_norm", "attn_out"))), TOKENS)
    ways = {stage.site: stage.span for stage in recorded_stages(reader)}
    own = ways[Site(1, "attn_out")]
    assert set(own.start) == {Site(1, "attn_norm")}
    inside = ("qkv_matmul", "qkv_bias", "q_post_rope", "k_post_rope", "attention")
    assert own.inside == {Site(1, stage) for stage in inside}
    before = ways[Site(1, "attn_norm")]
    assert set(before.start) == {Site(0, "attn_out")}  # and the embedding, from the token ids
    assert Site(None, "embedding") in before.inside
    assert np.array_equal(own.run(reader).values, whole[Site(1, "attn_out")])


def kept_in_half(model):
    """A run of which every stage is kept in half precision, and infinity where that is too small."""
    with np.errstate(all="ignore"):
        stages: dict = {}
        graph = Graph.of(model)
        for stage in graph.stages():
            read = {role: stages[place] for role, place in graph.reads(stage).items()}
            at = At(model, numeric_path("f64"), TOKENS, stage)
            stages[stage.site] = evaluate(at, read).astype(np.float16).astype(np.float64)
        return stages


@pytest.mark.parametrize("kept", ["hidden states", "module outputs"])
def test_a_number_too_large_between_recorded_stages_is_an_overflow_where_it_is(kept):
    up, down = "model.layers.0.mlp.up_proj.weight", "model.layers.0.mlp.down_proj.weight"
    values = small().values()
    loud, quiet = values[up].copy(), values[down].copy()
    loud[11] *= 1e7
    quiet[:, 11] /= 1e7
    model = with_weight(with_weight(small(), up, loud), down, quiet)
    stages = kept_in_half(model)
    assert np.isfinite(literal(model)[Site(0, "layer_output")]).all()
    assert not np.isfinite(stages[Site(0, "layer_output")]).all()
    found = check(model, some(stages, SUBSETS[kept]), "f64", kept=FLOAT16)
    named = found.culprit
    assert (named.site, named.factor, named.cause) == (Site(0, "ffn_up"), "numerics", "overflow")
    assert named.shown_at.layer == 0
    assert not found.others


@pytest.mark.parametrize("kept", ["hidden states", "module outputs"])
def test_one_huge_channel_does_not_make_the_rounding_of_the_others_a_mistake(kept):
    down = "model.layers.0.mlp.down_proj.weight"
    rows = small().values()[down].copy()
    rows[9] *= 20000 / np.abs(literal(small())[Site(0, "ffn_out")][:, 9]).max()
    model = with_weight(small(), down, rows)
    stages = kept_in_half(model)
    assert np.isfinite(stages[Site(None, "lm_head")]).all()
    assert np.abs(stages[Site(0, "layer_output")]).max() > 1e4
    found = check(model, some(stages, SUBSETS[kept]), "f64", kept=FLOAT16)
    assert found.culprit is None
    assert found.verdict in ("numerics_only", "undecided")


def test_a_layer_that_is_left_out_is_told_by_what_it_gives_on():
    stages = literal(small())
    gone = {site: values for site, values in stages.items() if site.stage in SUBSETS["hidden states"]}
    gone[Site(1, "layer_output")] = stages[Site(0, "layer_output")]
    del gone[Site(None, "final_norm")], gone[Site(None, "lm_head")]
    found = check(small(), gone, "f64").culprit
    assert (found.site.layer, found.cause) == (1, "residual_missing")
    assert "layer_input is returned instead of the sum" in found.explanation
