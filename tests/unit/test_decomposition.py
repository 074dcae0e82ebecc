"""What a cell inherits and what it adds make up what is observed; the floor is what right copies cost, and no more."""

from dataclasses import replace

import numpy as np
import pytest

from kernels.graph import At, Stage
from kernels.kinds.attention import Attention
from kernels.kinds.product import Product
from kernels.matmul.activations import Codes, quantize_q8_0, quantize_q8_k, quantize_q8_k_apr
from kernels.models import Graph
from kernels.paths import numeric_path
from kernels.stages import Site
from kernels.weight import TensorType
from store.open import open_artifact
from tests.artifacts import tiny_safetensors
from tests.gguf_files import write_gguf
from tests.memory_model import random_model
from tests.unit.test_question import rounded_to_q8_0
from workbench.bisect.models.bisection import bisect_artifacts, walk
from workbench.bisect.models.cell import Cell, Side
from workbench.bisect.models.views import views
from workbench.bisect.weights.steps import Stored
from workbench.cells.flips import flips
from workbench.demo import MODEL, make_copy
from workbench.pair.pair import open_pair

IDS = (482, 803, 10, 67, 14, 310, 307)
RIGHT, APR = open_artifact(MODEL), numeric_path("apr")

PRODUCTS = ("qkv_matmul", "attn_out", "ffn_gate", "ffn_up", "ffn_out", "lm_head")


@pytest.fixture(scope="module")
def faulty(tmp_path_factory):
    """Copies of the shipped model, one for every mistake that is asked for."""
    folder = tmp_path_factory.mktemp("faulty")

    def copy(fault):
        if not (folder / f"{fault}.apr").exists():
            make_copy(folder / f"{fault}.apr", fault)
        return folder / f"{fault}.apr"

    return copy


def run_again(a, b, tokens=IDS):
    return {checked.cell.site: checked for checked in views(open_pair((a, b), (None, None), tokens, None))}


def test_tokens_that_differ_unlike_the_others_are_looked_at_in_float64():
    local = np.ones(60)
    local[[37, 41, 43]] = np.inf, 1e4, 50.0
    stage = Stage(Site(0, "ffn_out"), Product(), 8, (), ())
    cell = Cell(stage, None, None, tuple(range(100)), {}, {}, None, None)
    assert cell.telling(20, 60, local).tolist() == [6, 19, 32, 37, 41, 45, 58]  # every 13th of the cell, and two


def test_inherited_and_local_make_up_what_is_observed_at_every_cell(faulty):
    a, b = Side(RIGHT, numeric_path("ggml")), Side(open_artifact(faulty("scaled")), APR)
    again = run_again(MODEL, faulty("scaled"))
    for cell in walk(a, b, IDS):
        crossed, own = (cell.run(cell.b, x).astype(np.float64) for x in (cell.inputs_a, cell.inputs_b))
        here = cell.run(cell.a).astype(np.float64)
        observed = cell.y_b.astype(np.float64) - cell.y_a
        inherited, local = own - crossed, crossed - here
        size = np.linalg.norm(observed)
        assert np.linalg.norm(inherited + local - observed) <= 1e-6 * size, cell.site
        found, norm = again.pop(cell.site).cell, np.linalg.norm(cell.y_b.astype(np.float64))
        figures = [np.linalg.norm(part) / norm for part in (observed, inherited, local)]
        assert [found.observed, found.inherited, found.local] == pytest.approx(figures, rel=1e-6)
        if size:
            assert found.inherited_share + found.local_share == pytest.approx(1, abs=1e-6)
    assert not again


@pytest.mark.parametrize(("fault", "times"), [("permuted_rope", 300), ("corrupted_blocks", 60), ("wrong_layer", 150)])
def test_a_wrong_weight_stands_out_from_a_floor_that_it_is_not_part_of(fault, times, faulty):
    marked = {site: checked for site, checked in run_again(MODEL, faulty(fault)).items() if checked.beyond_floor}
    (checked,) = marked.values()
    assert checked.floors > times
    assert checked.cell.noise < 2 * checked.cell.floor


def test_right_copies_read_their_floor_and_are_not_marked(faulty, tmp_path):
    assert not any(checked.beyond_floor or checked.unforeseen for checked in run_again(MODEL, faulty(None)).values())
    tiny_safetensors(tmp_path / "hf", "qwen2", "F32")
    write_gguf(tmp_path / "q8.gguf", rounded_to_q8_0(random_model("qwen2")))
    found = run_again(tmp_path / "hf", tmp_path / "q8.gguf", (3, 1, 4, 1, 5, 9, 2))
    products = {site: checked for site, checked in found.items() if site.stage in PRODUCTS}
    assert len(products) == 2 * 5 + 1
    for site, checked in products.items():
        assert 0.8 < checked.floors < 1.2, site
        assert checked.cell.b_off == pytest.approx(1, abs=0.2)
    assert not any(checked.beyond_floor or checked.unforeseen for checked in found.values())


def test_noise_is_measured_with_one_sides_weights_on_both_paths(faulty):
    found = run_again(MODEL, faulty("gate_up_swapped"))
    for cell in walk(Side(RIGHT, numeric_path("ggml")), Side(open_artifact(faulty("gate_up_swapped")), APR), IDS):
        other = np.asarray(cell.run(replace(cell.a, path=APR)), np.float64)
        expected = np.linalg.norm(other - cell.y_a) / np.linalg.norm(cell.y_b.astype(np.float64))
        assert found[cell.site].cell.noise == pytest.approx(expected, rel=1e-6, abs=1e-12)


def test_two_faults_that_cancel_in_part_are_both_found(tmp_path):
    """The attention output doubled and its projection halved leave what follows nearly as it was."""
    model = random_model("llama", layers=4)
    names = "model.layers.1.mlp.up_proj.weight", "model.layers.1.mlp.down_proj.weight"
    weights = dict(model.weights)
    for name, factor in zip(names, (1.25, 0.8), strict=True):
        values = weights[name].rows.view(np.float32) * np.float32(factor)
        weights[name] = replace(weights[name], stored=values.view(np.uint8))
    f32, told = numeric_path("f32"), []
    found = bisect_artifacts(
        Side(model, f32), Side(replace(model, weights=weights), f32), (3, 1, 4), lambda *at: told.append(at)
    )
    culprits = (found.culprit, *found.others)
    assert [(culprit.tensor, culprit.cause) for culprit in culprits] == [(name, "scaled") for name in names]
    assert len(found.checked) < found.cells == len(Graph.of(model).sites()) == 4 * 15 + 3
    assert told[: len(found.checked)] == [(n, found.cells, str(cell.site)) for n, cell in enumerate(found.checked)]


@pytest.mark.parametrize("rounded", [quantize_q8_0, quantize_q8_k, quantize_q8_k_apr])
def test_flips_are_counted_with_their_distance_from_the_boundary(rounded):
    x = np.linspace(-1, 1, 512, dtype=np.float32).reshape(2, 256)
    x[:, ::32] = 1.27  # so that a step is 0.01
    x[0, 5], x[1, 7] = 0.40499, 0.30
    y = x.copy()
    y[0, 5], y[1, 7] = 0.40501, 0.32
    found = flips(rounded(x), rounded(y), x, y)
    assert (found.flipped, found.of) == (2, 512)
    assert found.largest == pytest.approx(1.5, abs=1e-3)  # from 30 to the boundary of 32 at 31.5
    assert found.median == pytest.approx((0.001 + 1.5) / 2, abs=1e-3)
    assert flips(rounded(x), None, x, y) is None


def test_flips_do_not_see_the_sign_of_a_scale():
    x = np.linspace(-2, 1, 256, dtype=np.float32).reshape(1, 256)
    ggml, apr = quantize_q8_k(x), quantize_q8_k_apr(x)
    assert np.sign(ggml.scales) == np.sign(apr.scales)  # the largest value is negative
    mirrored = Codes("any", -ggml.codes, -ggml.scales)
    assert flips(ggml, mirrored, x, x) == (0, 256, None, None)
    assert flips(ggml, apr, x, x).flipped == 0


def test_the_floor_of_a_rotation_grows_with_the_position():
    """A rounded angle is off by 2^-24 of itself, which at position 2000 is much more than at position 2."""
    model, tokens = random_model("qwen2"), tuple(n % 50 for n in range(1000))
    at_end = {}
    for cell in walk(Side(model, numeric_path("ggml")), Side(model, numeric_path("f64")), tokens):
        if cell.site in (Site(0, "q_post_rope"), Site(0, "k_post_rope")):
            at = cell.a.at(cell.site, tokens)
            error = np.linalg.norm(cell.y_a - cell.run(cell.a.exact()))
            at_end[cell.site] = error / at.kind.rounding(at, cell.inputs_a, cell.y_a)
        if cell.site.stage == "attention":
            break
    assert all(0.3 < times < 1 for times in at_end.values()), at_end


def test_errors_within_the_formats_that_all_point_one_way_are_an_unknown_mistake(tmp_path):
    """Every value is within its step and no factor is left, but rounding never sums up like that."""
    source, name, tokens = random_model("qwen2", hidden=256), "model.layers.1.mlp.up_proj.weight", (3, 1, 4, 1, 5, 9, 2)
    rounded = rounded_to_q8_0(source)
    a, b = Side(source, numeric_path("f32")), Side(rounded, numeric_path("f32"))
    assert bisect_artifacts(a, b, tokens).verdict == "quantization_only"
    x = next(cell.inputs_a["x"] for cell in walk(a, b, tokens) if cell.site == Site(1, "ffn_up"))
    stored = Stored.of(rounded.weights[name])
    values = stored.values + np.float32(0.7) * stored.width * np.sign(x[3])
    weight = replace(source.weights[name], stored=np.ascontiguousarray(values, np.float32).view(np.uint8))
    leaning = Side(replace(source, weights=source.weights | {name: weight}), numeric_path("f32"))
    culprit = bisect_artifacts(leaning, b, tokens[3:4]).culprit
    assert (culprit.site, culprit.factor, culprit.cause) == (Site(1, "ffn_up"), "weights", "unknown")
    assert "their errors add up" in culprit.explanation


def test_what_is_not_finite_on_both_sides_alike_is_no_difference():
    model, f32 = random_model("llama"), numeric_path("f32")
    name = "model.layers.0.mlp.gate_proj.weight"
    rows = model.weights[name].rows.view(np.float32).copy()
    rows[3, 5] = np.nan
    broken = replace(model, weights=model.weights | {name: replace(model.weights[name], stored=rows.view(np.uint8))})
    assert bisect_artifacts(Side(broken, f32), Side(broken, f32), (3, 1, 4)).verdict == "alike"
    for pair in ((model, broken), (broken, model)):
        culprit = bisect_artifacts(*(Side(side, f32) for side in pair), (3, 1, 4)).culprit
        assert (culprit.site, culprit.tensor) == (Site(0, "ffn_gate"), name)


def seen_in_float64(q, k, v, how):
    """Causal attention, head by head and token by token."""
    heads = lambda x: np.float64(x).reshape(len(x), -1, how.head_dim)  # noqa: E731
    q, k, v = heads(q), heads(k), heads(v)
    out = np.empty(q.shape)
    for token, head in np.ndindex(q.shape[:2]):
        shared = head // (how.heads // how.kv_heads)
        shares = np.exp(k[: token + 1, shared] @ q[token, head] * how.scale)
        out[token, head] = shares @ v[: token + 1, shared] / shares.sum()
    return out.reshape(len(out), -1)


@pytest.mark.parametrize(
    "words", ["k=f16", "v=f16", "k=f16,v=f16", "flash", "flash,batch=48", "flash,batch=64", "flash,batch=100"]
)
def test_the_floor_of_attention_in_halves_is_what_its_own_roundings_cost(words):
    how = Attention(heads=4, kv_heads=2, head_dim=32, scale=32**-0.5, value_start=0)
    rng = np.random.default_rng(1)
    q, k, v = (rng.normal(0.5, 1, (100, heads * 32)).astype(np.float32) for heads in (4, 2, 2))
    at = At(RIGHT, numeric_path(f"ggml:{words}"), tuple(range(100)), Stage(Site(0, "attention"), how, 128))
    out = how.evaluate(at, {"q": q, "k": k, "v": v})
    error = np.linalg.norm(out - seen_in_float64(q, k, v, how))
    floor = how.rounding(at, {"q": q, "k": k, "v": v}, out)
    assert 0.2 * floor < error < 1.05 * floor


def test_the_floor_of_a_block_with_a_least_value_knows_that_sums_are_rounded_too():
    model, tokens = random_model("llama", TensorType.Q4_1, layers=1, hidden=256, ffn=512), tuple(range(3, 20))
    for cell in walk(Side(model, numeric_path("ggml")), Side(model, numeric_path("f64")), tokens):
        if cell.site.stage in PRODUCTS:
            at = cell.a.at(cell.site, tokens)
            error = np.linalg.norm(cell.y_a - cell.run(cell.a.exact()))
            floor = at.kind.rounding(at, cell.inputs_a, cell.y_a)
            assert error == pytest.approx(floor, rel=1e-3), cell.site
