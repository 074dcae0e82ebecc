"""Whether two tokenizers make the same ids of text: their rules by name, sample texts, the shortest that differs."""

import unicodedata
from collections.abc import Iterator, Sequence
from typing import Literal

from store.text import printable
from workbench.feeding.fed import Fed, each
from workbench.feeding.row import Row, Status
from workbench.feeding.sample_texts import SAMPLE_TEXTS

_FORMS: tuple[Literal["NFC", "NFD", "NFKC", "NFKD"], ...] = ("NFC", "NFD", "NFKC", "NFKD")
_ADDED = 32  # added tokens that are tried


def sample_rows(a: Fed, b: Fed) -> Iterator[Row]:
    """Yield how text is cut and changed by name, and what is made of sample texts."""
    texts = [*SAMPLE_TEXTS, *(f"a{text} b" for text in _added(a, b))]
    differing = _unlike(a, b, texts)
    ends = _taken_for_special(a, b)
    by_text = [text for text in differing if any(end in text for end in ends)]
    differing = [text for text in differing if text not in by_text]
    normalized = _by_normalizer(a, b, differing)
    left = [text for text in differing if text not in normalized]
    yield _cutting(a, b, left, len(texts))
    if a.table.normalizer != b.table.normalizer:
        yield _normalizers(a, b, normalized, left)
    if by_text:
        yield _special_by_text(a, b, ends)
    tried = [text for text in texts if text not in by_text]
    yield _sampled(a, b, tried, left, normalized)


def shortest(a: Fed, b: Fed, text: str) -> str:
    """Return the shortest part of a text that the two sides make other ids of."""
    parts = {text[start:end] for start in range(len(text)) for end in range(start + 1, len(text) + 1)}
    ordered = sorted(parts, key=lambda part: (len(part), text.index(part)))
    return next(iter(_unlike(a, b, ordered)), text)


def _added(a: Fed, b: Fed) -> list[str]:
    """Texts of added tokens of both sides."""
    found = [side.table.texts[n] for side in (a, b) for n in sorted(side.table.whole) if n < len(side.table.texts)]
    return list(dict.fromkeys(text for text in found if text))[:_ADDED]


def _unlike(a: Fed, b: Fed, texts: Sequence[str]) -> list[str]:
    return [text for text, x, y in zip(texts, a.encode(texts), b.encode(texts), strict=True) if x != y]


def _by_normalizer(a: Fed, b: Fed, differing: list[str]) -> list[str]:
    """Texts that make the same ids once they are normalized as one side alone does it."""
    names = {a.table.normalizer, b.table.normalizer}
    form = next((form for form in _FORMS if any(form in (name or "").split(", ") for name in names)), None)
    if len(names) == 1 or form is None:
        return []
    normal = {text: unicodedata.normalize(form, text) for text in differing}
    left = _unlike(a, b, list(normal.values()))
    return [text for text, changed in normal.items() if changed != text and changed not in left]


def _taken_for_special(a: Fed, b: Fed) -> list[str]:
    """Texts of tokens that one side alone takes for special, as llama.cpp does by their text."""
    one, other = each(a, b, lambda side: {side.table.texts[n] or "" for n in side.taken_for_special})
    return sorted(one ^ other)


def _special_by_text(a: Fed, b: Fed, ends: list[str]) -> Row:
    shown = each(a, b, lambda side: ", ".join(map(side.shown, side.taken_for_special)) or "as the file says")
    named = ", ".join(printable(end, 40) for end in ends)
    words = f"llama.cpp takes {named} for special by the text alone, and other engines go by the file"
    return Row("special by its text", shown, "explained", words)


def _cutting(a: Fed, b: Fed, left: list[str], tried: int) -> Row:
    shown = each(a, b, lambda side: side.table.pre or "none")
    if shown[0] == shown[1]:
        return Row("pre-tokenizer", shown, "alike")
    status: Status = "different" if left else "explained"
    words = "they cut words by other rules" if left else f"{tried} sample texts make the same ids"
    return Row("pre-tokenizer", shown, status, words)


def _normalizers(a: Fed, b: Fed, normalized: list[str], left: list[str]) -> Row:
    shown = each(a, b, lambda side: side.table.normalizer or "none")
    if normalized:
        text = min(normalized, key=len)
        ids = each(a, b, lambda side: side.encode([text])[0])
        words = f"{text!a} is {ids[0]} in A and {ids[1]} in B; llama.cpp normalizes nothing"
        return Row("normalizer", shown, "explained", words, {"text": text, "a": ids[0], "b": ids[1]})
    words = "see the sample texts" if left else "no sample text makes other ids by it"
    return Row("normalizer", shown, "different" if left else "explained", words)


def _sampled(a: Fed, b: Fed, texts: list[str], left: list[str], normalized: list[str]) -> Row:
    shown = (f"{len(texts)} texts", f"{len(texts) - len(left) - len(normalized)} make the same ids")
    if not left:
        words = f"{len(normalized)} make the same ids once they are normalized" if normalized else ""
        return Row("sample texts", shown, "alike", words)
    text = shortest(a, b, min(left, key=len))
    ids = each(a, b, lambda side: side.encode([text])[0])
    one, other = (f"{its} ({_quoted(side.pieces(its))})" for side, its in zip((a, b), ids, strict=True))
    words = f"{printable(repr(text), 60)} is {one} in A and {other} in B"
    return Row("sample texts", shown, "different", words, {"text": text, "a": ids[0], "b": ids[1]})


def _quoted(pieces: list[str]) -> str:
    return " ".join(f"'{piece}'" for piece in pieces)
