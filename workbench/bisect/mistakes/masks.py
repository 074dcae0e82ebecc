"""Mistakes of the causal mask."""

from collections.abc import Iterator
from dataclasses import replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from kernels.graph import Values
from kernels.kinds.attention import Attention
from workbench.bisect.mistakes.heads import Heads, Try
from workbench.bisect.mistakes.mistake import Question

Bounds = NDArray[np.int64]  # of every token, the first or the last key that it sees
_MOST_WINDOWS = 64


def masked(q: Question, some: Heads) -> Iterator[Try]:
    """Masks of one rule for all tokens, and those that go wrong where a part of the prompt is cached already."""
    scale = q.kind(Attention).scale
    tokens = np.arange(len(q.y))
    end = len(tokens)
    # least and greatest distance from a token back to one that it sees, and the first one that is ever seen
    kinds = {
        "every token sees every other": (-end, end, 0),
        "a token sees itself and what precedes": (0, end, 0),
        "a token does not see itself": (1, end, 0),
        "a token sees the next one too": (-1, end, 0),
        "a token sees itself and what follows": (-end, 0, 0),
        "a token sees itself only": (0, 0, 0),
    }
    some_counts = range(1, min(end, _MOST_WINDOWS))
    for count in sorted({*some_counts, *(count for count in _windows(q) if count < end)}):
        kinds[f"a token sees the last {count} only"] = (0, count - 1, 0)
    for count in some_counts:
        kinds[f"the first {count} tokens are not seen"] = (0, end, count)

    def banded(heads: Heads, seen: tuple[int, int, int]) -> Values:
        back = heads.rows[:, None] - tokens[None, :]
        return heads.attend(scale, (back >= seen[0]) & (back <= seen[1]) & (tokens >= seen[2]))

    for words, seen in kinds.items():
        yield Try("causal_mask", "graph", words, partial(banded, seen=seen))

    def between(heads: Heads, first: Bounds, last: Bounds) -> Values:
        low, high = first[heads.rows, None], last[heads.rows, None]
        return heads.attend(scale, (tokens >= low) & (tokens <= high))

    window = q.kind(Attention).window
    for words, first, last in _chunks(q, some):
        yield Try("causal_mask", "graph", words, partial(between, first=first, last=last), setting=("chunk", words))
        if window is not None:  # which begins at the last key that the rule lets a token see, or at the token itself
            within, words = np.maximum(first, np.minimum(last, tokens) - window + 1), f"{words}, within the window"
            yield Try(
                "causal_mask", "graph", words, partial(between, first=within, last=last), setting=("chunk", words)
            )


def _windows(q: Question) -> tuple[int, ...]:
    """Windows that are taken for that of the model, or that its other layers have."""
    window = q.config.sliding_window
    return () if window is None else (window - 1, window, window + 1, window // 2, window // 2 + 1, 2 * window)


def _chunks(q: Question, some: Heads) -> Iterator[tuple[str, Bounds, Bounds]]:
    """The keys that each token sees where a prompt runs in chunks, and a later one is masked as if it were the first.

    Where a chunk begins is told by the first token that is wrong, and by the keys that wrong tokens see.
    """
    tokens, wrong = np.arange(len(q.y)), np.flatnonzero(q.wrong_tokens)
    if not len(wrong):  # a mistake is only imagined
        return
    rows = np.intersect1d(some.rows, wrong)
    ends, starts = _seen(q, replace(some, rows=rows))
    behind = np.unique(rows - ends)
    bounds = ends[ends > rows] + 1  # of the chunks whose tokens see what follows
    bounds = bounds[bounds < len(tokens)]
    begins = {
        int(wrong[0]),
        *([int(np.gcd.reduce(bounds))] if len(bounds) else []),
        *(behind.tolist() if len(behind) == 1 else ()),
        *(starts[:1].tolist() if np.ptp(starts) == 0 else ()),
    }
    for begin in sorted(begin for begin in begins if 0 < begin < len(tokens)):
        once, again = np.where(tokens >= begin, begin, 0), tokens // begin * begin
        later = f"from token {begin} on"
        words = f"the mask is not shifted by the cached length: {later}, token t sees the keys up to t - {begin} only"
        yield words, tokens * 0, tokens - once
        yield f"{later}, no key before token {begin} is seen", once, tokens
        words = (
            f"the mask is not shifted by the cached length: in chunks of {begin}, token t sees t modulo {begin} keys"
        )
        yield f"{words} and one", tokens * 0, tokens - again
        yield f"chunks of {begin} tokens see none but their own keys", again, tokens
        yield f"tokens see all of their chunk of {begin}", tokens * 0, np.minimum(again + begin, len(tokens)) - 1
        yield f"{later}, tokens see all that follow", tokens * 0, np.where(tokens >= begin, len(tokens) - 1, tokens)
    if len(behind) == 1:
        words = f"from token {wrong[0]} on, token t sees the keys up to t {-int(behind[0]):+d}"
        yield words, tokens * 0, np.where(tokens >= wrong[0], tokens - behind[0], tokens)


def _seen(q: Question, heads: Heads) -> tuple[Bounds, Bounds]:
    """Of some rows the last key, if they see all before it, and the first, if they see all up to themselves."""
    scale, y = heads.kind.scale, q.y[heads.rows].reshape(len(heads.rows), -1, heads.kind.value_size)
    up_to, back_to = np.zeros((2, len(heads.rows), len(heads.k)))
    for head, shared in enumerate(heads.owners().tolist()):
        scores = heads.q[heads.rows, head] @ heads.k[:, shared].T * scale
        weights = np.exp(scores - scores.max(axis=1, keepdims=True))
        value = heads.v[:, shared]
        for row, token in enumerate(heads.rows.tolist()):
            parts = np.concatenate([weights[row][:, None], weights[row][:, None] * value], axis=1)
            back = np.zeros_like(parts)
            back[: token + 1] = parts[token::-1].cumsum(axis=0)[::-1]
            for sums, off in ((parts.cumsum(axis=0), up_to), (back, back_to)):
                mixed = sums[:, 1:] / np.maximum(sums[:, :1], 1e-300)
                off[row] += np.square(mixed - y[row, head]).sum(axis=1)
    return up_to.argmin(axis=1), back_to.argmin(axis=1)
