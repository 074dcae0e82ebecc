"""`workbench sweep`: a pair over many prompts, every part of B exchanged by itself; or a file against itself."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from workbench.cli.options import PATH, NumericPath, OneOf, force_option, json_option, print_json, token_ids
from workbench.cli.record import ENGINES
from workbench.cli.tables import aligned, bytes_text, echo

if TYPE_CHECKING:
    from workbench.sweep.planning import Plan
    from workbench.sweep.running import Engine
    from workbench.sweep.tally import Tally

BY_NAMES = ("tensor", "layer", "stage", "prompt")  # those of workbench.sweep.parts.BY and tally.METRICS; see a test
VARY_NAMES = ("tokens", "batch", "kv", "flash", "repack", "threads", "prefix")  # those of workbench.vary.change.NAMES
METRIC_NAMES = ("kl", "p99", "max", "flips")
_ROWS = 40  # parts and prompts that are printed
_MOST_WORKERS = 1024


@click.command()
@click.argument("sources", metavar="A B | FILE --vary … | OUT.jsonl", nargs=-1, required=True, type=PATH)
@click.option("--prompts", metavar="FILE", type=PATH, help="Texts to run, one a line; a line may be a JSON string.")
@click.option("--tokens-file", metavar="FILE", type=PATH, help="Token ids to run, those of a prompt on one line.")
@click.option("--by", type=OneOf(BY_NAMES), default=BY_NAMES[0], show_default=True, help="What is exchanged.")
@click.option(
    "--metric", type=OneOf(METRIC_NAMES), default=METRIC_NAMES[0], show_default=True, help="What parts are ordered by."
)
@click.option("--path-a", type=NumericPath(), help="Numeric path of A; by default as its engine computes.")
@click.option("--path-b", type=NumericPath(), help="Numeric path of B.")
@click.option("--workers", type=click.IntRange(0, _MOST_WORKERS), help="Processes; by default one a core. 0: this one.")
@click.option("--cluster", metavar="tcp://HOST:PORT", help="A dask scheduler that runs, whose workers do the work.")
@click.option("-o", "--output", metavar="OUT.jsonl", type=PATH, help="File of results, one line a unit of work.")
@click.option("--resume", is_flag=True, help="Go on with the file: what it has is not done again.")
@click.option("--recipe", metavar="BYTES|BPW", help="The tensor types of a copy of that size that costs least.")
@click.option(
    "--vary",
    metavar="SETTING[,…]",
    multiple=True,
    help="Run one file against itself with one setting changed: " + ", ".join(VARY_NAMES) + "; kv=q8_0, batch=4, …",
)
@click.option("--prompt", metavar="TEXT", help="With --vary: text to run, where the model carries a tokenizer.")
@click.option("--tokens", metavar="1,2,3", callback=token_ids, help="With --vary: token ids to run.")
@click.option("--engine", type=OneOf(ENGINES), help="With --vary: engine to run and record; else a path of ours.")
@click.option(
    "--python",
    metavar="PATH",
    envvar="WORKBENCH_ENGINE_PYTHON",
    help="With --vary: Python that has an engine installed, which is run then; by default $WORKBENCH_ENGINE_PYTHON.",
)
@click.option("--plain", is_flag=True, help="Lines of progress in place of the screen.")
@force_option
@json_option
def command(
    sources: tuple[Path, ...],
    prompts: Path | None,
    tokens_file: Path | None,
    by: str,
    metric: str,
    path_a: str | None,
    path_b: str | None,
    workers: int | None,
    cluster: str | None,
    output: Path | None,
    resume: bool,
    recipe: str | None,
    vary: tuple[str, ...],
    prompt: str | None,
    tokens: tuple[int, ...] | None,
    engine: str | None,
    python: str | None,
    plain: bool,
    force: bool,
    as_json: bool,
) -> int:
    """Run a pair over many prompts, and see what every part of B costs in the output of A.

    Every tensor of B (or layer, or stage) is put into A by itself, on every prompt, and the KL divergence from A's
    output is measured, beside what arithmetic alone costs. Results go to a file, one line a unit; given alone, it is
    shown again. Whatever ends the work, what was finished stays, and --resume does the rest.

    With --vary, one file is run against itself: as it is, and with one setting changed at a time, in an engine
    (--engine or --python) or on a path of this program. Of every setting it is said whether the bits are the same, or
    differ within what rounding can cause, or further.

    Exit code 0: nothing moves the output further than the floor, 1: something does, 2: it could not be answered.

    \b
    Example:  workbench sweep a.gguf b.gguf --prompts prompts.txt -o out.jsonl
    Example:  workbench sweep a.gguf --vary tokens,kv,flash --prompt "def add(a, b):" --python ~/llama/bin/python
    Example:  workbench sweep out.jsonl --recipe 400M
    """  # noqa: D301
    from workbench.sweep.results import read_lines
    from workbench.sweep.tally import Tally

    if vary:
        both: dict[str, object] = {
            "--path-b": path_b,
            "--output": output,
            "--recipe": recipe,
            "--workers": workers,
            "--cluster": cluster,
            "--by": None if by == BY_NAMES[0] else by,
            "--metric": None if metric == METRIC_NAMES[0] else metric,
            "--resume": resume or None,
            "--plain": plain or None,
            "--force": force or None,
        }
        return _vary(sources, vary, (tokens, prompt, prompts, tokens_file), (engine, python, path_a), both, as_json)
    _refuse(of="--vary", prompt=prompt, tokens=tokens, engine=engine)
    if len(sources) == 1:
        _refuse(prompts=prompts, tokens_file=tokens_file, output=output, resume=resume or None, cluster=cluster)
        return _show(Tally(read_lines(sources[0])), metric, recipe, as_json)
    if len(sources) > 2:
        raise click.UsageError(f"two sides are compared, not {len(sources)}; give A and B, or a file of results")
    if (prompts is None) == (tokens_file is None):
        raise click.UsageError("give either --prompts FILE or --tokens-file FILE: what to run")
    if output is None:
        raise click.UsageError("give -o OUT.jsonl: where results are kept, and where --resume finds them")
    if workers is not None and cluster is not None:
        raise click.UsageError("--workers are started here, and --cluster has its own; give one of them")
    file = prompts or tokens_file
    assert file is not None
    _require_output(output, (*sources, file), resume, force)
    plan = _plan((sources[0], sources[1]), (path_a, path_b), file, tokens_file is not None, by)
    doing, who = _engine(workers, cluster)
    click.echo(f"workbench: {_beforehand(plan, who, output)}", err=True)
    tally = Tally()
    if _on_screen(plain or as_json):
        from workbench.app.sweep import show

        show(plan, doing, output, resume, tally, metric)
    else:
        _run(plan, doing, output, resume, tally)
    return _show(tally, metric, recipe, as_json)


def _vary(
    sources: tuple[Path, ...],
    settings: tuple[str, ...],
    what: tuple[tuple[int, ...] | None, str | None, Path | None, Path | None],
    who: tuple[str | None, str | None, str | None],
    both: dict[str, object],
    as_json: bool,
) -> int:
    """One file against itself. both : options that belong to two models."""
    from workbench.cli.vary import vary

    if len(sources) != 1:
        raise click.UsageError(f"--vary takes one file, which it runs against itself, not {len(sources)}")
    for name, value in both.items():
        if value is not None:
            raise click.UsageError(f"{name} belongs to two models, and --vary runs one; leave it out")
    if sum(value is not None for value in what) != 1:
        raise click.UsageError("give one of --prompt, --tokens, --prompts FILE and --tokens-file FILE: what to run")
    if who[0] is not None and who[2] is not None:
        raise click.UsageError("--engine runs an engine and --path-a a path of this program; give one of them")
    return vary(sources[0], settings, what, who, as_json)


def _refuse(of: str = "two models", **options: object) -> None:
    """Raise UsageError for an option that belongs to what was not given: two models, or --vary."""
    given = [name for name, value in options.items() if value is not None]
    if given:
        raise click.UsageError(
            f"--{given[0].replace('_', '-')} belongs to {of}; give {'A and B' if of == 'two models' else of} with it"
        )


def _require_output(output: Path, inputs: tuple[Path, ...], resume: bool, force: bool) -> None:
    from kernels.errors import WorkbenchError
    from store.outputs import require_writable

    if output.exists() and not (resume or force):
        raise WorkbenchError(
            f"{output} exists; --resume goes on with it, --force begins it afresh, or give -o another name"
        )
    require_writable(output, inputs, force=True)


def _on_screen(plain: bool) -> bool:
    from workbench.machine import terminal

    return terminal.is_there() and not plain


def _plan(
    paths: tuple[Path, Path], numeric: tuple[str | None, str | None], file: Path, of_ids: bool, by: str
) -> "Plan":
    from workbench.cli.progress import ProgressLine
    from workbench.sweep.parts import BY
    from workbench.sweep.planning import planned
    from workbench.sweep.question import ask

    with ProgressLine() as line:
        question = ask(paths, numeric, lambda done, total: line(done, total, "hash both models"))
        line(0, 0, "read both models and the prompts")
        return planned(question, BY[BY_NAMES.index(by)], file, of_ids)


def _engine(workers: int | None, cluster: str | None) -> "tuple[Engine, str]":
    """Who does the work, and what to call them."""
    from workbench.sweep.cluster import Cluster, available
    from workbench.sweep.running import Here

    if workers == 0:
        return Here(), "this process"
    if workers is None and cluster is None and not available():
        return Here(), "this process (`pip install 'layer-workbench[cluster]'` for one a core)"
    if cluster is not None:
        return Cluster(address=cluster), f"the workers of {cluster}"
    engine = Cluster(workers)
    return engine, f"{engine.workers} worker{'s' if engine.workers > 1 else ''}"


def _beforehand(plan: "Plan", who: str, output: Path) -> str:
    """What will be done, held and written, in a sentence."""
    from store.text import printable
    from workbench.sweep.kept import MOST, folder

    forwards = plan.total / sum(len(prompt.tokens) for prompt in plan.prompts) * len(plan.prompts)
    files = plan.question.a.size + plan.question.b.size
    runs = min(plan.kept, MOST)
    return (
        f"{plan.units} units on {len(plan.prompts)} prompts, at most {forwards:.0f} forwards, by {who}; each maps "
        f"{bytes_text(files)} of weights and holds about {bytes_text(plan.held)} beside; {output} gets about "
        f"{bytes_text(plan.written)}, and A's runs take up to {bytes_text(runs)} in {printable(str(folder()), 1000)}"
    )


def _run(plan: "Plan", engine: "Engine", output: Path, resume: bool, tally: "Tally") -> None:
    from workbench.cli.progress import ProgressLine
    from workbench.sweep.running import run
    from workbench.sweep.words import part_name

    with ProgressLine() as line:
        for done in run(plan, engine, output, resume, tally):
            unit = {} if done.line is None else done.line["unit"]
            name = {key: value for key, value in unit.items() if key != "prompt"}
            what = part_name(name) if name else "all of B"
            words = f"prompt {unit['prompt']}, {what}" if unit else "the first prompt"
            line(round(1000 * done.cost), round(1000 * plan.total), f"sweep {done.units}/{plan.units} units, {words}")


def _show(tally: "Tally", metric: str, size: str | None, as_json: bool) -> int:
    from workbench.sweep.recipe import recipe

    head = tally.require_some()
    found = None if size is None else recipe(tally, size, metric)
    if as_json:
        rows = {"parts": [row.to_json() for row in tally.ordered(metric)]}
        prompts = {"prompts": [row.to_json() for _, row in sorted(tally.prompts.items())]}
        of = {"a": head["a"], "b": head["b"], "by": head["by"], "floor_path": head["floor_path"]}
        counts = {"units": tally.done, "expected": tally.expected, "different": tally.different}
        made = {} if found is None else {"recipe": found.to_json()}
        print_json(of | counts | {"whole": tally.whole.to_json()} | rows | prompts | made)
    elif found is not None:
        echo("\n".join(found.lines()))
        kept, all = len(found.kept), len(found.kept) + len(found.given)
        click.echo(
            f"workbench: {found.size} bytes, {found.bits:.3f} bits per weight; {kept} of {all} tensors as in A, the "
            f"others as in B, whose {metric} adds up to {found.loss:.4g}",
            err=True,
        )
    else:
        _print(tally, metric)
    if tally.different:
        return 1
    if tally.done < (tally.expected or 0):  # what is missing may well be what moves it
        click.echo(
            f"workbench: nothing moves the output yet, but only {tally.done} of {tally.expected} units are there; "
            "--resume does the rest",
            err=True,
        )
        return 2
    if tally.unknown:
        click.echo(
            f"workbench: the output moves on {tally.unknown} prompts where A in {head['floor_path']} gives logits that "
            "are no numbers, so that nothing tells what arithmetic alone costs; give other paths or prompts",
            err=True,
        )
        return 2
    return 0


def _print(tally: "Tally", metric: str) -> None:
    from workbench.sweep.words import PARTS, PROMPTS, headline, part_row, prompt_row

    lines = list(headline(tally))
    rows = [row for row in tally.ordered(metric) if row.figure(metric)]
    if rows:
        table = aligned([PARTS, *map(part_row, rows[:_ROWS])], right=frozenset(range(2, len(PARTS))))
        lines += ["", *table, *_more(len(rows), "parts"), f"{len(tally.rows) - len(rows)} other parts change nothing"]
    prompts = sorted(tally.prompts.values(), key=lambda row: row.order, reverse=True)
    table = aligned([PROMPTS, *map(prompt_row, prompts[:_ROWS])], right=frozenset((1, 2, 3, 4, 5, 6, 7, 9)))
    echo("\n".join([*lines, "", *table, *_more(len(prompts), "prompts")]))


def _more(count: int, what: str) -> list[str]:
    return [f"… {count - _ROWS} more {what}, --json has all"] if count > _ROWS else []
