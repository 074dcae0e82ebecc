"""The two sides of a question on the command line: given as A and B, or as the session that has them."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import click

from workbench.cli.options import prompt_option

if TYPE_CHECKING:
    from workbench.capture.needs import Needs
    from workbench.pair.pair import Pair
    from workbench.pair.prompt import Prompt
    from workbench.pair.tokens import Tokens
    from workbench.session.session import Session

NumericPaths = tuple[str | None, str | None]


def require_none_given(options: Mapping[str, object], source: Path) -> None:
    """Raise UsageError for an option that belongs to two sides where one source was given."""
    given = [name for name, value in options.items() if value is not None]
    if given:
        raise click.UsageError(
            f"{given[0]} belongs to two sides, and {source} is one; give A and B, or a session alone"
        )


def open_sources(
    sources: tuple[Path, ...], paths: NumericPaths, tokens: tuple[int, ...] | None, prompt: "Prompt | None"
) -> "Pair":
    """Open A and B, or the two sides of a session with its tokens and paths; UsageError for any other number."""
    if len(sources) > 2:
        raise click.UsageError(f"two sides are compared, not {len(sources)}; give A and B")
    if len(sources) == 2:
        from workbench.pair.pair import open_pair

        pair = open_pair((sources[0], sources[1]), paths, tokens, prompt)
        say_beforehand(pair)
        return pair
    from workbench.jobs.examining import pair_of

    return pair_of(session_alone(sources[0], paths, tokens, prompt))


def say_beforehand(pair: "Pair") -> None:
    """Say in one line on stderr, before anything is run, in which way the two sides are fed differently."""
    from workbench.feeding.beforehand import beforehand

    if (sentence := beforehand(pair)) is not None:
        click.echo(f"workbench: before anything is run: {sentence} (`workbench inspect A B` compares all)", err=True)


def say_needs(needed: "Needs", place: Path | None) -> None:
    """Say on stderr, before anything is run, what a capture writes and holds."""
    from store.text import printable
    from workbench.cli.tables import bytes_text

    writes = (
        "" if place is None else f"writes about {bytes_text(needed.written)} to {printable(str(place), 1000)}, and "
    )
    held = bytes_text(needed.held)
    click.echo(f"workbench: the run {writes}holds about {held} of memory beside the mapped files", err=True)


def say_notes(tokens: "Tokens") -> None:
    """Say on stderr what is odd about how a prompt is fed to a model."""
    for note in tokens.notes:
        click.echo(f"workbench: before anything is run: {note}", err=True)


def session_alone(
    folder: Path, paths: NumericPaths, tokens: tuple[int, ...] | None, prompt: "Prompt | None"
) -> "Session":
    """Open a session given in place of A and B; UsageError for options that only those take, and for one side alone."""
    options = {"--tokens": tokens, prompt_option(prompt): prompt, "--path-a": paths[0], "--path-b": paths[1]}
    require_none_given(options, folder)
    if folder.is_file():
        from store.text import printable

        name = printable(str(folder), 1000)
        raise click.UsageError(f"{name} is one side; give the other one too, or the folder of a session alone")
    return open_session(folder)


def open_session(folder: Path) -> "Session":
    """Open a session to work on it, and make the files of a demo's that are not there.

    Of an example a copy is opened, which is said on stderr.
    """
    from workbench.demo import restore
    from workbench.session.files import shown
    from workbench.session.own_copy import is_example, own_copy
    from workbench.session.session import Session

    session = Session.open(folder)
    if is_example(session):
        session = own_copy(session)
        yours = shown(session.folder)
        click.echo(f"{shown(folder)} is an example and stays as it is; this is your copy of it: {yours}", err=True)
    restore(session)
    return session


def is_session(source: Path) -> bool:
    """Whether a path is the folder of a session."""
    from workbench.session.files import SPEC_FILE

    return os.path.lexists(source / SPEC_FILE)
