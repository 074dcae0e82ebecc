"""Writing a trace so that a crash at any instant leaves a complete store or a resumable one."""

import errno
import json
import os
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray
from zlib_ng.zlib_ng import crc32

from kernels.models import stages_of
from kernels.stages import FIRST_STAGES, LAST_STAGES, Site
from store.errors import StoreError
from store.text import printable
from store.traces.hdf5 import LAYER_OUTPUT, open_store, partial_path
from store.traces.hdf5_index import ATTRIBUTES, JSON_FIELDS, LAYER_STATE, SCHEMA, BusyStoreError
from store.traces.kind import is_hdf5
from store.traces.run import RunRecord
from store.traces.trace import StoredStage, Trace
from store.traces.written import mark_ours
from store.whole_files import lock, remove_leftovers, rename, status_of, sync_directory, temporary_name

if TYPE_CHECKING:
    import h5py

_ATTRIBUTE_LIMIT = 60_000  # bytes; HDF5 libraries before 2.0 refuse attributes of 64 KiB
_NO_ROOM = (None, errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # None: HDF5 does not say
_OVERHEAD = 1 << 16  # bytes; more than HDF5 adds to a tensor, and to close a file


def as_stored(values: NDArray[np.floating[Any]]) -> NDArray[np.float32]:
    """Return the values as a store keeps them: float32, C order."""
    with np.errstate(over="ignore"):  # beyond float32 becomes infinite, which the metrics count and name
        return np.ascontiguousarray(values, dtype=np.float32)


class TraceWriter:
    """Writes the stages of one run, in execution order, to PATH.partial and renames it to PATH when all are there.

    As a context manager it opens the store; leaving without `finish` keeps the partial. An earlier partial of the
    same run is resumed: the layers that it holds whole, and that still have their checksums, are copied to the new
    partial first, so that a resumed store has the same bytes as one written at a stretch. Raises StoreError in one
    sentence when the store cannot be written.

    absent : stages that the model does not have, for a run that did not record all others; such a store is always
    written from the start. None: every stage that is not written is absent.
    replace : whether a store that is there is replaced; else one that has come meanwhile makes `finish` fail.
    keep_partial : whether what is unfinished is kept to be resumed; else it has a hidden name, and goes.
    """

    def __init__(
        self,
        path: Path | str,
        run: RunRecord,
        absent: frozenset[Site] | None = None,
        replace: bool = True,
        keep_partial: bool = True,
    ) -> None:
        self.path = Path(path)
        self.partial = partial_path(self.path)
        self._replace, self._keep_partial = replace, keep_partial
        self.run = run
        self.completed_layers = 0
        self._resumed: Trace | None = None
        self._written: set[Site] = set()
        self._known_absent = absent
        self._last: tuple[NDArray[Any], h5py.Dataset] | None = None
        self._helper = ThreadPoolExecutor(1, thread_name_prefix="store")  # syncs beside the writing
        self._synced: Future[None] | None = None
        self._groups: dict[int | None, h5py.Group] = {}  # the one that is being written to

    def __enter__(self) -> Self:
        import h5py

        unfinished = self._resumable() if self._keep_partial else None
        remove_leftovers(self.path.parent)
        fresh = temporary_name(self.path)
        try:
            with self._writing():
                self._file = h5py.File(fresh, "w", locking="best-effort")
                lock(self._file.id.get_vfd_handle())  # as HDF5 does, unless an environment variable forbids it
                self._inode = _inode(self._file.id.get_vfd_handle())
                self._reserve(0)
            if unfinished is not None:
                self.run = replace(self.run, created=unfinished.run.created)
            self._write_provenance()
            if unfinished is not None:
                self._copy(unfinished)
            with self._writing():
                if self._keep_partial:
                    os.replace(fresh, self.partial)
                    sync_directory(self.path.parent)
                else:
                    self.partial = fresh
        except BaseException:
            self._close()
            fresh.unlink(missing_ok=True)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._close()
        if not self._keep_partial:
            self.partial.unlink(missing_ok=True)

    def completed(self) -> Iterator[tuple[Site, NDArray[np.float32]]]:
        """Yield the stages that a resumed store already holds, in execution order."""
        if self._resumed is not None:
            for layer in range(self.completed_layers):
                for site in _sites(self._resumed, layer):
                    yield site, self._resumed.read(site)

    def resume_state(self) -> NDArray[np.floating[Any]] | None:
        """Return what layer `completed_layers` continues from, (tokens, hidden_size), or None at the beginning."""
        return _state(self._resumed, self.completed_layers - 1) if self._resumed is not None else None

    def write(
        self, site: Site, values: NDArray[np.floating[Any]], positions: tuple[int, ...] | None = None
    ) -> NDArray[np.float32]:
        """Store one stage, (tokens, channels), and return it as stored: float32.

        positions : token position of every row, where they are not just all tokens.
        """
        stored = as_stored(values)
        with self._writing():
            self._reserve(stored.nbytes + values.nbytes)
            group = self._group(site.layer)
            if site.stage == LAYER_OUTPUT and self._last is not None and self._last[0] is values:
                group[site.stage] = self._last[1]  # a second name of the residual, not a second copy
            else:
                self._last = values, self._create(group, site.stage, stored)
            if positions is not None:
                group[site.stage].attrs["positions"] = np.array(positions, dtype=np.int32)
            if site.stage == LAYER_OUTPUT and values.dtype == np.float64:
                self._create(group, LAYER_STATE, np.ascontiguousarray(values))
        self._written.add(site)
        return stored

    def finish_layer(self, layer: int) -> None:
        """Mark a layer complete; it goes to the disk while the next ones are computed.

        The mark outlives the process. Should the machine stop, a mark may be on the disk before its tensors: those
        have their checksums.
        """
        with self._writing():
            self._reserve(0)
            self._file.flush()
            group = self._group(layer)
            group.attrs["absent"] = _fixed_text(self._absent(layer, stages_of(self.run.config)))
            group.attrs["complete"] = True
            self._file.flush()
            if self._synced is None or self._synced.done():  # else the next one takes this layer too
                self._wait_for_sync()
                self._synced = self._helper.submit(os.fsync, self._file.id.get_vfd_handle())
        self._last = None
        self.completed_layers = layer + 1

    def finish(self) -> None:
        """Give the complete store its final name."""
        layers = self.run.config.num_hidden_layers
        if self.completed_layers != layers:
            raise StoreError(f"{self.path} has {self.completed_layers} of {layers} layers and cannot be finished.")
        with self._writing():
            self._reserve(0)
            self._wait_for_sync()
            self._sync()
            self._file.attrs["absent"] = _fixed_text(self._absent(None, FIRST_STAGES + LAST_STAGES))
            self._file.attrs["complete"] = True
            self._sync()
            size = self._file.id.get_filesize()
            self._file.close()
            with self.partial.open("rb+") as partial:
                if _inode(partial.fileno()) != self._inode:
                    name = printable(str(self.path))
                    raise StoreError(f"{name} was replaced by another process while it was written; run it again.")
                partial.truncate(size)  # gives back what was reserved and not needed
                os.fsync(partial.fileno())
            _is_there(self.path)
            rename(self.partial, self.path, self._replace)
            mark_ours(self.path)
            sync_directory(self.path.parent)

    def _resumable(self) -> Trace | None:
        """Return the unfinished store of this very run, if there is one."""
        self._require_ours()
        try:
            unfinished = open_store(self.partial, partial=True)
        except BusyStoreError:
            raise
        except StoreError:
            return None
        resumable = self._known_absent is None and unfinished.run.identity == self.run.identity
        return unfinished if resumable else None

    def _require_ours(self) -> None:
        """Raise StoreError if what has the name of the partial was not begun as a store."""
        if _is_there(self.partial) and not is_hdf5(self.partial):
            name = printable(str(self.partial))
            raise StoreError(f"{name} is in the way and is no unfinished store; move it, or choose another name.")

    def _copy(self, unfinished: Trace) -> None:
        """Write the whole layers of an earlier attempt again, up to the first one that lost its checksum."""
        for layer in range(unfinished.completed_layers or 0):
            sites = _sites(unfinished, layer)
            states = [unfinished.states[layer]] if layer in unfinished.states else []
            if not all(map(_is_as_written, [*(unfinished.stages[site] for site in sites), *states])):
                return
            output = unfinished.read(Site(layer, LAYER_OUTPUT))
            for site in sites:
                values = unfinished.read(site)
                self.write(site, _state(unfinished, layer) if values is output else values)
            self.finish_layer(layer)
            self._resumed = unfinished

    def _write_provenance(self) -> None:
        with self._writing():
            self._file.attrs["schema"] = SCHEMA
            for name, value in self.run.to_json().items():
                if name in JSON_FIELDS:
                    value = json.dumps(value, sort_keys=True)
                elif name == "tokens":
                    value = np.array(value, dtype=np.int64)
                if value is not None:
                    self._write_value(ATTRIBUTES[name], value)
            self._sync()

    def _write_value(self, name: str, value: str | int | NDArray[np.int64]) -> None:
        """Write a root attribute, or a dataset if it is too long for one."""
        try:
            data = _fixed_text(value) if isinstance(value, str) else np.asarray(value)
            self._reserve(data.nbytes)
            if data.nbytes <= _ATTRIBUTE_LIMIT:
                self._file.attrs.create(name, data, dtype=data.dtype)
            else:
                self._file.create_dataset(name, data=data)
        except ValueError as error:
            raise StoreError(f"The {name} of this run cannot be stored ({error}); use another one.") from error

    def _absent(self, layer: int | None, stages: tuple[str, ...]) -> str:
        missing = [stage for stage in stages if Site(layer, stage) not in self._written]
        known = self._known_absent
        return " ".join(stage for stage in missing if known is None or Site(layer, stage) in known)

    def _reserve(self, size: int) -> None:
        """Make sure that the disk has room for `size` more bytes; OSError if it has not.

        HDF5 must never meet a full disk itself: it cannot close the file then, and may take the process down.
        """
        if hasattr(os, "posix_fallocate"):
            end = self._file.id.get_filesize() + size + _OVERHEAD
            os.posix_fallocate(self._file.id.get_vfd_handle(), 0, end)

    def _sync(self) -> None:
        self._file.flush()
        os.fsync(self._file.id.get_vfd_handle())

    def _group(self, layer: int | None) -> "h5py.Group":
        """Where the stages of a layer, or of the whole model, belong."""
        if layer not in self._groups:
            self._groups = {layer: self._file if layer is None else self._file.require_group(f"layers/{layer:03d}")}
        return self._groups[layer]

    def _wait_for_sync(self) -> None:
        if self._synced is not None:
            self._synced.result()

    def _create(self, group: "h5py.Group", name: str, values: NDArray[Any]) -> "h5py.Dataset":
        """Create a dataset as `Group.create_dataset` does, through HDF5's own functions: hundreds are written."""
        from h5py import Dataset, h5a, h5d, h5p, h5s, h5t

        settings = h5p.create(h5p.DATASET_CREATE)
        settings.set_obj_track_times(False)
        kind, shape = h5t.py_create(values.dtype), h5s.create_simple(values.shape)
        dataset = h5d.create(group.id, name.encode(), kind, shape, settings)
        dataset.write(h5s.ALL, h5s.ALL, values)
        attribute = h5a.create(dataset, b"crc32", h5t.STD_U32LE, h5s.create(h5s.SCALAR))
        attribute.write(np.array(crc32(values.data), np.uint32))
        return Dataset(dataset)

    def _close(self) -> None:
        self._helper.shutdown()
        with suppress(Exception):  # what finished layers need is on the disk already
            self._file.close()

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """Turn what HDF5 and the system raise into a sentence."""
        try:
            yield
        except (OSError, RuntimeError) as error:
            code = getattr(error, "errno", None)
            why = os.strerror(code) if code else printable(" ".join(str(error).split()), 160)
            name = printable(str(self.path))
            kept = ": finished layers are kept" if self._keep_partial else ""
            advice = "make room or choose another place" if code in _NO_ROOM else "choose another place"
            raise StoreError(f"{name} cannot be written ({why}); {advice}, then run it again{kept}.") from error


def write_trace(trace: Trace, path: Path) -> None:
    """Write a trace that has the record of its run to a store of its own; StoreError in one sentence if it cannot be.

    Only what the trace itself tells to be absent is absent; every other stage that it does not hold is unmeasured.
    """
    tokens = tuple(range(len(trace.run.tokens)))
    with TraceWriter(path, trace.run, trace.absent) as writer:

        def write(sites: Iterable[Site]) -> None:
            for site in sites:
                if trace.status(site) == "ok":
                    positions = trace.positions(site)
                    writer.write(site, trace.read(site), None if positions == tokens else positions)

        write(Site(None, stage) for stage in FIRST_STAGES)
        for layer in range(trace.run.config.num_hidden_layers):
            write(Site(layer, stage) for stage in stages_of(trace.run.config))
            writer.finish_layer(layer)
        write(Site(None, stage) for stage in LAST_STAGES)
        writer.finish()


def _is_there(path: Path) -> bool:
    """Tell whether there is a file; StoreError if anything else is, which is neither replaced nor followed."""
    try:
        return status_of(path) is not None
    except OSError as error:
        raise StoreError(
            f"{printable(str(path))} cannot be written ({error.strerror}); choose another place."
        ) from None


def _fixed_text(text: str) -> NDArray[Any]:
    """Return UTF-8 as HDF5 stores a text of fixed length; texts of variable length can hang the reader when damaged."""
    import h5py

    if "\0" in text:
        raise ValueError("it holds a NUL character")
    content = text.encode("utf-8", "surrogateescape")
    return np.array(content, dtype=h5py.string_dtype("utf-8", max(len(content), 1)))


def _sites(trace: Trace, layer: int) -> list[Site]:
    """Return where a trace has tensors of a layer, or of what comes before the first one, in execution order."""
    sites = [Site(None, stage) for stage in FIRST_STAGES] if layer == 0 else []
    sites += [Site(layer, stage) for stage in stages_of(trace.run.config)]
    return [site for site in sites if site in trace.stages]


def _state(trace: Trace, layer: int) -> NDArray[np.floating[Any]]:
    """Return what layer + 1 continues from: layer_output in the precision of the run."""
    return trace.states[layer].values() if layer in trace.states else trace.read(Site(layer, LAYER_OUTPUT))


def _is_as_written(stage: StoredStage) -> bool:
    """Tell whether a stage has its checksum."""
    try:
        stage.values()
    except StoreError:
        return False
    return stage.checksum is not None


def _inode(handle: int) -> tuple[int, int]:
    status = os.fstat(handle)
    return status.st_dev, status.st_ino
