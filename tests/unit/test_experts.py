"""Layers with experts: choosing, slices of stacked tensors, and two sides that choose otherwise."""

from dataclasses import replace

import numpy as np
import pytest

from kernels.errors import WorkbenchError
from kernels.experts import CHOICE, PAIRS
from kernels.forward import evaluate, forward
from kernels.graph import At
from kernels.kinds.choice import LEAST, Choice, chosen
from kernels.models import Graph
from kernels.paths import numeric_path
from kernels.precision import FLOAT32
from kernels.stages import Site
from store.errors import StoreError
from store.open import open_artifact, open_model
from store.traces.arrays import StoredArray
from store.traces.llama_graph import Graph as LlamaGraph
from store.traces.llama_graph import Node
from tests.artifacts import tiny_model
from tests.gguf_files import gguf_architecture, write_gguf
from tests.hf_files import entries_of, float_tensor, write_safetensors, write_safetensors_entries
from tests.memory_model import MemoryModel, place
from workbench.bisect.models.bisection import bisect_artifacts, walk
from workbench.bisect.models.cell import Side
from workbench.cells.compare import StageTensor, compare_stage
from workbench.cells.routing import Common, Routes

TOKENS = (3, 17, 90, 4, 55, 21, 8, 60, 111)
F32 = numeric_path("f32")


class Watched(MemoryModel):
    """Keeps the names of the tensors that were asked for."""

    def __init__(self, model: MemoryModel) -> None:
        super().__init__(model.config, model.weights)
        self.asked: set[str] = set()

    def weight(self, name):
        self.asked.add(name)
        return super().weight(name)


def nudged(model: MemoryModel, by: float) -> MemoryModel:
    """The same model with a little more in every router."""
    rng, routers = np.random.default_rng(0), [name for name in model.weights if name.endswith("mlp.gate.weight")]
    values = model.values()
    more = {
        name: float_tensor(name, values[name] + by * rng.standard_normal(values[name].shape).astype(np.float32))
        for name in routers
    }
    return replace(model, weights=model.weights | more)


def test_experts_that_no_token_chose_are_not_read():
    model = Watched(tiny_model("qwen3moe", hidden=64, seed=4))
    run = dict(forward(model, TOKENS[:1], F32))
    for layer in range(2):
        counts = run[Site(layer, CHOICE)][0]
        assert np.count_nonzero(counts) == 3
        for number, count in enumerate(counts):
            names = {f"model.layers.{layer}.mlp.experts.{number}.{part}_proj.weight" for part in ("gate", "up", "down")}
            assert names <= model.asked if count else not names & model.asked


def choice_at(model: MemoryModel, **changes: object) -> At:
    at = place(model, numeric_path("f64"), TOKENS, 0, CHOICE)
    return at.doing(replace(at.kind, **changes))


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"renormalised": False},
        {"scoring": "sigmoid", "scale": 2.5},
        {"scoring": "sigmoid", "renormalised": False},
        {"scoring": "softmax of chosen", "renormalised": False},
        {"groups": 3, "groups_used": 2, "used": 2},
    ],
)
def test_the_slope_of_a_choice(changes):
    at, rng = choice_at(tiny_model("qwen3moe"), **changes), np.random.default_rng(1)
    x, dx = {"x": rng.standard_normal((9, 6))}, {"x": rng.standard_normal((9, 6))}
    ahead, back = (evaluate(at, {"x": x["x"] + way * dx["x"]}) for way in (1e-6, -1e-6))
    slope = at.kind.derivative(at, x, dx)
    assert np.linalg.norm(slope - (ahead - back) / 2e-6) < 1e-7 * np.linalg.norm(slope)


def test_groups_that_are_not_among_the_best_give_no_expert():
    at = choice_at(tiny_model("qwen3moe"), groups=2, groups_used=1, used=2, scoring="sigmoid")
    scores = evaluate(at, {"x": np.array([[9.0, -9, -9, 1, 1, 1], [0, 0, 0, 1, 2, 3]])})
    assert np.flatnonzero(scores[1]).tolist() == [4, 5]
    # sigmoid(9) + sigmoid(-9) is about 1, less than two times sigmoid(1)
    assert np.flatnonzero(scores[0]).tolist() == [3, 4]


def test_what_is_added_for_the_choice_does_not_count():
    name = "model.layers.0.mlp.gate.e_score_correction_bias"
    model = tiny_model("qwen3moe")
    model.weights[name] = float_tensor(name, np.array([0, 0, 0, 0, 0, 9], np.float32))
    at = choice_at(model, scoring="sigmoid", renormalised=False, used=1)
    at = replace(at, stage=replace(at.stage, tensors=(name,)))
    found = evaluate(at, {"x": np.array([[5.0, 4, 3, 2, 1, 0]])})
    assert found.tolist() == [[0, 0, 0, 0, 0, 0.5]]


def test_a_chosen_expert_shows_even_if_it_counts_nothing():
    at = choice_at(tiny_model("qwen3moe"))
    at = replace(at, path=F32)
    weights = evaluate(at, {"x": np.array([[500.0, 0, -1, -2, -3, -4]], np.float32)})
    assert weights[0, 0] == 1
    assert weights[0, 1:3].tolist() == [np.float32(LEAST)] * 2
    assert chosen(weights, 3).tolist() == [[0, 1, 2]]


def test_a_choice_between_scores_that_rounding_makes_equal_may_go_either_way():
    at = choice_at(tiny_model("qwen3moe"), used=2)
    logits = np.array([[3.0, 2, 2 + 1e-8, 0, 0, 0], [3.0, 2, 2.1, 0, 0, 0]])
    either = at.kind.either_way(at, {"x": logits}, FLOAT32)
    assert (either[0] > 0.5).all()
    assert (either[1] == 0).all()


@pytest.mark.parametrize("family", ["mixtral", "qwen3moe"])
def test_stacked_tensors_are_read_as_slices(tmp_path, family):
    """As GGUF has them, and as transformers saves them where it keeps gate and up in one tensor."""
    model = tiny_model(family, type="F32")
    write_gguf(tmp_path / "m.gguf", model)
    write_safetensors(tmp_path / "fused", model)
    rest = {name: weight for name, weight in model.weights.items() if ".experts." not in name}
    entries, experts = entries_of(rest), model.config.num_experts
    for layer in range(2):
        p, values = f"model.layers.{layer}.mlp.experts.", model.values()
        names = ([f"{p}{n}.{part}_proj.weight" for part in ("gate", "up", "down")] for n in range(experts))
        each = [[values[name] for name in of_expert] for of_expert in names]
        for name, stack in (
            ("gate_up_proj", np.stack([np.concatenate([gate, up]) for gate, up, _ in each])),
            ("down_proj", np.stack([down for _, _, down in each])),
        ):
            entries[p + name] = "F32", stack.shape, stack.tobytes()
    write_safetensors_entries(tmp_path / "fused/model.safetensors", entries)
    for path in (tmp_path / "m.gguf", tmp_path / "fused"):
        artifact = open_artifact(path)
        assert artifact.problems == ()
        for name, weight in model.weights.items():
            if ".experts." in name:
                assert np.array_equal(artifact.weight(name).stored, weight.stored), name
                assert artifact.weight(name).stored.base is not None  # a slice of the mapped file, no copy


def test_a_stack_of_another_number_of_experts_is_refused(tmp_path):
    model = tiny_model("qwen3moe")
    config = replace(model.config, num_experts=5)
    write_gguf(tmp_path / "m.gguf", replace(model, config=config))
    found = open_model(tmp_path / "m.gguf")
    assert "6×" in str(found.refusal)
    assert "5 experts" in str(found.refusal)


@pytest.mark.parametrize(
    ("changes", "words"),
    [({"num_experts_per_tok": 9}, "9 of 6 experts"), ({"n_group": 4, "topk_group": 1}, "into 4 groups")],
)
def test_settings_that_cannot_be_are_refused(tmp_path, changes, words):
    model = tiny_model("qwen3moe")
    config = replace(model.config, **changes)
    more = {"expert_group_count": config.n_group, "expert_group_used_count": config.topk_group}
    write_gguf(tmp_path / "m.gguf", replace(model, config=config), **more)
    with pytest.raises(WorkbenchError, match=words):
        open_artifact(tmp_path / "m.gguf")


@pytest.mark.parametrize("family", ["mixtral", "qwen3moe"])
def test_tokens_that_go_elsewhere_are_counted_and_the_rest_is_compared(family):
    model = tiny_model(family, seed=2)
    other = nudged(model, 0.02)
    runs = [dict(forward(side, TOKENS, F32)) for side in (model, other)]
    routes, tensors = (Routes(), Routes()), {}
    for name, run, own in zip("ab", runs, routes, strict=True):
        for site, values in run.items():
            tensors[name, site] = StageTensor(site, values, tuple(range(9)), None, own.see(site, values))
    layer = 1
    experts = [chosen(run[Site(layer, CHOICE)], 3) for run in runs]
    common = [sorted(set(x) & set(y)) for x, y in zip(*map(np.ndarray.tolist, experts), strict=True)]
    gone = sum(3 - len(both) for both in common)
    assert gone  # else nothing is tested
    for stage in (stage for stage in PAIRS if Site(layer, stage) in runs[0]):
        site = Site(layer, stage)
        cell = compare_stage(site, tensors["a", site], tensors["b", site], lambda _: False)
        assert f"{gone} of 27 pairs" in cell.note
        a, b = (run[site].reshape(9, 3, -1).astype(np.float64) for run in runs)
        size, squares, seen = a.shape[2], 0.0, 0
        for token, both in enumerate(common):
            for expert in both:
                runs_of = [experts[side][token].tolist().index(expert) for side in (0, 1)]
                squares += np.square(a[token, runs_of[0]] - b[token, runs_of[1]]).sum()
                seen += size
        measures = cell.measures()
        assert measures.count == seen
        assert measures.rms == pytest.approx((squares / seen) ** 0.5, rel=1e-12)
        token = cell.positions[measures.max_token]
        assert runs[0][site][token, measures.max_channel] == np.float32(measures.max_a)
        worst = compare_stage(site, tensors["a", site], tensors["b", site], lambda _: False, worst=True).worst
        assert worst[0][:4] == (token, measures.max_channel, measures.max_a, measures.max_b)


def test_what_experts_compute_is_judged_with_the_experts_of_a():
    model = tiny_model("qwen3moe", seed=2)
    found = bisect_artifacts(Side(model, F32), Side(nudged(model, 1e-3), F32), TOKENS)
    assert found.culprit is not None  # the routers are not those of one model
    sides = Side(model, F32), Side(nudged(model, 0.02), F32)
    rerouted = 0
    for cell in walk(*sides, TOKENS):
        assert cell.y_a.shape == cell.y_b.shape
        if cell.site.stage in PAIRS:
            crossed = cell.run(cell.b)
            assert np.array_equal(crossed, cell.y_a)  # the same weights on the same input by the same experts
            rerouted += not np.array_equal(cell.y_a, cell.y_b)
    assert rerouted


def test_places_of_experts_in_the_other_choice():
    common = Common.of(np.array([[1, 5], [2, 3]]), np.array([[5, 7], [2, 3]]))
    assert common.places.tolist() == [[-1, 0], [0, 1]]
    moved = common.of_b(np.array([[50.0, 70], [20, 30]]), np.nan)
    assert np.array_equal(moved, [[np.nan, 50], [20, 30]], equal_nan=True)


def llama_nodes(tokens: int, order: np.ndarray, counts: np.ndarray, values: np.ndarray) -> list[Node]:
    """The nodes of a layer with experts, with the shapes that the recorder gives them."""

    def node(name: str, op: str, array: np.ndarray) -> Node:
        shape = array.shape[1:] if array.ndim > 2 and tokens == 1 else array.shape
        array = array.reshape(shape)
        return Node(f"{name}-0", op, "f32", (), StoredArray(shape, array.dtype.name, lambda: array))

    return [
        Node("embd", "GET_ROWS", "f32", (), StoredArray((tokens, 4), "float32", lambda: np.zeros((tokens, 4), "f4"))),
        node("ffn_moe_argsort", "ARGSORT", order),
        node("ffn_moe_weights", "GET_ROWS", counts[:, :, None]),
        node("ffn_moe_gate", "MUL_MAT_ID", values),
    ]


@pytest.mark.parametrize("tokens", [1, 3])
def test_experts_of_a_recorded_graph_stand_in_ascending_order(tokens):
    order = np.tile(np.array([2, 0, 3, 1], np.int32), (tokens, 1))
    counts = np.tile(np.array([0.6, 0.3], np.float32), (tokens, 1))
    values = np.tile(np.array([[1, 2], [3, 4]], np.float32), (tokens, 1, 1))
    stages = LlamaGraph(llama_nodes(tokens, order, counts, values), None, tokens).stages()
    weights = stages[Site(0, CHOICE)].values()
    assert np.array_equal(weights, np.tile(np.array([0.3, 0, 0.6, 0], np.float32), (tokens, 1)))
    assert stages[Site(0, "expert_gate")].values().tolist() == [[3, 4, 1, 2]] * tokens


@pytest.mark.parametrize(
    ("names", "before"),
    [
        (("ffn_moe_weighted", "ffn_moe_gate", "ffn_moe_up", "ffn_moe_down"), True),
        (("ffn_moe_gate", "ffn_moe_up", "ffn_moe_down", "ffn_moe_weighted"), False),
        (("ffn_moe_gate_up", "ffn_moe_down", "ffn_moe_weighted"), False),
        (("ffn_moe_gate_scaled", "ffn_moe_up_scaled", "ffn_moe_down_scaled", "ffn_moe_weighted"), False),
    ],
)
def test_what_is_weighted_before_the_experts_is_told_from_what_is_behind_them(names, before):
    order, counts = np.tile(np.arange(4, dtype=np.int32), (2, 1)), np.ones((2, 2), np.float32)
    values, first = np.ones((2, 2, 4), np.float32), llama_nodes(2, order, counts, np.ones((2, 2, 4), np.float32))[:-1]
    array = StoredArray(values.shape, values.dtype.name, lambda: values)
    nodes = [
        Node(f"{name}-0", "MUL" if name.endswith(("weighted", "scaled")) else "MUL_MAT_ID", "f32", (), array)
        for name in names
    ]
    assert (Site(0, "expert_input") in LlamaGraph([*first, *nodes], None, 2).stages()) == before


@pytest.mark.parametrize("wrong", [[7, 0, 3, 1], [-1, 0, 3, 1], [2, 2, 3, 1]])
def test_experts_that_cannot_be_are_refused(wrong):
    order, counts = np.array([wrong] * 2, np.int32), np.ones((2, 2), np.float32)
    graph = LlamaGraph(llama_nodes(2, order, counts, np.ones((2, 2, 2), np.float32)), None, 2)
    with pytest.raises(StoreError, match="ffn_moe_argsort"):
        graph.stages()[Site(0, CHOICE)].values()


def test_a_gguf_of_mixtral_is_one_of_llama():
    model = tiny_model("mixtral")
    assert gguf_architecture(model) == "llama"
    kinds = [type(stage.kind) for stage in Graph(replace(model.config, architecture="llama")).layer(0)]
    assert Choice in kinds
