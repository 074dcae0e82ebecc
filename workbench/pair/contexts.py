"""Which of two rotary scalings a model is run with that has one for short texts and one for long ones (LongRoPE)."""

from collections.abc import Iterable
from dataclasses import replace

from store.artifact import Artifact
from store.traces.trace import LLAMA_CPP, Trace


def in_context(model: Artifact, traces: Iterable[Trace], tokens: int) -> Artifact:
    """Return a model as it computes a text of so many tokens, or as the engine did whose trace stands beside it.

    transformers looks at the length of the text, llama.cpp at how many tokens its context has room for.
    """
    limit, recorded = model.config.length_limit, [trace for trace in traces if _engine(trace) == LLAMA_CPP]
    if not recorded or limit is None or tokens > limit:
        return model.for_length(tokens)
    room = _room(recorded[0])
    if room is None:
        said = (
            f"The trace does not say for how many tokens its context had room (n_ctx): beyond {limit} llama.cpp takes "
            "the long rotary factors for any text, and it was judged with the short ones."
        )
    elif room > limit:
        said = (
            f"The trace was recorded in a context with room for {room} tokens (n_ctx), and the original one has "
            f"{limit}: llama.cpp takes the long rotary factors there even for a text of {tokens}, so it was judged "
            "with those; transformers takes the short ones for such a text."
        )
    else:
        return model
    made = model.for_length(room or tokens)
    return replace(made, guesses=tuple(dict.fromkeys((*made.guesses, said))))


def _engine(trace: Trace) -> str:
    return trace.engine if trace.record is None else trace.record.format


def _room(trace: Trace) -> int | None:
    """How many tokens there was room for, where the trace says it."""
    room = (trace.settings if trace.record is None else trace.record.settings).get("n_ctx")
    return room if type(room) is int and room > 0 else None
