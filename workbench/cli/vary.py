"""`workbench sweep FILE --vary SETTINGS`: one file against itself, with one setting changed at a time."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workbench.cli.options import print_json
from workbench.cli.sources import say_notes
from workbench.cli.tables import echo

if TYPE_CHECKING:
    from store.artifact import Artifact
    from workbench.sweep.question import Prompt as Line
    from workbench.vary.change import Change
    from workbench.vary.finding import Finding
    from workbench.vary.running import Base, InEngine, OnPath

_NOT_ANSWERED = 2


def vary(
    file: Path,
    settings: tuple[str, ...],
    what: "tuple[tuple[int, ...] | None, str | None, Path | None, Path | None]",
    who: tuple[str | None, str | None, str | None],
    as_json: bool,
) -> int:
    """Run a model against itself, and print per setting whether the bits are the same, or may differ, or may not.

    what : tokens, prompt, and files of prompts and of tokens, of which one is given. who : the engine, the Python that
    has it, or the path of this program; a path is also taken where nothing names an engine.
    """
    from store.open import open_artifact
    from store.scratch import scratch_folder
    from workbench.cli.progress import ProgressLine
    from workbench.record.jobs import engine_of
    from workbench.vary.change import changes
    from workbench.vary.running import InEngine, findings

    engine, python, path = who
    asked = changes(",".join(settings))
    model = open_artifact(file)
    prompts = _prompts(model, *what)
    with ProgressLine() as line, scratch_folder() as folder:
        model.sha256(lambda done, total: line(done, total, f"bytes of {model.path.name} hashed"))
        if engine is not None or (python is not None and path is None):
            runner: InEngine | OnPath = InEngine(engine_of(model, engine), model, python or sys.executable, folder)
        else:
            runner = _on_path(model, path, line)
        found = list(findings(runner, [prompt.tokens for prompt in prompts], asked, line))
    for source in model.sources:
        source.require_unchanged()
    return _answer(model, runner, prompts, asked, found, as_json)


def _on_path(model: "Artifact", path: str | None, line: Any) -> "OnPath":  # noqa: ANN401
    from kernels.machine.compiler import compile_all
    from kernels.paths import numeric_path
    from workbench.pair.pair import DEFAULT_PATH, Pair
    from workbench.pair.tokens import Tokens
    from workbench.vary.running import OnPath

    compile_all(lambda done, total, name: line(done, total, f"compile {name}"))

    def of(tokens: tuple[int, ...]) -> "Artifact":
        models = Pair(model, model, Tokens(tokens, None)).models
        assert models is not None
        return models[0]

    return OnPath(of, numeric_path(path or DEFAULT_PATH[model.format]))


def _prompts(
    model: "Artifact",
    tokens: tuple[int, ...] | None,
    prompt: str | None,
    prompts: Path | None,
    tokens_file: Path | None,
) -> "list[Line]":
    from kernels.forward import check_tokens
    from workbench.pair.tokens import shared_tokens
    from workbench.sweep.prompts import ids_of_lines, texts_of_lines
    from workbench.sweep.question import Opened
    from workbench.sweep.question import Prompt as Line

    if prompts is not None:
        return texts_of_lines(prompts, Opened(model, model))
    if tokens_file is not None:
        return ids_of_lines(tokens_file, Opened(model, model))
    shared = shared_tokens([model], tokens, prompt)
    say_notes(shared)
    check_tokens(shared.ids, model.config)
    return [Line(shared.ids, shared.prompt)]


def _answer(
    model: "Artifact",
    runner: "InEngine | OnPath",
    prompts: "list[Line]",
    asked: "tuple[Change, ...]",
    found: "list[tuple[int, Base | None, list[Finding]]]",
    as_json: bool,
) -> int:
    from kernels.errors import WorkbenchError
    from workbench.vary.finding import EXIT_CODES, worst
    from workbench.vary.words import answer_json, answer_text, rows_of

    bases = [base for _, base, _ in found]
    rows = rows_of(asked, [findings for *_, findings in found])
    verdict = worst([row.verdict for row in rows] + [base.verdict for base in bases if base is not None])
    if as_json:
        file = {"path": str(model.path), "format": model.format, "sha256": model.sha256()}
        print_json({"file": file, **runner.to_json(), "verdict": verdict, **answer_json(prompts, bases, rows)})
    else:
        echo("\n".join(answer_text(f"{model.path.name}, {runner.words}", prompts, bases, rows, verdict)))
    if EXIT_CODES[verdict] == _NOT_ANSWERED:
        reasons = [f"{row.change}: {why}" for row in rows if (why := row.reason) is not None]
        raise WorkbenchError([*reasons, *(base.words for base in bases if base is not None)][0])
    return EXIT_CODES[verdict]
