"""005: the same product again, and its rows shared as threads share them."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from kernels.kinds.product import Product
from kernels.paths import F32Path, numeric_path
from kernels.weight import Weight
from workbench.lab.experiment import Experiment, Outcome, Parameter, Plot, Rows, Settings
from workbench.lab.inputs import Floats, float_weight, residues
from workbench.lab.subject import Subject
from workbench.lab.two_paths import some_rows

# (tokens, in) and (out, in): factor, modulus, offset and step of their residues.
_MADE = (
    (((4, 128), 1, 17, 8, 0.1), ((512, 128), 31, 23, 11, 0.05)),
    (((1, 128), 1, 13, 6, 0.1), ((64, 128), 23, 19, 9, 0.05)),
)


def _run(settings: Settings, subject: Subject | None) -> Outcome:
    series: Rows = []
    for name, x, weight, path in _cases(subject):
        first = path.matmul(x, weight)
        ways = {"again": path.matmul(x, weight)}
        ways |= {f"in {n} shares": _shared(x, weight, path, n) for n in range(2, settings["shares"] + 1)}
        for way, found in ways.items():
            differing = int((found.view(np.uint8) != first.view(np.uint8)).sum())
            series.append({"input": name, "way": way, "values": found.size, "differing_bytes": differing})
    total = sum(row["differing_bytes"] for row in series)
    inputs = dict(settings) if subject is None else dict(settings) | subject.inputs(both=True)
    inputs["population"] = f"all values of {len({row['input'] for row in series})} products"
    return Outcome(
        inputs=inputs,
        series=series,
        value=total,
        against={"vector_rel_rms": 0.0 if total == 0 else None},
        verdict="FALSIFIED" if total else "CONFIRMED",
    )


def _cases(subject: Subject | None) -> Iterator[tuple[str, Floats, Weight, F32Path]]:
    if subject is None:
        for of_x, of_w in _MADE:
            (tokens, columns), rows = of_x[0], of_w[0][0]
            name = f"{columns} to {rows}, {tokens} token{'s' * (tokens > 1)}"
            yield name, residues(*of_x), float_weight(residues(*of_w)), numeric_path("apr")
        return
    stage = subject.stage_of(Product)
    x = subject.captured(stage.site).x["x"]
    for side, path in (("a", subject.a.path), ("b", subject.b.path)):
        yield f"{stage.site}, {side} on {path.name}", x.astype(path.dtype), subject.weight(stage, side), path


def _shared(x: Floats, weight: Weight, path: F32Path, shares: int) -> NDArray[np.floating]:
    """The product, computed for one share of the rows after the other."""
    parts = [part for part in np.array_split(np.arange(weight.shape[0]), shares) if part.size]
    return np.concatenate([path.matmul(x, some_rows(weight, part)) for part in parts], axis=1)


EXPERIMENT = Experiment(
    id="005",
    word="determinism",
    question="Does the same product come out with the same bits again?",
    claim="two runs give the same bits, however the rows are shared among threads",
    shows="whether the result of a run is one result",
    hides="Alike twice is not right, nor alike on other machines, by other compilers or in other orders of sums.",
    plot=Plot("way", "differing_bytes"),
    run=_run,
    parameters=(Parameter("shares", 4, "shares that the rows are cut into, at most", 2, 64),),
    on="either",
    both=True,
)
