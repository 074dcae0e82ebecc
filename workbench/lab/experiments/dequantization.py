"""007: stored blocks to numbers, by the compiled vector code and literally."""

import numpy as np

from kernels.errors import WorkbenchError
from kernels.formats.format import BlockFormat
from kernels.kinds.product import Product
from kernels.rows.dequantize import dequantize_rows
from kernels.rows.fields import codes, fields
from kernels.weight import Weight
from workbench.lab.experiment import Experiment, Outcome, Parameter, Plot, Rows, Settings
from workbench.lab.inputs import Floats, q4_k_weight
from workbench.lab.subject import Subject
from workbench.lab.two_paths import rel_rms, some_rows, spread


def literally(weight: Weight, once: bool = False) -> Floats:
    """All values of a quantized weight by the formula of its format, in float32 (out, in).

    once : product and difference are rounded together, as a fused instruction does it, and not one after the other.
    """
    format = weight.type.format
    assert isinstance(format, BlockFormat)
    blocks = weight.rows[:].reshape(-1, format.block.bytes)
    parts = fields(format, blocks)
    shape = (len(blocks), parts.scales.shape[1], -1)
    numbers = codes(format, blocks).astype(np.float32) - np.float32(format.zero)
    if format.shifts is not None:
        numbers += np.repeat(parts.shifts, format.shifted, axis=1)
    numbers = numbers.reshape(shape)
    scale = (parts.d[:, None] * parts.scales.astype(np.float32))[:, :, None]
    least = np.zeros((len(blocks), 1), np.float32)
    if parts.dmin is not None:
        least = -(parts.dmin[:, None] * parts.mins.astype(np.float32))
    if parts.least is not None:
        least = parts.least[:, None]
    if once:
        values = (scale.astype(np.float64) * numbers + least[:, :, None]).astype(np.float32)
    else:
        values = scale * numbers + least[:, :, None]
    return np.asarray(values).reshape(weight.shape)


def _run(settings: Settings, subject: Subject | None) -> Outcome:
    if subject is None:
        weight, inputs = q4_k_weight(1), {**settings, "type": "Q4_K", "population": "256 values of 1 block"}
    else:
        stage = subject.stage_of(Product)
        weight = subject.weight(stage)
        if not isinstance(weight.type.format, BlockFormat):
            raise WorkbenchError(f"{weight.name} is {weight.type.name}, which has no blocks; choose another --stage")
        weight = some_rows(weight, spread(weight.shape[0], settings["rows"]))
        inputs = {**settings, **subject.inputs(stage.site, tokens=False), "type": weight.type.name}
        inputs["population"] = f"{len(weight.rows)} rows of {weight.shape[1]} values"
    format = weight.type.format
    compiled = dequantize_rows(weight.type, weight.rows[:], weight.shape[1])
    slow, fused = literally(weight), literally(weight, once=True)
    groups = (compiled != slow).reshape(len(weight.rows) * weight.shape[1] // format.block.elements, -1)
    length = format.block.elements // max(1, getattr(format, "groups", 0))
    first = compiled.reshape(-1)[: format.block.elements].reshape(-1, length)
    apart = groups.sum(axis=0).reshape(-1, length).sum(axis=1)
    series: Rows = [
        {"group": n, "first": float(values[0]), "last": float(values[-1]), "differing": int(apart[n])}
        for n, values in enumerate(first)
    ]
    differing, by_fusing = int((compiled != slow).sum()), int((compiled != fused).sum())
    return Outcome(
        inputs=inputs,
        series=series,
        value=float(compiled.reshape(-1)[0]),
        figures={
            "last": float(compiled.reshape(-1)[-1]),
            "differing": differing,
            "differing_if_fused": by_fusing,
            "values": compiled.size,
        },
        against={"vector_rel_rms": rel_rms(slow, compiled)},
        verdict="FALSIFIED" if differing else "CONFIRMED",
        notes=(
            f"{by_fusing} of {compiled.size} values would have other bits if product and difference were rounded "
            "together (fused), as some builds do.",
        ),
    )


EXPERIMENT = Experiment(
    id="007",
    word="dequantization",
    question="Do vector code and a literal reading of a block give the same numbers?",
    claim="compiled vector code and the formula, step by step, agree in every bit",
    shows="the first value of the block; all values are compared",
    hides="Two readings by one description agree in a wrong description too: only another engine's values tell.",
    plot=Plot("group", "first"),
    run=_run,
    parameters=(Parameter("rows", 64, "rows of a real weight, evenly spaced", 1, 1 << 20, only="model"),),
    published="e0=10.75 e255=1.25",
    digits=lambda found: f"e0={found.value:g} e255={found.figures['last']:g}",
    on="either",
)
