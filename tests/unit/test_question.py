"""Whatever a pair is made of, the right question is asked of it, and told in terms of A and B as they were given."""

from dataclasses import replace

import gguf
import numpy as np
import pytest

from kernels.errors import WorkbenchError
from kernels.forward import forward
from kernels.ops import silu
from kernels.paths import numeric_path
from kernels.precision import FLOAT32
from kernels.rows.dequantize import dequantize
from kernels.stages import Site
from kernels.weight import TensorType, Weight
from store.open import open_artifact
from store.traces.open import open_trace
from tests.artifacts import tiny_gguf, tiny_safetensors
from tests.foreign_dumps import run, write_aprt, write_llama_dump, write_stage_dump
from tests.gguf_files import write_gguf
from tests.memory_model import random_model, spine
from workbench.bisect.answer import answer_text, exit_code, reason
from workbench.bisect.models.detail import cell_detail
from workbench.bisect.models.views import views
from workbench.bisect.pair import bisect_pair
from workbench.pair.engines import arithmetic_of
from workbench.pair.kv_cache import KvCache
from workbench.pair.pair import open_pair

Q8_0 = gguf.GGMLQuantizationType.Q8_0
TOKENS = (3, 1, 4, 1, 5, 9, 2)
HF = {"tokens": list(TOKENS), "dtype": "float32", "transformers": "5.0"}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with one model as SafeTensors and as GGUF, and traces of it: right and wrong ones."""
    folder = tmp_path_factory.mktemp("pair")
    model = tiny_safetensors(folder / "hf", "qwen2", "F32")
    right = run(model, TOKENS)
    write_stage_dump(folder / "right.npz", right, HF)
    write_stage_dump(folder / "later.npz", run(model, (*TOKENS, 8)), HF | {"tokens": [*TOKENS, 8]})
    write_stage_dump(folder / "unknown.npz", right, {"tokens": list(TOKENS), "engine": "mlx"})
    write_stage_dump(folder / "bug.npz", with_gelu(model, right), HF)
    write_aprt(folder / "aprt", run(model, TOKENS, "apr"))
    write_llama_dump(folder / "llama.npz", model, run(model, TOKENS, "ggml"), TOKENS)
    logits = right[Site(None, "lm_head")][-1:]
    write_stage_dump(folder / "logits.npz", {Site(None, "lm_head"): logits}, HF)
    return folder


def with_gelu(model, stages):
    """The stages of an engine that has quick GELU in place of SiLU in layer 1 alone."""
    gate = stages[Site(1, "ffn_gate")]
    wrong = gate / (1 + np.exp(np.float32(-1.702) * gate))
    found = dict(stages)
    found[Site(1, "ffn_silu")] = wrong
    found[Site(1, "ffn_swigl")] = wrong * stages[Site(1, "ffn_up")]
    assert np.abs(wrong - silu(gate)).max() > 1e-3
    down = numeric_path("f32").matmul(found[Site(1, "ffn_swigl")], model.weight("model.layers.1.mlp.down_proj.weight"))
    found[Site(1, "ffn_out")] = down
    found[Site(1, "post_ffn_residual")] = stages[Site(1, "post_attn_residual")] + down
    found[Site(1, "layer_output")] = found[Site(1, "post_ffn_residual")]
    after = dict(
        forward(model, TOKENS, numeric_path("f32"), 2, {Site(1, "layer_output"): found[Site(1, "layer_output")]})
    )
    return found | after


def ask(a, b, asked=(None, None), tokens=None):
    return bisect_pair(open_pair((a, b), asked, tokens, None))


def test_two_models(place, tmp_path):
    answer = ask(place / "hf", place / "hf", tokens=TOKENS)
    assert answer.bisection.verdict == "alike"
    assert answer.paths == ("f32", "f32")
    assert ask(place / "hf", place / "hf", ("f32", "ggml"), TOKENS).bisection.verdict == "numerics_only"
    tiny_safetensors(tmp_path / "wider", "qwen2", "F32", ffn=128)
    unlike = ask(place / "hf", tmp_path / "wider", tokens=TOKENS)
    assert unlike.bisection.verdict == "uncomparable"
    assert exit_code(unlike) == 2
    assert "intermediate_size is 96 in A and 128 in B" in reason(unlike)


@pytest.mark.parametrize("name", ["right.npz", "llama.npz"])
def test_a_healthy_trace_in_either_order(name, place):
    for pair in ((place / "hf", place / name), (place / name, place / "hf")):
        answer = ask(*pair)
        assert answer.bisection.verdict in ("alike", "numerics_only")
        assert answer.pair.tokens.ids == TOKENS
        assert exit_code(answer) == 0


@pytest.mark.parametrize("order", [1, -1])
def test_a_faulty_trace_is_told_by_the_side_it_is_on(order, place):
    answer = ask(*(place / "hf", place / "bug.npz")[::order])
    found = answer.bisection
    assert exit_code(answer) == 1
    assert found.culprit.site == Site(1, "ffn_silu")
    assert (found.culprit.factor, found.culprit.cause) == ("graph", "activation_function")
    side = "B" if order == 1 else "A"
    assert found.culprit.explanation.startswith(f"in {side}, the transformers trace: ")
    off = next(cell for cell in found.checked if cell.site == found.culprit.site)
    assert (off.b_off if order == 1 else off.a_off) > 100
    assert (off.a_off if order == 1 else off.b_off) == 0
    assert answer_text(answer, None).startswith("DIVERGENT at layer 1 ffn_silu: activation_function (graph).")


def test_apr_folders_have_their_own_arithmetic_and_need_tokens(place):
    answer = ask(place / "aprt", place / "hf", tokens=TOKENS)
    assert answer.paths == ("apr", "apr")
    assert answer.bisection.verdict in ("alike", "numerics_only")
    assert any("token ids are not there" in note for note in answer.bisection.notes)
    with pytest.raises(WorkbenchError, match="give --tokens"):
        ask(place / "aprt", place / "hf")


def test_another_path_for_the_model_is_numerics(place):
    answer = ask(place / "hf", place / "right.npz", ("f64", None))
    assert answer.paths == ("f64", "f32")
    assert answer.bisection.verdict == "numerics_only"
    assert any("path f32, and not with f64" in note for note in answer.bisection.notes)
    with pytest.raises(WorkbenchError, match=r"right\.npz is a recorded trace; leave out --path-b"):
        ask(place / "hf", place / "right.npz", (None, "f32"))


def test_an_unknown_engine_is_not_guessed(place):
    with pytest.raises(WorkbenchError, match=r"engine that is not known \(mlx\); say with --path-a or --path-b"):
        ask(place / "hf", place / "unknown.npz")
    answer = ask(place / "hf", place / "unknown.npz", ("f32", None))
    assert answer.bisection.verdict in ("alike", "numerics_only")
    assert any("is your word" in note for note in answer.bisection.notes)


def rounded_to_q8_0(model):
    """The model with all matrices as Q8_0."""
    weights = {
        name: weight
        if len(weight.shape) == 1
        else Weight(name, TensorType.Q8_0, weight.shape, gguf.quants.quantize(dequantize(weight), Q8_0))
        for name, weight in model.weights.items()
    }
    return replace(model, weights=weights)


def test_a_trace_of_the_source_does_not_accuse_its_quantized_copy(place, tmp_path):
    source = random_model("qwen2")
    write_gguf(tmp_path / "q8.gguf", rounded_to_q8_0(source))
    found = ask(tmp_path / "q8.gguf", place / "right.npz").bisection
    assert (found.verdict, found.culprit, found.first_divergent) == ("quantization_only", None, None)
    assert any("before they were rounded to Q8_0: 12 of 12 products" in note for note in found.notes)
    bug = ask(tmp_path / "q8.gguf", place / "bug.npz").bisection
    assert (bug.verdict, bug.culprit.site, bug.culprit.cause) == (
        "divergent",
        Site(1, "ffn_silu"),
        "activation_function",
    )
    assert bug.first_divergent == Site(1, "ffn_silu")


def test_a_wrong_weight_is_not_taken_for_quantization(tmp_path):
    source = random_model("qwen2")
    write_gguf(tmp_path / "q8.gguf", rounded_to_q8_0(source))
    name = "model.layers.1.mlp.up_proj.weight"
    values = dequantize(source.weight(name)) * np.float32(1.05)
    wrong = replace(source, weights=source.weights | {name: as_float32(name, values)})
    write_stage_dump(tmp_path / "wrong.npz", run(wrong, TOKENS), HF)
    found = ask(tmp_path / "q8.gguf", tmp_path / "wrong.npz").bisection
    assert (found.verdict, found.culprit.site, found.culprit.tensor) == ("divergent", Site(1, "ffn_up"), name)


def test_a_trace_of_a_coarser_copy_is_told_by_its_rounding(place, tmp_path):
    write_stage_dump(tmp_path / "q8.npz", run(rounded_to_q8_0(random_model("qwen2")), TOKENS), HF)
    found = ask(place / "hf", tmp_path / "q8.npz").bisection
    assert (found.verdict, found.culprit) == ("quantization_only", None)
    assert any("weights, which reproduce it: " in note and "rounded to Q8_0" in note for note in found.notes)


def test_a_trace_of_a_coarser_copy_of_unknown_format_proves_nothing(place, tmp_path):
    model, rng = random_model("qwen2"), np.random.default_rng(5)
    for name, weight in model.weights.items():
        if len(weight.shape) == 2:
            values = dequantize(weight) * rng.normal(1, 0.01, weight.shape).astype(np.float32)
            model = replace(model, weights=model.weights | {name: as_float32(name, values)})
    write_stage_dump(tmp_path / "coarse.npz", run(model, TOKENS), HF)
    answer = ask(place / "hf", tmp_path / "coarse.npz")
    assert (answer.bisection.verdict, answer.bisection.culprit) == ("undecided", None)
    assert "as in a copy with coarser weights" in reason(answer)


def as_float32(name, values):
    return Weight(name, TensorType.F32, values.shape, values.view(np.uint8).reshape(len(values), -1))


def test_a_trace_of_another_file_says_so(place, tmp_path):
    sha256 = open_artifact(place / "hf").sha256()
    stages = run(open_artifact(place / "hf"), TOKENS)
    for recorded, said in ((sha256, False), ("0" * 64, True)):
        write_stage_dump(tmp_path / "t.npz", stages, HF | {"model_sha256": recorded})
        notes = ask(place / "hf", tmp_path / "t.npz").bisection.notes
        assert any("recorded from another file (sha256 0000000000000000…)" in note for note in notes) == said


def test_what_does_not_belong_together_is_not_compared(place, tmp_path):
    answer = ask(place / "hf", place / "right.npz", tokens=(*TOKENS[:-1], 7))
    assert answer.bisection.verdict == "uncomparable"
    assert "token 2 at position 6, not 7" in reason(answer)
    tiny_safetensors(tmp_path / "other", "qwen2", "F32", hidden=32)
    assert ask(tmp_path / "other", place / "right.npz").bisection.verdict == "uncomparable"


def test_two_traces_are_measured_and_no_more(place):
    same = ask(place / "right.npz", place / "right.npz")
    assert (same.bisection.verdict, same.compared) == ("alike", 35)
    answer = ask(place / "right.npz", place / "bug.npz")
    found = answer.bisection
    assert (found.verdict, found.culprit, found.checked) == ("undecided", None, ())
    assert found.first_divergent == Site(1, "ffn_silu")
    assert "cannot be known" in " ".join(found.notes)
    assert "layer 1 ffn_silu is the first cell that differs" in reason(answer)
    assert exit_code(answer) == 2
    unlike = ask(place / "right.npz", place / "later.npz")
    assert unlike.bisection.verdict == "uncomparable"
    assert "A has 7 tokens and B has 8" in reason(unlike)


def test_a_trace_without_shapes_is_measured_by_its_tokens(place):
    answer = ask(place / "aprt", place / "right.npz")
    assert answer.bisection.verdict == "undecided"
    assert answer.compared == 34  # of lm_head the folder has one token, the dump all
    assert any("1 cells hold unlike populations" in note for note in answer.bisection.notes)
    assert ask(place / "aprt", place / "aprt", tokens=TOKENS).bisection.verdict == "alike"
    assert ask(place / "aprt", place / "aprt").bisection.verdict == "uncomparable"


def test_logits_alone_are_the_end_of_the_whole_model(place, tmp_path):
    model = open_artifact(place / "hf")
    ours = run(model, TOKENS, "ggml")[Site(None, "lm_head")][-1]
    np.array(TOKENS, "<i4").tofile(tmp_path / "llamacpp-m-tokens.bin")
    ours.astype("<f4").tofile(tmp_path / "llamacpp-m.bin")
    same = ask(place / "hf", tmp_path / "llamacpp-m.bin").bisection
    assert (same.verdict, same.cells_in_spans, same.cells) == ("alike", 34, 35)
    (ours * np.float32(1.01)).astype("<f4").tofile(tmp_path / "llamacpp-m.bin")
    answer = ask(tmp_path / "llamacpp-m.bin", place / "hf")  # attention in half precision, for nothing says otherwise
    assert (answer.bisection.verdict, answer.bisection.cells_in_spans) == ("undecided", 0)
    assert "Nothing is known of 34 of 35 cells, the first is embedding" in reason(answer)
    (ours * np.float32(2)).astype("<f4").tofile(tmp_path / "llamacpp-m.bin")
    wrong = ask(place / "hf", tmp_path / "llamacpp-m.bin").bisection
    assert (wrong.verdict, wrong.culprit.site, wrong.culprit.cause) == ("divergent", Site(None, "lm_head"), "scaled")
    assert ask(place / "hf", place / "logits.npz").bisection.verdict == "uncomparable"  # of which token it is not said


def test_settings_of_the_engine_are_understood(place, tmp_path):
    clean = open_trace(place / "llama.npz")
    assert arithmetic_of(clean).attention == FLOAT32
    for changed in (
        {"flash_attention": "on"},
        {"type_k": "f16"},
    ):
        found = arithmetic_of(replace(clean, observed={**clean.observed, **changed}))
        assert found.attention.unit == 2.0**-11
        assert found.kept == FLOAT32
        assert "half precision" in found.notes[0]
    coarse = arithmetic_of(replace(clean, observed={**clean.observed, "type_v": "q8_0"}))
    assert coarse.cache == KvCache("f32", "q8_0")
    assert "what its cache keeps of K and V only: the KV cache was f32 and q8_0" in coarse.notes[0]
    assert arithmetic_of(replace(clean, observed={}, settings={"flash": [1], "kv": {}})).attention.unit > 2.0**-8
    silent = replace(clean, observed={}, settings={})
    assert "whether flash attention was on is not there" in arithmetic_of(silent).notes[0]
    right = open_trace(place / "right.npz")
    paths = {
        dtype: arithmetic_of(replace(right, settings={"dtype": dtype}))
        for dtype in ("float64", "float32", "float16", "bfloat16")
    }
    assert [found.path.name for found in paths.values()] == ["f64", "f32", "f32", "f32"]
    assert paths["bfloat16"].kept.unit == 2.0**-9
    assert "bfloat16" in paths["bfloat16"].notes[0]
    for dtype in ("int8", ["int8"]):
        with pytest.raises(WorkbenchError, match=r"int8.*, which cannot be checked"):
            arithmetic_of(replace(right, settings={"dtype": dtype}))


def test_a_cell_is_taken_apart_on_either_kind_of_side(place, tmp_path):
    def detail(a, b, site, tokens=TOKENS):
        return cell_detail(open_pair((a, b), (None, None), tokens, None), site)

    forward_way = detail(place / "hf", place / "bug.npz", Site(1, "ffn_silu"))
    backward = detail(place / "bug.npz", place / "hf", Site(1, "ffn_silu"))
    assert np.array_equal(forward_way.breakdown.error, -backward.breakdown.error)
    assert forward_way.breakdown.error.shape == (7, 96)
    assert all(
        way.forecast.marked and way.forecast.observed > 100 * way.forecast.predicted for way in (forward_way, backward)
    )
    assert "which super-block" in detail(place / "hf", place / "bug.npz", Site(1, "ffn_out")).unknown[0]
    after = detail(place / "bug.npz", place / "hf", Site(1, "ffn_out")).forecast
    assert not after.marked
    assert after.observed == pytest.approx(after.predicted, rel=1e-4)
    tiny_gguf(tmp_path / "m.gguf", "qwen2", "Q8_0")
    models = detail(tmp_path / "m.gguf", tmp_path / "m.gguf", Site(1, "ffn_gate"))
    assert not models.breakdown.error.any()
    assert models.breakdown.blocks.shape == (96, 1)
    assert not models.forecast.marked
    for a, b, site, words in (
        ("hf", "bug.npz", Site(9, "ffn_silu"), "does not hold all tokens of layer 9 ffn_silu"),
        ("hf", "hf", Site(9, "ffn_silu"), "neither A nor B has a stage layer 9 ffn_silu"),
        ("bug.npz", "right.npz", Site(1, "ffn_silu"), "no cell can be evaluated"),
    ):
        with pytest.raises(WorkbenchError, match=words):
            detail(place / a, place / b, site)


def test_inputs_that_a_trace_lacks_are_computed_from_those_it_has(place, tmp_path):
    """llama.cpp never stores silu; swigl is then checked on silu of the recorded gate."""
    pair = open_pair((place / "hf", place / "llama.npz"), (None, None), None, None)
    assert np.abs(cell_detail(pair, Site(1, "ffn_swigl")).breakdown.error).max() < 1e-6
    for site in (Site(0, "attn_norm"), Site(1, "attn_norm"), Site(1, "attention"), Site(None, "final_norm")):
        assert np.abs(cell_detail(pair, site).breakdown.error).max() < 1e-6


def test_progress_is_told(place):
    seen = []
    bisect_pair(open_pair((place / "hf", place / "hf"), (None, None), TOKENS, None), lambda *facts: seen.append(facts))
    assert seen == [(n, 35, str(site)) for n, site in enumerate(spine(2))]
    seen.clear()
    bisect_pair(open_pair((place / "hf", place / "right.npz"), (None, None), None, None), lambda *f: seen.append(f))
    assert (0, 35, "embedding") in seen


def test_the_map_marks_what_is_wrong_in_a_trace_and_not_what_rounding_of_weights_explains(place, tmp_path):
    write_gguf(tmp_path / "q8.gguf", rounded_to_q8_0(random_model("qwen2")))
    for model, trace, wrong in (
        (tmp_path / "q8.gguf", "right.npz", []),
        (place / "hf", "right.npz", []),
        (place / "hf", "bug.npz", [Site(1, "ffn_silu")]),
        (tmp_path / "q8.gguf", "bug.npz", [Site(1, "ffn_silu")]),
    ):
        cells = list(views(open_pair((model, place / trace), (None, None), None, None)))
        assert [checked.cell.site for checked in cells if checked.beyond_floor] == wrong
        assert {checked.cell.inherited for checked in cells} == {None}
