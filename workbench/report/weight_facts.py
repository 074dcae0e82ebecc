"""What a sweep over the tensors of both models finds, for a findings document."""

from collections import defaultdict
from typing import Any

from kernels.errors import WorkbenchError
from store.artifact import Artifact
from workbench.cells.metrics import format_value
from workbench.report.investigation import Progress
from workbench.tensors.sweep import ROW_BAND, TensorDifference, sweep

_MOST = 5


def weight_facts(
    models: tuple[Artifact | WorkbenchError, Artifact | WorkbenchError], progress: Progress
) -> dict[str, Any]:
    """Compare all tensors of two models, or say why they were not compared."""
    a, b = models
    if not isinstance(a, Artifact) or not isinstance(b, Artifact):
        reasons = " ".join(str(model) for model in models if isinstance(model, WorkbenchError))
        return {
            "sentence": f"The tensors were not compared: {reasons}",
            "groups": [],
            "outside": [],
            "most": [],
            "findings": [],
        }
    differences = list(sweep(a, b, progress))
    compared = [d for d in differences if d.measures is not None]
    outside = [d for d in differences if d.in_band is False]
    same = sum(d.status == "identical" for d in differences)
    return {
        "sentence": (
            f"{len(compared)} of {len(differences)} tensors compared: {same} identical, {len(outside)} outside the "
            f"band (a row with a relative RMS above {ROW_BAND}, NaN or infinity, or a tensor of one side only)."
        ),
        "groups": _by_type(compared),
        "outside": _rows(outside),
        "most": _rows(_most_different(compared)),
        "findings": [f"{d.name}: {finding}" for d in differences if d.in_band is not False for finding in d.findings],
    }


def _by_type(compared: list[TensorDifference]) -> list[list[object]]:
    gaps: dict[tuple[str, str], list[float | None]] = defaultdict(list)
    for d in compared:
        gap = None if d.measures is None else 0.0 if d.measures.identical else d.measures.rel_rms
        gaps[d.type_a or "", d.type_b or ""].append(gap)
    rows: list[list[object]] = [["type in A", "type in B", "tensors", "relative RMS"]]
    for types, found in gaps.items():
        known = [gap for gap in found if gap is not None]
        spread = f"{format_value(min(known))} to {format_value(max(known))}" if known else "undefined"
        rows.append([*types, len(found), spread])
    return rows


def _most_different(compared: list[TensorDifference]) -> list[TensorDifference]:
    """Those within the band that differ most: a fault may be small, and a quantized copy differs in all of them."""
    gaps = [(d.measures.rel_rms or 0.0, d) for d in compared if d.measures is not None and d.in_band is not False]
    return [d for gap, d in sorted(gaps, key=lambda pair: -pair[0]) if gap > 0][:_MOST]


def _rows(differences: list[TensorDifference]) -> list[list[object]]:
    return [["tensor", "A", "B", "relative RMS", "what"], *map(_row, differences)] if differences else []


def _row(d: TensorDifference) -> list[object]:
    gap = "-" if d.measures is None else d.measures.words.get("rel_rms") or format_value(d.measures.rel_rms)
    notes = [d.note] if d.note else []
    return [d.name, d.type_a or "-", d.type_b or "-", gap, "; ".join([*d.findings, *notes])]
