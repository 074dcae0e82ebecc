"""`workbench patch`: exchange a part of two models and see what the output makes of it."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from workbench.cli.options import PATH, json_option, pair_options, print_json
from workbench.cli.sites import site_option, sites_typed
from workbench.cli.tables import echo

if TYPE_CHECKING:
    from kernels.stages import Site
    from workbench.bisect.models.patch import Agreement, Experiment
    from workbench.bisect.traces.announced import Progress
    from workbench.cli.progress import ProgressLine
    from workbench.pair.pair import Pair
    from workbench.pair.prompt import Prompt
    from workbench.session.session import Session


@click.command()
@click.argument("sources", metavar="A B | SESSION", nargs=-1, required=True, type=PATH)
@click.option(
    "--tensor",
    "tensors",
    metavar="NAME",
    multiple=True,
    help="Exchange a tensor, by its Hugging Face name; several together if it is given again.",
)
@click.option("--layer", metavar="N", type=click.IntRange(0), help="Exchange all tensors of a layer.")
@click.option(
    "--stage",
    metavar="LAYER:STAGE",
    callback=site_option,
    shell_complete=sites_typed,
    help="Exchange the values of one stage.",
)
@click.option("--settings", is_flag=True, help="Exchange the settings that differ (rotary base, epsilon, ...).")
@click.option("--path", "paths", is_flag=True, help="Exchange the numeric paths: weights x paths in four runs.")
@pair_options
@json_option
def command(
    sources: tuple[Path, ...],
    tensors: tuple[str, ...],
    layer: int | None,
    stage: "Site | None",
    settings: bool,
    paths: bool,
    tokens: tuple[int, ...] | None,
    prompt: "Prompt | None",
    path_a: str | None,
    path_b: str | None,
    as_json: bool,
) -> int:
    """Put a part of A into B and a part of B into A, and see how far the final logits move.

    The part and all the rest each come from A or from B, which makes four runs. A part that is guilty takes the
    difference with it. No model is changed. Of a session that has a verdict, the accused part is exchanged if no other
    one is named. Exit code 0: the exchange changes nothing, 1: it changes the output.

    \b
    Example:  workbench patch a.gguf b.gguf --tensor model.layers.3.mlp.up_proj.weight --tokens 1,2,3
    Example:  workbench patch sessions/model-vs-model
    """  # noqa: D301
    from kernels.machine.compiler import compile_all
    from workbench.cli.progress import ProgressLine
    from workbench.cli.sources import open_sources, session_alone

    asked = {
        "--tensor": bool(tensors),
        "--layer": layer is not None,
        "--stage": stage is not None,
        "--settings": settings,
        "--path": paths,
    }
    accused = len(sources) == 1 and not any(asked.values())
    if sum(asked.values()) != 1 and not accused:
        raise click.UsageError(f"give exactly one of {', '.join(asked)}: what to exchange")
    with ProgressLine() as line:
        if accused:
            pair, experiment = _of_accused(session_alone(sources[0], (path_a, path_b), tokens, prompt), line)
        else:
            pair = open_sources(sources, (path_a, path_b), tokens, prompt)
            compile_all(lambda done, total, name: line(done, total, f"compile {name}"))
            experiment = _experiment(pair, tensors, layer, stage, settings, line)
            pair.require_unchanged()
    if as_json:
        print_json(_json(pair, experiment))
    else:
        echo("\n".join(_text(experiment)))
    return 1 if experiment.matters else 0


def _of_accused(session: "Session", line: "ProgressLine") -> "tuple[Pair, Experiment]":
    """Exchange what the session's verdict accuses, and keep what came of it; WorkbenchError if nothing is accused."""
    from kernels.errors import WorkbenchError
    from kernels.machine.compiler import compile_all
    from store.text import printable
    from workbench.jobs.bisected import last_bisection
    from workbench.jobs.examining import pair_of
    from workbench.jobs.exchanging import exchange
    from workbench.jobs.logged_side import sides_of
    from workbench.jobs.patched import accused_part

    pair, known = pair_of(session), last_bisection(session)
    name, now = printable(str(session.folder), 1000), sides_of(session, pair)
    then = {} if known is None else {"a": known.a, "b": known.b}
    if known is None or any(
        (now[side].sha256, now[side].created) != (was.sha256, was.created) for side, was in then.items()
    ):
        raise WorkbenchError(
            f"{name} has no verdict on these files; bisect it first, or name a part: --tensor, --stage"
        )
    part = accused_part(known.found)
    if part is None:
        raise WorkbenchError(f"the verdict of {name} accuses no part; name one: --tensor, --layer, --stage, --settings")
    compile_all(lambda done, total, kernel: line(done, total, f"compile {kernel}"))
    return pair, exchange(session, pair, part, line)


def _experiment(
    pair: "Pair",
    tensors: tuple[str, ...],
    layer: int | None,
    stage: "Site | None",
    settings: bool,
    progress: "Progress",
) -> "Experiment":
    from workbench.bisect.models import patch
    from workbench.bisect.pair import model_sides

    a, b = model_sides(pair)
    ids = pair.ids
    if tensors:
        what = tensors[0] if len(tensors) == 1 else f"{len(tensors)} tensors"
        return patch.patch_tensors(a, b, frozenset(tensors), what, ids, progress)
    if layer is not None:
        names = patch.layer_tensors(a.model, b.model, layer)
        return patch.patch_tensors(a, b, names, f"layer {layer}", ids, progress)
    if settings:
        return patch.patch_settings(a, b, ids, progress)
    return patch.patch_path(a, b, ids, progress) if stage is None else patch.patch_stage(a, b, stage, ids, progress)


def _text(experiment: "Experiment") -> list[str]:
    from store.text import printable
    from workbench.bisect.models.patch import conclusion
    from workbench.cells.metrics import format_value
    from workbench.cli.tables import aligned

    rows = [["run", *(f"{what} {side}" for side in "AB" for what in ("KL to", "max", "top-1 ≠", "rel RMS to"))]]
    for run in experiment.runs:
        row = [printable(run.name), *_cells(run.to_a, experiment.tokens), *_cells(run.to_b, experiment.tokens)]
        if run.to_exact is not None:
            row += [format_value(run.to_exact.kl_mean), format_value(run.to_exact.rel_rms)]
        rows.append(row)
    if experiment.a.to_exact is not None:
        rows[0] += ["KL to A in f64", "rel RMS"]
    lines = [conclusion(experiment), "", *aligned(rows, right=frozenset(range(1, len(rows[0]))))]
    double = experiment.both
    lines += [
        "",
        f"double swap, the last two runs against each other: KL {format_value(double.kl_mean)} "
        f"(max {format_value(double.kl_max)}), top-1 differs at {double.top1_changed} of {experiment.tokens} tokens",
    ]
    return lines


def _cells(found: "Agreement", tokens: int) -> list[str]:
    from workbench.cells.metrics import format_value

    if found.identical:
        return ["same", "", f"0/{tokens}", ""]
    values = [format_value(value) for value in (found.kl_mean, found.kl_max, found.rel_rms)]
    return [values[0], values[1], f"{found.top1_changed}/{tokens}", values[2]]


def _json(pair: "Pair", experiment: "Experiment") -> dict[str, Any]:
    from dataclasses import asdict

    return {
        "a": str(pair.a.path),
        "b": str(pair.b.path),
        "tokens": list(pair.ids),
        "prompt": pair.prompt,
        "part": experiment.part,
        "left": experiment.left,
        "brought": experiment.brought,
        "runs": [asdict(run) for run in experiment.runs],
        "double_swap": asdict(experiment.both),
    }
