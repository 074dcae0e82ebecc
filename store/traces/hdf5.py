"""Reading a trace: the stage tensors of one run in an HDF5 store (schema 1).

`/embedding`, `/final_norm`, `/lm_head` and `/layers/000/<stage>` are float32, (tokens, channels), contiguous and
uncompressed, so that a tensor is a window of the file. Root attributes carry the provenance; what is too long for an
attribute lies in a dataset of the same name.
"""

import json
import math
import mmap
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray
from zlib_ng.zlib_ng import crc32

from kernels.stages import FIRST_STAGES, LAST_STAGES, LAYER_STAGES, Site, execution_order
from store.errors import StoreError
from store.text import printable
from store.traces.run import RunRecord

if TYPE_CHECKING:
    import h5py

SCHEMA = 1
LAYER_OUTPUT = LAYER_STAGES[-1]
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
_HDF5_MAGIC = b"\x89HDF\r\n\x1a\n"
_MAX_VALUE = 1 << 26  # bytes of a prompt or of token ids, which are read whole

Status = Literal["ok", "absent", "unmeasured"]


class BusyStoreError(StoreError):
    """A store that another process is writing at this moment."""


@dataclass(frozen=True, slots=True, eq=False)
class StoredStage:
    """One tensor of a trace.

    values : (tokens, channels), mapped from the file copy-on-write.
    positions : token position of every row; None where rows are fewer than tokens and nothing says which they are.
    checksum : CRC-32 of the values when they were written, or None.
    """

    values: NDArray[Any]
    positions: tuple[int, ...] | None
    checksum: int | None


@dataclass(frozen=True, eq=False)
class Trace:
    """The stage tensors of a run; all of them are mapped, none is read before it is used.

    completed_layers : layers that are whole; fewer than the model has only in an unfinished store.
    stages : float32 tensors. states : layer_output in float64, per layer, of runs that compute in float64.
    absent : stages that the model does not have.
    """

    path: Path
    run: RunRecord
    completed_layers: int
    stages: Mapping[Site, StoredStage]
    states: Mapping[int, StoredStage]
    absent: frozenset[Site]
    _verified: set[int] = field(default_factory=set, init=False, repr=False)  # ids of arrays

    def sites(self) -> list[Site]:
        """Return where this trace holds a tensor, in execution order."""
        return [site for site in execution_order(self.run.config.num_hidden_layers) if site in self.stages]

    def status(self, site: Site) -> Status:
        """Return "ok", "absent" (the model has no such stage) or "unmeasured" (it was not captured)."""
        if site in self.stages:
            return "ok"
        beyond = site.layer is not None and site.layer >= self.run.config.num_hidden_layers
        return "absent" if beyond or site in self.absent else "unmeasured"

    def read(self, site: Site) -> NDArray[np.float32]:
        """Return the values, float32 (tokens, channels), mapped; stages that share storage share the array.

        StoreError if they are not those that were written: at its first reading, a tensor must have its checksum.
        """
        return self._values(self._stage(site), site)

    def positions(self, site: Site) -> tuple[int, ...] | None:
        """Return the token position of every row, or None where it is unknown."""
        return self._stage(site).positions

    def state(self, layer: int) -> NDArray[np.floating[Any]]:
        """Return what layer + 1 continues from: layer_output in the precision of the run."""
        site = Site(layer, LAYER_OUTPUT)
        return self._values(self.states[layer], site) if layer in self.states else self.read(site)

    def intact(self) -> bool:
        """Read everything, and tell whether all of it is what was written."""
        try:
            for site in self.sites():
                self.read(site)
        except StoreError:
            return False
        return True

    def _values(self, stage: StoredStage, site: Site) -> NDArray[Any]:
        values = stage.values
        if stage.checksum is not None and id(values) not in self._verified:
            if crc32(values.data) != stage.checksum:
                raise StoreError(
                    f"{printable(str(self.path))} is damaged: the values of {site} are not those that were written; "
                    "put a whole copy in its place, or remove it and trace the model again."
                )
            self._verified.add(id(values))
        return values

    def _stage(self, site: Site) -> StoredStage:
        if site not in self.stages:
            name = printable(str(self.path))
            raise StoreError(f"{name} holds no tensor of {site} ({self.status(site)}); trace the model again.")
        return self.stages[site]


def partial_path(path: Path) -> Path:
    """Return where a store is written until it is complete."""
    return path.with_name(path.name + ".partial")


def is_hdf5(path: Path) -> bool:
    """Tell whether a regular file starts as every HDF5 file does."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(len(_HDF5_MAGIC)) == _HDF5_MAGIC


def open_trace(path: Path | str, partial: bool = False) -> Trace:
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
        with h5py.File(path, "r", locking="best-effort") as file:
            return _Reader(path, file).trace(partial)
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

    def __init__(self, path: Path, file: "h5py.File") -> None:
        self.path = path
        self.file = file
        # Mapped through the handle of this very file, as the name may already belong to a newer one; copy-on-write,
        # because kernels are compiled for writable arrays.
        self.bytes = mmap.mmap(file.id.get_vfd_handle(), 0, access=mmap.ACCESS_COPY)
        self.arrays: dict[tuple[int, tuple[int, ...]], NDArray[Any]] = {}

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
            (layer, group, LAYER_STAGES) for layer, group in enumerate(groups)
        ]
        if groups:
            places.append((None, self.file, FIRST_STAGES + LAST_STAGES if complete else FIRST_STAGES))
        stages: dict[Site, StoredStage] = {}
        absent: set[Site] = set()
        for layer, group, names in places:
            missing = str(self.attribute(group, "absent") or "").split()
            for name in names:
                dataset = self.dataset(group, name)
                if dataset is not None:
                    stages[Site(layer, name)] = self.stage(dataset, "<f4", len(run.tokens))
                elif name in missing:
                    absent.add(Site(layer, name))
        wide = ((layer, self.dataset(group, LAYER_STATE)) for layer, group in enumerate(groups))
        states = {layer: self.stage(dataset, "<f8", len(run.tokens)) for layer, dataset in wide if dataset is not None}
        return Trace(self.path, run, len(groups), stages, states, frozenset(absent))

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

        if name not in group.attrs:
            return None
        found = group.attrs.get_id(name)
        text = h5py.check_string_dtype(found.dtype)
        if found.dtype.kind not in "iufbS" or (text is not None and text.length is None):
            raise StoreError(f"Attribute {name} is not a number or a text of fixed length; write it so.")
        if math.prod(found.shape) * found.dtype.itemsize > len(self.bytes):
            raise StoreError(f"Attribute {name} claims more bytes than the file has.")
        return _text_or_numbers(group.attrs[name])

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

        link = group.get(name, getlink=True) if isinstance(group, h5py.Group) else None
        if link is None:
            return None
        if not isinstance(link, h5py.HardLink):
            raise StoreError(f"{group.name}/{name} is a link to another place, which a store never holds.")
        return group[name]

    def dataset(self, group: "h5py.Group", name: str) -> "h5py.Dataset | None":
        import h5py

        found = self.child(group, name)
        if found is not None and not isinstance(found, h5py.Dataset):
            raise StoreError(f"{found.name} is not a dataset.")
        return found

    def stage(self, dataset: "h5py.Dataset", dtype: str, tokens: int) -> StoredStage:
        values = self.array(dataset, dtype)
        checksum = self.attribute(dataset, "crc32")
        return StoredStage(values, self.positions(dataset, tokens), None if checksum is None else int(checksum))

    def positions(self, dataset: "h5py.Dataset", tokens: int) -> tuple[int, ...] | None:
        rows, found = dataset.shape[0], self.attribute(dataset, "positions")
        if found is None:
            return tuple(range(tokens)) if rows == tokens else None
        positions = np.atleast_1d(found)
        inside = positions.dtype.kind in "iu" and bool(((positions >= 0) & (positions < tokens)).all())
        if positions.shape != (rows,) or not inside or len(set(positions.tolist())) != rows:
            raise StoreError(f"Attribute positions of {dataset.name} does not give each of its {rows} rows one token.")
        return tuple(positions.tolist())

    def array(self, dataset: "h5py.Dataset", dtype: str) -> NDArray[Any]:
        """Map a two-dimensional dataset; the same storage gives the same array."""
        if dataset.dtype != np.dtype(dtype) or dataset.ndim != 2 or 0 in dataset.shape:
            found = f"{dataset.dtype}, shape {dataset.shape}"
            raise StoreError(f"{dataset.name} is {found}; a stage is {np.dtype(dtype)}, shape (tokens, channels).")
        offset = self.check_storage(dataset)
        key = (offset, dataset.shape)
        if key not in self.arrays:
            count = dataset.shape[0] * dataset.shape[1]
            values = np.frombuffer(self.bytes, dtype, count, offset).reshape(dataset.shape)
            self.arrays[key] = np.require(values, requirements="A")
        return self.arrays[key]

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
