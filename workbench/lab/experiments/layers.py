"""017: one row of every layer, "chained"; 016 is the same for five layers."""

from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from kernels.errors import WorkbenchError
from kernels.kinds.product import Product
from kernels.weight import Weight
from workbench.lab.experiment import Experiment, Outcome, Parameter, Plot, Rows, Settings
from workbench.lab.experiments.rows import unrounded, ways
from workbench.lab.inputs import SIZE, Floats, activation
from workbench.lab.subject import Subject
from workbench.lab.two_paths import (
    CHOSEN_PATH,
    MIXED,
    UNLIKE,
    Products,
    alike,
    chosen_path,
    first_columns,
    folded,
    percent,
    relative_length,
    rounded,
    rounds_to_codes,
    some_rows,
    spread,
    terms,
)

_STEADY, _OUTLIER, _MOST_GROWTH, _MOST_LAST = 0.10, 0.10, 18.0, 100.0
_TINY = 1e-12
ROWS = Parameter("rows", 64, "rows of every layer that stand beside the first", 1, 4096)


class Chain(NamedTuple):
    """A row for every layer that was measured, and a sentence for every one that was skipped.

    path : of the second way. weights : whether both sides have the same.
    """

    series: Rows
    skipped: list[str]
    path: str
    weights: str


def layer_chain(settings: Settings, subject: Subject, count: int) -> Chain:
    """The published measurement of the first `count` layers.

    One output a layer, of the first columns of the first row. The next input is x0 (1 + 0.001 y / max(|y|, 1)) on
    either way. A layer for which nothing is rounded to 8 bits is skipped, unless that is so in all of them.
    """
    stages = [subject.stage_of(Product, layer) for layer in range(count)]
    of_b = [subject.weight(stage, "b") for stage in stages]
    path = chosen_path(settings["path"], *of_b)
    rounding = any(rounds_to_codes(path, weight) for weight in of_b)
    if not rounding and settings["path"] != "auto":
        raise WorkbenchError(f"{unrounded(of_b[0], path)}, nor that of other layers; leave out --set path")
    start = activation()
    a = b = start
    series, skipped, weights = list[dict[str, Any]](), list[str](), set[str]()
    for layer, (stage, weight) in enumerate(zip(stages, of_b, strict=True)):
        if rounding and not rounds_to_codes(path, weight):
            skipped.append(f"layer {layer} was skipped: {unrounded(weight, path)}")
            continue
        numbers = spread(weight.shape[0], settings["rows"])
        some = [first_columns(some_rows(side, numbers), SIZE) for side in (subject.weight(stage), weight)]
        row = [some_rows(side, np.array([0])) for side in some]
        weights.add(alike(*some))
        products, alone, many = (
            _products(a, b, row, path),
            _products(start, start, row, path),
            _products(start, start, some, path),
        )
        series.append(
            {
                "layer": layer,
                "rel": float(products.relative[0]),
                "cancellation": float(products.cancellation[0]),
                "of_terms": abs(float(products.a[0]) - float(products.b[0])) / float(products.terms[0]),
                "carried": relative_length(a, b),
                "alone": float(alone.relative[0]),
                "vector_rel_rms": many.against()["vector_rel_rms"],
            }
        )
        a, b = (_next(start, side[0]) for side in (products.a, products.b))
    return Chain(series, skipped, path, max(weights, key=len))


def _next(start: Floats, y: np.float32) -> Floats:
    scale = np.float32(1) + y / max(abs(y), np.float32(1)) * np.float32(0.001)
    return start * scale


def _products(x: Floats, y: Floats, weights: list[Weight], path: str) -> Products:
    """The first way with one input, the second with another."""
    a, b = weights
    x, y = x[: a.shape[1]], y[: b.shape[1]]
    return Products(folded(x, a), rounded(y, b, path), terms(x, a))


def summary(settings: Settings, subject: Subject, chain: Chain) -> Outcome:
    """What was published of such a series: its last value divided by its first."""
    series, rels = chain.series, [row["rel"] for row in chain.series]
    first = next((rel for rel in rels if rel > _TINY), _TINY)
    growth, peak = rels[-1] / first, series[int(np.argmax(rels))]
    vectors = [row["vector_rel_rms"] for row in series if row["vector_rel_rms"] is not None]
    carried = max(row["carried"] for row in series)
    bounded = rels[-1] < _MOST_LAST and growth < _MOST_GROWTH and len(chain.skipped) <= 1
    return Outcome(
        inputs={
            **settings,
            "path": chain.path,
            "weights": chain.weights,
            **ways(subject, chain.path),
            "stage": subject.stage_of(Product, series[0]["layer"]).site.stage,
            "layers": [row["layer"] for row in series],
            "population": f"the first {SIZE} columns of 1 row of every layer, published activations",
        },
        series=series,
        value=growth,
        figures={"growth": growth, **_described(series, peak), "skipped": len(chain.skipped)},
        against={
            "vector_rel_rms": float(np.median(vectors)) if vectors else None,
            "cancellation": peak["cancellation"],
            "carried": carried,
        },
        verdict="CONFIRMED" if bounded else "FALSIFIED",
        unjudged=MIXED if chain.weights == UNLIKE else "",
        notes=(
            f"the largest is {percent(peak['rel'])} in layer {peak['layer']}, where {percent(peak['cancellation'])} of "
            f"Σ|x·w| is left; over {settings['rows']} rows this layer has {percent(peak['vector_rel_rms'])}",
            f"from layer to layer at most {percent(carried)} of the input is carried: the rows are measured one by one "
            "(column alone), not chained",
            *chain.skipped,
        ),
    )


def _described(series: Rows, peak: dict[str, Any]) -> dict[str, Any]:
    rels = [row["rel"] for row in series]
    pairs = list(pairwise(rels))
    return {
        "last": rels[-1],
        "mean": float(np.mean(rels)),
        "peak": peak["rel"],
        "peak_layer": peak["layer"],
        "drops": sum(now < before for before, now in pairs),
        "steady": sum(before > _TINY and abs(now - before) / before <= _STEADY for before, now in pairs),
        "outliers": [row["layer"] for row in series if row["rel"] > _OUTLIER],
    }


def _run(settings: Settings, subject: Subject | None) -> Outcome:
    assert subject is not None
    count = min(settings["layers"] or subject.layers, subject.layers)
    return summary(settings, subject, layer_chain(settings, subject, count))


EXPERIMENT = Experiment(
    id="017",
    word="layers",
    question="Does the difference grow from layer to layer of a real model?",
    claim="the chain stays bounded: last below 100, growth below 18, at most one layer skipped",
    shows="the relative difference in the last layer divided by that in the first",
    hides="Nothing is handed on between layers: growth is a quotient of two rows, and of what cancels in them.",
    plot=Plot("layer", "rel", log=True),
    run=_run,
    parameters=(Parameter("layers", 0, "how many; 0 for all", 0, 4096), ROWS, CHOSEN_PATH),
    published="1.8103×",
    digits=lambda found: f"{found.value:.4f}×",
    on="model",
    both=True,
)
