"""Mistakes of layers that compute something else in place of attention: convolutions, and gates of their parts."""

from collections.abc import Iterator, Mapping
from dataclasses import replace

import numpy as np

from kernels.graph import At, Values
from kernels.kinds.activation import Silu, sigmoid
from kernels.kinds.convolution import Convolution
from kernels.kinds.delta import Decay, DeltaNet, softplus
from kernels.kinds.elementwise import Multiply
from kernels.kinds.scan import GroupNorm, Scan, Step
from kernels.paths import numeric_path
from workbench.bisect.mistakes.mistake import Mistake, Question

_SILU = Silu()


def _graph(words: str, predicted: Values) -> Mistake:
    return Mistake("recurrence", "graph", words, predicted, setting=(words,))


def convolution_mistakes(q: Question) -> Iterator[Mistake]:
    """Its weights in another order, other tokens under them, an activation more, or the bias left out."""
    kind = q.kind(Convolution)
    weight = q.at.path.vector(q.at.weights()[0]).astype(np.float64)
    bias = q.at.biases()[0].astype(np.float64) if q.at.stage.biases else 0.0
    x, taps = kind.channels(q.x["x"]), weight.shape[1]

    def with_weight(other: Values, ahead: int = 0) -> Values:
        padded = np.pad(x, ((taps - 1 - ahead, ahead), (0, 0)))
        return np.asarray(sum(other[:, tap] * padded[tap : tap + len(x)] for tap in range(taps)) + bias)

    plain = with_weight(weight)
    yield _graph("the weights of the convolution are in reverse order", with_weight(weight[:, ::-1]))
    for ahead in range(1, taps):
        words = (
            f"the convolution reaches {ahead} tokens ahead" if ahead > 1 else "the convolution reaches a token ahead"
        )
        yield _graph(words, with_weight(weight, ahead))
    late = np.concatenate([np.zeros_like(plain[:1]), plain[:-1]])
    yield _graph("the convolution is of the tokens before, without the token itself", late)
    only = np.zeros_like(weight)
    only[:, -1] = weight[:, -1]
    yield _graph("tokens before are not seen by the convolution", with_weight(only))
    yield _graph("the convolution is left out", x)
    by_tap = weight.reshape(-1).reshape(taps, -1).T
    yield _graph(
        "the weights of the convolution are read tap by tap in place of channel by channel", with_weight(by_tap)
    )
    if q.at.stage.biases:
        words = f"{q.at.stage.biases[0]} is not added"
        yield Mistake("bias_missing", "graph", words, plain - bias, setting=(words,))
    yield Mistake("activation_function", "graph", "SiLU follows the convolution", _SILU.of(plain), setting=("SiLU",))


def part_mistakes(q: Question) -> Iterator[Mistake]:
    """Other channels than the right ones as the gate, or as what goes through, and no gate at all."""
    kind = q.kind(Multiply)
    if not kind.size:
        return
    gate, up = kind.both(q.x)
    for role, start in (("gate", kind.gate_start), ("up", kind.up_start)):
        for other in range(0, q.x[role].shape[1] - kind.size + 1, kind.size):
            if other != start:
                moved = replace(kind, gate_start=other) if role == "gate" else replace(kind, up_start=other)
                words = f"part {other // kind.size + 1} is the {role} in place of part {start // kind.size + 1}"
                yield _graph(words, np.multiply(*moved.both(q.x)))
    yield _graph("the gate is left out", up)
    for words, values in (("SiLU of the gate", _SILU.of(gate)), ("the sigmoid of the gate", 1 / (1 + np.exp(-gate)))):
        words = f"{words} is taken in place of the gate"
        yield Mistake("activation_function", "graph", words, values * up, setting=(words,))


def decay_mistakes(q: Question) -> Iterator[Mistake]:
    """Another decay of the same products: dt left out, A kept as its logarithm, another function than softplus."""
    kind = q.kind(Decay)
    a, dt = (values.astype(np.float64) for values in kind.terms(q.at))
    x = q.x["x"]
    y = softplus(x + dt)
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        logs, again = np.log(-a), -np.exp(a)
        if np.isfinite(logs).all():
            yield _graph("A is taken as its logarithm, of which -exp was not taken", logs * y)
            yield _graph("exp is taken of A without the minus", -a * y)
        yield _graph("-exp is taken of A once more", again * y)
        yield _graph("softplus is left out", a * (x + dt))
        yield _graph("a sigmoid stands in place of softplus", a * sigmoid(x + dt))
        yield _graph("an exponential stands in place of softplus", a * np.exp(x + dt))
        yield _graph("exp is taken of the decay already", np.exp(q.right))
    yield Mistake("bias_missing", "graph", "dt_bias is not added", a * softplus(x), setting=("dt_bias is not added",))
    yield Mistake(
        "bias_wrong", "graph", "dt_bias is added behind softplus", a * (softplus(x) + dt), setting=("dt_bias",)
    )


def delta_mistakes(q: Question) -> Iterator[Mistake]:
    """The rule with something left out, in another order, or with heads of keys that serve other heads of values."""
    kind, x = q.kind(DeltaNet), q.x
    heads = x["beta"].shape[1]

    def run(how: DeltaNet = kind, **other: Values) -> Values:
        return np.asarray(how.evaluate(_exactly(q.at), _ready({**x, **other})), dtype=np.float64)

    if 1 < kind.groups < heads:
        words = ("neighbouring heads of values share", f"heads of values that are {kind.groups} apart share")
        yield Mistake(
            *("head_grouping", "graph", f"{words[int(not kind.tiled)]} a head of keys"),
            run(replace(kind, tiled=not kind.tiled)),
            setting=("tiled",),
        )
    yield _graph("the state does not fade", run(decay=np.zeros_like(x["decay"])))
    yield _graph("the state fades by the decay as it is, without its exponential", run(decay=_logarithm(-x["decay"])))
    yield _graph("corrections are not multiplied by beta", run(beta=np.ones_like(x["beta"])))
    yield _graph("beta does not go through a sigmoid", run(beta=_logit(x["beta"])))
    yield _graph("q is not divided by the root of its channels", q.right * (x["q"].shape[1] // kind.groups) ** 0.5)
    yield _graph("q and k are exchanged", run(q=x["k"], k=x["q"]))
    plain = _replayed(kind, x, corrected=False)
    yield _graph("values are added without what the state has of them already", plain)
    yield _graph("the state is read before the token is added to it", _replayed(kind, x, read_first=True))
    yield _graph("the state fades behind the correction", _replayed(kind, x, late=True))


def _replayed(
    kind: DeltaNet, x: Mapping[str, Values], corrected: bool = True, read_first: bool = False, late: bool = False
) -> Values:
    """The rule, token by token, with a step of it left out or at another place."""
    q, k, v, beta, decay = kind.by_head(x)
    state, out = np.zeros((q.shape[1], k.shape[2], v.shape[2])), np.empty_like(v)
    for t in range(len(q)):
        share = np.exp(decay[t])[:, None, None]
        state = state if late else state * share
        if read_first:
            out[t] = np.einsum("hk,hkv->hv", q[t], state)
        held = np.einsum("hk,hkv->hv", k[t], state) if corrected else 0.0
        state = state + k[t][:, :, None] * ((v[t] - held) * beta[t][:, None])[:, None, :]
        state = state * share if late else state
        if not read_first:
            out[t] = np.einsum("hk,hkv->hv", q[t], state)
    return np.asarray(out.reshape(len(out), -1) * q.shape[2] ** -0.5)


def step_mistakes(q: Question) -> Iterator[Mistake]:
    """Nothing added to the steps, or the steps of other channels."""
    kind = q.kind(Step)
    added = q.at.path.vector(q.at.model.weight(q.at.stage.tensors[0])).astype(np.float64)
    words = "dt_bias is not added"
    yield Mistake("bias_missing", "graph", words, q.right - added, setting=(words,))
    yield _graph("the first channels are taken for the steps", q.x["x"][:, : len(added)] + added)
    if kind.start >= len(added):
        before = q.x["x"][:, kind.start - len(added) : kind.start]
        yield _graph("the channels before them are taken for the steps", before + added)


def scan_mistakes(q: Question) -> Iterator[Mistake]:
    """Another decay, B and C exchanged or of other heads, and D x left out."""
    kind, x = q.kind(Scan), q.x
    a, d = (values.astype(np.float64) for values in kind.terms(q.at))
    path, (given, _, _, step) = numeric_path("f64"), kind.by_head(x)
    heads, inner, keys = step.shape[1], step.shape[1] * kind.head_dim, kind.groups * kind.state

    def run(a: Values = a, d: Values = d, **other: Values) -> Values:
        return np.asarray(path.scan(_ready({**x, **other}), np.ascontiguousarray(a), np.ascontiguousarray(d), kind))

    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        if np.isfinite(logs := np.log(-a)).all():
            yield _graph("A is taken as its logarithm, of which -exp was not taken", run(a=logs))
        yield _graph("exp is taken of A without the minus", run(a=-a))
        yield _graph("-exp is taken of A once more", run(a=-np.exp(a)))
    yield _graph("the state does not fade", run(a=np.zeros_like(a)))
    skipped = (d[:, None] * given).reshape(len(given), -1)
    yield _graph("D x is not added", q.right - skipped)
    yield _graph("x is added without D", q.right - skipped + given.reshape(len(given), -1))
    parts = np.split(x["x"], [inner, inner + keys], axis=1)
    yield _graph("B and C are exchanged", run(x=np.concatenate([parts[0], parts[2], parts[1]], axis=1)))
    yield _graph(
        "B is not multiplied by the step",
        run(x=np.concatenate([_by_step(parts[0], step), *parts[1:]], axis=1), d=0 * d) + skipped,
    )
    if 1 < kind.groups < heads:
        order = np.arange(heads).reshape(kind.groups, -1).T.reshape(-1)
        moved = np.argsort(order)
        heads_of = parts[0].reshape(len(given), heads, -1)[:, order].reshape(len(given), -1)
        swapped = run(
            **{"x": np.concatenate([heads_of, *parts[1:]], axis=1), "step": step[:, order]}, a=a[order], d=d[order]
        )
        back = swapped.reshape(len(given), heads, -1)[:, moved].reshape(len(given), -1)
        words = f"heads that are {kind.groups} apart share B and C"
        yield Mistake("head_grouping", "graph", words, back, setting=("groups",))


def _by_step(x: Values, step: Values) -> Values:
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray((x.reshape(*step.shape, -1) / step[:, :, None]).reshape(x.shape))


def group_norm_mistakes(q: Question) -> Iterator[Mistake]:
    """All channels normed together, the norm left out, or its weight."""
    kind, x = q.kind(GroupNorm), q.x["x"]
    weight = q.at.path.vector(q.at.weights()[0]).astype(np.float64)
    scale = np.sqrt(np.square(x).mean(axis=1, keepdims=True) + kind.eps)
    yield Mistake("head_grouping", "graph", "all channels are normed together", x / scale * weight, setting=("groups",))
    yield Mistake("unknown", "graph", "the norm is left out", x, setting=("norm",))
    with np.errstate(divide="ignore", invalid="ignore"):
        plain = np.where(weight == 0, 0, q.right / weight)
    for times, words in ((weight + 1, "with 1 added to its weight"), (weight - 1, "with its weight less 1")):
        yield Mistake("norm_offset", "weights", f"the norm is taken {words}", plain * times, q.at.stage.weights[0])


def _exactly(at: At) -> At:
    return replace(at, path=numeric_path("f64"))


def _ready(x: Mapping[str, Values]) -> dict[str, Values]:
    return {role: np.ascontiguousarray(values, dtype=np.float64) for role, values in x.items()}


def _logarithm(x: Values) -> Values:
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(np.where(x > 0, np.log(x), -np.inf))


def _logit(x: Values) -> Values:
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(np.log(x / (1 - x)))
