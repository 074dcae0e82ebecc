"""What is worth a line before two models are run: in which way they are fed differently that bears on these tokens."""

from collections.abc import Iterator
from contextlib import suppress

from kernels.errors import WorkbenchError
from store.artifact import Artifact
from store.stored_model import StoredModel
from workbench.feeding.fed import Fed
from workbench.feeding.rotary import rotary_differences
from workbench.pair.pair import Pair

_LISTED = 3  # tokens that are named where more differ


def beforehand(pair: Pair) -> str | None:
    """Return in one sentence how a pair is fed differently, as far as it bears on its tokens; None if it is not.

    What both make of a prompt was compared when its token ids were decided on; of ids that were given it is not known
    what they are to either side, so texts of these tokens and BOS are looked at then.
    """
    found = [] if pair.tokens is None else list(pair.tokens.notes)
    if isinstance(pair.a, Artifact) and isinstance(pair.b, Artifact) and _of_one_size(pair.a, pair.b):
        if pair.prompt is None:
            with suppress(WorkbenchError):  # without a usable tokenizer on both sides there is nothing to compare
                found += _of_tokens(Fed("A", pair.a), Fed("B", pair.b), pair.ids)
        found += _of_positions(pair.a, pair.b, len(pair.ids))
    return "; ".join(found) if found else None


def _of_one_size(a: Artifact, b: Artifact) -> bool:
    """Whether they may be copies of one model; of others there is more to say than how they are fed."""
    return all(
        getattr(a.config, name) == getattr(b.config, name)
        for name in ("architecture", "hidden_size", "num_hidden_layers")
    )


def _of_tokens(a: Fed, b: Fed, ids: tuple[int, ...]) -> Iterator[str]:
    if a.model.vocabulary is None or b.model.vocabulary is None or _same(a.model, b.model):
        return
    one, other = a.table.texts, b.table.texts
    known = (n for n in dict.fromkeys(ids) if n < len(one) and n < len(other))
    unlike = [n for n in known if one[n] != other[n]]
    for n in unlike[:_LISTED]:
        yield f"token {a.shown(n)} of A is {b.shown(n)} in B"
    if len(unlike) > _LISTED:
        yield f"so are {len(unlike) - _LISTED} more of these tokens"
    if bool(a.around[0]) != bool(b.around[0]):
        side = a if a.around[0] else b
        yield f"{side.name} alone puts {side.shown(side.around[0][0])} before every text"


def _same(a: StoredModel, b: StoredModel) -> bool:
    return a.path.absolute() == b.path.absolute()


def _of_positions(a: Artifact, b: Artifact, count: int) -> Iterator[str]:
    for name, one, other in rotary_differences(a.config, b.config):
        yield f"{name} is {one} in A and {other} in B"
    for name, model in (("A", a), ("B", b)):
        longest = model.config.max_position_embeddings
        if longest is not None and count > longest:
            yield f"{name} is made for {longest} tokens, and {count} are run"
