"""Statistics as `apr trace --payload --json` prints them: no tensors, and the spread of a sample.

The number of values of a stage tells how many tokens its figures cover: a GGUF model gives those of the last token, an
APR model those of all. Its count is of all values, NaN and infinite ones too, and its std divides by n - 1; where the
count is there it is converted to the population's (n), which everything else here is.
"""

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from kernels.stages import FIRST_STAGES, LAST_STAGES, Site
from kernels.statistics import Statistics
from store.errors import StoreError
from store.text import printable
from store.traces.statistics_table import Scope, StatisticsTable, figure, is_count, possible, tokens_of
from store.traces.trace import MAX_LAYERS

_WHOLE = {"embedding": FIRST_STAGES[0], "final_norm": LAST_STAGES[0], "logits_stats": LAST_STAGES[1]}
_LAYER = {
    "attn_norm": "attn_norm",
    "qkv": "qkv_bias",  # with the bias, where there is one
    "attn_out": "attn_out",
    "ffn_norm": "ffn_norm",
    "ffn_gate": "ffn_gate",
    "ffn_up": "ffn_up",
    "ffn_silu": "ffn_silu",
    "ffn_swigl": "ffn_swigl",
    "ffn_out": "ffn_out",
    "output": "post_ffn_residual",
}
_WIDE = frozenset(("attn_norm", "attn_out", "ffn_norm", "ffn_out", "output", "embedding", "final_norm"))  # hidden_dim
_SAMPLE = "Its std is that of a sample (n - 1); it was converted to the population's, and RMS follows from it."
_UNSAID = "Which file and which arithmetic it comes from is not there, nor in which channel the largest value is."


def is_apr_record(record: Mapping[str, Any]) -> bool:
    """Tell whether a JSON object is one that `apr trace --json` prints."""
    return isinstance(record.get("layers"), list) and ("logits_stats" in record or "stats_source" in record)


def apr_table(path: Path, record: Mapping[str, Any]) -> StatisticsTable:
    """Read the statistics; StoreError, one sentence, where there are none or they contradict themselves."""
    name = printable(str(path))
    if "stats_source" in record:
        raise StoreError(f"{name} holds no statistics, only what the file says; trace it with --payload --json.")
    tokens = tokens_of(name, record.get("encoded_tokens"))
    hidden = record.get("hidden_dim")
    found: dict[Site, Statistics] = {}
    rows: int | None = None
    for site, key, facts in _given(name, record):
        width = hidden if key in _WIDE else record.get("vocab_size") if key == "logits_stats" else None
        count: int = facts["count"] if is_count(facts.get("count")) else 0
        if count == 0:  # what was not computed is all zeros there
            continue
        shape = _shape(count, width if is_count(width) else None, rows)
        rows = shape[0] if shape is not None and site.layer is not None else rows
        found[site] = _statistics(f"{name}: {site}", facts, count, shape)
    if rows is None:
        raise StoreError(f"{name} does not tell how many tokens its figures cover; give one with count and hidden_dim.")
    if tokens is not None and rows not in (1, len(tokens)):
        raise StoreError(f"{name} covers {rows} tokens of {len(tokens)}, which is neither all nor the last.")
    scope: Scope = "last" if rows == 1 else "all"
    return StatisticsTable(path, None, None, tokens, scope, found, (_SAMPLE, _UNSAID), with_bias=True)


def _given(name: str, record: Mapping[str, Any]) -> Iterator[tuple[Site, str, Mapping[str, Any]]]:
    """The stages for which there are figures: those of the layers first, as they tell the number of tokens."""
    layers = record["layers"]
    if len(layers) > MAX_LAYERS or not all(isinstance(layer, dict) for layer in layers):
        raise StoreError(f"{name}: its layers are no list of objects; trace the model again.")
    for place, layer in enumerate(layers):
        if layer.get("layer_idx", place) != place:
            raise StoreError(f"{name}: its layer {place} calls itself another; trace the model again.")
        for key, stage in _LAYER.items():
            if isinstance(facts := layer.get(key), dict):
                yield Site(place, stage), key, facts
    for key, stage in _WHOLE.items():
        if isinstance(facts := record.get(key), dict):
            yield Site(None, stage), key, facts


def _shape(count: int, width: int | None, rows: int | None) -> tuple[int, int] | None:
    """(tokens, channels) of so many values, of which either is known; None where they do not fit."""
    if width:
        return (count // width, width) if count % width == 0 else None
    return (rows, count // rows) if rows and count % rows == 0 else None


def _statistics(what: str, facts: Mapping[str, Any], count: int, shape: tuple[int, int] | None) -> Statistics:
    nan, inf, zero = (facts.get(key) for key in ("nan_count", "inf_count", "zero_count"))
    if not all(is_count(n) for n in (nan, inf, zero)):
        raise StoreError(f"{what} does not count NaN, Inf and zero; trace the model again.")
    n = count - nan - inf  # type: ignore[operator]
    if n < 0 or zero > n:  # type: ignore[operator]
        raise StoreError(f"{what} counts more special values than values; trace the model again.")
    if n == 0:  # all figures are 0 there, which they are not
        return Statistics(shape, nan=nan, inf=inf, zero=zero)
    low, high, mean, sample = (figure(f"{what} {key}", facts.get(key)) for key in ("min", "max", "mean", "std_dev"))
    if sample is not None and sample < 0:
        raise StoreError(f"{what} has a negative std; trace the model again.")
    std = None if sample is None else sample * ((n - 1) / n) ** 0.5
    rms = None if std is None or mean is None else math.hypot(std, mean)
    found = Statistics(shape, low, high, mean, std, rms if rms != math.inf else None, nan, inf, zero)
    return possible(what, found, "trace the model again")
