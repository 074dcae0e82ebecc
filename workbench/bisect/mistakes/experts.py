"""Mistakes of choosing experts, of which expert computes what, and of adding up what they give."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from kernels.config import Scoring
from kernels.graph import Values
from kernels.kinds.activation import sigmoid
from kernels.kinds.apart import HeadProduct, Routed
from kernels.kinds.choice import Choice, chosen
from kernels.kinds.experts import ExpertInput, ExpertProduct, ExpertSum
from kernels.kinds.gated import Gated
from kernels.rows.dequantize import dequantize
from workbench.bisect.mistakes.mistake import Mistake, Question
from workbench.bisect.traces.spans import evaluated

_WAYS: dict[Scoring, str] = {
    "softmax": "a softmax over all experts",
    "sigmoid": "a sigmoid",
    "softmax of chosen": "a softmax of the chosen",
    "sigmoid of chosen": "a sigmoid of the chosen",
}
_TWO = ("gate_proj", "up_proj")
_MOST = 64  # experts that may be chosen


def choice_mistakes(q: Question) -> Iterator[Mistake]:
    """Other experts, or the right ones counted otherwise."""
    kind = q.kind(Choice)
    for words, other in _other_choices(kind, q.right.shape[1]):
        yield _graph(words, evaluated(q.at.doing(other), q.x).astype(np.float64))
    logits = q.x["x"]
    if q.tensors:
        plain = replace(q.at, stage=replace(q.at.stage, tensors=()))
        yield _graph("nothing is added to the scores for the choice", evaluated(plain, q.x).astype(np.float64))
        scores = kind.scores(logits)
        biased = kind.weights(q.at, kind.selection(q.at, scores), kind.best(kind.selection(q.at, scores)))
        yield _graph("what is added for the choice counts in the weights too", biased)
    least = kind.weights(q.at, kind.scores(logits), kind.best(-kind.scores(logits)))
    yield _graph("the experts with the lowest scores are chosen", least)
    experts = chosen(q.right, kind.used)
    own = np.take_along_axis(q.right, experts, axis=1)
    for words, values in (
        ("all chosen experts count alike", np.broadcast_to(own.mean(axis=1, keepdims=True), own.shape)),
        ("the weights of the chosen experts are in descending order", -np.sort(-own, axis=1)),
        ("the weights of the chosen experts are in reverse order", own[:, ::-1]),
    ):
        predicted = np.zeros_like(q.right)
        np.put_along_axis(predicted, experts, values, axis=1)
        yield Mistake("expert_order", "graph", words, predicted, setting=(words,))
    for words, step in (("after", 1), ("before", -1)):
        words = f"the weights are those of the expert {words}"
        yield Mistake("expert_order", "graph", words, np.roll(q.right, -step, axis=1), setting=(words,))


def _other_choices(kind: Choice, experts: int) -> Iterator[tuple[str, Choice]]:
    if kind.renormalised:
        yield "the weights of a token are not divided by their sum", replace(kind, renormalised=False)
    else:
        yield "the weights of a token are divided by their sum", replace(kind, renormalised=True)
    for used in (kind.used + 1, kind.used - 1, 1):
        if 0 < used <= min(experts, _MOST) and used != kind.used:
            yield f"{used} experts are chosen in place of {kind.used}", replace(kind, used=used)
            if not kind.renormalised:
                words = f"{used} experts are chosen in place of {kind.used}, and their weights divided by their sum"
                yield words, replace(kind, used=used, renormalised=True)
    for scoring, name in _WAYS.items():
        if scoring == kind.scoring:
            continue
        for normed in (True, False):
            also = "" if normed == kind.renormalised else f", which are {'' if normed else 'not '}divided by their sum"
            words = f"weights come from {name} in place of {_WAYS[kind.scoring]}{also}"
            yield words, replace(kind, scoring=scoring, renormalised=normed)
    if kind.scale != 1:
        yield f"the weights are not multiplied by {kind.scale:.6g}", replace(kind, scale=1.0)
    if kind.groups > 1:
        yield "experts of all groups are looked at", replace(kind, groups=1)
        best = "the best expert of a group alone counts" if kind.group_best == 2 else "the two best of a group count"
        yield f"{best} for the choice of groups", replace(kind, group_best=3 - kind.group_best)
        if kind.groups_used > 1:
            words = f"{kind.groups_used - 1} groups of experts are looked at in place of {kind.groups_used}"
            yield words, replace(kind, groups_used=kind.groups_used - 1)


def _graph(words: str, predicted: Values) -> Mistake:
    return Mistake("router", "graph", words, predicted, setting=(words,))


def expert_mistakes(q: Question) -> Iterator[Mistake]:
    """The products of other experts than those that were chosen, or in another order."""
    kind, weights = q.kind(ExpertProduct), q.x["weights"]
    experts = weights.shape[1]
    shown = chosen(weights, kind.used)
    runs = q.right.reshape(len(q.right), kind.used, -1)
    order = np.argsort(-np.take_along_axis(weights, shown, axis=1), axis=1, kind="stable")
    words = "the experts of a token are in the order of their weights in place of ascending"
    by_weight = np.take_along_axis(runs, order[:, :, None], axis=1).reshape(q.right.shape)
    yield Mistake("expert_order", "graph", words, by_weight, setting=(words,))
    yield from _moved(q, "expert_order", "expert", experts)
    for one, two in (("gate_proj", "up_proj"), ("up_proj", "gate_proj")):
        names = tuple(name.replace(one, two) for name in q.at.stage.tensors)
        if names != q.at.stage.tensors and all(name in q.at.model for name in names):
            words = f"{two} of every expert stands in place of {one}"
            predicted = evaluated(replace(q.at, stage=replace(q.at.stage, tensors=names)), q.x)
            yield Mistake("gate_up_swapped", "graph", words, predicted, exact=True, setting=(words,))
    yield from _by_turns(q)
    if q.at.stage.scales:
        plain = replace(q.at.stage, tensors=tuple(n for n in q.at.stage.tensors if n not in q.at.stage.scales))
        words = "the products of experts are not multiplied by their factors"
        predicted = evaluated(replace(q.at, stage=plain), q.x)
        yield Mistake("scaled", "graph", words, predicted, exact=True, setting=(words,))


def _by_turns(q: Question) -> Iterator[Mistake]:
    """Rows of gate and up, which some files store by turns, read as if one came behind the other, or the other way."""
    part = next((part for part in _TWO if any(f".{part}." in name for name in q.at.stage.tensors)), None)
    if part is None:
        return
    both = []
    for own in _TWO:
        names = tuple(name.replace(part, own) for name in q.at.stage.tensors)
        if not all(name in q.at.model for name in names):
            return
        found = evaluated(replace(q.at, stage=replace(q.at.stage, tensors=names)), q.x)
        both.append(found.reshape(len(found), q.kind(ExpertProduct).used, -1))
    place, rows = _TWO.index(part), both[0].shape[2]
    turns = np.stack(both, axis=3).reshape(*both[0].shape[:2], -1)[:, :, place * rows : (place + 1) * rows]
    behind = np.concatenate(both, axis=2)[:, :, place::2]
    for words, predicted in (
        ("rows of gate and up that are stored by turns are read as if they were not", turns),
        ("rows of gate and up are read as if they were stored by turns", behind),
    ):
        yield Mistake("rows_permuted", "graph", words, predicted.reshape(q.right.shape), exact=True, setting=(words,))


def head_product_mistakes(q: Question) -> Iterator[Mistake]:
    """Heads that have the weights of others, or read them with rows and columns exchanged."""
    kind = q.kind(HeadProduct)
    yield from _moved(q, "rows_permuted", "head", kind.heads)
    turned = np.concatenate([_turned(q, pairs) for pairs in kind.routed(q.at, q.x)], axis=1)
    words = "the weight of every head is read with rows and columns exchanged"
    yield Mistake("transposed", "weights", words, turned, setting=(words,))


def _turned(q: Question, pairs: Routed) -> Values:
    (weight,) = pairs.at.weights()
    values = dequantize(weight).astype(np.float64)
    return np.asarray(q.kind(HeadProduct).read(q.x["x"], pairs) @ values.reshape(values.shape[::-1]))


def _moved(q: Question, cause: str, what: str, count: int) -> Iterator[Mistake]:
    """The products with the weights of each other. what : has a weight, count : how many of them there are."""
    tensors = len(q.at.stage.tensors) // count
    each = [q.at.stage.tensors[n * tensors : (n + 1) * tensors] for n in range(count)]
    for words, moved in (
        (f"every {what} computes with the weights of the next one", [*each[1:], each[0]]),
        (f"every {what} computes with the weights of the one before", [each[-1], *each[:-1]]),
        (f"{what}s have the weights of each other in reverse order", each[::-1]),
    ):
        stage = replace(q.at.stage, tensors=tuple(name for names in moved for name in names))
        predicted = evaluated(replace(q.at, stage=stage), q.x)
        yield Mistake(cause, "graph", words, predicted, exact=True, setting=(words,))


def sum_mistakes(q: Question) -> Iterator[Mistake]:
    """What experts give, added up with other weights."""
    weights, parts = q.kind(ExpertSum).terms(q.at, q.x)
    plain, used = parts.sum(axis=1), weights.shape[1]
    yield _graph("what the experts give is added without weights", plain)
    yield _graph("what the experts give is averaged without weights", plain / used)
    if not q.kind(ExpertSum).weighted:
        once = replace(q.kind(ExpertSum), weighted=True)
        words = "what the experts give is multiplied by the weights of the experts once more"
        yield _graph(words, evaluated(q.at.doing(once), q.x).astype(np.float64))
        return
    yield _graph("the weights of the experts are applied twice", (np.square(weights)[:, :, None] * parts).sum(axis=1))
    total = weights.sum(axis=1)[:, None]
    yield _graph("the weights of a token are divided by their sum", q.right / total)
    if used > 1:
        yield _graph("the expert that counts least is left out", q.right - weights[:, -1:] * parts[:, -1])
        yield _graph("only the expert that counts most is added", weights[:, :1] * parts[:, 0])
        words = "the weights of the experts are in ascending order in place of descending"
        yield Mistake("expert_order", "graph", words, (weights[:, ::-1, None] * parts).sum(axis=1), setting=(words,))


def input_mistakes(q: Question) -> Iterator[Mistake]:
    """What experts read, with other weights than their own."""
    kind, weights = q.kind(ExpertInput), q.x["weights"]
    own = np.take_along_axis(weights, chosen(weights, kind.used), axis=1)[:, :, None]
    plain = np.repeat(q.x["x"][:, None], kind.used, axis=1)
    for words, factors in (
        ("what the experts read is not multiplied by their weights", np.ones_like(own)),
        ("the weights of the experts are applied twice to what they read", np.square(own)),
        ("the weights of a token are divided by their sum", own / own.sum(axis=1, keepdims=True)),
        ("the weights of the experts are in reverse order", own[:, ::-1]),
    ):
        yield _graph(words, (factors * plain).reshape(q.right.shape))


def gate_mistakes(q: Question) -> Iterator[Mistake]:
    """Another gate of what attention gives, or of what is computed beside the experts."""
    q.kind(Gated)
    x, gate = q.x["x"], q.x["gate"]
    for words, predicted in (
        ("the gate is left out", x),
        ("the gate does not go through a sigmoid", x * gate),
        ("SiLU stands in place of the sigmoid of the gate", x * gate * sigmoid(gate)),
    ):
        yield Mistake("activation_function", "graph", words, predicted, setting=(words,))
