"""008: one block in two ways: dequantized times floats, and 8-bit codes times codes."""

from dataclasses import replace
from typing import Any

import numpy as np

from kernels.kinds.product import Product
from kernels.weight import Weight
from workbench.lab.experiment import Experiment, Outcome, Parameter, Plot, Settings
from workbench.lab.inputs import activation, q4_k_weight
from workbench.lab.subject import Subject, last
from workbench.lab.two_paths import ROUNDING_PATH, Products, alike, bits, folded, rounded, some_rows, spread, terms

_SANE = 0.10  # beyond it something else is wrong than rounding


def _run(settings: Settings, subject: Subject | None) -> Outcome:
    inputs: dict[str, Any] = dict(settings)
    if subject is None:
        x, weight = activation(), q4_k_weight(settings["rows"])
        products = Products(folded(x, weight), rounded(x, weight, settings["path"]), terms(x, weight))
        inputs["population"] = "1 output of 1 block of 256; the rows after the first are those of 009"
    else:
        products, where = at_the_cell(subject, settings["rows"])
        inputs |= where
    against = products.against()
    differ = bool((products.a.view(np.uint8) != products.b.view(np.uint8)).any())
    whole = against["vector_rel_rms"]
    sane = whole is not None and whole < _SANE
    return Outcome(
        inputs=inputs,
        series=products.rows(np.arange(len(products.a))),
        value=float(products.relative[0]),
        figures={
            "a": float(products.a[0]),
            "b": float(products.b[0]),
            "bits_a": bits(products.a[0]),
            "bits_b": bits(products.b[0]),
        },
        against=against,
        verdict="CONFIRMED" if differ and sane else "FALSIFIED",
        notes=(products.worst(),),
    )


def at_the_cell(subject: Subject, most: int) -> tuple[Products, dict[str, Any]]:
    """The products of the chosen cell on both sides: own weights and arithmetic, A's captured input, last token."""
    stage = subject.stage_of(Product)
    x = last(subject.captured(stage.site).x["x"])
    found, weights, sizes = [], list[Weight](), None
    for side, of in (("a", subject.a), ("b", subject.b)):
        weight = subject.weight(stage, side)
        weight = some_rows(weight, spread(weight.shape[0], most))
        weights.append(weight)
        found.append(of.path.matmul(x.reshape(1, -1).astype(of.path.dtype), weight)[0].astype(np.float32))
        sizes = terms(x, weight) if sizes is None else sizes
    assert sizes is not None
    population = f"{len(found[0])} outputs of the last token, both on A's input"
    where = {**subject.inputs(stage.site, both=True), "tensor": stage.weights[0], "population": population}
    where["weights"] = alike(*weights)
    return Products(found[0], found[1], sizes), where


EXPERIMENT = Experiment(
    id="008",
    word="path-difference",
    question="How far are the two ways of one product apart?",
    claim="the two ways differ in their bits, and by less than a tenth",
    shows="|A - B| / |A| of the first output; made: floats summed from left to right against 8-bit activations",
    hides="One output says how much cancels in it as much as what rounding does; all outputs together say the latter.",
    plot=Plot("row", "rel", log=True),
    run=_run,
    parameters=(Parameter("rows", 256, "outputs beside the first", 1, 4096), replace(ROUNDING_PATH, only="made")),
    published="0.077 %",
    digits=lambda found: f"{100 * (found.value or 0):.3f} %",
    on="either",
    both=True,
)
