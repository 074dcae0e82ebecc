"""`workbench open`: a pair in the app, or without a terminal the same work as text."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from workbench.cli.options import (
    PATH,
    bisects_option,
    json_option,
    mouse_option,
    pair_options,
    plain_option,
    statistics_option,
)
from workbench.cli.sources import require_none_given, say_beforehand, session_alone

if TYPE_CHECKING:
    from collections.abc import Callable

    from workbench.pair.pair import Pair
    from workbench.pair.prompt import Prompt
    from workbench.session.session import Session


@click.command()
@click.argument("sources", metavar="[A B | SESSION]", nargs=-1, required=True, type=PATH)
@pair_options
@click.option("--session", "folder", metavar="DIR", type=PATH, help="Folder of the session.")
@statistics_option
@bisects_option
@plain_option
@mouse_option
@click.option("--tour", is_flag=True, hidden=True, help="Begin with the tour, as a demo does.")
@json_option
def command(
    sources: tuple[Path, ...],
    tokens: tuple[int, ...] | None,
    prompt: "Prompt | None",
    path_a: str | None,
    path_b: str | None,
    folder: Path | None,
    statistics_only: bool,
    bisects: bool,
    plain: bool,
    mouse: bool,
    tour: bool,
    as_json: bool,
) -> int:
    """Open two models or traces side by side, or a saved session.

    The screen shows itself at once and fills while both sides run. Everything is kept in the session folder, whose path
    is printed at the end. Where stdout is not a terminal, or with --json, the same work is done, the pair is bisected
    unless the session has a verdict on the same files, and the result is printed, the verdict first. With --plain the
    same is a conversation in lines of text.

    With --statistics-only the session keeps the cells, each with the elements that differ most, and no tensors: what
    needs those says so. It stays so when the session is opened again.

    Without tokens two models run a default prompt, or where neither has a tokenizer a few ids; stderr says which.

    Exit code: that of the verdict, as `workbench bisect` gives it; in the app, if nobody has bisected, what the map
    says.

    \b
    Example:  workbench open model.gguf model.apr --prompt "def add(a, b):"
    Example:  workbench open sessions/model-vs-model
    """  # noqa: D301
    from workbench.cli.headless import require_one_way, show
    from workbench.machine import terminal

    require_one_way(plain, as_json)
    looked: list[Pair] = []
    in_app = terminal.is_there() and not (plain or as_json)
    look: Callable[[Pair], object] = looked.append if in_app else say_beforehand
    session = chosen_session(sources, (path_a, path_b), tokens, prompt, folder, look, statistics_only)
    status = show(session, as_json, plain, bisects, mouse=mouse, tour=tour)
    for pair in looked:  # the app would hide the line, and wait for it
        say_beforehand(pair)
    return status


def chosen_session(
    sources: tuple[Path, ...],
    numeric_paths: tuple[str | None, str | None],
    tokens: tuple[int, ...] | None,
    prompt: "Prompt | None",
    folder: Path | None,
    look: "Callable[[Pair], object]" = say_beforehand,
    statistics_only: bool = False,
) -> "Session":
    """Return the session of two sides, made if there is none yet, or the saved one that is the only source.

    statistics_only : the session keeps cells and no tensors.
    """
    if len(sources) == 2:
        from workbench.pair.pairing import pair_session

        ways = (_say, _preferred, look, statistics_only)
        return pair_session((sources[0], sources[1]), numeric_paths, tokens, prompt, folder, *ways)
    if len(sources) > 2:
        raise click.UsageError(f"two sides are compared, not {len(sources)}; give A and B")
    require_none_given({"--session": folder, "--statistics-only": statistics_only or None}, sources[0])
    return session_alone(sources[0], numeric_paths, tokens, prompt)


def _preferred() -> str | None:
    from workbench.app.preferences.reading import read_preferences

    return read_preferences().prompt


def _say(sentence: str) -> None:
    click.echo(f"workbench: {sentence}", err=True)
