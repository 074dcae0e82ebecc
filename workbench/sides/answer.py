"""The answer on three sides, as text and as JSON."""

from collections.abc import Iterator
from typing import Any

from store.artifact import Artifact
from store.text import printable
from store.traces.trace import Trace
from workbench.bisect.headline import headline
from workbench.bisect.pair import Answer
from workbench.bisect.traces.announced import Progress
from workbench.cells.limit import LIMIT
from workbench.cells.metrics import format_value
from workbench.pair.fingerprints import sha256_of
from workbench.sides.sides import ARBITER, Moved, Sides, Verdict

_HEADLINES: dict[Verdict, str] = {
    "artifact": "ARTIFACT: the copy is broken.",
    "engine": "ENGINE: the engine is broken.",
    "recipe": "RECIPE: nothing is broken; what the copy loses is what its types cost.",
    "none": f"NONE: nothing is broken, and the copy costs at most {LIMIT:g} times what arithmetic does.",
    "undecided": "UNDECIDED: which side is at fault cannot be told.",
}


def answer_json(sides: Sides, progress: Progress) -> dict[str, Any]:
    """The answer as JSON values; contract: schemas/sides.schema.json. progress : told of bytes hashed."""
    copy, trace = sides.engine.pair.a, sides.engine.pair.b
    tokens = sides.engine.pair.tokens
    run = None if sides.engine_moves is None else sides.engine_moves.to_json()
    return {
        "source": _side_json(sides.artifact.pair.a, progress),
        "copy": _side_json(copy, progress),
        "trace": _side_json(trace, progress),
        "tokens": None if tokens is None else list(tokens.ids),
        "prompt": None if tokens is None else tokens.prompt,
        "verdict": sides.verdict,
        "headline": f"{_HEADLINES[sides.verdict]} {_sentence(sides.why)}",
        "faults": list(sides.faults),
        "artifact": _bisection_json(sides.artifact) | {"tensors": sides.tensors.to_json()},
        "engine": _bisection_json(sides.engine),
        "arbiter": {"numeric_path": ARBITER, "copy": sides.copy_moves.to_json(), "engine": run},
    }


def answer_text(sides: Sides) -> Iterator[str]:
    """The answer for a reader, verdict first."""
    pair = sides.engine.pair
    assert isinstance(pair.b, Trace)
    yield _HEADLINES[sides.verdict]
    yield ""
    yield _row("why", sides.why)
    yield _row("source", str(sides.artifact.pair.a.path))
    yield _row("copy", str(pair.a.path))
    yield _row("engine", f"{pair.b.path} ({pair.b.engine} trace)")
    yield _row("artifact", f"{sides.artifact.bisection.verdict}: {headline(sides.artifact.bisection)}")
    yield _row("tensors", sides.tensors.words)
    yield _row("engine run", f"{sides.engine.bisection.verdict}: {headline(sides.engine.bisection)}")
    yield _row("float64", f"the copy moves the source's output by {_moved(sides.copy_moves)}")
    if sides.engine_moves is not None:
        yield _row("", f"the engine is {_moved(sides.engine_moves)} from the copy")
    for name, answer in (("artifact", sides.artifact), ("engine", sides.engine)):
        yield from (_row("note", f"{name}: {note}") for note in answer.bisection.notes)


def _bisection_json(answer: Answer) -> dict[str, Any]:
    """What a bisection found, without its cells: `bisect` of the two sides alone prints them."""
    found = {name: value for name, value in answer.bisection.to_json().items() if name != "cells"}
    return {"headline": headline(answer.bisection), **found}


def _side_json(source: Artifact | Trace, progress: Progress) -> dict[str, Any]:
    def hashed(done: int, total: int) -> None:
        progress(done, total, f"bytes of {source.path.name}")

    sha256 = sha256_of(source, hashed)
    kind = {"format": source.format} if isinstance(source, Artifact) else {"format": "trace", "engine": source.engine}
    return {"path": str(source.path), "sha256": sha256, **kind}


def _moved(moved: Moved) -> str:
    flips = f"another most likely next token at {moved.flips} of {moved.tokens}"
    if moved.kl is None:
        return f"logits that are no numbers, {flips}"
    return f"KL {format_value(moved.kl)} nats a token, {format_value(moved.most)} at most; {flips}"


def _sentence(text: str) -> str:
    return text[0].upper() + text[1:].rstrip(".") + "."


def _row(name: str, text: str) -> str:
    return f"{name:<10} {printable(text, 2000)}"
