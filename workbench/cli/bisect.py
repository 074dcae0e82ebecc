"""`workbench bisect`: the first cell that is really wrong, and why."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from workbench.cli.options import PATH, json_option, pair_options, print_json
from workbench.cli.sites import site_option, sites_typed
from workbench.cli.tables import echo

if TYPE_CHECKING:
    from kernels.stages import Site
    from workbench.pair.prompt import Prompt

_NOT_ANSWERED = 2


@click.command()
@click.argument("sources", metavar="A B | SESSION", nargs=-1, required=True, type=PATH)
@pair_options
@click.option(
    "--cell",
    metavar="LAYER:STAGE",
    callback=site_option,
    shell_complete=sites_typed,
    help="Also take one cell apart: its local error by token, channel, head and block, and what its inputs explain.",
)
@click.option(
    "--trace",
    metavar="ENGINE.npz",
    type=PATH,
    help="What an engine computed with B, a copy of A: says whether the copy, its types or the engine are at fault.",
)
@json_option
def command(
    sources: tuple[Path, ...],
    tokens: tuple[int, ...] | None,
    prompt: "Prompt | None",
    path_a: str | None,
    path_b: str | None,
    cell: "Site | None",
    trace: Path | None,
    as_json: bool,
) -> int:
    """Find the first cell that is really wrong, which factor made it so, and which mistake.

    A and B are models or traces, ours (.h5) or another engine's. Every stage is run again on the same input, with one
    factor at a time taken from the other side, and judged against what rounding can cause there (its floor); a trace is
    checked on its own recorded inputs, and what lies between its stages is run from there. Two traces can only be
    compared. A session keeps the verdict, which `open`, `export` and `sessions` tell from then on.

    With --trace, A is the source of B and the trace what an engine computed with B. One verdict names the side at
    fault: artifact (B is not what a quantizer makes of A), engine (it does not compute what B says), recipe (nothing
    is broken, but the types of B cost more than arithmetic does), none, or undecided.

    Exit code 0: alike, or different only as arithmetic or quantization explain; 1: something is wrong; 2: undecided or
    not comparable.

    \b
    Example:  workbench bisect model.gguf model.apr --prompt "def add(a, b):"
    Example:  workbench bisect sessions/model-vs-model
    Example:  workbench bisect model/ model-q4.gguf --trace engine.npz
    """  # noqa: D301
    from kernels.errors import WorkbenchError
    from kernels.machine.compiler import compile_all
    from workbench.bisect.answer import answer_json, answer_text, exit_code, reason
    from workbench.bisect.models.detail import cell_detail
    from workbench.bisect.pair import bisect_pair
    from workbench.cli.progress import ProgressLine
    from workbench.cli.sources import open_sources, session_alone
    from workbench.jobs.examining import bisect_session, pair_of

    if trace is not None:
        _refuse_beside_trace(sources, {"--path-a": path_a, "--path-b": path_b, "--cell": cell})
        return _three_sides(sources, trace, tokens, prompt, as_json)
    with ProgressLine() as line:
        session = session_alone(sources[0], (path_a, path_b), tokens, prompt) if len(sources) == 1 else None
        pair = open_sources(sources, (path_a, path_b), tokens, prompt) if session is None else pair_of(session)
        compile_all(lambda done, total, name: line(done, total, f"compile {name}"))

        def progress(done: int, total: int, text: str) -> None:
            line(done, total, f"bisect {text}")

        answer = bisect_pair(pair, progress) if session is None else bisect_session(session, pair, progress)[0]
        detail = None if cell is None else cell_detail(pair, cell, line, answer.bisection.checked)
        record = answer_json(answer, detail, line) if as_json else None
    if record is None:
        echo(answer_text(answer, detail))
    else:
        print_json(record)
    if (why := reason(answer)) is not None:
        raise WorkbenchError(why)
    return exit_code(answer)


def _refuse_beside_trace(sources: tuple[Path, ...], options: dict[str, object]) -> None:
    """Raise UsageError for what has no place where three sides are asked about."""
    if len(sources) != 2:
        raise click.UsageError("--trace is the third side; give the source and the copy that the engine ran before it")
    for name, value in options.items():
        if value is not None:
            raise click.UsageError(f"{name} belongs to two sides, and --trace makes three; leave one of them out")


def _three_sides(
    sources: tuple[Path, ...],
    recorded: Path,
    tokens: tuple[int, ...] | None,
    prompt: "Prompt | None",
    as_json: bool,
) -> int:
    from kernels.errors import WorkbenchError
    from kernels.machine.compiler import compile_all
    from store.artifact import Artifact
    from store.text import printable
    from store.traces.trace import Trace
    from workbench.cli.progress import ProgressLine
    from workbench.pair.pair import open_source
    from workbench.pair.tokens import shared_tokens
    from workbench.sides.answer import answer_json, answer_text
    from workbench.sides.sides import three_sides

    source, copy, trace = (open_source(path) for path in (*sources, recorded))
    for path, side, kind in zip((*sources, recorded), (source, copy, trace), (Artifact, Artifact, Trace), strict=True):
        if not isinstance(side, kind):
            what = "a model" if kind is Artifact else "a recorded trace"
            raise WorkbenchError(f"{printable(str(path), 1000)} is not {what}; give SOURCE COPY --trace ENGINE.npz")
    assert isinstance(source, Artifact)
    assert isinstance(copy, Artifact)
    assert isinstance(trace, Trace)
    with ProgressLine() as line:
        compile_all(lambda done, total, name: line(done, total, f"compile {name}"))
        found = three_sides(source, copy, trace, shared_tokens([source, copy, trace], tokens, prompt), line)
        record = answer_json(found, line) if as_json else None
    if record is None:
        echo("\n".join(answer_text(found)))
    else:
        print_json(record)
    if found.exit_code == _NOT_ANSWERED:
        raise WorkbenchError(f"undecided: {found.why}")
    return found.exit_code
