"""What an HDF5 store (schema 1) holds and where, as plain data: the only place where HDF5's library reads a file.

Run as `python -m store.traces.hdf5_index` it is the process that looks into stores that were not written here: a job
as JSON on stdin, {"path", "partial"}, and on stdout the index, or {"error", "busy"}. It has limits, follows no link,
loads no plugin of HDF5 and reads no tensor.
"""

import dataclasses
import json
import math
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from kernels.models import stages_of
from kernels.stages import FIRST_STAGES, LAST_STAGES
from store.errors import StoreError
from store.text import printable
from store.traces.run import RunRecord
from store.typed_fields import typed_fields

if TYPE_CHECKING:
    import h5py

SCHEMA = 1
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
_MAX_VALUE = 1 << 26  # bytes of a prompt or of token ids, which are read whole
_MEMORY = 2 << 30  # bytes of address space, of which libraries take 0.5 GiB
_SECONDS = 20  # of processor time


class BusyStoreError(StoreError):
    """A store that another process is writing at this moment."""


@dataclasses.dataclass(frozen=True, slots=True)
class Place:
    """Where a stage lies: (rows, channels) values of a dtype, contiguous, at `offset`.

    checksum : CRC-32 of its bytes when they were written. positions : the token of every row, if the store says.
    """

    layer: int | None
    stage: str
    offset: int
    rows: int
    channels: int
    dtype: str
    checksum: int | None
    positions: tuple[int, ...] | None


@dataclasses.dataclass(frozen=True, slots=True)
class Index:
    """All that a store says of itself.

    identity : device, inode, size and time of change of the file that was read. record : of the run, as JSON values.
    layers : how many are whole. absent : layer and name of stages that the model does not have.
    """

    identity: tuple[int, ...]
    record: dict[str, Any]
    layers: int
    places: tuple[Place, ...]
    absent: tuple[tuple[Any, ...], ...]

    @classmethod
    def from_json(cls, record: object) -> "Index":
        """Rebuild an index that another process made; StoreError for one that cannot be."""
        fields = typed_fields(cls, record, "index")
        fields["places"] = tuple(Place(**typed_fields(Place, place, "place")) for place in fields["places"])
        return cls(**fields)


def identity(handle: int) -> tuple[int, ...]:
    """Return what tells an open file from every other, and from itself after a change."""
    status = os.fstat(handle)
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


def read_index(path: Path, partial: bool) -> Index:
    """Read a complete store, or with `partial` the whole layers of an unfinished one, in this process.

    StoreError, in one sentence, for anything that is not such a store; BusyStoreError while it is being written.
    """
    import h5py

    with _told(path), h5py.File(path, "r", locking="best-effort") as file:
        return _Reader(file).index(partial)


@contextmanager
def _told(path: Path) -> Iterator[None]:
    name = printable(str(path))
    try:
        yield
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
    """Checks an open HDF5 file; StoreErrors do not name it."""

    def __init__(self, file: "h5py.File") -> None:
        self.file = file
        self.identity = identity(file.id.get_vfd_handle())
        self.size = self.identity[2]

    def index(self, partial: bool) -> Index:
        """Return what the store holds; StoreError for another schema, or an unfinished run unless `partial`."""
        schema = self.value("schema")
        if schema != SCHEMA:
            raise StoreError(
                f"The store has schema {printable(str(schema))}, this program reads schema {SCHEMA}; "
                "move it away and trace the model again."
            )
        record = self.record()
        run = RunRecord.from_json(record)
        groups = self.complete_layers(run.config.num_hidden_layers)
        complete = len(groups) == run.config.num_hidden_layers and self.is_complete(self.file)
        if not complete and not partial:
            done = f"{len(groups)} of {run.config.num_hidden_layers} layers"
            raise StoreError(f"The run is unfinished ({done}); trace again to complete it.")
        found: list[tuple[int | None, h5py.Group, tuple[str, ...]]] = [
            (layer, group, (*stages_of(run.config), LAYER_STATE)) for layer, group in enumerate(groups)
        ]
        if groups:
            found.append((None, self.file, FIRST_STAGES + LAST_STAGES if complete else FIRST_STAGES))
        places, absent = list[Place](), list[tuple[Any, ...]]()
        for layer, group, names in found:
            missing = str(self.attribute(group, "absent") or "").split()
            for name in names:
                dataset = self.dataset(group, name)
                if dataset is not None:
                    places.append(self.place(dataset, layer, name, len(run.tokens)))
                elif name in missing:
                    absent.append((layer, name))
        return Index(self.identity, record, len(groups), tuple(places), tuple(absent))

    def record(self) -> dict[str, Any]:
        """Return the record of the run as JSON values."""
        record: dict[str, Any] = {}
        for name, attribute in ATTRIBUTES.items():
            value = self.value(attribute)
            if name in JSON_FIELDS and isinstance(value, str):
                value = json.loads(value)
            if value is not None or name == "prompt":
                record[name] = value.tolist() if isinstance(value, np.ndarray | np.generic) else value
        return record

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
        if math.prod(shape) * dtype.itemsize > self.size:
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

    def place(self, dataset: "h5py.Dataset", layer: int | None, stage: str, tokens: int) -> Place:
        """Return where a two-dimensional dataset lies in the file."""
        shape = dataset.shape
        dtype = np.dtype("<f8" if stage == LAYER_STATE else "<f4")
        if dataset.dtype != dtype or len(shape) != 2 or 0 in shape:
            found = f"{dataset.dtype}, shape {shape}"
            raise StoreError(f"{dataset.name} is {found}; a stage is {dtype}, shape (tokens, channels).")
        offset, checksum = self.check_storage(dataset), self.attribute(dataset, "crc32")
        checksum = None if checksum is None else int(checksum)
        positions = self.positions(dataset, shape[0], tokens)
        return Place(layer, stage, offset, int(shape[0]), int(shape[1]), dtype.name, checksum, positions)

    def positions(self, dataset: "h5py.Dataset", rows: int, tokens: int) -> tuple[int, ...] | None:
        found = self.attribute(dataset, "positions")
        if found is None:
            return None
        positions = np.atleast_1d(found)
        inside = positions.dtype.kind in "iu" and bool(((positions >= 0) & (positions < tokens)).all())
        if positions.shape != (rows,) or not inside or len(set(positions.tolist())) != rows:
            raise StoreError(f"Attribute positions of {dataset.name} does not give each of its {rows} rows one token.")
        return tuple(positions.tolist())

    def check_storage(self, dataset: "h5py.Dataset") -> int:
        """Return the file offset of a contiguous dataset that lies within the file."""
        import h5py

        creation = dataset.id.get_create_plist()
        offset = dataset.id.get_offset()
        if creation.get_layout() != h5py.h5d.CONTIGUOUS or creation.get_external_count() or offset is None:
            raise StoreError(f"{dataset.name} is not contiguous and uncompressed; rewrite it with h5repack -l CONTI.")
        if offset + dataset.size * dataset.dtype.itemsize > self.size:
            raise StoreError(f"{dataset.name} reaches beyond the end of the file, which is truncated.")
        return int(offset)


def _text_or_numbers(value: Any) -> Any:  # noqa: ANN401
    return value.decode("utf-8", "surrogateescape") if isinstance(value, bytes) else value


def _limit() -> None:
    """Give this process no more time and memory than any store needs, no core file and no file of its own."""
    with suppress(ImportError):  # not a POSIX system
        import resource

        for limit, most in (
            (resource.RLIMIT_CPU, _SECONDS),
            (resource.RLIMIT_AS, _MEMORY),
            (resource.RLIMIT_FSIZE, 0),
            (resource.RLIMIT_CORE, 0),
        ):
            hard = resource.getrlimit(limit)[1]
            resource.setrlimit(limit, (most if hard < 0 else min(most, hard), hard))


def main() -> None:
    """Answer one job."""
    job = json.load(sys.stdin)
    _limit()
    try:
        answer = dataclasses.asdict(read_index(Path(job["path"]), job["partial"]))
    except StoreError as error:
        answer = {"error": str(error), "busy": isinstance(error, BusyStoreError)}
    json.dump(answer, sys.stdout)


if __name__ == "__main__":
    main()
