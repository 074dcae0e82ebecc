"""`workbench weights`: every tensor of two models, paired by name and compared."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from store.text import printable
from workbench.cli.options import json_option, print_json

if TYPE_CHECKING:
    from store.artifact import Artifact
    from workbench.cli.progress import ProgressLine
    from workbench.weights import TensorDifference


@click.command()
@click.argument("a", type=click.Path(path_type=Path))
@click.argument("b", type=click.Path(path_type=Path))
@json_option
def command(a: Path, b: Path, as_json: bool) -> int:
    """Compare every tensor of two models, whatever their formats.

    Tensors are paired by their canonical name; known differences of layout are undone and reported, unmatched tensors
    are listed. A tensor with NaN or infinite values is outside the band, on whichever side they are. Exit code 0: every
    tensor is within the band, 1: some are not, 2: nothing was compared.

    \b
    Example:  workbench weights model.gguf model.apr
    """  # noqa: D301
    from kernels.errors import WorkbenchError
    from store.artifact import open_artifact
    from workbench.cli.progress import ProgressLine
    from workbench.weights import sweep

    with ProgressLine() as progress:
        artifact_a, artifact_b = open_artifact(a), open_artifact(b)
        differences = list(sweep(artifact_a, artifact_b, progress))
        compared = [d for d in differences if d.measures is not None]
        outside = [d for d in differences if not d.in_band]
        if as_json:
            record = {
                "a": _side(a, artifact_a, progress),
                "b": _side(b, artifact_b, progress),
                "compared": len(compared),
                "expected": len(differences),
                "outside_band": len(outside),
                "tensors": [_json(difference) for difference in differences],
            }
    if as_json:
        print_json(record)
    else:
        click.echo("\n".join(_table(differences)))
        click.echo(f"\n{len(compared)} of {len(differences)} tensors compared, {len(outside)} outside the band")
    if not compared:
        raise WorkbenchError(f"no tensor of {a} has a counterpart in {b}; give two copies of the same model")
    return 1 if outside else 0


def _side(path: Path, artifact: "Artifact", progress: "ProgressLine") -> dict[str, Any]:
    from workbench.fingerprints import sha256_of

    hashing = f"hash {printable(path.name)}"
    digest = sha256_of(artifact, lambda done, total: progress(done, total, hashing))
    return {"path": str(path), "format": artifact.format, "sha256": digest}


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
        from workbench.metrics import METRICS

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
    from workbench.cli.tables import aligned
    from workbench.metrics import METRICS, format_value

    columns = [METRICS[key] for key in ("rel_rms", "one_minus_cosine", "max_abs", "mean_abs", "rms")]
    rows: list[list[str]] = [["tensor", "A", "B", *(metric.label for metric in columns), ""]]
    for d in differences:
        values = ["-"] * len(columns)
        if d.measures is not None and not d.measures.identical:
            values = [d.measures.words.get(metric.key) or format_value(metric.value(d.measures)) for metric in columns]
        words = [*d.findings, *([d.note] if d.note else [])]
        verdict = "OUTSIDE" if not d.in_band else "identical" if d.status == "identical" else ""
        rows.append(
            [printable(d.name), d.type_a or "-", d.type_b or "-", *values, "; ".join([verdict, *words]).strip("; ")]
        )
    return aligned(rows, right=frozenset(range(3, 3 + len(columns))))
