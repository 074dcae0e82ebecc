"""`workbench lab`: experiments that show what one number hides."""

import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from workbench.cli.options import PATH, completing, force_option, json_option, pair_options, print_json, prompt_option
from workbench.cli.sources import is_session, open_session, require_none_given
from workbench.cli.tables import echo

if TYPE_CHECKING:
    from workbench.cli.progress import ProgressLine
    from workbench.lab.experiment import Experiment, Result
    from workbench.lab.subject import Subject
    from workbench.pair.prompt import Prompt
    from workbench.session.session import Session


def _names() -> Iterator[str]:
    from workbench.lab.experiments import experiments

    return (name for known in experiments() for name in dict.fromkeys((known.id, known.word)))


@click.command()
@click.argument("name", required=False, shell_complete=completing(_names))
@click.argument("a", metavar="[A | SESSION]", type=PATH, required=False)
@click.argument("b", type=PATH, required=False)
@click.option("--layer", metavar="N", type=click.IntRange(0, 10**9), help="Layer of the cell that it is tried on.")
@click.option("--stage", metavar="S", help="Stage of that cell; by default the last one that the experiment is about.")
@click.option("--set", "sets", metavar="KEY=VALUE", multiple=True, help="A parameter of the experiment, any number.")
@click.option("--csv", "csv_file", metavar="FILE", type=PATH, help="Write the series as a table.")
@click.option("--svg", "svg_file", metavar="FILE", type=PATH, help="Write the plot as a picture.")
@force_option
@pair_options
@json_option
def command(
    name: str | None,
    a: Path | None,
    b: Path | None,
    layer: int | None,
    stage: str | None,
    sets: tuple[str, ...],
    csv_file: Path | None,
    svg_file: Path | None,
    force: bool,
    tokens: tuple[int, ...] | None,
    prompt: "Prompt | None",
    path_a: str | None,
    path_b: str | None,
    as_json: bool,
) -> int:
    """Run an experiment on its published input, or on a model or a pair at a cell, and show all of what came out.

    Without NAME all experiments are listed; they have their published numbers (005 to 017) and words. With one model
    its two paths are compared, f32 and that of its format. With a session it is its pair, tokens and paths, and what is
    found is kept in its log and stands in its findings. Exit code 0: the claim is confirmed or there is none, 1: it
    is not, or a published figure did not come out, 2: it could not be run.

    \b
    Example:  workbench lab 009 --set depth=12
              workbench lab rows model.gguf --layer 3 --json
              workbench lab ledger sessions/model-vs-model
    """  # noqa: D301
    from workbench.cli.progress import ProgressLine
    from workbench.jobs.examining import pair_of
    from workbench.jobs.kept_experiments import keep_experiment
    from workbench.lab.experiment import perform, read_settings
    from workbench.lab.experiments import experiment, experiments
    from workbench.lab.subject import open_subject, subject_of

    if name is None:
        if sets or csv_file or svg_file:
            raise click.UsageError("name an experiment: `workbench lab` alone lists them")
        _list(experiments(), as_json)
        return 0
    asked = experiment(name)
    given = read_settings(sets)
    sides = tuple(side for side in (a, b) if side is not None)
    session = _session(
        sides, {"--path-a": path_a, "--path-b": path_b, "--tokens": tokens, prompt_option(prompt): prompt}
    )
    asked.settings(given, "model" if sides else "made")  # what is wrong is said before anything is opened
    outputs = {"--csv": csv_file, "--svg": svg_file}
    _require_writable(outputs, sides, force)
    with ProgressLine() as line:
        if session is not None:
            subject = subject_of(pair_of(session), alone=False, layer=layer, stage=stage)
            result = _on_models(asked, given, subject, outputs, force, line)
            keep_experiment(session, subject, result)
        elif sides:
            subject = open_subject(sides, (path_a, path_b), tokens, prompt, layer, stage)
            result = _on_models(asked, given, subject, outputs, force, line)
        else:
            _require_no_model(
                {"--layer": layer, "--stage": stage, "--path-a": path_a, "--path-b": path_b}, tokens, prompt
            )
            line(0, 0, f"lab {asked.word}")  # kernels may have to be compiled
            result = perform(asked, given)
    record = result.to_json()
    _write(record, outputs, force)
    if as_json:
        print_json(record)
    else:
        from workbench.report.experiment_text import result_text

        echo(result_text(record, _width()))
    result.require_answer()
    return result.exit_code()


def _session(sides: tuple[Path, ...], options: Mapping[str, object]) -> "Session | None":
    """The session that was given in place of a model; UsageError for options that a session has of its own."""
    if len(sides) != 1 or not is_session(sides[0]):
        return None
    require_none_given(options, sides[0])
    return open_session(sides[0])


def _require_no_model(options: Mapping[str, object], tokens: object, prompt: object) -> None:
    """Raise UsageError if options are given that are about a model, where none is."""
    if any(value is not None for value in (*options.values(), tokens, prompt)):
        raise click.UsageError(f"{', '.join(options)} and tokens are about a model; give A, or A and B")


def _on_models(
    asked: "Experiment",
    given: dict[str, str],
    subject: "Subject",
    outputs: dict[str, Path | None],
    force: bool,
    line: "ProgressLine",
) -> "Result":
    from kernels.machine.compiler import compile_all
    from workbench.lab.experiment import perform

    _require_writable(outputs, subject.files, force)
    compile_all(lambda done, total, kernel: line(done, total, f"compile {kernel}"))
    line(0, 0, f"lab {asked.word}")
    result = perform(asked, given, subject)
    subject.pair.require_unchanged()
    return result


def _require_writable(outputs: dict[str, Path | None], inputs: Sequence[Path], force: bool) -> None:
    from store.outputs import require_writable

    wanted = {option: path for option, path in outputs.items() if path is not None}
    if len(wanted) == 2 and len({path.absolute() for path in wanted.values()}) == 1:
        raise click.UsageError("--csv and --svg name the same file; give two names")
    for option, path in wanted.items():
        require_writable(path, inputs, force, f"give {option} another name")


def _write(record: dict[str, Any], outputs: dict[str, Path | None], force: bool) -> None:
    from store.whole_files import write_atomically
    from workbench.report.experiment_svg import experiment_svg
    from workbench.report.experiment_text import series_csv

    for option, path in outputs.items():
        if path is not None:
            content = series_csv(record["series"]) if option == "--csv" else experiment_svg(record)
            write_atomically(path, content, force)


def _list(found: "tuple[Experiment, ...]", as_json: bool) -> None:
    """Print every experiment with its question and parameters."""
    from workbench.report.experiment_text import list_text

    if as_json:
        print_json({"experiments": [experiment.to_json() for experiment in found]})
    else:
        echo(list_text(found, _width()))


def _width() -> int:
    return max(40, min(shutil.get_terminal_size((80, 24)).columns, 120))
