"""009: products one after another, each scaled to a root mean square of 1."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from workbench.lab.experiment import Experiment, Ladder, Outcome, Parameter, Plot, Rows, Settings
from workbench.lab.inputs import DRIFT, Floats, activation, q4_k_weight
from workbench.lab.subject import Subject
from workbench.lab.two_paths import (
    LEAST,
    ROUNDING_PATH,
    Products,
    fold,
    folded,
    percent,
    relative_length,
    rounded,
    terms,
)

_ROWS = 256


class Step(NamedTuple):
    """After one more product: both activations, and the products before they were scaled."""

    a: Floats
    b: Floats
    products: Products


def chained(x: Floats, depth: int, path: str) -> Iterator[Step]:
    """The published chain, each way going on from its own output."""
    a = b = x
    for tensor in range(depth):
        weight = q4_k_weight(_ROWS, tensor)
        products = Products(folded(a, weight), rounded(b, weight, path), terms(a, weight))
        a, b = _scaled(products.a), _scaled(products.b)
        yield Step(a, b, products)


def _scaled(y: Floats) -> Floats:
    mean = fold(y * y) / np.float32(y.size)
    return np.asarray(y / np.maximum(np.sqrt(mean), LEAST))


def _run(settings: Settings, _: Subject | None) -> Outcome:
    steps = list(chained(activation(settings["token"]), settings["depth"], settings["path"]))
    rels = [relative_length(step.a, step.b) for step in steps]
    series: Rows = [
        {
            "step": n + 1,
            "rel": rel,
            "growth": rel / DRIFT,
            "cancellation": step.products.against()["vector_cancellation"],
            "worst_output": float(step.products.relative.max()),
        }
        for n, (rel, step) in enumerate(zip(rels, steps, strict=True))
    ]
    peak = int(np.argmax(rels))
    return Outcome(
        inputs={**settings, "population": f"{_ROWS} outputs of 1 token, after each step"},
        series=series,
        value=rels[-1],
        figures={"growth": rels[-1] / DRIFT, "peak": rels[peak], "peak_step": peak + 1},
        against={"vector_rel_rms": rels[-1], "cancellation": series[-1]["cancellation"]},
        notes=(
            f"the largest is {percent(rels[peak])} at step {peak + 1}, the first {percent(rels[0])}; "
            f"growth divides the last by {percent(DRIFT)}, which is one output of 008 and no step of this series",
        ),
    )


EXPERIMENT = Experiment(
    id="009",
    word="chain",
    question="Does the difference of one product grow over a chain of them?",
    claim="after the chain the two ways are further apart than 0.07 %",
    shows="relative difference of the last activations; growth is it divided by 0.077 %",
    hides="A look at one depth of a series that rises and falls; growth divides it by a number from elsewhere.",
    plot=Plot("step", "rel"),
    run=_run,
    parameters=(
        Parameter("depth", 5, "products in the chain", 1, 64),
        Parameter("token", 0, "which of the published activations it starts from", 0, 63),
        ROUNDING_PATH,
    ),
    published="0.4391 %",
    digits=lambda found: f"{100 * (found.value or 0):.4f} %",
    ladder=Ladder("rel", ((0.0007, "CONFIRMED", "larger than one product's"),), "not larger than one product's"),
)
