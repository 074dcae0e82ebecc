"""Findings for a reader."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from workbench.cells.limit import LIMIT
from workbench.cells.metrics import format_value
from workbench.sweep.question import Prompt
from workbench.vary.beside import First, Logits
from workbench.vary.change import Change
from workbench.vary.finding import Finding, Verdict, worst
from workbench.vary.running import Base

_MOST = 3  # prompts of one change that are told one by one
ANSWERS: dict[Verdict, str] = {
    "alike": "SAME BITS",
    "numerics_only": "WITHIN ROUNDING",
    "divergent": "DIVERGENT",
    "undecided": "NOT ANSWERED",
}
_SENTENCES: dict[Verdict, str] = {
    "alike": "No setting that was varied changes a bit.",
    "numerics_only": "What changes is within what rounding can cause. Nothing is broken.",
    "divergent": "Something is wrong: more changes than rounding can cause, or the run is not what the file says.",
    "undecided": "Nothing wrong was found, but not everything that was asked could be answered.",
}


def change_words(finding: Finding) -> str:
    """What was changed to what."""
    return "" if finding.before is None else f"{finding.before} → {finding.after}"


def told(finding: Finding, many: bool) -> Iterator[str]:
    """What is behind the verdict on one change, in sentences. many : there are several prompts."""
    prompt = f"prompt {finding.prompt}: " if many else ""
    if finding.why is not None:
        yield f"{prompt}{finding.why}"
    found = finding.beside
    if found is None:
        return
    if found.first is None:
        yield (
            f"{prompt}all {found.stages} stages are identical"
            if found.same
            else f"{prompt}{found.unlike} stages unlike"
        )
    else:
        yield (
            f"{prompt}{found.identical} of {found.stages} stages identical; the first difference is at "
            f"{_place(found.first)}{_size(finding)}"
        )
    if found.logits is not None and not found.same:
        yield prompt + _output(found.logits)


def _place(first: First) -> str:
    return f"{first.site}, token {first.token}, channel {first.channel} ({first.before:.9g} → {first.after:.9g})"


def _size(finding: Finding) -> str:
    if finding.floors is None:
        return ""
    words = f": {format_value(finding.floors)} times what rounding can cause there"
    return words if finding.floors <= LIMIT else f"{words} ({LIMIT:g} is the limit)"


def _output(logits: Logits) -> str:
    kl = "the logits are no numbers" if logits.kl is None else f"KL {format_value(logits.kl)} nats a token"
    if logits.flip is None:
        return f"{kl}; the most likely next token is the same at all {logits.tokens} tokens"
    flip = logits.flip
    return (
        f"{kl}; another most likely next token at {logits.flips} of {logits.tokens}, first at token {flip.token}: "
        f"{flip.after} instead of {flip.before}, whose logits were {format_value(flip.apart)} apart"
    )


class Row(NamedTuple):
    """A change on all prompts."""

    change: Change
    findings: tuple[Finding, ...]

    @property
    def verdict(self) -> Verdict:
        """The verdict that counts among all prompts."""
        return worst(finding.verdict for finding in self.findings)

    @property
    def telling(self) -> list[Finding]:
        """The findings that have it."""
        return [finding for finding in self.findings if finding.verdict == self.verdict]

    @property
    def reason(self) -> str | None:
        """Why there is no answer; None if there is one."""
        return next((finding.why for finding in self.findings if finding.verdict == "undecided"), None)

    def to_json(self) -> dict[str, Any]:
        """Return it as `sweep --vary --json` prints it."""
        runs = [finding.to_json() for finding in self.findings]
        return {"setting": self.change.name, "value": self.change.value, "verdict": self.verdict, "runs": runs}


def rows_of(asked: Sequence[Change], found: Sequence[Sequence[Finding]]) -> list[Row]:
    """The findings of all prompts, change by change. found : by prompt, in the order of what was asked."""
    return [Row(change, tuple(some[number] for some in found)) for number, change in enumerate(asked)]


def answer_json(prompts: Sequence[Prompt], bases: Sequence[Base | None], rows: Sequence[Row]) -> dict[str, Any]:
    """The answer as JSON values, but for who gave it; contract: schemas/vary.schema.json."""
    run = [None if base is None else {"verdict": base.verdict, "headline": base.words} for base in bases]
    said = [
        {"tokens": list(prompt.tokens), "text": prompt.text, "base": base}
        for prompt, base in zip(prompts, run, strict=True)
    ]
    return {"prompts": said, "settings": [row.to_json() for row in rows]}


def answer_text(
    subject: str, prompts: Sequence[Prompt], bases: Sequence[Base | None], rows: Sequence[Row], verdict: Verdict
) -> Iterator[str]:
    """The answer for a reader, verdict first. subject : the file, and who ran it."""
    yield f"{ANSWERS[verdict]}: {_SENTENCES[verdict]}"
    yield ""
    yield subject
    counts = sorted({len(prompt.tokens) for prompt in prompts})
    tokens = f"{counts[0]} tokens" if len(counts) == 1 else f"{counts[0]} to {counts[-1]} tokens"
    yield tokens if len(prompts) == 1 else f"{len(prompts)} prompts of {tokens}"
    yield from _of_bases(bases)
    yield ""
    width = max(len(str(row.change)) for row in rows)
    for row in rows:
        words = change_words(row.findings[0])
        yield f"{row.change!s:<{width}}  {ANSWERS[row.verdict]:<15}  {words}".rstrip()
        telling = row.telling
        for finding in telling[:_MOST]:
            yield from (f"{'':<{width}}  {line}" for line in told(finding, len(prompts) > 1))
        if len(telling) > _MOST:
            yield f"{'':<{width}}  and {len(telling) - _MOST} more prompts"


def _of_bases(bases: Sequence[Base | None]) -> Iterator[str]:
    """What the runs without a change are worth: that of the first prompt, and those that are worth something else."""
    told = set[Verdict]()
    for number, base in enumerate(bases):
        if base is not None and base.verdict not in told:
            told.add(base.verdict)
            yield f"{'' if len(bases) == 1 else f'prompt {number} '}without a change: {base.words}"
