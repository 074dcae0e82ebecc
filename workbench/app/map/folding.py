"""Layers that look alike, taken together."""

from collections.abc import Callable, Hashable, Iterable, Sequence
from itertools import groupby


def folded(
    layers: Sequence[int], looks: Callable[[int], Hashable], keep: int
) -> tuple[list[int], dict[int, tuple[int, int]]]:
    """Return one layer for each run of layers that look alike, and the first and last of each run by that layer.

    keep : a layer that stands for its own run, so that a cursor on it stays.
    """
    runs = [list(run) for _, run in groupby(layers, looks)]
    shown = [keep if keep in run else run[0] for run in runs]
    return shown, {layer: (run[0], run[-1]) for layer, run in zip(shown, runs, strict=True)}


def span_words(spans: Iterable[int], room: int) -> str:
    """Name a run of layers in `room` columns: 4-17, or 4+ where that is too long."""
    first, last = spans
    if first == last:
        return str(first)
    words = f"{first}-{last}"
    return words if len(words) <= room else f"{first}+"
