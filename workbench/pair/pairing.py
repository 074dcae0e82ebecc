"""Finding or making the session of a pair; loads no kernels, so that the screen is there at once."""

import os
from collections.abc import Callable
from itertools import count
from pathlib import Path

from store.text import printable
from workbench.pair.default_tokens import default_tokens
from workbench.pair.pair import Pair, open_source, paired
from workbench.pair.prompt import Prompt
from workbench.pair.recorded import recorded
from workbench.session.files import SPEC_FILE, SessionError
from workbench.session.session import Session, SessionSpec


def pair_session(
    paths: tuple[Path, Path],
    numeric_paths: tuple[str | None, str | None],
    tokens: tuple[int, ...] | None,
    prompt: Prompt | None,
    folder: Path | None,
    say: Callable[[str], object],
    preferred: Callable[[], str | None],
    look: Callable[[Pair], object],
    statistics_only: bool = False,
) -> Session:
    """Return the session of two sides and the tokens they run: the one that is there already, else a new one.

    say : called with a sentence where nobody chose what two models run, and a default was taken. preferred : called for
    the prompt that the user's preferences have for that. look : called with the pair before anything is run.
    statistics_only : the session keeps cells and no tensors.

    Raises SessionError if `folder` holds the session of another pair, WorkbenchError for sides or tokens that do not
    fit.
    """
    sources = open_source(paths[0]), open_source(paths[1])
    default = default_tokens(sources, preferred()) if tokens is None and prompt is None else None
    if default is None:
        pair = recorded(paired(sources, numeric_paths, tokens, prompt))
    else:
        pair, sentence = Pair(*sources, default[0], numeric_paths), default[1]
        say(sentence)
    look(pair)
    wanted = SessionSpec(*pair.sides, pair.ids, pair.prompt, statistics_only=statistics_only)
    if folder is not None:
        return open_or_create(folder, wanted)
    name = f"{paths[0].absolute().stem}-vs-{paths[1].absolute().stem}"
    for number in count(1):
        place = Session.default_folder(name if number == 1 else f"{name}-{number}")
        try:
            return open_or_create(place, wanted)
        except SessionError:
            if not os.path.lexists(place / SPEC_FILE):
                raise
    raise AssertionError("unreachable")


def open_or_create(folder: Path, wanted: SessionSpec) -> Session:
    """Open the session in a folder if it is about the wanted pair, or make it there."""
    if not os.path.lexists(folder / SPEC_FILE):
        try:
            return Session.create(folder, wanted)
        except SessionError:
            if not os.path.lexists(folder / SPEC_FILE):  # else another process has made it this instant
                raise
    session = Session.open(folder)
    found = session.spec
    if (found.a, found.b, found.tokens) != (wanted.a, wanted.b, wanted.tokens):
        raise SessionError(
            f"{printable(str(folder))} holds the session of another pair or other tokens; "
            "open it alone, or choose another --session"
        )
    if found.statistics_only != wanted.statistics_only:
        kept = "no tensors (--statistics-only)" if found.statistics_only else "tensors too"
        raise SessionError(
            f"{printable(str(folder))} holds the session of this pair, which keeps {kept}; open it alone, or choose "
            "another --session"
        )
    return session
