"""Tensors of which one convention was applied too often or not at all are one mistake, and named as one.

A conversion that adds 1 twice does so to all norms alike: who is told of the first of them only would mend one tensor.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace

from kernels.graph import Model
from store.conventions import PLUS_ONE, ROTARY_PAIRS
from store.stored_model import StoredModel
from workbench.bisect.verdict import Culprit
from workbench.conventions.against import more
from workbench.conventions.entry import mistake
from workbench.conventions.heads import Heads
from workbench.conventions.ledger import ledgers

CONVENTIONS = {"norm_offset": PLUS_ONE, "permuted_rope": ROTARY_PAIRS}


def told_together(culprit: Culprit, others: Sequence[Culprit], a: Model, b: Model) -> Culprit:
    """The culprit, in words for all tensors that the same was done to; as it is where there is but one.

    Whose mistake it is, is said where either file shows it by itself.
    """
    convention = CONVENTIONS.get(culprit.cause)
    if convention is None or not isinstance(a, StoredModel) or not isinstance(b, StoredModel):
        return culprit
    names = list(_alike(culprit, others, a, b, convention))
    return culprit if len(names) < 2 else replace(culprit, explanation=_words(names, a, b, convention))


def _alike(
    culprit: Culprit, others: Sequence[Culprit], a: StoredModel, b: StoredModel, convention: str
) -> Iterator[str]:
    """The tensors that differ as the culprit's does, its own first."""
    size = Heads.of(a).size
    tensors = [each.tensor for each in (culprit, *others) if each.cause == culprit.cause and each.tensor in a.tensors]
    times = {name: more(b, a, convention, name, size) for name in tensors if name is not None}
    of_culprit = times.get(culprit.tensor or "")
    return iter(()) if not of_culprit else (name for name, found in times.items() if found == of_culprit)


def _words(names: Sequence[str], a: StoredModel, b: StoredModel, convention: str) -> str:
    for side, called, other in zip(ledgers(a, b, only=(convention,)), "AB", "BA", strict=True):
        found = [entry for name in names for entry in side.entries[name]]
        wrong = sorted((entry for entry in found if entry.by_number), key=lambda entry: len(entry.possible))
        if wrong:
            return mistake([replace(wrong[0], tensor=name) for name in names], other, called)
    return mistake([replace(entry, possible=(), said=None) for entry in found], other, called)
