"""Mistakes of the factor that queries have by their positions."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from kernels.kinds.temperature import Tempered
from workbench.bisect.mistakes.mistake import Mistake, Question
from workbench.bisect.traces.spans import evaluated


def temperature_mistakes(q: Question) -> Iterator[Mistake]:
    """No factor, one of other positions or lengths, or one of keys or of scores."""
    kind, x = q.kind(Tempered), q.x["x"]
    factors = kind.factors(q.at)
    positions = q.at.positions()[:, None] + kind.offset
    words = "queries are not multiplied by the factor of their positions"
    yield Mistake("attention_scale", "config", words, x, setting=(words,))
    for words, other in (
        ("queries are multiplied by the factor of their positions twice", np.square(factors)),
        ("queries are divided by the factor of their positions", 1 / factors),
        ("positions are not cut down to whole lengths", 1 + kind.scale * np.log1p(positions / kind.length)),
        (
            "the logarithm is taken of whole lengths, and not of one more",
            1 + kind.scale * np.log(np.maximum(np.floor(positions / kind.length), 1)),
        ),
    ):
        yield Mistake("attention_scale", "graph", words, x * other, setting=(words,))
    for words, changed in (
        (f"positions are counted from {1 - kind.offset}", replace(kind, offset=1 - kind.offset)),
        *(
            (f"a length of {length} tokens stands in place of {kind.length}", replace(kind, length=length))
            for length in (q.config.max_position_embeddings, q.config.temperature_length)
            if length not in (None, kind.length)
        ),
    ):
        predicted = evaluated(q.at.doing(changed), q.x)
        yield Mistake("attention_scale", "config", words, predicted, setting=(words,))
