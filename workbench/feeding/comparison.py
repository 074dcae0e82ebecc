"""Two models side by side, as far as decides what they are fed: all rows, a verdict, and the exit code."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

from kernels.errors import WorkbenchError
from store.stored_model import StoredModel
from store.text import printable
from workbench.feeding.conversations import chat_rows
from workbench.feeding.fed import Fed, each, token_unlike
from workbench.feeding.positions import embedding_rows, position_rows
from workbench.feeding.row import Row
from workbench.feeding.samples import sample_rows
from workbench.feeding.vocabulary import special_rows, vocabulary_rows
from workbench.pair.chat import prompted
from workbench.pair.prompt import Chat, Prompt
from workbench.pair.tokenizer import encode

Progress = Callable[[int, int, str], None]
Verdict = Literal["alike", "different", "undecided"]


@dataclass(frozen=True)
class Feeding:
    """How two models are fed: one row for everything that decides it."""

    a: Fed
    b: Fed
    rows: tuple[Row, ...]

    @property
    def verdict(self) -> Verdict:
        """Different if any row is, else undecided if one could not be compared."""
        states = {row.status for row in self.rows}
        return "different" if "different" in states else "undecided" if "unknown" in states else "alike"

    @property
    def exit_code(self) -> int:
        """0 alike, 1 different, 2 undecided."""
        return {"alike": 0, "different": 1, "undecided": 2}[self.verdict]

    @property
    def headline(self) -> str:
        """The verdict in a sentence."""
        different, explained, unknown = (
            ", ".join(row.what for row in self.rows if row.status == status)
            for status in ("different", "explained", "unknown")
        )
        left = f"; not compared: {unknown}" if unknown else ""
        if different:
            return f"A and B are fed differently: {different}{left}."
        if unknown:
            return f"Nothing that was compared is fed differently{left}."
        return "A and B are fed alike" + (f"; explained: {explained}" if explained else "") + "."

    def require_answer(self) -> None:
        """Raise WorkbenchError where something could not be compared and nothing differs."""
        if self.verdict == "undecided":
            why = "; ".join(f"{row.what}: {row.words}" for row in self.rows if row.status == "unknown")
            raise WorkbenchError(f"whether A and B are fed alike is not known: {printable(why, 1000)}")

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON values."""
        a, b = each(self.a, self.b, lambda side: {"path": str(side.model.path), "format": side.model.format})
        rows = [row.to_json() for row in self.rows]
        return {"verdict": self.verdict, "headline": self.headline, "a": a, "b": b, "rows": rows}


def compare_feeding(a: StoredModel, b: StoredModel, prompt: Prompt | None, progress: Progress) -> Feeding:
    """Compare all that decides what two models are fed; what cannot be compared is a row that says why.

    prompt : also compared, as both sides tokenize it. progress : called with steps done, steps in all, what is next.
    """
    one, other = Fed("A", a), Fed("B", b)
    parts = _of_tokenizers(one, other, prompt)
    parts["embedding rows"] = lambda: embedding_rows(one, other, None not in (a.vocabulary, b.vocabulary))
    parts["positions"] = lambda: position_rows(one, other)
    rows = list[Row]()
    for done, (name, part) in enumerate(parts.items()):
        progress(done, len(parts), name)
        rows += _told(name, part)
    return Feeding(one, other, tuple(rows))


def _of_tokenizers(a: Fed, b: Fed, prompt: Prompt | None) -> dict[str, Callable[[], Iterable[Row]]]:
    """What makes token ids of a text, part by part."""
    lacking = [side.name for side in (a, b) if side.model.vocabulary is None]
    if lacking:
        return {"tokenizer": lambda: [_lacking(a, b, lacking)]}
    parts: dict[str, Callable[[], Iterable[Row]]] = {
        "vocabulary": lambda: vocabulary_rows(a, b),
        "sample texts": lambda: sample_rows(a, b),
        "special tokens": lambda: special_rows(a, b),
        "chat template": lambda: chat_rows(a, b),
    }
    return parts if prompt is None else parts | {"prompt": lambda: _prompt(a, b, prompt)}


def _lacking(a: Fed, b: Fed, lacking: list[str]) -> Row:
    shown = each(a, b, lambda side: "none" if side.name in lacking else "one")
    if len(lacking) == 2:
        return Row("tokenizer", shown, "alike", "neither side makes token ids of a text")
    words = f"{lacking[0]} has none, so nothing says what it makes of a text; put its tokenizer.json beside it"
    return Row("tokenizer", shown, "unknown", words)


def _told(name: str, part: Callable[[], Iterable[Row]]) -> Iterator[Row]:
    """The rows of one part; where it fails, those before and one that says why."""
    try:
        yield from part()
    except WorkbenchError as error:
        yield Row(name, ("", ""), "unknown", printable(str(error).partition("; give")[0], 400))


def _prompt(a: Fed, b: Fed, prompt: Prompt) -> Iterator[Row]:
    """What both sides make of the prompt at hand."""

    def tokenized(side: Fed) -> list[int]:
        return list(prompted(side.model, prompt).ids) if isinstance(prompt, Chat) else encode(side.model, prompt)

    ids = each(a, b, tokenized)
    shown = (f"{len(ids[0])} tokens", f"{len(ids[1])} tokens")
    if ids[0] == ids[1]:
        yield Row("prompt", shown, "alike")
        return
    example = {"text": prompt if isinstance(prompt, str) else None, "a": ids[0], "b": ids[1]}
    yield Row("prompt", shown, "different", token_unlike(a, b, ids), example)
