"""Mistakes of the number that what a layer gives is multiplied by."""

from collections.abc import Iterator

from workbench.bisect.mistakes.mistake import Mistake, Question
from workbench.bisect.mistakes.norms import vector


def scalar_mistakes(q: Question) -> Iterator[Mistake]:
    """No number, that of another layer, or the right one once too often or upside down."""
    (name,), x = q.at.stage.weights, q.x["x"]
    own = vector(q, name)
    for words, factor in (
        (f"{name} is not multiplied in", own * 0 + 1),
        (f"{name} is multiplied in twice", own * own),
        *(((f"{name} divides", 1 / own),) if own.all() else ()),
    ):
        yield Mistake("scaled", "graph", words, x * factor, name, setting=(words,))
    for layer in range(q.config.num_hidden_layers):
        other = name.replace(f"layers.{q.at.layer}.", f"layers.{layer}.")
        if layer != q.at.layer and other in q.at.model:
            yield Mistake("wrong_layer", "weights", f"{name} is that of layer {layer}", x * vector(q, other), name)
