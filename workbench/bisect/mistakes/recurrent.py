"""Mistakes of layers that compute something else in place of attention: convolutions, and gates of their parts."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from kernels.graph import Values
from kernels.kinds.activation import Silu
from kernels.kinds.convolution import Convolution
from kernels.kinds.elementwise import Multiply
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
                moved = replace(kind, **{f"{role}_start": other})
                words = f"part {other // kind.size + 1} is the {role} in place of part {start // kind.size + 1}"
                yield _graph(words, np.multiply(*moved.both(q.x)))
    yield _graph("the gate is left out", up)
    for words, values in (("SiLU of the gate", _SILU.of(gate)), ("the sigmoid of the gate", 1 / (1 + np.exp(-gate)))):
        words = f"{words} is taken in place of the gate"
        yield Mistake("activation_function", "graph", words, values * up, setting=(words,))
