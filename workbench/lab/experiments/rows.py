"""014: the published product with the weights of a real model, for one row and for many."""

import numpy as np

from kernels.errors import WorkbenchError
from kernels.kinds.product import Product
from kernels.weight import Weight
from store.text import printable
from workbench.lab.experiment import Experiment, Ladder, Outcome, Parameter, Plot, Settings
from workbench.lab.inputs import DRIFT, SIZE, activation
from workbench.lab.subject import Subject, last
from workbench.lab.two_paths import (
    CHOSEN_PATH,
    MIXED,
    UNLIKE,
    Products,
    alike,
    bits,
    chosen_path,
    first_columns,
    folded,
    percent,
    rounded,
    rounds_to_codes,
    some_rows,
    spread,
    terms,
)

ACTIVATIONS = Parameter(
    "activations", "published", "the formula of 008, or what A reads there", choices=("published", "captured")
)


def _run(settings: Settings, subject: Subject | None) -> Outcome:
    assert subject is not None
    stage = subject.stage_of(Product)
    numbers = spread(subject.weight(stage).shape[0], settings["rows"])
    a, b = (first_columns(some_rows(subject.weight(stage, side), numbers), SIZE) for side in "ab")
    captured = settings["activations"] == "captured"
    x = last(subject.captured(stage.site).x["x"]) if captured else activation()
    x = x[: a.shape[1]]
    path = chosen_path(settings["path"], b)
    if settings["path"] != "auto" and not rounds_to_codes(path, b):
        raise WorkbenchError(f"{unrounded(b, path)}; choose another --stage, or leave out --set path")
    products = Products(folded(x, a), rounded(x, b, path), terms(x, a))
    rel = products.relative
    series = [row | {"row": int(n)} for row, n in zip(products.rows(np.arange(len(numbers))), numbers, strict=True)]
    apart = abs(float(products.a[0]) - float(products.b[0])) / products.terms[0]
    return Outcome(
        inputs={
            **settings,
            "path": path,
            **ways(subject, path),
            **({"tokens": list(subject.ids)} if captured else {}),
            "layer": stage.site.layer,
            "stage": stage.site.stage,
            "tensor": a.name,
            "type": a.type.name,
            "weights": alike(a, b),
            "population": f"the first {a.shape[1]} columns of 1 row; the series has {len(numbers)} rows",
        },
        series=series,
        value=float(rel[0]),
        figures={
            "amplification": float(rel[0]) / DRIFT,
            "median": float(np.median(rel)),
            "largest": float(rel.max()),
            "bits_a": bits(products.a[0]),
            "bits_b": bits(products.b[0]),
        },
        against=products.against(),
        unjudged=MIXED if alike(a, b) == UNLIKE else "",
        notes=(
            *([] if rounds_to_codes(path, b) else [f"{unrounded(b, path)}; the sums are in another order"]),
            products.worst(),
            f"of row 0 {percent(products.cancellation[0])} of Σ|x·w| is left: its relative difference is its share of "
            f"Σ|x·w|, {percent(apart)}, divided by this",
        ),
    )


def unrounded(weight: Weight, path: str) -> str:
    """Say that a product has no second way."""
    return f"{weight.name} is {weight.type.name}, for which path {path} rounds no activations to 8 bits"


def ways(subject: Subject, path: str) -> dict[str, str]:
    """What the two ways of a published product are, and of which file each takes its weights."""
    a, b = (printable(source.path.name, 200) for source in (subject.pair.a, subject.pair.b))
    return {"a": f"{a}, dequantized, float32 from left to right", "b": f"{b}, as on path {path}"}


EXPERIMENT = Experiment(
    id="014",
    word="rows",
    question="Is the difference larger with the weights of a real model?",
    claim="real weights amplify the difference of made ones (A5)",
    shows="relative difference of the first block of the first row; amplification is it divided by 0.077 %",
    hides="One row out of thousands; rows in which more cancels show more, with the same rounding in all of them.",
    plot=Plot("cancellation", "rel", log=True, log_x=True),
    run=_run,
    parameters=(Parameter("rows", 256, "rows, evenly spaced", 1, 65536), ACTIVATIONS, CHOSEN_PATH),
    published="0.428 %, 5.56×",
    digits=lambda found: f"{100 * (found.value or 0):.3f} %, {found.figures['amplification']:.2f}×",
    on="model",
    both=True,
    ladder=Ladder(
        "amplification",
        (
            (50.0, "CONFIRMED", "amplify strongly"),
            (5.0, "PARTIAL", "amplify"),
            (1.5, "FALSIFIED", "amplify a little"),
        ),
        "do not amplify",
    ),
)
