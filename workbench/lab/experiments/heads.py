"""Grouped heads: which key head a query head reads."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from kernels.errors import WorkbenchError
from kernels.kinds.attention import Attention, softmax
from kernels.paths import numeric_path
from workbench.lab.experiment import Experiment, Outcome, Parameter, Plot, Rows, Settings
from workbench.lab.inputs import Floats, residues
from workbench.lab.subject import Subject
from workbench.lab.two_paths import rel_rms

_TOLERANCE = 1e-3  # of the published test
_FACTORS = (23, 53, 59), (29, 61, 67), (31, 71, 73), (37, 79, 83)  # of q, k and v; of one token after the other

Three = tuple[NDArray[np.floating], NDArray[np.floating], NDArray[np.floating]]


def literally(
    x: Three, how: Attention, group: int, apart: bool = False, sinks: NDArray[np.floating] | None = None
) -> NDArray[np.float64]:
    """Attention in float64, head by head: query head h reads key head h // group, or h % kv_heads if `apart`."""
    sizes = (how.head_dim, how.head_dim, how.value_size)
    q, k, v = (z.astype(np.float64).reshape(len(z), -1, size) for z, size in zip(x, sizes, strict=True))
    out = np.empty((len(q), how.heads, how.value_size))
    seen = how.mask(np.arange(len(q)), len(k))
    for head in range(how.heads):
        shared = head % how.kv_heads if apart else head // group
        scores = q[:, head] @ k[:, shared].T * how.scale
        scores = scores if how.cap is None else how.cap * np.tanh(scores / how.cap)
        sink = None if sinks is None else float(sinks[head])
        out[:, head] = softmax(np.where(seen, scores, -np.inf), sink) @ v[:, shared]
    return out.reshape(len(q), -1)


def _made(settings: Settings) -> tuple[Three, Attention]:
    heads, kv_heads, size = settings["heads"], settings["kv_heads"], settings["head_dim"]
    if heads % kv_heads:
        raise WorkbenchError(f"--set heads={heads} is no multiple of kv_heads={kv_heads}; give one that is")

    def values(which: int, channels: int, offset: int) -> Floats:
        tokens = (_FACTORS[token % len(_FACTORS)][which] for token in range(settings["tokens"]))
        return np.concatenate([residues((1, channels), factor, 100, offset, 0.01) for factor in tokens])

    how = Attention(heads, kv_heads, size, size**-0.5, 0)
    return (values(0, heads * size, 50), values(1, kv_heads * size, 50), values(2, kv_heads * size, 0)), how


def _run(settings: Settings, subject: Subject | None) -> Outcome:
    series: Rows = []
    whole: float | None = None
    for side, x, how, sinks, y in _cases(settings, subject):
        group, d = how.heads // how.kv_heads, how.value_size
        right, wrong = literally(x, how, group, False, sinks), literally(x, how, group, True, sinks)
        whole = rel_rms(right, y) if whole is None else whole
        for head in range(how.heads):
            own = slice(head * d, (head + 1) * d)
            series.append(
                {
                    "side": side,
                    "head": head,
                    "kv_head": head // group,
                    "max_abs": float(np.abs(y[:, own] - right[:, own]).max()),
                    "if_apart": float(np.abs(wrong[:, own] - right[:, own]).max()),
                }
            )
    worst = max(series, key=lambda row: row["max_abs"])
    told = [row for row in series if row["if_apart"] > _TOLERANCE]
    inputs = dict(settings)
    if subject is not None:
        inputs = subject.inputs(subject.stage_of(Attention).site, both=True)
    return Outcome(
        inputs=inputs
        | {"ratio": f"{how.heads // how.kv_heads}:1", "population": f"{len(y)} tokens, {how.heads} heads"},
        series=series,
        value=worst["max_abs"],
        figures={"heads_that_tell": len(told)},
        against={"vector_rel_rms": whole},
        verdict="CONFIRMED" if worst["max_abs"] < _TOLERANCE and told else "FALSIFIED",
        notes=(
            f"the largest difference to a literal evaluation is {worst['max_abs']:.3g}, in head {worst['head']}; in "
            f"{len(told)} of {len(series)} heads the other order of heads (h % kv_heads) would show",
        ),
    )


def _cases(
    settings: Settings, subject: Subject | None
) -> Iterator[tuple[str, Three, Attention, NDArray[np.floating] | None, NDArray[np.floating]]]:
    """What attention reads, how it is asked to group, its sinks, and what the compiled code gives, for either side."""
    if subject is None:
        x, how = _made(settings)
        yield "made", x, how, None, numeric_path("f32").attention(*x, how)
        return
    stage = subject.stage_of(Attention)
    read, kind = subject.captured(stage.site).x, stage.kind
    assert isinstance(kind, Attention)
    for side, of in (("a", subject.a), ("b", subject.b)):
        inputs = {role: np.ascontiguousarray(value, dtype=of.path.dtype) for role, value in read.items()}
        x = (inputs["q"], inputs["k"], np.ascontiguousarray(kind.values(inputs["v"])))
        at = subject.at(stage, side)
        yield side, x, kind, kind.sinks(at), kind.evaluate(at, inputs)


EXPERIMENT = Experiment(
    id="heads",
    word="heads",
    question="Does every query head read its own group's keys and values?",
    claim="query head h reads key head h // (heads / kv_heads), also where that is no power of two (7:1)",
    shows="the largest difference between compiled attention and a literal one, head by head in float64",
    hides="With one token every share is 1 and keys do not matter; only values tell. Give two tokens or more.",
    plot=Plot("head", "max_abs", log=True),
    run=_run,
    parameters=(
        Parameter("heads", 28, "query heads", 1, 256, only="made"),
        Parameter("kv_heads", 4, "key and value heads", 1, 256, only="made"),
        Parameter("head_dim", 128, "channels of a head", 2, 1024, only="made"),
        Parameter("tokens", 2, "how many", 1, 64, only="made"),
    ),
    on="either",
    both=True,
)
