"""Our own stores: the stage tensors of one run in an HDF5 file (schema 1), read through a memory map.

`/embedding`, `/final_norm`, `/lm_head` and `/layers/000/<stage>` are float32, (tokens, channels), contiguous and
uncompressed, so that a tensor is a window of the file. Root attributes carry the provenance; what is too long for an
attribute lies in a dataset of the same name.
"""

import json
import math
import mmap
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from zlib_ng.zlib_ng import crc32

from kernels.models import stages_of
from kernels.stages import FIRST_STAGES, LAST_STAGES, SPINE, Site
from store.errors import StoreError
from store.files.model_file import ModelFile
from store.text import printable
from store.traces.run import RunRecord
from store.traces.trace import StoredStage, Trace

if TYPE_CHECKING:
    import h5py

SCHEMA = 1
ENGINE = "workbench"
LAYER_OUTPUT = SPINE[-1]
LAYER_STATE = "layer_output_f64"  # what the next layer continues from, where float32 would lose bits of it
ATTRIBUTES: dict[str, str] = {
    "artifact": "artifact_path",
    "format": "artifact_format",
    "size": "artifact_size",
    "sha256": "artifact_sha256",
    "numeric_path": "path",
    "tokens": "token_ids",
    "prompt": "prompt",
    "settings": "settings",
    "config": "config",
    "versions": "versions",
    "machine": "machine",
    "created": "created",
}
JSON_FIELDS = ("settings", "config", "versions", "machine")
_FLOAT32, _FLOAT64 = np.dtype("<f4"), np.dtype("<f8")
_MAX_VALUE = 1 << 26  # bytes of a prompt or of token ids, which are read whole


class BusyStoreError(StoreError):
    """A store that another process is writing at this moment."""


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
    import h5py

    path = Path(path)
    name = printable(str(path))
    if not path.is_file():
        unfinished = (
            f", only an unfinished {name}.partial: trace again to complete it" if partial_path(path).is_file() else ""
        )
        raise StoreError(f"There is no store {name}{unfinished}.")
    try:
        stored = ModelFile.at(path)
        with h5py.File(path, "r", locking="best-effort") as file:
            return _Reader(stored, file).trace(partial)
    except BlockingIOError as error:
        raise BusyStoreError(f"{name} is being written by another process; wait for it, or end it.") from error
    except PermissionError as error:
        raise StoreError(f"{name} cannot be read (permission denied); give yourself leave to read it.") from error
    except StoreError as error:
        raise StoreError(f"{name}: {error}") from error
    except Exception as error:  # h5py turns damage into nearly every exception there is
        why = printable(" ".join(str(error).split()), 160)
        raise StoreError(
            f"{name} is damaged or is not an HDF5 store ({why}); move it away and trace the model again."
        ) from error


class _Reader:
    """Checks an open HDF5 file and maps its tensors; StoreErrors do not name the file."""

    def __init__(self, stored: ModelFile, file: "h5py.File") -> None:
        self.stored = stored
        self.name = printable(str(stored.path))
        self.file = file
        # Mapped through the handle of this very file, as the name may already belong to a newer one; copy-on-write,
        # because kernels are compiled for writable arrays.
        self.bytes = mmap.mmap(file.id.get_vfd_handle(), 0, access=mmap.ACCESS_COPY)
        self.mapped: dict[tuple[int, tuple[int, ...], int | None], _Mapped] = {}

    def trace(self, partial: bool) -> Trace:
        """Return the recorded run; StoreError for another schema, or an unfinished run unless `partial`."""
        schema = self.value("schema")
        if schema != SCHEMA:
            raise StoreError(
                f"The store has schema {printable(str(schema))}, this program reads schema {SCHEMA}; "
                "move it away and trace the model again."
            )
        run = self.run()
        groups = self.complete_layers(run.config.num_hidden_layers)
        complete = len(groups) == run.config.num_hidden_layers and self.is_complete(self.file)
        if not complete and not partial:
            done = f"{len(groups)} of {run.config.num_hidden_layers} layers"
            raise StoreError(f"The run is unfinished ({done}); trace again to complete it.")
        places: list[tuple[int | None, h5py.Group, tuple[str, ...]]] = [
            (layer, group, stages_of(run.config)) for layer, group in enumerate(groups)
        ]
        if groups:
            places.append((None, self.file, FIRST_STAGES + LAST_STAGES if complete else FIRST_STAGES))
        stages: dict[Site, StoredStage] = {}
        states: dict[int, StoredStage] = {}
        absent: set[Site] = set()
        everywhere = tuple(range(len(run.tokens)))
        for layer, group, names in places:
            missing = str(self.attribute(group, "absent") or "").split()
            for name in names:
                site = Site(layer, name)
                dataset = self.dataset(group, name)
                if dataset is not None:
                    stages[site] = self.stage(dataset, _FLOAT32, site, everywhere)
                elif name in missing:
                    absent.add(site)
            wide = None if layer is None else self.dataset(group, LAYER_STATE)
            if layer is not None and wide is not None:
                states[layer] = self.stage(wide, _FLOAT64, Site(layer, LAYER_OUTPUT), everywhere)
        return Trace(
            path=self.stored.path,
            engine=ENGINE,
            tokens=run.tokens,
            settings={f.name: getattr(run, f.name) for f in fields(run) if f.name not in ("tokens", "config")},
            stages=stages,
            files=(self.stored,),
            absent=frozenset(absent),
            config=run.config,
            record=run,
            completed_layers=len(groups),
            states=states,
        )

    def run(self) -> RunRecord:
        record: dict[str, Any] = {}
        for name, attribute in ATTRIBUTES.items():
            value = self.value(attribute)
            if name in JSON_FIELDS and isinstance(value, str):
                value = json.loads(value)
            if value is not None or name == "prompt":
                record[name] = value.tolist() if isinstance(value, np.ndarray | np.generic) else value
        return RunRecord.from_json(record)

    def value(self, name: str) -> Any:  # noqa: ANN401
        """Return a root attribute, or the content of the dataset of that name, or None."""
        found = self.attribute(self.file, name)
        dataset = None if found is not None else self.dataset(self.file, name)
        if dataset is None:
            return found
        self.check_storage(dataset)
        if dataset.size * dataset.dtype.itemsize > _MAX_VALUE:
            raise StoreError(f"{dataset.name} has more than {_MAX_VALUE} bytes, which no run has.")
        return _text_or_numbers(dataset[()])

    def attribute(self, group: "h5py.Group | h5py.Dataset", name: str) -> Any:  # noqa: ANN401
        """Return an attribute, or None; texts of variable length are refused, because damaged ones can hang HDF5."""
        import h5py

        # HDF5's own functions: a store of a deep model has thousands of attributes, and h5py opens each of them twice.
        if not h5py.h5a.exists(group.id, name.encode()):
            return None
        found = h5py.h5a.open(group.id, name.encode())
        dtype, shape = found.dtype, found.shape
        text = h5py.check_string_dtype(dtype)
        if dtype.kind not in "iufbS" or (text is not None and text.length is None):
            raise StoreError(f"Attribute {name} is not a number or a text of fixed length; write it so.")
        if math.prod(shape) * dtype.itemsize > len(self.bytes):
            raise StoreError(f"Attribute {name} claims more bytes than the file has.")
        value = np.empty(shape, dtype)
        found.read(value)
        return _text_or_numbers(value[()])

    def complete_layers(self, layers: int) -> list["h5py.Group"]:
        """Return the groups of the leading layers that are marked complete."""
        groups: list[h5py.Group] = []
        parent = self.child(self.file, "layers")
        while parent is not None and len(groups) < layers:
            group = self.child(parent, f"{len(groups):03d}")
            if group is None or not self.is_complete(group):
                break
            groups.append(group)
        return groups

    def is_complete(self, group: "h5py.Group") -> bool:
        return bool(self.attribute(group, "complete"))

    def child(self, group: "h5py.Group", name: str) -> Any:  # noqa: ANN401
        """Return what a group holds under a name, or None; links that lead elsewhere are refused."""
        import h5py

        links = group.id.links if isinstance(group, h5py.Group) else None
        if links is None or not links.exists(name.encode()):
            return None
        if links.get_info(name.encode()).type != h5py.h5l.TYPE_HARD:
            raise StoreError(f"{group.name}/{name} is a link to another place, which a store never holds.")
        found = h5py.h5o.open(group.id, name.encode())
        return h5py.Dataset(found) if isinstance(found, h5py.h5d.DatasetID) else group[name]

    def dataset(self, group: "h5py.Group", name: str) -> "h5py.Dataset | None":
        import h5py

        found = self.child(group, name)
        if found is not None and not isinstance(found, h5py.Dataset):
            raise StoreError(f"{found.name} is not a dataset.")
        return found

    def stage(
        self, dataset: "h5py.Dataset", dtype: np.dtype[Any], site: Site, everywhere: tuple[int, ...]
    ) -> StoredStage:
        """Return a stage whose values are read on demand; everywhere : its tokens where the dataset names none."""
        mapped = self.tensor(dataset, dtype)
        rows, channels = mapped.values.shape
        return StoredStage(
            count=rows * channels,
            dtype=dtype.name,
            load=partial(mapped.read, site),
            channels=channels,
            positions=self.positions(dataset, rows, everywhere),
            checksum=mapped.checksum,
        )

    def positions(self, dataset: "h5py.Dataset", rows: int, everywhere: tuple[int, ...]) -> tuple[int, ...] | None:
        found = self.attribute(dataset, "positions")
        if found is None:
            return everywhere if rows == len(everywhere) else None
        positions = np.atleast_1d(found)
        inside = positions.dtype.kind in "iu" and bool(((positions >= 0) & (positions < len(everywhere))).all())
        if positions.shape != (rows,) or not inside or len(set(positions.tolist())) != rows:
            raise StoreError(f"Attribute positions of {dataset.name} does not give each of its {rows} rows one token.")
        return tuple(positions.tolist())

    def tensor(self, dataset: "h5py.Dataset", dtype: np.dtype[Any]) -> _Mapped:
        """Map a two-dimensional dataset; the same storage gives the same array."""
        shape = dataset.shape
        if dataset.dtype != dtype or len(shape) != 2 or 0 in shape:
            found = f"{dataset.dtype}, shape {shape}"
            raise StoreError(f"{dataset.name} is {found}; a stage is {dtype}, shape (tokens, channels).")
        offset, checksum = self.check_storage(dataset), self.attribute(dataset, "crc32")
        checksum = None if checksum is None else int(checksum)
        key = (offset, shape, checksum)
        if key not in self.mapped:
            values = np.frombuffer(self.bytes, dtype, shape[0] * shape[1], offset).reshape(shape)
            self.mapped[key] = _Mapped(self.name, np.require(values, requirements="A"), checksum)
        return self.mapped[key]

    def check_storage(self, dataset: "h5py.Dataset") -> int:
        """Return the file offset of a contiguous dataset that lies within the file."""
        import h5py

        creation = dataset.id.get_create_plist()
        offset = dataset.id.get_offset()
        if creation.get_layout() != h5py.h5d.CONTIGUOUS or creation.get_external_count() or offset is None:
            raise StoreError(f"{dataset.name} is not contiguous and uncompressed; rewrite it with h5repack -l CONTI.")
        if offset + dataset.size * dataset.dtype.itemsize > len(self.bytes):
            raise StoreError(f"{dataset.name} reaches beyond the end of the file, which is truncated.")
        return int(offset)


def _text_or_numbers(value: Any) -> Any:  # noqa: ANN401
    return value.decode("utf-8", "surrogateescape") if isinstance(value, bytes) else value
