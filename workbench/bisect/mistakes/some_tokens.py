"""Mistakes in some tokens only: the others are right with the same weights, so that weights cannot be at fault."""

from collections.abc import Iterator, Sequence

import numpy as np

from workbench.bisect.mistakes.mistake import FITTED, Flags, Mistake, Question, Values

_SHOWN = 6  # tokens that are named one by one


def wrong_elements(q: Question) -> Flags:
    """Channels of the wrong tokens that noise does not explain (tokens, channels)."""
    tokens = q.wrong_tokens
    return np.asarray(tokens[:, None] & q.wrong_channels_of(tokens)[None, :])


def token_mistakes(q: Question) -> Iterator[Mistake]:
    """Zeros, another sign, another factor, or the rows of other tokens, in the tokens that are wrong."""
    if q.wrong_tokens.all():
        return
    part, where = wrong_elements(q), where_words(q)
    right, y = q.right[part], q.y[part]
    yield _mistake(q, part, "zeroed", f"the output is zero {where}", np.zeros_like(y))
    yield _mistake(q, part, "sign_flipped", f"the output has the opposite sign {where}", -right)
    energy = float(right @ right)
    if energy:
        factor = float(f"{float(y @ right) / energy:.3g}")
        yield _mistake(q, part, "scaled", f"the output is multiplied by {factor:g} {where}", factor * right, FITTED)
    wrong = np.flatnonzero(q.wrong_tokens)
    source = np.array([int(np.square(q.right - row).sum(axis=1).argmin()) for row in q.y[wrong]])
    moved = q.right.copy()
    moved[wrong] = q.right[source]
    words = f"tokens {_listed(q.tokens(wrong))} have the rows of tokens {_listed(q.tokens(source))}"
    yield Mistake("token_scope", "graph", words, moved, rank=FITTED)


def _mistake(q: Question, part: Flags, cause: str, words: str, values: Values, rank: int = 0) -> Mistake:
    predicted = q.right.copy()
    predicted[part] = values
    return Mistake(cause, "graph", words, predicted, rank=rank, setting=(words,))


def where_words(q: Question) -> str:
    """Which tokens and which channels are wrong, in words."""
    tokens, channels = q.tokens(np.flatnonzero(q.wrong_tokens)), np.flatnonzero(q.wrong_channels_of(q.wrong_tokens))
    count, size = len(q.y), q.y.shape[1]
    who = f"at token {tokens[0]} only" if len(tokens) == 1 else f"at tokens {_listed(tokens)} only"
    if len(channels) == size:
        which = f"all {size} channels"
    elif len(channels) > 1 and channels[-1] - channels[0] + 1 == len(channels):
        which = f"channels {channels[0]} to {channels[-1]} of {size}"
    else:
        which = f"{len(channels)} of {size} channels"
    return f"{who} ({len(tokens)} of {count}), in {which}; the other tokens are right with the same weights"


def _listed(tokens: Sequence[int] | np.ndarray) -> str:
    numbers = [int(token) for token in tokens]
    if len(numbers) > 2 and numbers == list(range(numbers[0], numbers[-1] + 1)):
        return f"{numbers[0]} to {numbers[-1]}"
    return ", ".join(map(str, numbers[:_SHOWN])) + (", …" if len(numbers) > _SHOWN else "")
