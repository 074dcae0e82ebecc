"""Whether two sides are fed the same of a conversation: their chat templates, rendered, as text and as token ids."""

from collections.abc import Iterator
from datetime import datetime

from store.text import printable
from workbench.feeding.fed import Fed, each, first_unlike, token_unlike
from workbench.feeding.row import Row
from workbench.pair.chat import Rendered, chat_ids, render
from workbench.pair.prompt import Chat

_NEAR = 16  # characters that are shown before and behind the first that differs


def _chat(*turns: str) -> Chat:
    """A conversation whose last turn is the user's; each turn as `role: content`."""
    parts = (turn.split(": ", 1) for turn in turns)
    return Chat(tuple({"role": role, "content": content} for role, content in parts))


CONVERSATIONS = {
    "one message": _chat("user: Hello"),
    "with a system message": _chat(
        "system: You are terse.", "user: What is 2 + 2?", "assistant: 4", "user: And 17 * 3?\n"
    ),
    "white space and scripts": _chat("user:   def f(x):\n\treturn 'é'  ", "assistant: OK.\n\n", "user: 你好"),
}


def chat_rows(a: Fed, b: Fed) -> Iterator[Row]:
    """Yield the two templates, and what they make of three conversations."""
    shown = each(a, b, _size)
    if a.config.chat_template is None or b.config.chat_template is None:
        yield _missing(a, b, shown)
        return
    now, chats = datetime.now(), list(CONVERSATIONS.values())
    made = each(a, b, lambda side: render(side.config, chats, now))
    rows = [_of_one(a, b, name, x, y) for name, x, y in zip(CONVERSATIONS, *made, strict=True)]
    yield _templates(a, b, shown, all(row.status == "alike" for row in rows))
    yield from rows


def _size(side: Fed) -> str:
    template = side.config.chat_template
    return "none" if template is None else f"{len(template)} characters"


def _missing(a: Fed, b: Fed, shown: tuple[str, str]) -> Row:
    if shown[0] == shown[1]:
        return Row("chat template", shown, "alike")
    side = a if a.config.chat_template is None else b
    instead = "; llama.cpp takes ChatML in its place" if side.model.format == "gguf" else ""
    return Row("chat template", shown, "different", f"{side.name} has none{instead}")


def _templates(a: Fed, b: Fed, shown: tuple[str, str], same: bool) -> Row:
    one, other = a.config.chat_template or "", b.config.chat_template or ""
    if one == other:
        return Row("chat template", shown, "alike")
    how = "they differ in white space only" if _squeezed(one) == _squeezed(other) else _first(one, other)
    rendered = f"; {len(CONVERSATIONS)} conversations are fed alike, others were not tried" if same else ""
    return Row("chat template", shown, "explained" if same else "different", how + rendered)


def _of_one(a: Fed, b: Fed, name: str, x: Rendered, y: Rendered) -> Row:
    what = f"chat {name}"
    if x.refusal is not None or y.refusal is not None:
        return _refused(what, x, y)
    ids = chat_ids(a.model, x.text), chat_ids(b.model, y.text)
    shown = (f"{len(ids[0])} tokens{_twice(a, ids[0])}", f"{len(ids[1])} tokens{_twice(b, ids[1])}")
    if ids[0] == ids[1]:
        return Row(what, shown, "alike", "" if x.text == y.text else f"of other texts: {_first(x.text, y.text)}")
    example = {"text": [x.text, y.text], "a": ids[0], "b": ids[1]}
    return Row(what, shown, "different", _how(a, b, (x.text, y.text), ids), example)


def _refused(what: str, x: Rendered, y: Rendered) -> Row:
    shown = ("refused" if x.refusal else "rendered", "refused" if y.refusal else "rendered")
    words = [printable(made.refusal or "rendered", 80) for made in (x, y)]
    if x.refusal == y.refusal:
        return Row(what, shown, "alike", words[0])
    return Row(what, shown, "different", f"A: {words[0]}; B: {words[1]}")


def _twice(side: Fed, ids: list[int]) -> str:
    return ", BOS twice" if len(ids) > 1 and ids[0] == ids[1] == side.bos else ""


def _how(a: Fed, b: Fed, texts: tuple[str, str], ids: tuple[list[int], list[int]]) -> str:
    """What makes two lists of ids differ, as plainly as it can be said."""
    for side, other, more, less in ((a, b, ids[0], ids[1]), (b, a, ids[1], ids[0])):
        if more[1:] == less:
            how = ("twice", "once") if more[:1] == less[:1] else ("alone", "does not")
            return f"{side.name} begins with {side.shown(more[0])} {how[0]}, {other.name} {how[1]}"
    if texts[0] == texts[1]:
        return f"of one text, {token_unlike(a, b, ids)}"
    where = ", in white space only" if _squeezed(texts[0]) == _squeezed(texts[1]) else ""
    return f"the rendered texts differ{where}: {_first(*texts)}"


def _squeezed(text: str) -> str:
    return "".join(text.split())


def _first(one: str, other: str) -> str:
    """The place where two texts part."""
    at = first_unlike(one, other)
    parts = [printable(repr(text[max(at - _NEAR, 0) : at + _NEAR]), 60) for text in (one, other)]
    return f"at character {at} A has {parts[0]} and B {parts[1]}"
