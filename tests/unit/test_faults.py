"""The suite of planted faults in small: `make faults` has all of it, on more models and formats."""

import json

import numpy as np
import pytest

from kernels.models import Graph
from tests.faults.cases import Case, Prepared
from tests.faults.healthy import healthy
from tests.faults.models import plain
from tests.faults.planted import planted
from tests.faults.runtime_fault import expected_of
from tests.faults.storing import FORMATS, stored, write
from tests.golden.record_runtime_faults import GOLDEN, RECORDED, layer_of

SMALL = ("llama-mha", "llama-3to1-tied", "qwen2-mha")
RECORDED_FAULTS = [
    (name, fault)
    for name, (_, faults) in RECORDED.items()
    for kinds in [{key.split("|")[0] for key in np.load(GOLDEN / f"{name}.npz").files}]
    for fault in faults
    if fault.kind in kinds
]


@pytest.mark.parametrize("case", planted(1, SMALL), ids=lambda case: case.kind)
def test_a_planted_mistake_is_found(case, tmp_path):
    outcome = case.run(tmp_path)
    assert outcome.cause_right, outcome.row()


@pytest.mark.parametrize("case", [case for case in healthy() if case.model == "llama-mha"], ids=lambda case: case.name)
def test_a_healthy_pair_is_left_alone(case, tmp_path):
    outcome = case.run(tmp_path)
    assert outcome.right, outcome.row()


@pytest.mark.parametrize(("name", "fault"), RECORDED_FAULTS, ids=lambda value: getattr(value, "kind", value))
def test_a_mistake_that_transformers_was_made_to_make_is_found(name, fault, tmp_path):
    """Recorded stages of transformers, up to one that is that of the changed run."""
    recorded, model = np.load(GOLDEN / f"{name}.npz"), plain(RECORDED[name][0])
    wrong = {
        key.removeprefix(f"{fault.kind}|"): recorded[key] for key in recorded.files if key.startswith(fault.kind + "|")
    }
    meta, layer = json.loads(str(recorded["__meta__"])), layer_of(fault, model.name)
    sites = [stage.site for stage in Graph(model.config, model.values.__contains__).stages()]
    order = [f"stage|{-1 if s.layer is None else s.layer}|{s.stage}" for s in sites]
    before = order[: min(map(order.index, wrong))]
    stages = {key: recorded[key] for key in before if key in recorded}
    np.savez(tmp_path / "trace.npz", __meta__=json.dumps(meta), **stages | wrong)

    def prepare(folder):
        file = write(stored(model, FORMATS["st-f32"]), FORMATS["st-f32"], folder / "model")
        return Prepared(file, folder / "trace.npz", model.tokens())

    case = Case(fault.kind, f"layer {layer}", model.name, "st-f32 trace", expected_of(fault, layer), prepare)
    outcome = case.run(tmp_path)
    assert outcome.cause_right, outcome.row()
