"""Whether two tokenizers have the same tokens: kinds, texts by id, merges, added tokens, BOS and EOS."""

from collections.abc import Iterator

from store.text import printable
from workbench.feeding.fed import Fed, each, first_unlike
from workbench.feeding.row import Row, plain_row

_LISTED = 3  # tokens that are named where more differ
_TRIED = 64  # tokens that are tried in a text


def vocabulary_rows(a: Fed, b: Fed) -> Iterator[Row]:
    """Yield what two tokenizers have; WorkbenchError where one of them cannot be read."""
    yield plain_row("tokenizer", a.table.kind, b.table.kind, "they join pieces of words by other rules")
    yield _texts(a, b)
    if a.table.merges is not None and b.table.merges is not None:
        yield _merges(a.table.merges, b.table.merges)
    yield _whole(a, b)


def special_rows(a: Fed, b: Fed) -> Iterator[Row]:
    """Yield which tokens begin and end a text, and which of them are put around every text."""
    yield _bos(a, b)
    yield from _contradictions(a, b)
    yield _eos(a, b)


def _texts(a: Fed, b: Fed) -> Row:
    """Whether each id stands for the same text on both sides."""
    one, other = a.table.texts, b.table.texts
    shown = each(a, b, lambda side: f"{side.table.count} tokens")
    common = min(len(one), len(other))
    unlike = [n for n in range(common) if one[n] != other[n] and one[n] is not None and other[n] is not None]
    if unlike:
        named = ", ".join(f"{n} is {_text(one[n])} in A and {_text(other[n])} in B" for n in unlike[:_LISTED])
        return Row("vocabulary", shown, "different", f"{len(unlike)} ids stand for other tokens: {named}")
    alone = [n for n in range(common) if one[n] != other[n]]
    alone += [n for texts in (one, other) for n in range(common, len(texts)) if texts[n] is not None]
    if alone:
        owners = (a if n < len(one) and one[n] is not None else b for n in alone[:_LISTED])
        named = ", ".join(f"{side.shown(n)} in {side.name}" for side, n in zip(owners, alone, strict=False))
        return Row("vocabulary", shown, "different", f"{len(alone)} tokens are on one side alone: {named}")
    return Row("vocabulary", shown, "alike")


def _text(text: str | None) -> str:
    return f"'{printable(text or '', 40)}'"


def _merges(a: tuple[str, ...], b: tuple[str, ...]) -> Row:
    shown = (f"{len(a)} merges", f"{len(b)} merges")
    if a == b:
        return Row("merges", shown, "alike")
    first = first_unlike(a, b)
    parts = [_text(merges[first]) if first < len(merges) else "none" for merges in (a, b)]
    return Row("merges", shown, "different", f"merge {first} is {parts[0]} in A and {parts[1]} in B")


def _whole(a: Fed, b: Fed) -> Row:
    """Tokens that are found as they stand: where one side alone does so, its ids in a text decide."""
    shown = each(a, b, lambda side: f"{len(side.table.whole)} found whole")
    texts = {n: text for n in sorted(a.table.whole ^ b.table.whole) if (text := _either(a, b, n))}
    if not texts:
        return Row("added tokens", shown, "alike")
    tried = list(texts)[:_TRIED]
    one, other = each(a, b, lambda side: side.encode([f"a{texts[n]}b" for n in tried]))
    broken = [n for n, x, y in zip(tried, one, other, strict=True) if x != y]
    if not broken:
        words = f"{len(texts)} on one side alone; {len(tried)} were tried in a text and make the same ids"
        return Row("added tokens", shown, "explained", words)
    named = [f"{n} {_text(texts[n])} in {'A' if n in a.table.whole else 'B'}" for n in broken[:_LISTED]]
    more = f" and {len(broken) - _LISTED} more" if len(broken) > _LISTED else ""
    return Row("added tokens", shown, "different", f"found whole on one side alone: {', '.join(named)}{more}")


def _either(a: Fed, b: Fed, number: int) -> str | None:
    """The text that an id stands for, on whichever side it stands for something."""
    found = (side.table.texts[number] for side in (a, b) if number < len(side.table.texts))
    return next((text for text in found if text), None)


def _bos(a: Fed, b: Fed) -> Row:
    shown = each(a, b, lambda side: f"{side.shown(side.bos)}, {'before every text' if side.around[0] else 'not added'}")
    if bool(a.around[0]) != bool(b.around[0]):
        side = a if a.around[0] else b
        return Row("BOS", shown, "different", f"{side.name} alone puts {_all(side)} before every text")
    if a.around[0] != b.around[0]:
        return Row("BOS", shown, "different", f"A begins every text with {_all(a)}, B with {_all(b)}")
    if a.bos != b.bos:
        return Row("BOS", shown, "explained", "neither side adds it to a text")
    return Row("BOS", shown, "alike")


def _all(side: Fed) -> str:
    return ", ".join(map(side.shown, side.around[0]))


def _contradictions(a: Fed, b: Fed) -> Iterator[Row]:
    """Where tokenizer_config.json says otherwise than what tokenizer.json does, which programs read differently."""
    said = each(a, b, lambda side: side.config.add_bos if side.model.format == "safetensors" else None)
    odd = [side for side, flag in zip((a, b), said, strict=True) if flag not in (None, bool(side.around[0]))]
    for side in odd[:1]:
        names = ["not said" if flag is None else str(flag).lower() for flag in said]
        yield Row(
            "add_bos_token",
            (names[0], names[1]),
            "explained",
            f"tokenizer_config.json of {side.name} says otherwise than tokenizer.json, by which transformers 5 goes; "
            "transformers 4 and llama.cpp's converter may go by the setting",
        )


def _eos(a: Fed, b: Fed) -> Row:
    shown = each(a, b, lambda side: side.shown(side.eos) + ", behind every text" * bool(side.around[1]))
    if a.around[1] != b.around[1]:
        return Row("EOS", shown, "different", f"{'A' if a.around[1] else 'B'} puts it behind every text")
    if a.eos == b.eos:
        return Row("EOS", shown, "alike")
    if a.eos is None or b.eos is None:
        return Row("EOS", shown, "different", f"{'A' if a.eos is None else 'B'} names none")
    for side, other in ((a, b), (b, a)):
        if side.eos in other.config.eos_ids:
            return Row("EOS", shown, "explained", f"that of {side.name} ends a generation of {other.name} too")
    return Row("EOS", shown, "different", "a generation ends at another token")
