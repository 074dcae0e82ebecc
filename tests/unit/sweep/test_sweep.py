"""What a unit of a sweep says is what a whole forward of the exchanged model gives, bit for bit."""

import json
import shutil
import threading
from collections import namedtuple
from dataclasses import replace

import numpy as np
import pytest

from kernels.errors import WorkbenchError
from kernels.forward import forward
from kernels.metrics import logit_agreement
from kernels.paths import numeric_path
from kernels.weight import TensorType, Weight
from tests.artifacts import tiny_gguf, tiny_model
from tests.gguf_files import write_gguf
from workbench.cli import sweep as cli
from workbench.demo import MODEL, make_copy
from workbench.sweep import measuring, parts, tally
from workbench.sweep.figures import Figures, Reference, bin_of, middle
from workbench.sweep.planning import plan
from workbench.sweep.question import Prompt, ask, opened
from workbench.sweep.running import Here, run
from workbench.sweep.tally import Tally

IDS = (3, 1, 4, 1, 5)


@pytest.fixture(scope="module")
def faulty(tmp_path_factory):
    folder = tmp_path_factory.mktemp("faulty")
    for fault in ("scaled", "rope_theta"):
        make_copy(folder / f"{fault}.apr", fault)
    (folder / "ids.txt").write_text("482,803,10\n67 14\n")
    return folder


def asked(a, b, path="f32"):
    return ask((a, b), (path, path))


def units(question, by, ids=IDS):
    base = measuring.base(question, Prompt(ids))
    return {
        tuple(part.name.values()): measuring.measured(question, base, part)
        for part in parts.parts(opened(question), by)
    }


def logits(model, path="f32", ids=IDS):
    return [y for _, y in forward(model, ids, numeric_path(path))][-1]


@pytest.mark.parametrize(
    ("arch", "path"), [("qwen2", "ggml"), ("gemma3", "f32"), ("mixtral", "f32"), ("gemma4-e2b", "f32")]
)
def test_every_tensor_costs_what_a_whole_forward_with_it_says(tmp_path, arch, path):
    sizes = {"layers": 4, "tied": True} if arch == "gemma4-e2b" else {}  # where later layers read of earlier ones
    for name, type in (("a", "Q8_0"), ("b", "Q4_0")):
        tiny_gguf(tmp_path / name, arch, type, **sizes)
    question = asked(tmp_path / "a", tmp_path / "b", path)
    a, b = opened(question)
    own, found = logits(a, path), units(question, "tensor")
    changed = 0
    for (name,) in (key for key in found if key):
        model = _with(a, b, name)
        whole = logits(model, path)
        kl = logit_agreement(own, whole).kl
        figures = found[name,]
        assert figures["identical"] == np.array_equal(whole, own) or not figures["identical"], name
        assert figures["kl"] == pytest.approx(kl.mean(), rel=1e-9, abs=1e-15), name
        assert figures["max"] == pytest.approx(kl.max(), rel=1e-9, abs=1e-15), name
        assert figures["flips"] == (whole.argmax(1) != own.argmax(1)).sum(), name
        changed += kl.max() > 0
    assert changed > len(found) / 2
    assert found[()]["kl"] == pytest.approx(logit_agreement(own, logits(b, path)).kl.mean(), rel=1e-9)


def _with(a, b, name):
    """A with one tensor of B, as one model that knows nothing of either."""

    class Mixed:
        config = a.config

        def weight(self, wanted):
            tied = "model.embed_tokens.weight" if a.tied and wanted == "lm_head.weight" else wanted
            return (b if tied == name else a).weight(tied)

        def __contains__(self, wanted):
            return wanted in a

    return Mixed()


def test_the_faulty_tensor_is_the_only_one_and_its_layer_costs_the_same(faulty):
    question = asked(MODEL, faulty / "scaled.apr")
    tensors, layers = units(question, "tensor"), units(question, "layer")
    name = "model.layers.3.mlp.up_proj.weight"
    assert {key for key, figures in tensors.items() if not figures["identical"]} == {(), (name,)}
    assert tensors[name,]["kl"] == layers[3,]["kl"] == tensors[()]["kl"] > 1e-4
    assert {key for key, figures in layers.items() if not figures["identical"]} == {(), (3,)}


def test_by_stage_a_wrong_setting_shows_at_every_rotation_and_nowhere_else(faulty):
    found = units(asked(MODEL, faulty / "rope_theta.apr"), "stage")
    wrong = {key for key, figures in found.items() if key and not figures["identical"]}
    assert {stage for _, stage in wrong} == {"q_post_rope", "k_post_rope"} & {stage for _, stage in wrong}
    assert {layer for layer, _ in wrong} == set(range(opened(asked(MODEL, MODEL)).a.config.num_hidden_layers))
    assert all(found[key]["kl"] > 0 for key in wrong)


def test_the_floor_is_float64_or_the_other_path(faulty):
    one = ask((MODEL, MODEL), ("ggml", "ggml"))
    two = ask((MODEL, MODEL), ("ggml", "apr"))
    assert (one.floor_path, two.floor_path) == ("f64", "apr")
    own = logits(opened(two).a, "ggml")
    floor = measuring.base(two, Prompt(IDS)).floor
    assert floor.kl == pytest.approx(logit_agreement(own, logits(opened(two).a, "apr")).kl, rel=1e-9)
    assert units(two, "prompt")[()]["kl"] == floor.to_json()["kl"]  # the same weights: all of it is arithmetic


def test_kl_of_a_token_is_that_of_longer_floats():
    rng = np.random.default_rng(0)
    a = rng.normal(0, 4, (5, 300)).astype(np.float32)
    for size, error in ((1e-5, 1e-5), (0.3, 1e-11), (200.0, 1e-14)):
        b = a + rng.normal(0, size, a.shape).astype(np.float32)
        for of in (b, b.astype(np.float64)):
            assert Figures.of(of, Reference.of(a)).kl == pytest.approx(_kl(of, a), rel=error)
    for lost in (np.nan, np.inf, -np.inf):
        b[2, 7] = lost
        found = Figures.of(b, Reference.of(a)).to_json()
        assert (found["kl"], found["max"], sum(found["bins"].values())) == (None, None, 4)


def _kl(run, other):
    """In the longest floats that there are."""
    logs = [side - side.max(axis=1, keepdims=True) for side in map(np.longdouble, (run, other))]
    ours, theirs = (side - np.log(np.exp(side).sum(axis=1, keepdims=True)) for side in logs)
    return (np.exp(ours) * (ours - theirs)).sum(axis=1).astype(np.float64)


def test_a_norm_that_is_stored_in_another_type_changes_nothing(tmp_path):
    name, values = "model.layers.0.input_layernorm.weight", np.linspace(0.5, 2, 64).astype(np.float16)
    for file, type in (("a", np.float32), ("b", np.float16)):
        model = tiny_model("qwen2")
        rows = values[: model.config.hidden_size].astype(type).view(np.uint8).reshape(1, -1)
        kind = TensorType.F32 if type is np.float32 else TensorType.F16
        model.weights[name] = Weight(name, kind, (model.config.hidden_size,), rows)
        write_gguf(tmp_path / file, model)
    found = units(asked(tmp_path / "a", tmp_path / "b", "ggml"), "tensor")
    assert found[name,]["identical"]
    assert found[()]["identical"]


def test_a_worker_refuses_another_file_and_another_program(faulty, tmp_path):
    question = asked(MODEL, faulty / "scaled.apr")
    other = replace(question, b=replace(question.b, sha256="0" * 64))
    with pytest.raises(WorkbenchError, match=r"scaled.apr on .* is another file than the one asked about"):
        opened(other)
    with pytest.raises(WorkbenchError, match="another version of workbench"):
        opened(replace(question, program="0"))


def test_a_sweep_is_its_lines_and_resuming_adds_what_is_missing(faulty, tmp_path):
    question = asked(MODEL, faulty / "scaled.apr")
    whole = plan(question, "layer", faulty / "ids.txt", of_ids=True)
    assert whole.total == pytest.approx(sum(whole.cost(p, part) for p in whole.prompts for part in whole.parts))
    path, seen = tmp_path / "out.jsonl", Tally()
    steps = list(run(whole, Here(), path, False, seen))
    assert (steps[-1].units, steps[-1].cost) == (whole.units, pytest.approx(whole.total))
    lines = path.read_bytes().splitlines(keepends=True)
    assert len(lines) == whole.units == seen.done == seen.expected
    path.write_bytes(b"".join(lines[:5]) + lines[5][:40])  # killed within a line
    again = Tally()
    assert next(iter(steps)).units == 0
    list(run(whole, Here(), path, True, again))
    assert _facts(path.read_bytes().splitlines()) == _facts(lines)
    assert [row.to_json() for row in again.ordered("kl")] == [row.to_json() for row in seen.ordered("kl")]
    other = plan(asked(MODEL, faulty / "rope_theta.apr"), "layer", faulty / "ids.txt", of_ids=True)
    with pytest.raises(WorkbenchError, match=r"out.jsonl, line 1, is of other models"):
        list(run(other, Here(), path, True, Tally()))
    other = plan(question, "stage", faulty / "ids.txt", of_ids=True)
    path.write_bytes(next(line for line in lines if b'"by": "layer"' in line))
    with pytest.raises(WorkbenchError, match=r"out.jsonl is of a sweep --by layer; go on with that"):
        list(run(other, Here(), path, True, Tally()))


def test_a_sweep_is_not_begun_where_its_results_have_no_room(faulty, tmp_path, monkeypatch):
    whole = plan(asked(MODEL, faulty / "scaled.apr"), "layer", faulty / "ids.txt", of_ids=True)
    usage = namedtuple("usage", "free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(whole.written - 1))
    with pytest.raises(WorkbenchError, match=rf"out.jsonl needs about {whole.written:,} bytes, and its disk has room"):
        next(run(whole, Here(), tmp_path / "out.jsonl", False, Tally()))
    assert not (tmp_path / "out.jsonl").exists()


def test_threads_of_a_worker_keep_what_they_computed_apart(faulty):
    question = asked(MODEL, faulty / "scaled.apr")
    one, two = (
        measuring._Run(question, opened(question), measuring.base(question, Prompt(ids))) for ids in (IDS, (7,))
    )
    first = one._values(1)
    other = threading.Thread(target=two._values, args=(1,))
    other.start()
    other.join()
    assert one._values(1) is first


def _facts(lines):
    records = [json.loads(line) for line in lines]
    for record in records:
        for key in ("seconds", "processor_seconds", "worker"):
            del record[key]
    return sorted(json.dumps(record, sort_keys=True) for record in records)


def test_bins_tell_percentiles_within_two_and_a_half_percent():
    rng = np.random.default_rng(1)
    values = 10.0 ** rng.normal(-5, 2, 5000)
    row = tally.Row({})
    for number, kl in enumerate(np.split(values, 10)):
        row.add({"kl_floor": 1e-9, "unit": {"prompt": number}} | Figures(kl, 3).to_json())
    for share in (0.5, 0.9, 0.99):
        assert row.tail(share) == pytest.approx(np.quantile(values, share), rel=0.025)
    assert row.kl == pytest.approx(values.mean())
    assert (row.worst[0], row.flips, row.tokens) == (values.max(), 30, 5000)
    assert all(abs(middle(bin_of(x)) / x - 1) < 0.023 for x in values[:200].tolist())


def test_names_on_the_command_line_are_those_of_the_library():
    assert (cli.BY_NAMES, cli.METRIC_NAMES) == (parts.BY, tally.METRICS)


def test_an_unlike_pair_is_refused_before_anything_runs(tmp_path):
    tiny_gguf(tmp_path / "a", "qwen2", layers=2)
    tiny_gguf(tmp_path / "b", "qwen2", layers=3)
    with pytest.raises(WorkbenchError, match="are no copies of one model"):
        opened(asked(tmp_path / "a", tmp_path / "b"))
