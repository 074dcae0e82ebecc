"""010: one block whose scale is exchanged for others."""

import numpy as np

from kernels.errors import WorkbenchError
from kernels.formats.format import BlockFormat
from kernels.kinds.product import Product
from kernels.weight import Weight
from workbench.lab.experiment import Experiment, Ladder, Outcome, Plot, Rows, Settings
from workbench.lab.inputs import SIZE, Floats, activation, q4_k_weight
from workbench.lab.subject import Subject, last
from workbench.lab.two_paths import CHOSEN_PATH, Products, chosen_path, first_columns, folded, rounded, terms

# By their published names. As stored, the third is 0.0406.
SCALES = {
    "0.001": b"\x10\x14",
    "0.01": b"\x1f\x21",
    "0.05": b"\x33\x29",
    "0.1": b"\x66\x2e",
    "0.5": b"\x00\x38",
    "1": b"\x00\x3c",
    "10": b"\x00\x49",
}
_ROWS = 256


def _run(settings: Settings, subject: Subject | None) -> Outcome:
    inputs = {"scales": list(SCALES), "dmin": 0, "population": "1 output of 1 block for every scale"}
    if subject is None:
        x, weight = activation(), q4_k_weight(_ROWS)
    else:
        stage = subject.stage_of(Product)
        weight = first_columns(subject.weight(stage), SIZE)
        if not getattr(weight.type.format, "factors", ()):
            raise WorkbenchError(f"{weight.name} is {weight.type.name}, which has no scales; choose another --stage")
        x = last(subject.captured(stage.site).x["x"])[: weight.shape[1]]
        inputs |= subject.inputs(stage.site) | {"tensor": weight.name, "type": weight.type.name}
    path = chosen_path(settings["path"], weight)
    series: Rows = []
    for d, stored in SCALES.items():
        products = _products(x, _with_scale(weight, stored), path)
        series.append(
            {"d": float(d), "stored": float(np.frombuffer(stored, np.float16)[0])}
            | {key: value for key, value in products.rows(np.array([0], np.intp))[0].items() if key != "row"}
            | {"vector_rel_rms": products.against()["vector_rel_rms"]}
        )
    rels = [row["rel"] for row in series]
    largest, least = max(rels), min(rels)
    return Outcome(
        inputs={"path": path, **inputs},
        series=series,
        value=largest / max(least, 1e-12),
        figures={"largest": largest, "least": least},
        against={key: products.against()[key] for key in ("vector_rel_rms", "cancellation")},
        notes=("the bytes that were published as 0.05 are the number 0.0406, see stored",),
    )


def _products(x: Floats, weight: Weight, path: str) -> Products:
    return Products(folded(x, weight), rounded(x, weight, path), terms(x, weight))


def _with_scale(weight: Weight, d: bytes) -> Weight:
    """The weight with the scale d in every block and nothing taken off."""
    format = weight.type.format
    assert isinstance(format, BlockFormat)
    stored = weight.rows[:].reshape(len(weight.rows), -1, format.block.bytes).copy()
    for at in format.factors:
        stored[:, :, at : at + 2] = np.frombuffer(d if at == format.d else b"\x00\x00", np.uint8)
    return Weight(weight.name, weight.type, weight.shape, stored.reshape(len(stored), -1))


EXPERIMENT = Experiment(
    id="010",
    word="block-scale",
    question="Does the scale of a block change how far the two ways are apart?",
    claim="over the scales of a model the relative difference varies more than 5 times (A3)",
    shows="the largest of the relative differences divided by the least",
    hides="A factor of the whole sum cancels in a quotient: it could not come out otherwise, but for roundings of d.",
    plot=Plot("d", "rel", log_x=True),
    run=_run,
    parameters=(CHOSEN_PATH,),
    published="0.0919 %, 1.00×",
    digits=lambda found: f"{100 * found.series[0]['rel']:.4f} %, {found.value:.2f}×",
    on="either",
    ladder=Ladder("factor", ((5.0, "CONFIRMED", "the scale amplifies"),), "the scale does not amplify"),
)
