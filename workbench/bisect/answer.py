"""The answer of a bisection as text and as JSON."""

import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from store.artifact import Artifact
from store.text import printable
from workbench.bisect.headline import headline
from workbench.bisect.models.detail import Detail, detail_json, worst_blocks, worst_channels
from workbench.bisect.pair import Answer
from workbench.bisect.traces.announced import Progress
from workbench.bisect.verdict import EXIT_CODES, Bisection, Culprit, RunnerUp, Verdict
from workbench.cells.decomposition import Decomposition, finite
from workbench.cells.metrics import format_value
from workbench.pair.fingerprints import sha256_of
from workbench.pair.pair import Source

_NOT_ANSWERED = 2
_MANY = 6  # further culprits of one cause that are listed one by one
_WORDS: dict[Verdict, str] = {
    "alike": "ALIKE: no cell differs.",
    "numerics_only": "NUMERICS ONLY: they differ, and by no more than rounding can cause. Nothing is broken.",
    "quantization_only": "QUANTIZATION ONLY: the weights differ, and by no more than the steps of their quantization "
    "blocks explain. Nothing is broken.",
    "undecided": "UNDECIDED: what differs is known, but not whether it is wrong.",
    "uncomparable": "NOT COMPARABLE.",
}


def exit_code(answer: Answer) -> int:
    """0 nothing is broken, 1 divergent, 2 no answer."""
    return EXIT_CODES[answer.bisection.verdict]


def reason(answer: Answer) -> str | None:
    """Why there is no answer, in one sentence; None if there is one."""
    if exit_code(answer) != _NOT_ANSWERED:
        return None
    notes = answer.bisection.notes
    return f"{answer.bisection.verdict}: {notes[0]}" if notes else f"the pair is {answer.bisection.verdict}"


def answer_json(answer: Answer, detail: Detail | None, progress: Progress) -> dict[str, Any]:
    """The answer as `bisect --json` prints it; contract: schemas/bisect.schema.json.

    progress : called with bytes done and in all, and a text, while files are hashed.
    """
    pair = answer.pair
    record: dict[str, Any] = {
        "a": _side_json(pair.a, answer.paths[0], progress),
        "b": _side_json(pair.b, answer.paths[1], progress),
        "tokens": None if pair.tokens is None else list(pair.tokens.ids),
        "prompt": pair.prompt,
        "headline": headline(answer.bisection, answer.compared),
        **answer.bisection.to_json(),
    }
    if answer.compared is not None:
        record["cells_compared"] = answer.compared
    if detail is not None:
        record["detail"] = detail_json(detail)
    finite: dict[str, Any] = _finite(record)
    return finite


def _side_json(source: Source, path: str | None, progress: Progress) -> dict[str, Any]:
    name = source.path.name

    def hashed(done: int, total: int) -> None:
        progress(done, total, f"bytes of {name}")

    sha256 = sha256_of(source, hashed)
    if isinstance(source, Artifact):
        return {"path": str(source.path), "format": source.format, "sha256": sha256, "numeric_path": path}
    return {
        "path": str(source.path),
        "format": "trace",
        "engine": source.engine,
        "sha256": sha256,
        "numeric_path": path,
        "settings": source.settings,
    }


def _finite(value: Any) -> Any:  # noqa: ANN401
    """JSON values with null for NaN and infinity, which JSON does not have."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def answer_text(answer: Answer, detail: Detail | None, name_of: Callable[[Path], str] = str) -> str:
    """The answer for a reader: verdict first, then what it rests on. name_of : what the file of a side is called."""
    pair, found = answer.pair, answer.bisection
    lines = [_verdict(answer), ""]
    for name, source, path in (("A", pair.a, answer.paths[0]), ("B", pair.b, answer.paths[1])):
        kind = source.format if isinstance(source, Artifact) else f"{printable(source.engine, 40)} trace"
        lines.append(_row(name, f"{printable(name_of(source.path))} ({kind}" + (f", path {path})" if path else ")")))
    if pair.tokens is not None:
        prompt = "" if pair.tokens.prompt is None else f"  ({printable(repr(pair.tokens.prompt), 400)})"
        lines.append(_row("tokens", printable(",".join(map(str, pair.tokens.ids)), 4000) + prompt))
    lines.append(_row("checked", _coverage(answer)))
    if found.culprit is not None:
        lines += ["", *_culprit(found, found.culprit)]
    lines += _further(found.others)
    if detail is not None:
        lines += ["", *detail_lines(detail)]
    if found.notes:
        lines += ["", *(_row("note", printable(note, 1000)) for note in found.notes)]
    return "\n".join(lines)


def _further(others: Sequence[Culprit]) -> Iterator[str]:
    """Further culprits; many of one cause on one line."""
    causes = Counter((other.cause, other.factor) for other in others)
    told = set[tuple[str, str]]()
    for other in others:
        kind = other.cause, other.factor
        tensor = f", {printable(other.tensor)}" if other.tensor else ""
        words = f"{other.site}: {other.cause} ({other.factor}{tensor})"
        if causes[kind] <= _MANY:
            yield _row("further", words)
        elif kind not in told:
            told.add(kind)
            yield _row("further", f"{words}, and {causes[kind] - 1} more of this cause")


def _verdict(answer: Answer) -> str:
    found = answer.bisection
    if found.culprit is not None:
        return f"DIVERGENT at {found.culprit.site}: {found.culprit.cause} ({found.culprit.factor})."
    if found.verdict == "undecided" and found.first_divergent is None:
        part = f"{answer.compared} cells" if found.cells is None else f"{found.covered} of {found.cells} cells"
        return f"UNDECIDED: nothing wrong was found, but only {part} were checked."
    if found.verdict == "alike" and answer.compared is not None:
        return f"ALIKE: none of the {answer.compared} cells that both traces hold differs."
    return _WORDS.get(found.verdict, found.verdict.upper())


def _coverage(answer: Answer) -> str:
    if answer.compared is not None:
        return f"no cell; {answer.compared} cells of two traces were compared"
    checked, cells = answer.bisection.checked, answer.bisection.cells
    stop = f", in execution order up to {checked[-1].site}" if checked else ""
    inside = f", {answer.bisection.cells_in_spans} more inside spans" if answer.bisection.cells_in_spans else ""
    return f"{len(checked)}{'' if cells is None else f' of {cells}'} cells{inside}{stop}"


def _culprit(found: Bisection, culprit: Culprit) -> Iterator[str]:
    yield _row("culprit", str(culprit.site))
    yield _row("factor", culprit.factor)
    yield _row("cause", culprit.cause)
    yield _row("tensor", printable(culprit.tensor) if culprit.tensor else "none")
    yield _row("why", printable(culprit.explanation, 1000))
    if culprit.residual is not None:
        yield _row("after fix", f"{format_value(culprit.residual)} of the norm unexplained")
    if culprit.shown_at is not None:
        yield _row("shown at", f"{culprit.shown_at}; {culprit.site} was not recorded")
    cell = next((cell for cell in found.checked if cell.site == culprit.measured_at), None)
    if cell is not None:
        yield from _measured(cell)
    known = {name: share for name, share in culprit.shares.items() if finite(share) is not None}
    shares = [f"{name} {round(share, 3) + 0.0:.1%}" for name, share in known.items() if share is not None]
    if shares:
        yield _row("shares", ", ".join(shares))
    if culprit.runner_up is not None:
        yield _row("runner-up", _next_best(culprit.runner_up))


def _next_best(runner: RunnerUp) -> str:
    if runner.effect is not None:  # a setting
        return f"{runner.cause}, which moves the stage by {format_value(runner.effect)} of its norm"
    made = "would reproduce it as well" if runner.reproduces else "does not reproduce it"
    return f"{runner.cause}, which leaves {format_value(runner.residual)} of the norm and {made}"


def detail_lines(detail: Detail) -> Iterator[str]:
    """A cell taken apart, for a reader."""
    found = detail.breakdown
    if detail.cell is not None:
        yield from _measured(detail.cell)
    yield _row("cell", f"{found.site}, local error by part, root mean square (in multiples of the median part)")
    yield _row("tokens", " ".join(map(format_value, found.per_token().tolist())))
    heads = zip(found.heads, found.per_head().tolist(), strict=True)
    if found.heads:
        yield _row("heads", ", ".join(f"{name} {format_value(value)}" for name, value in heads))
    yield from (_row("channel", _part(worst, "channel")) for worst in worst_channels(found)[:5])
    yield from (_row("block", _part(worst, "channel", "block")) for worst in worst_blocks(found)[:5])
    if (known := detail.forecast) is not None:
        words = "more than its inputs explain" if known.marked else "what its inputs explain"
        yield _row(
            "forecast",
            f"{format_value(known.observed)} observed, {format_value(known.predicted)} forecast from the inputs, "
            f"{format_value(known.unexplained)} unexplained: {words}",
        )
    yield from (_row("not known", sentence) for sentence in detail.unknown)


def _measured(cell: Decomposition) -> Iterator[str]:
    """What a cell's local error is measured against."""
    yield _row("figures", f"{_figures(cell)}, of B's norm")
    if cell.noise is not None:
        yield _row("noise", f"{format_value(cell.noise)} measured: both paths on A's weights and A's input")
        off = f"A {format_value(cell.a_off)} times, B {format_value(cell.b_off)} times what its rounding can cause"
        yield _row("float64", f"{off} off")
    if (flipped := cell.flipped) is not None:
        distance = f", {flipped.distance}" if flipped.distance else ""
        yield _row("flipped", f"{flipped.flipped} of {flipped.of} activation codes{distance}")


def _figures(cell: Decomposition) -> str:
    parts = ("observed", cell.observed), ("local", cell.local), ("inherited", cell.inherited)
    figures = *parts, ("rounding can cause", cell.floor)
    return ", ".join(f"{name} {format_value(value)}" for name, value in figures)


def _part(worst: dict[str, Any], *places: str) -> str:
    multiple = worst["times_median"]
    where = ", ".join(f"{place} {worst[place]}" for place in places)
    return f"{where}: {format_value(worst['rms'])}" + ("" if multiple is None else f" ({format_value(multiple)} times)")


def _row(name: str, text: str) -> str:
    return f"{name:<10} {text}"
