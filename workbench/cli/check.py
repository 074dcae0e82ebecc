"""`workbench check`: whether a pair meets a contract."""

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import click

from workbench.cli.options import PATH, OneOf, force_option, json_option, pair_options, print_json
from workbench.cli.sources import is_session, open_session
from workbench.cli.tables import aligned, echo

if TYPE_CHECKING:
    from workbench.lab.contracts.checking import Check
    from workbench.lab.contracts.contract import Contract
    from workbench.lab.measurements import Measurements, Show
    from workbench.pair.prompt import Prompt
    from workbench.session.session import Session


@click.command()
@click.argument("sources", metavar="CONTRACT (A B | SESSION)", nargs=-1, required=True, type=PATH)
@pair_options
@click.option("--junit", metavar="FILE", type=PATH, help="Write the results as JUnit XML.")
@click.option("--annotations", type=OneOf(["github"]), help="Annotate a build with every rule that is not met.")
@click.option(
    "--learn",
    metavar="OUT.yaml",
    type=PATH,
    help="Write the contract that this pair, which must be healthy, meets; CONTRACT may be left out.",
)
@force_option
@json_option
def command(
    sources: tuple[Path, ...],
    tokens: tuple[int, ...] | None,
    prompt: "Prompt | None",
    path_a: str | None,
    path_b: str | None,
    junit: Path | None,
    annotations: str | None,
    learn: Path | None,
    force: bool,
    as_json: bool,
) -> int:
    """Check two models or traces against a contract: a YAML file of bounds, or parity or strict, which come along.

    Only what the rules need is computed: without rules about cells, logits or the verdict of a bisection nothing is
    run, and no tokens are needed. Of a session cells and logits are read from its capture, if that is of its files as
    they are now. What could not be measured is never met, nor a rule that matches nothing.

    What becomes of a session's pair is kept in its log, and stands in its findings.

    Exit code 0: every rule is met, 1: some are broken, 2: none is known to be broken, but some could not be answered.

    \b
    Example:  workbench check parity model.gguf model.apr --prompt "def add(a, b):"
    Example:  workbench check contract.yaml model.gguf model.apr --tokens 1,2,3 --junit contract.xml
    """  # noqa: D301
    from kernels.errors import WorkbenchError
    from store.outputs import require_writable
    from workbench.cli.progress import ProgressLine
    from workbench.jobs.kept_checks import keep_check
    from workbench.lab.contracts.checking import EXIT_CODES, check
    from workbench.lab.contracts.reading import read_contract

    given, sides = _split(sources, learn is not None)
    contract = None if given is None else read_contract(given)
    if junit is not None and learn is not None and junit.absolute() == learn.absolute():
        raise click.UsageError("--junit and --learn name the same file; give two names")
    for option, output in (("--junit", junit), ("--learn", learn)):
        if output is not None:
            require_writable(output, sources, force, f"give {option} another name")
    if junit is not None and contract is None:
        raise click.UsageError("--junit writes what became of a contract; give CONTRACT before A and B")
    session = _session(sides, (path_a, path_b, tokens, prompt))
    with ProgressLine() as line:
        pair = _measurements(session or sides, (path_a, path_b), tokens, prompt, line)
        _open(pair, learn is not None or (contract is not None and contract.runs))
        found = None if contract is None else check(contract, pair)
        learnt = None if learn is None else _learn(pair, learn, force)
        facts = pair.provenance()
        if found is not None and session is not None:
            keep_check(session, found, pair)
    record = facts if found is None else found.to_json() | facts
    if learnt is not None:
        record["learnt"] = {"file": str(learn), "rules": len(learnt.rules)}
    if found is not None and junit is not None:
        _write_junit(found, junit, facts, force)
    if as_json:
        print_json(record)
    else:
        _print(found, record)
        if learnt is not None:
            echo(f"wrote {learn}: {len(learnt.rules)} rules learnt from this pair")
    if found is not None and annotations is not None:
        _annotate(found, as_json)
    if found is not None and (why := found.reason) is not None:
        raise WorkbenchError(why)
    return 0 if found is None else EXIT_CODES[found.verdict]


def _split(sources: tuple[Path, ...], learning: bool) -> tuple[Path | None, tuple[Path, ...]]:
    """The contract, if any, and the sides: two of them or a session."""
    from store.text import printable

    sides = 1 if is_session(sources[-1]) else 2
    contracts = len(sources) - sides
    if contracts == 1:
        return sources[0], sources[1:]
    if contracts == 0 and learning:
        return None, sources
    none = f", and {printable(str(sources[-1]))} is no session" if contracts == 0 else ""
    raise click.UsageError(f"{len(sources)} names were given{none}; give CONTRACT A B, or CONTRACT and a session")


def _session(sides: tuple[Path, ...], options: tuple[object, ...]) -> "Session | None":
    """The session that was given in place of two sides."""
    if len(sides) == 2:
        return None
    if any(value is not None for value in options):
        raise click.UsageError("a session has its own tokens and paths; give it alone, or A and B with these options")
    return open_session(sides[0])


def _measurements(
    of: "Session | tuple[Path, ...]",
    asked: tuple[str | None, str | None],
    tokens: tuple[int, ...] | None,
    prompt: "Prompt | None",
    show: "Show",
) -> "Measurements":
    """The measurements of a session's pair, or of two sides."""
    from kernels.paths import numeric_path
    from workbench.lab.captured_measurements import CapturedMeasurements
    from workbench.lab.measurements import Measurements

    if isinstance(of, tuple):
        return Measurements((of[0], of[1]), asked, tokens, prompt, show)
    for side in (of.spec.a, of.spec.b):
        if side.numeric_path:
            numeric_path(side.numeric_path)  # one that is not known is no measurement that failed
    return CapturedMeasurements(of, show)


def _open(pair: "Measurements", runs: bool) -> None:
    """Open both sides, so that what is missing is told before anything is measured."""
    _ = pair.pair if runs else pair.sources


def _learn(pair: "Measurements", output: Path, force: bool) -> "Contract":
    from store.whole_files import write_atomically
    from workbench.lab.contracts.learning import learn
    from workbench.lab.contracts.reading import parse

    text = learn(pair, output.stem)
    learnt = parse(text, str(output))
    write_atomically(output, text, force)
    return learnt


def _write_junit(found: "Check", output: Path, facts: dict[str, object], force: bool) -> None:
    from store.whole_files import write_atomically
    from workbench.lab.contracts.junit import junit

    properties: dict[str, str] = {}
    for side in ("a", "b"):
        record = facts[side]
        assert isinstance(record, dict)
        properties |= {f"{side}.{name}": str(value) for name, value in record.items() if value is not None}
    tokens = facts["tokens"]
    if isinstance(tokens, list):
        properties["tokens"] = ",".join(map(str, tokens))
    write_atomically(output, junit(found, properties), force)


def _print(found: "Check | None", record: dict[str, object]) -> None:
    from store.text import inert
    from workbench.lab.contracts.words import headline, sentences, table

    if found is not None:
        width = shutil.get_terminal_size((120, 24)).columns
        echo("\n".join([headline(found), "", *aligned(table(found, width), right=frozenset((2, 5, 6)))]))
        if said := list(sentences(found)):
            echo("\n".join(["", *said]))
        echo("")
    for side in ("a", "b"):
        facts = record[side]
        assert isinstance(facts, dict)
        path = f", path {facts['numeric_path']}" if facts["numeric_path"] else ""
        echo(inert(f"{side.upper()}  {facts['path']} ({facts['format']}{path}, sha256 {facts['sha256'][:16]}…)"))
    if isinstance(record["tokens"], list):
        echo(f"tokens  {','.join(map(str, record['tokens']))}")
    assert isinstance(record["notes"], list)
    for note in record["notes"]:
        echo(inert(note))


def _annotate(found: "Check", as_json: bool) -> None:
    """Print workflow commands; on stderr, which the runner reads too, where stdout is for one JSON object."""
    from workbench.lab.contracts.words import annotations

    for command in annotations(found, found.contract.file):
        click.echo(command, err=as_json)
