"""Our own stores: the stage tensors of one run in an HDF5 file (schema 1), read through a memory map.

`/embedding`, `/final_norm`, `/lm_head` and `/layers/000/<stage>` are float32, (tokens, channels), contiguous and
uncompressed, so that a tensor is a window of the file. Root attributes carry the provenance; what is too long for an
attribute lies in a dataset of the same name.

HDF5's library has had memory faults on files that lie. So it reads in this process only what was written on this
machine and has not been touched since (`written.py`); every other store is looked into by a process with limits.
"""

import json
import mmap
import os
import signal
import subprocess
import sys
from dataclasses import dataclass, fields
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from zlib_ng.zlib_ng import crc32

from kernels.stages import SPINE, Site
from store.errors import ArtifactError, StoreError
from store.files.model_file import ModelFile
from store.text import printable
from store.traces.hdf5_index import LAYER_STATE, BusyStoreError, Index, Place, identity, read_index
from store.traces.run import RunRecord
from store.traces.trace import StoredStage, Trace
from store.traces.written import is_ours

ENGINE = "workbench"
LAYER_OUTPUT = SPINE[-1]
_PROCESS = "store.traces.hdf5_index"
_PATIENCE = 60.0  # seconds on the clock; of the processor's the process gives itself fewer
# Whatever else the environment says to HDF5 (plugins, drivers, connectors) is not for files of strangers.
_HDF5 = {"HDF5_PLUGIN_PRELOAD": "::", "OPENBLAS_NUM_THREADS": "1"}
_KEPT = ("HDF5_USE_FILE_LOCKING",)
_ADVICE = "it is damaged, or made to do so: move it away and trace the model again"


@dataclass(slots=True, eq=False)
class _Mapped:
    """A tensor of a store, (rows, channels), mapped copy-on-write and checked when it is first read.

    store : the file, as messages name it. checksum : CRC-32 of the values when they were written, or None.
    """

    store: str
    values: NDArray[Any]
    checksum: int | None
    checked: bool = False

    def read(self, site: Site) -> NDArray[Any]:
        """Return the values, always the same array; StoreError if they are not those that were written."""
        if not self.checked and self.checksum is not None and crc32(self.values.data) != self.checksum:
            raise StoreError(
                f"{self.store} is damaged: the values of {site} are not those that were written; "
                "put a whole copy in its place, or remove it and trace the model again."
            )
        self.checked = True
        return self.values


def partial_path(path: Path) -> Path:
    """Return where a store is written until it is complete."""
    return path.with_name(path.name + ".partial")


def open_store(path: Path | str, partial: bool = False) -> Trace:
    """Open a complete store, or with `partial` the whole layers of an unfinished one.

    StoreError, in one sentence, for anything that is not such a store; BusyStoreError while it is being written.
    """
    path = Path(path)
    name = printable(str(path))
    if not path.is_file():
        unfinished = (
            f", only an unfinished {name}.partial: trace again to complete it" if partial_path(path).is_file() else ""
        )
        raise StoreError(f"There is no store {name}{unfinished}.")
    try:
        stored = ModelFile.at(path)
        with path.open("rb") as file:
            known = identity(file.fileno())
            index = read_index(path, partial) if is_ours(file.fileno()) else _of_stranger(path, partial, known)
            if index.identity != known:
                raise StoreError(f"{name} was replaced or written to while it was opened; open it again.")
            # Copy-on-write, because kernels are compiled for writable arrays.
            return _trace(stored, index, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY))
    except StoreError:
        raise
    except ArtifactError as error:
        raise StoreError(str(error)) from error
    except (OSError, ValueError) as error:
        raise StoreError(f"{name} cannot be read ({printable(str(error), 160)}); open it again.") from error


@lru_cache(maxsize=8)
def _of_stranger(path: Path, partial: bool, known: tuple[int, ...]) -> Index:  # noqa: ARG001 - what is kept is of it
    """Have a process with limits look into a store; StoreError as `read_index`, also for its crash."""
    name, root = printable(str(path)), str(Path(__file__).resolve().parents[2])
    environment = {key: value for key, value in os.environ.items() if key in _KEPT or not key.startswith("HDF5_")}
    others = os.environ.get("PYTHONPATH")
    environment |= _HDF5 | {"PYTHONPATH": os.pathsep.join([root, others] if others else [root])}
    try:
        done = subprocess.run(  # noqa: S603 - -P: modules in the working directory are none of ours
            [sys.executable, "-P", "-m", _PROCESS],
            input=json.dumps({"path": str(path.absolute()), "partial": partial}).encode(),
            capture_output=True,
            timeout=_PATIENCE,
            env=environment,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise StoreError(f"{name} takes more than {_PATIENCE:.0f} seconds to be looked into; {_ADVICE}.") from None
    if done.returncode:
        raise StoreError(f"{name} made the process that looked into it {_ended(done.returncode)}; {_ADVICE}.")
    answer = json.loads(done.stdout)
    if "error" in answer:
        raise (BusyStoreError if answer["busy"] else StoreError)(
            answer["error"].replace(printable(str(path.absolute())), name)
        )
    return Index.from_json(answer)


def _ended(status: int) -> str:
    try:
        return f"end with {signal.Signals(-status).name}"
    except ValueError:
        return f"end with exit code {status}"


def _trace(stored: ModelFile, index: Index, content: mmap.mmap) -> Trace:
    """Map all that an index speaks of; StoreError for what does not lie within the file."""
    run = RunRecord.from_json(index.record)
    mapped: dict[tuple[int, int, int | None], _Mapped] = {}
    stages: dict[Site, StoredStage] = {}
    states: dict[int, StoredStage] = {}
    for place in index.places:
        stage = _stage(place, _map(stored, place, content, mapped), len(run.tokens))
        if place.layer is not None and place.stage == LAYER_STATE:
            states[place.layer] = stage
        else:
            stages[Site(place.layer, place.stage)] = stage
    return Trace(
        path=stored.path,
        engine=ENGINE,
        tokens=run.tokens,
        settings={f.name: getattr(run, f.name) for f in fields(run) if f.name not in ("tokens", "config")},
        stages=stages,
        files=(stored,),
        absent=frozenset(Site(*names) for names in index.absent),
        config=run.config,
        record=run,
        completed_layers=index.layers,
        states=states,
    )


def _map(
    stored: ModelFile, place: Place, content: mmap.mmap, mapped: dict[tuple[int, int, int | None], _Mapped]
) -> _Mapped:
    """Map a tensor; the same storage gives the same array."""
    dtype, count = np.dtype(place.dtype), place.rows * place.channels
    if min(place.offset, place.rows - 1, place.channels - 1) < 0 or place.offset + count * dtype.itemsize > len(
        content
    ):
        raise StoreError(f"{printable(str(stored.path))}: {place.stage} reaches beyond the end of the file.")
    key = (place.offset, count, place.checksum)
    if key not in mapped:
        values = np.frombuffer(content, dtype, count, place.offset).reshape(place.rows, place.channels)
        mapped[key] = _Mapped(printable(str(stored.path)), np.require(values, requirements="A"), place.checksum)
    return mapped[key]


def _stage(place: Place, mapped: _Mapped, tokens: int) -> StoredStage:
    """Return a stage whose values are read on demand; its rows are all tokens where it names none."""
    site = Site(place.layer, LAYER_OUTPUT if place.stage == LAYER_STATE else place.stage)
    everywhere = tuple(range(tokens)) if place.rows == tokens else None
    return StoredStage(
        count=place.rows * place.channels,
        dtype=place.dtype,
        load=partial(mapped.read, site),
        channels=place.channels,
        positions=everywhere if place.positions is None else place.positions,
        checksum=place.checksum,
    )
