"""The words in which the product says its answers, each defined once: help and docs show this table."""

WORDS: dict[str, str] = {
    "what rounding can cause": (
        "the difference that the arithmetic of both sides must leave at this very cell, from the same input and "
        "weights; predicted from the data and checked by running the stage. Also called the floor"
    ),
    "unexplained after the fix": (
        "what is left of the difference once the named mistake is undone, as a share of its norm; 0 means that it "
        "reproduces the other side to the last bit"
    ),
    "A is exact to rounding": (
        "A is off from a float64 evaluation of the same stage by no more than rounding can cause; so the other side is "
        "the one to look at"
    ),
    "culprit": (
        "the first cell, in execution order, whose own difference neither rounding nor the formats of its weights "
        "explain"
    ),
    "cause": "a mistake that, made on the healthy side, reproduces the other side; where none does it is unknown",
    "factor": "what differs at a stage: its input, weights, numerics (path), config (settings) or graph (operation)",
    "observed": "the difference between A and B as both recorded it",
    "inherited": "the part of it that came in with the input of the stage",
    "local": "the part that the stage itself added: both sides on the same input",
    "cell": "one stage of one layer: A's tensor, B's tensor, and the figures between them",
    "stage": "a named point of a layer, in execution order: norm, products, rope, attention, ...",
    "numeric path": "how the arithmetic is done: f64, f32, ggml (as llama.cpp) or apr",
    "out of band": "beyond what copies of a model usually show in this metric; a hint and no verdict",
}
