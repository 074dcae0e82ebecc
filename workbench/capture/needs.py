"""What a run will write and hold, told before it begins, and whether the disk has room for it.

Layers stream: of each side there are the stages of one layer and what later ones read of it. So memory does not
depend on the number of layers; and weights are mapped, which a system takes back when it needs the room.
"""

import os
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from kernels.errors import WorkbenchError
from kernels.graph import Model
from kernels.kinds.elementwise import Copy
from kernels.measures import COL
from kernels.models import Graph
from kernels.paths import numeric_path
from store.text import printable
from store.traces.hdf5 import partial_path

_STAGE = 1100  # bytes that HDF5 adds to a stage, about
_CELL = 1500  # bytes of a cell that is kept beside its table, with its elements, about
_POSITION = 6  # and of the number of a token
_STORE = 1 << 17  # and to a store; it also reserves room ahead
_COPIES = 4  # of the largest stage of a layer: what is measured and written of it
_PROGRAM = 160 << 20  # bytes of the process without any model


class Needs(NamedTuple):
    """Bytes. written : of the store. held : in memory, beside the pages of mapped files."""

    written: int
    held: int


def needs(model: Model, tokens: int, path: str) -> Needs:
    """What a run of a model on so many tokens needs on a numeric path, about."""
    graph, size = Graph.of(model), numeric_path(path).dtype().itemsize
    blocks = [graph.first, *(graph.layer(layer) for layer in range(model.config.num_hidden_layers)), graph.last]
    written, held = _STORE, 0
    for block in blocks:
        # a copy has a second name in a store; what float64 hands on to the next layer is kept as it is, too
        written += sum(_STAGE + 4 * tokens * stage.channels for stage in block if not isinstance(stage.kind, Copy))
        written += sum(8 * tokens * stage.channels for stage in block if isinstance(stage.kind, Copy) and size == 8)
        channels = [stage.channels for stage in block]
        held = max(held, size * tokens * (sum(channels) + _COPIES * max(channels)))
    return Needs(written, held)


def together(sides: Iterable[Needs]) -> Needs:
    """What several sides need that run in step in one process."""
    written, held = zip(*sides, strict=True)
    return Needs(sum(written), _PROGRAM + sum(held))


def cells_to_write(models: Iterable[Model], tokens: int) -> int:
    """Bytes of the cells that are kept in place of the tensors of a pair, about."""
    cells = max(sum(1 for _ in Graph.of(model).stages()) for model in models)
    table = -(-tokens * len(COL) * 8 // 3) * 4
    return cells * (_CELL + table + tokens * _POSITION)


def to_write(store: Path, model: Model, tokens: int, path: str) -> int:
    """Bytes of a store beside those that an unfinished one, which is continued, has already."""
    begun = partial_path(store)
    return max(0, needs(model, tokens, path).written - (begun.stat().st_size if begun.is_file() else 0))


def require_room(place: Path, written: int, advice: str) -> None:
    """Raise WorkbenchError, one sentence that ends in `advice`, if a disk has no room for so many bytes at `place`."""
    folder = next(folder for folder in (place, *place.absolute().parents) if folder.is_dir())
    free = shutil.disk_usage(folder).free
    if written > free:
        name = printable(os.fspath(place), 1000)
        raise WorkbenchError(f"{name} needs about {written:,} bytes, and its disk has room for {free:,}; {advice}")
