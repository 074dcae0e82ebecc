"""The app as a conversation in lines of text, for screen readers: one word asks, sentences answer."""

import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

from kernels.errors import WorkbenchError
from store.nearest import did_you_mean
from store.text import printable
from workbench.cli.plain import beginning
from workbench.cli.plain.investigation import Investigation
from workbench.cli.plain.words import WORDS, Word
from workbench.cli.tables import echo

if TYPE_CHECKING:
    from workbench.session.session import Session

_MOST = 100_000  # characters of a line that is read


def talk(session: "Session", bisects: bool) -> int:
    """Run the pair of a session, then answer until the user quits or the input ends; the app's exit code.

    bisects : whether the pair is bisected first, unless it has a verdict.
    """
    investigation = Investigation(session, _read)
    for line in beginning.lines(investigation, bisects):
        echo(line)
    while (said := _read("> ")) is not None:
        name, _, argument = said.strip().partition(" ")
        if name in ("quit", "exit", "q"):
            break
        try:
            for line in _answer(investigation, name, argument.strip()) if name else ():
                echo(line)
        except WorkbenchError as error:
            echo(f"No: {printable(str(error), 2000)}")
    return investigation.exit_code()


def _answer(investigation: Investigation, name: str, argument: str) -> Iterator[str]:
    return _word(name).answer(investigation, argument)


def _word(name: str) -> Word:
    """The word of that name, or the only one that begins so; WorkbenchError says what may have been meant."""
    name = name.lower()
    found = [word for word in WORDS if word.name.startswith(name)]
    exact = [word for word in found if word.name == name]
    if len(found) == 1 or exact:
        return (exact or found)[0]
    if found:
        raise WorkbenchError(f"{printable(name, 40)} is the beginning of {', '.join(word.name for word in found)}")
    meant = did_you_mean(name, [word.name for word in WORDS], "help lists all words")
    raise WorkbenchError(f"there is no word {printable(name, 40)}; {meant}")


def _read(question: str) -> str | None:
    """Return the next line that is typed, without its end; None where the input ends."""
    if sys.stdin.isatty() and sys.stdout.isatty():
        try:
            return input(question)
        except EOFError:
            echo("")
            return None
    line = sys.stdin.readline(_MOST)
    return line.rstrip("\r\n") if line else None
