"""`workbench weights`: every tensor of two models, paired by name and compared."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from store.text import printable
from workbench.cli.options import PATH, json_option, print_json
from workbench.cli.tables import echo

if TYPE_CHECKING:
    from store.stored_model import StoredModel
    from workbench.cli.progress import ProgressLine
    from workbench.tensors.sweep import TensorDifference


@click.command()
@click.argument("a", type=PATH)
@click.argument("b", type=PATH)
@json_option
def command(a: Path, b: Path, as_json: bool) -> int:
    """Compare every tensor of two models, whatever their formats.

    Tensors are paired by their canonical name, or as they are stored where there is none; neither model has to be one
    that can be run. Known differences of layout are undone and reported; tensors without a counterpart, and of types
    that cannot be read, are listed. A tensor with NaN or infinite values is outside the band, on whichever side they
    are. Exit code 0: every tensor is within the band, 1: some are not, or have no counterpart, 2: none is known to be
    outside, but not all could be judged.

    \b
    Example:  workbench weights model.gguf model.apr
    """  # noqa: D301
    from kernels.errors import WorkbenchError
    from store.open import open_model
    from workbench.cli.progress import ProgressLine
    from workbench.tensors.sweep import sweep

    with ProgressLine() as progress:
        model_a, model_b = open_model(a), open_model(b)
        differences = list(sweep(model_a, model_b, progress))
        compared = [d for d in differences if d.compared]
        outside = [d for d in differences if d.in_band is False]
        unknown = [d for d in differences if d.in_band is None]
        if as_json:
            record = {
                "a": _side(a, model_a, progress),
                "b": _side(b, model_b, progress),
                "compared": len(compared),
                "expected": len(differences),
                "outside_band": len(outside),
                "unknown": len(unknown),
                "tensors": [_json(difference) for difference in differences],
            }
    if as_json:
        print_json(record)
    else:
        echo("\n".join(_table(differences)))
        rest = f", {len(unknown)} that cannot be judged" if unknown else ""
        echo(f"\n{len(compared)} of {len(differences)} tensors compared, {len(outside)} outside the band{rest}")
    if not compared:
        raise WorkbenchError(_nothing_compared(a, b, differences))
    if unknown and not outside:
        raise WorkbenchError(
            f"{len(unknown)} of {len(differences)} tensors of {a} and {b} cannot be judged, the first is "
            f"{unknown[0].name} ({unknown[0].note}); the others are within the band"
        )
    return 1 if outside else 0


def _nothing_compared(a: Path, b: Path, differences: list["TensorDifference"]) -> str:
    unread = [difference for difference in differences if difference.status == "unread"]
    if not unread:
        return f"no tensor of {a} has a counterpart in {b}; give two copies of the same model"
    return (
        f"no tensor of {a} and {b} could be compared: of {unread[0].name} {unread[0].note}; give copies of other types"
    )


def _side(path: Path, model: "StoredModel", progress: "ProgressLine") -> dict[str, Any]:
    from workbench.pair.fingerprints import sha256_of

    hashing = f"hash {printable(path.name)}"
    digest = sha256_of(model, lambda done, total: progress(done, total, hashing))
    return {"path": str(path), "format": model.format, "sha256": digest}


def _json(difference: "TensorDifference") -> dict[str, Any]:
    record: dict[str, Any] = {
        "name": difference.name,
        "status": difference.status,
        "note": difference.note,
        "type_a": difference.type_a,
        "type_b": difference.type_b,
        "shape_a": difference.shape_a,
        "shape_b": difference.shape_b,
        "in_band": difference.in_band,
        "findings": list(difference.findings),
    }
    if (measures := difference.measures) is not None:
        from workbench.cells.metrics import METRICS

        record |= {key: getattr(measures, key) for key in METRICS}
        record |= {
            "worst_row": difference.worst_row,
            "worst_row_rel_rms": difference.worst_row_rel_rms,
            "nonfinite_a": measures.nonfinite_a,
            "nonfinite_b": measures.nonfinite_b,
            "words": measures.words,
        }
    return record


def _table(differences: list["TensorDifference"]) -> list[str]:
    from store.text import printable
    from workbench.cells.metrics import METRICS, format_value
    from workbench.cli.tables import aligned

    columns = [METRICS[key] for key in ("rel_rms", "one_minus_cosine", "max_abs", "mean_abs", "rms")]
    rows: list[list[str]] = [["tensor", "A", "B", *(metric.label for metric in columns), ""]]
    for d in differences:
        values = ["-"] * len(columns)
        if d.measures is not None and not d.measures.identical:
            values = [d.measures.words.get(metric.key) or format_value(metric.value(d.measures)) for metric in columns]
        words = [printable(text, 1000) for text in (*d.findings, *([d.note] if d.note else []))]
        verdict = "OUTSIDE" if d.in_band is False else "identical" if d.status == "identical" else ""
        rows.append(
            [printable(d.name), d.type_a or "-", d.type_b or "-", *values, "; ".join([verdict, *words]).strip("; ")]
        )
    return aligned(rows, right=frozenset(range(3, 3 + len(columns))))
