"""006: one sum of products in several orders."""

from typing import Any

import numpy as np

from kernels.kinds.product import Product
from kernels.matmul.floats import matmul_f32, matmul_f32_apr, matmul_f64
from kernels.rows.dequantize import dequantize
from kernels.weight import Weight
from workbench.lab.experiment import Experiment, Outcome, Parameter, Plot, Rows, Settings
from workbench.lab.inputs import Floats, float_weight, scaled
from workbench.lab.subject import Subject, last
from workbench.lab.two_paths import bits, fold, folded, percent, rel_rms, some_rows, spread, terms

_MOST = 256  # rows of a real weight, which are folded one product after another


def _published() -> tuple[Floats, Weight]:
    """128 values a = (i - 64) 0.1 + (i % 7) 0.013 and b = (0.7 i - 50) 0.05 + (i % 11) 0.011, in float32."""
    i = np.arange(128)
    a = scaled(i - 64, 0.1) + scaled(i % 7, 0.013)
    b = (scaled(i, 0.7) - np.float32(50)) * np.float32(0.05) + scaled(i % 11, 0.011)
    return a, float_weight(b.reshape(1, -1))


def _run(settings: Settings, subject: Subject | None) -> Outcome:
    if subject is None:
        x, weight, inputs = *_published(), {**settings, "population": "1 sum of 128 products"}
    else:
        stage = subject.stage_of(Product)
        x = last(subject.captured(stage.site).x["x"])
        weight = subject.weight(stage)
        weight = some_rows(weight, spread(weight.shape[0], _MOST))
        inputs = {
            **settings,
            **subject.inputs(stage.site),
            "population": f"{weight.shape[0]} outputs of the last token",
        }
    row = x.reshape(1, -1)
    orders = {
        "left to right": folded(x, weight),
        "eight lanes": matmul_f32_apr(row, weight)[0],
        "four chains": matmul_f32(row, weight)[0],
    }
    exact = matmul_f64(row.astype(np.float64), weight)[0]
    first = orders["left to right"]
    series: Rows = [{"order": name, **_facts(sums, first, exact)} for name, sums in orders.items()]
    series.append({"order": f"{settings['orders']} at random", **_at_random(x, weight, settings, first, exact)})
    series.append({"order": "float64", **_facts(exact.astype(np.float32), first, exact)})
    same, shuffled = float((orders["eight lanes"] == first).mean()), series[-2]["same_bits"]
    return Outcome(
        inputs=inputs,
        series=series,
        value=float(first[0]),
        figures={"bits": bits(first[0]), "same_bits": same},
        against={
            "vector_rel_rms": rel_rms(exact, orders["eight lanes"]),
            "cancellation": float(abs(exact[0]) / terms(x, weight)[0]),
        },
        verdict="CONFIRMED" if same == 1 else "FALSIFIED",
        notes=(f"of {settings['orders']} orders at random {percent(shuffled)} give the bits of the first row",),
    )


def _facts(sums: Any, first: Any, exact: Any) -> dict[str, Any]:  # noqa: ANN401
    return {
        "value": float(sums[0]),
        "bits": bits(sums[0]),
        "same_bits": float((sums == first).mean()),
        "rel_rms_to_float64": rel_rms(exact, sums),
    }


def _at_random(x: Floats, weight: Weight, settings: Settings, first: Any, exact: Any) -> dict[str, Any]:  # noqa: ANN401
    """The first row summed from left to right after its terms were shuffled, again and again."""
    rng = np.random.default_rng(settings["seed"])
    products = dequantize(some_rows(weight, np.array([0])))[0] * x
    sums = np.array([fold(rng.permutation(products)) for _ in range(settings["orders"])], np.float32)
    middle = np.sort(sums)[len(sums) // 2]
    return _facts(np.array([middle]), first, exact) | {
        "same_bits": float((sums == first[0]).mean()),
        "rel_rms_to_float64": float(np.sqrt(np.mean((sums - exact[0]) ** 2)) / abs(exact[0])) if exact[0] else None,
    }


EXPERIMENT = Experiment(
    id="006",
    word="order",
    question="Does the order of a sum change its bits?",
    claim="two orders of the sum give the same bits",
    shows="the sum from left to right, and how often eight lanes give the same bits",
    hides="One sum in two orders: that these two agree is luck, as most orders of the same terms do not.",
    plot=Plot("order", "same_bits"),
    run=_run,
    parameters=(
        Parameter("orders", 200, "orders at random", 1, 10000),
        Parameter("seed", 0, "of the shuffles", 0, 2**31 - 1),
    ),
    published="612.4756 0x44191e70",
    digits=lambda found: f"{found.value:.4f} {found.figures['bits']}",
    on="either",
)
