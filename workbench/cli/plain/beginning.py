"""How a conversation begins: what the pair is, the capture, the verdict, and what can be said next."""

from collections.abc import Iterator
from pathlib import Path

from kernels.errors import WorkbenchError
from store.text import printable
from workbench.cli.plain.bisecting import bisected
from workbench.cli.plain.investigation import Investigation
from workbench.cli.plain.sentences import headline


def lines(about: Investigation, bisects: bool) -> Iterator[str]:
    """Yield what is said before the first question; the pair is run, and bisected if asked for and not known."""
    spec = about.session.spec
    for name, side in (("A", spec.a), ("B", spec.b)):
        path = f", path {side.numeric_path}" if side.numeric_path else ", recorded"
        yield f"{name} is {printable(Path(side.path).name, 200)}{path}."
    yield "Comparing all cells."
    yield from about.capture()
    prompt = about.runs["a"].prompt
    said = "" if prompt is None else f": {printable(repr(prompt), 200)}"
    yield f"Both ran {about.tokens} tokens{said}."
    compared, expected = about.comparison.counted
    yield f"{compared} of {expected} cells compared."
    if bisects and about.known.bisected is None:
        yield "Looking for the first place that is really wrong."
        try:
            yield from bisected(about)
        except WorkbenchError as error:
            yield f"No verdict: {printable(str(error), 1000)}"
    yield headline(about)
    yield f"You are at {about.view.cursor}."
    yield "Words: why, where, next, patch, export, help, quit."
