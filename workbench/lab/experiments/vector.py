"""Vector code against the same sums one by one: integer lanes, then an order of float sums that decides the bits."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from kernels.errors import WorkbenchError
from kernels.formats.format import MINS_IN_LANES, BlockFormat
from kernels.kinds.product import Product
from kernels.matmul.activations import RULES
from kernels.matmul.floats import matmul_f64
from kernels.rows.fields import codes, fields
from kernels.weight import Weight
from workbench.lab.experiment import Experiment, Outcome, Parameter, Plot, Rows, Settings
from workbench.lab.inputs import SIZE, Floats, activation, q4_k_weight
from workbench.lab.subject import Subject, last
from workbench.lab.two_paths import (
    ROUNDING_PATH,
    bits,
    first_columns,
    fold,
    folded,
    rel_rms,
    relative,
    rounded,
    some_rows,
    spread,
)


class _Parts:
    """One block a row and one block of codes of x, taken apart: integer sums (rows, 8 groups, 8 lanes of 4 bytes)."""

    def __init__(self, x: Floats, weight: Weight, rule: str) -> None:
        format = weight.type.format
        assert isinstance(format, BlockFormat)
        found = RULES[rule](np.ascontiguousarray(x).reshape(1, -1))
        self.x_scale = found.scales[0, 0]
        q = found.codes[0].astype(np.int32)
        of = fields(format, weight.rows[:])
        assert of.dmin is not None
        self.d, self.dmin = of.d, of.dmin
        self.scales, self.mins = of.scales, of.mins
        products = codes(format, weight.rows[:]) * q
        self.lanes = products.reshape(len(weight.rows), 8, 8, 4).sum(axis=3)
        self.sums = q.reshape(8, 32).sum(axis=1)

    def as_vectors(self, scales: NDArray[np.int32] | None = None) -> Floats:
        """The order of the vector code: eight float lanes of one block, then halves onto each other."""
        used = self.scales if scales is None else scales
        lanes = (used[:, :, None] * self.lanes).sum(axis=1).astype(np.float32)
        least = (self.mins * self.sums).reshape(len(lanes), 4, 2).sum(axis=2).astype(np.float32)
        taken = (-(self.x_scale * self.dmin))[:, None] * least
        lanes = (self.x_scale * self.d)[:, None] * lanes
        return np.asarray(_four(lanes[:, :4] + lanes[:, 4:]) + _four(taken))

    def one_by_one(self) -> Floats:
        """The scalar order: group after group, scale times sum less min times sum, in float32."""
        sums = self.lanes.sum(axis=2).astype(np.float32)
        scale = self.d[:, None] * self.scales.astype(np.float32) * self.x_scale
        least = self.dmin[:, None] * self.mins.astype(np.float32) * self.x_scale
        return np.asarray(fold(scale * sums - least * self.sums.astype(np.float32)))


def _four(lanes: Floats) -> Floats:
    return np.asarray((lanes[:, 0] + lanes[:, 2]) + (lanes[:, 1] + lanes[:, 3]))


def _run(settings: Settings, subject: Subject | None) -> Outcome:
    x, weight, inputs = _chosen(settings, subject)
    format = weight.type.format
    if not isinstance(format, BlockFormat) or format.dot != MINS_IN_LANES or weight.shape[1] != SIZE:
        raise WorkbenchError(f"{weight.name} is {weight.type.name}; this is about Q4_K, choose another --stage")
    rule = format.activations if settings["path"] == "ggml" else format.apr_activations
    assert rule is not None
    parts = _Parts(x, weight, rule)
    compiled = rounded(x, weight, settings["path"])
    orders = {
        "vector code": compiled,
        "its order, one by one": parts.as_vectors(),
        "group after group": parts.one_by_one(),
        "scales exchanged in pairs": parts.as_vectors(parts.scales.reshape(-1, 4, 2)[:, :, ::-1].reshape(-1, 8)),
    }
    exact = matmul_f64(np.ascontiguousarray(x).reshape(1, -1).astype(np.float64), weight)[0]
    floats = folded(x, weight)
    series: Rows = [
        {
            "order": name,
            "value": float(sums[0]),
            "bits": bits(sums[0]),
            "same_bits": float((sums == compiled).mean()),
            "rel": float(relative(floats, sums)[0]),
            "rel_rms_to_float64": rel_rms(exact, sums),
        }
        for name, sums in orders.items()
    ]
    differing = int((orders["its order, one by one"].view(np.uint32) != compiled.view(np.uint32)).sum())
    return Outcome(
        inputs={**inputs, "population": f"1 block of {len(compiled)} rows"},
        series=series,
        value=float(differing),
        figures={"rows": len(compiled)},
        against={"vector_rel_rms": rel_rms(compiled, orders["group after group"])},
        verdict="FALSIFIED" if differing else "CONFIRMED",
    )


def _chosen(settings: Settings, subject: Subject | None) -> tuple[Floats, Weight, dict[str, Any]]:
    """An activation, rows of one block each, and what they are."""
    if subject is None:
        return activation(), q4_k_weight(settings["rows"]), dict(settings)
    stage = subject.stage_of(Product)
    weight = subject.weight(stage)
    weight = first_columns(some_rows(weight, spread(weight.shape[0], settings["rows"])), SIZE)
    x = last(subject.captured(stage.site).x["x"])[: weight.shape[1]]
    return x, weight, {**settings, **subject.inputs(stage.site), "tensor": weight.name, "type": weight.type.name}


EXPERIMENT = Experiment(
    id="vector",
    word="vector",
    question="Does vector code give the bits of the same sums done one by one?",
    claim="compiled vector code and its own order of sums, one by one, agree in every bit",
    shows="rows of which the two have other bits",
    hides="Other orders of the same sums have other bits and are as right; scales in wrong pairs look as plausible.",
    plot=Plot("order", "rel", log=True),
    run=_run,
    parameters=(Parameter("rows", 256, "rows", 1, 4096), ROUNDING_PATH),
    on="either",
)
