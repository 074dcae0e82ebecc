"""A verdict in one plain sentence: the same on the screen, in reports, in JSON and at the end of a command."""

from typing import TYPE_CHECKING

from store.text import printable

if TYPE_CHECKING:
    from workbench.bisect.verdict import Bisection, Culprit, Verdict

SIGNS: "dict[Verdict, str]" = {  # before the sentence, so that it is not told by colour alone
    "alike": "✓",
    "numerics_only": "✓",
    "quantization_only": "✓",
    "divergent": "✗",
    "undecided": "?",
    "uncomparable": "≠",
}
_HEALTHY: "dict[Verdict, str]" = {
    "alike": "Nothing is broken: A and B give the same numbers in every cell",
    "numerics_only": "Nothing is broken: A and B differ, and by no more than rounding can cause",
    "quantization_only": "Nothing is broken: the weights differ, and by no more than the steps of their quantization "
    "blocks explain",
}
_LONGEST = 1000  # characters of a sentence that comes from elsewhere


def headline(found: "Bisection", compared: int | None = None) -> str:
    """Say what a bisection has found. compared : cells of two traces that were set side by side and not run again."""
    if found.culprit is not None:
        return _broken(found, found.culprit)
    if found.verdict == "alike" and compared is not None:
        return f"Nothing differs: the {compared} cells that both traces hold are the same."
    if found.verdict in _HEALTHY:
        return f"{_HEALTHY[found.verdict]}."
    why = printable(found.notes[0], _LONGEST) if found.notes else ""
    return " ".join(filter(None, [_not_answered(found, compared), why]))


def _broken(found: "Bisection", culprit: "Culprit") -> str:
    what = in_short(culprit)
    if found.first_divergent is None:
        return f"WRONG at {culprit.site}, though these tokens do not show it: {what}."
    shown = "" if culprit.shown_at is None else f" (seen at {culprit.shown_at})"
    return f"BROKEN at {culprit.site}{shown}: {what}."


def in_short(culprit: "Culprit") -> str:
    """Say what is wrong without what the place says already: q_proj, not model.layers.3.self_attn.q_proj.weight."""
    text = printable(culprit.explanation, _LONGEST).rstrip(".")
    if culprit.tensor is None:
        return text
    words = culprit.tensor.split(".")
    short = words[-2] if words[-1] == "weight" and len(words) > 1 else ".".join(words[-2:])
    return text.replace(printable(culprit.tensor, _LONGEST), printable(short, _LONGEST))


def _not_answered(found: "Bisection", compared: int | None) -> str:
    if found.verdict == "uncomparable":
        return "NOT COMPARABLE."
    if found.first_divergent is not None:
        return "UNDECIDED: what differs is known, but not whether it is wrong."
    part = f"{compared} cells" if found.cells is None else f"{found.covered} of {found.cells} cells"
    return f"UNDECIDED: nothing wrong was found, but only {part} were checked."
