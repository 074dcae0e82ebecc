"""The token ids of a prompt, as both sides must make them of it: else where they differ, and why."""

from store.artifact import Artifact
from store.text import printable
from store.tokenizer_config import tokenizer_config
from workbench.pair.chat import Prompted, prompted
from workbench.pair.prompt import Chat, ChatError, Prompt, TokenizerError
from workbench.pair.tokenizer import decode_tokens, encode, put_around

_NEAR = 8  # token ids that are shown before and after the first one that differs


def prompt_tokens(artifacts: list[Artifact], prompt: Prompt) -> tuple[tuple[int, ...], str, tuple[str, ...]]:
    """The token ids that all sides make of a prompt, its text (of a conversation the rendered one), and sentences.

    TokenizerError where no side has a tokenizer, or where they tokenize it differently, which is a finding.
    """
    able = [artifact for artifact in artifacts if artifact.vocabulary is not None]
    if not able:
        names = " and ".join(printable(artifact.path.name) for artifact in artifacts) or "a recorded trace"
        have = "have" if len(artifacts) > 1 else "has"
        option = "--prompt" if isinstance(prompt, str) else "--chat"
        raise TokenizerError(f"{names} {have} no tokenizer; give --tokens instead of {option}")
    notes: list[str] = []
    if isinstance(prompt, str):
        found = [Prompted(prompt, tuple(encode(artifact, prompt))) for artifact in able]
    else:
        found, notes = _rendered(able, prompt)
    if len(found) == 2 and found[0].ids != found[1].ids:
        a, b = (
            {"path": str(artifact.path), "tokens": list(fed.ids)} for artifact, fed in zip(able, found, strict=True)
        )
        raise TokenizerError(_how_they_differ(able, found), facts={"verdict": "uncomparable", "a": a, "b": b})
    notes += _bos_notes(able[0], found[0], isinstance(prompt, Chat))
    return found[0].ids, found[0].text, tuple(notes)


def _rendered(able: list[Artifact], chat: Chat) -> tuple[list[Prompted], list[str]]:
    """What each side is fed of a conversation; a side without a chat template gets the text of the other one's."""
    templates = [artifact for artifact in able if tokenizer_config(artifact).chat_template is not None]
    if not templates:
        names = " and ".join(printable(artifact.path.name) for artifact in able)
        have = "have" if len(able) > 1 else "has"
        raise ChatError(f"{names} {have} no chat template; give --prompt instead of --chat")
    found = [prompted(artifact, chat, None if artifact in templates else templates[0]) for artifact in able]
    lacking = [artifact for artifact in able if artifact not in templates]
    return found, [
        f"{printable(artifact.path.name)} has no chat template; both run what {printable(templates[0].path.name)} "
        "makes of the conversation"
        for artifact in lacking
    ]


def _bos_notes(artifact: Artifact, fed: Prompted, rendered: bool) -> list[str]:
    """A sentence where what both run begins with the BOS token twice."""
    bos = fed.ids[0] if fed.ids else None
    if len(fed.ids) < 2 or fed.ids[1] != bos or [bos] not in (put_around(artifact)[0], _named_bos(artifact)):
        return []
    token = _named(artifact, fed.ids[0])
    if rendered:
        return [f"the conversation begins with BOS ({token}) twice: the chat template writes it once too often"]
    return [
        f"the prompt begins with BOS ({token}) twice: the tokenizer adds it, and the text has it already; leave it out "
        "of --prompt, or give the conversation as --chat"
    ]


def _named_bos(artifact: Artifact) -> list[int]:
    bos = tokenizer_config(artifact).bos_id
    return [] if bos is None else [bos]


def _how_they_differ(artifacts: list[Artifact], found: list[Prompted]) -> str:
    ids = [fed.ids for fed in found]
    first = next((n for n, (x, y) in enumerate(zip(*ids, strict=False)) if x != y), min(map(len, ids)))
    words = []
    for side, artifact, fed in zip("AB", artifacts, found, strict=True):
        token = fed.ids[first] if first < len(fed.ids) else None
        what = "nothing more" if token is None else _named(artifact, token)
        near = ",".join(map(str, fed.ids[max(first - _NEAR, 0) : first + _NEAR + 1]))
        words.append(f"{side} has {what} (of {len(fed.ids)} tokens, from {max(first - _NEAR, 0)} on: {near})")
    return (
        f"the two sides tokenize the prompt differently, a finding in itself{_why(artifacts, found)}: at token {first} "
        f"{' and '.join(words)}; give --tokens to run both on the same ids"
    )


def _why(artifacts: list[Artifact], found: list[Prompted]) -> str:
    """What makes two lists of token ids differ, where it is plain to see; begins with a comma."""
    a, b = found
    for side, artifact, more, less in (("A", artifacts[0], a, b), ("B", artifacts[1], b, a)):
        if more.ids[1:] == less.ids:
            twice = "twice, the other once" if more.ids[:1] == less.ids[:1] else "and the other does not"
            return f", as {side} begins with {_named(artifact, more.ids[0])} {twice}"
        if more.ids[:-1] == less.ids:
            return f", as {side} ends with {_named(artifact, more.ids[-1])} and the other does not"
    if a.text == b.text:
        return ""
    pairs = zip(a.text, b.text, strict=False)
    at = next((n for n, (x, y) in enumerate(pairs) if x != y), min(len(a.text), len(b.text)))
    parts = [printable(repr(text[max(at - _NEAR, 0) : at + 2 * _NEAR]), 60) for text in (a.text, b.text)]
    return f", as their chat templates write other texts (A {parts[0]}, B {parts[1]}, at character {at})"


def _named(artifact: Artifact, token: int) -> str:
    return f"{token} '{decode_tokens(artifact, [token])[0]}'"
