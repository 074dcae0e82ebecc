"""Chosen stages of one run, written in one of four formats: the same run gives the same bytes, at whatever time.

Every writer is a context that gives what takes one stage after the other, in execution order. The output appears when
all are there and is replaced as a whole; a run that ends early leaves nothing. Values are kept as they are, down to the
payloads of NaN.
"""

import json
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from itertools import accumulate
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from kernels.stages import Site
from store.errors import StoreError
from store.outputs import require_writable, require_writable_folder
from store.traces.aprt import header_of, is_stage_file, place_of
from store.traces.hdf5 import ENGINE
from store.traces.hdf5_writer import TraceWriter
from store.traces.run import DISTRIBUTION, RunRecord
from store.traces.stage_dump import key_of
from store.whole_files import give_folder_name, give_name, temporary_beside, temporary_folder_beside

Take = Callable[[Site, NDArray[np.float32]], object]
_EARLIEST = (1980, 1, 1, 0, 0, 0)  # the first time that a zip archive can name
_MODE = 0o600 << 16
_MAX_COUNT = 0xFFFFFFFF


@dataclass(frozen=True)
class Dump:
    """What is to be written: the stages of a run, with the shape (tokens, channels) of each, and how.

    absent : stages that the model does not have. replace : whether what is there may be replaced.
    """

    run: RunRecord
    stages: Mapping[Site, tuple[int, int]]
    absent: frozenset[Site]
    replace: bool


@contextmanager
def _hdf5(path: Path, dump: Dump) -> Iterator[Take]:
    """A store in which every stage that was not chosen is unmeasured."""
    run = replace(dump.run, created="")
    with TraceWriter(path, run, dump.absent, dump.replace, keep_partial=False) as writer:
        yield writer.write
        for layer in range(run.config.num_hidden_layers):
            writer.finish_layer(layer)
        writer.finish()


@contextmanager
def _npz(path: Path, dump: Dump) -> Iterator[Take]:
    """A NumPy archive, nothing compressed, members in execution order behind `__meta__`."""
    with temporary_beside(path) as (temporary, file):
        with zipfile.ZipFile(file, "w") as archive:

            def add(name: str, values: NDArray[np.generic]) -> None:
                member = zipfile.ZipInfo(f"{name}.npy", _EARLIEST)
                member.create_system, member.external_attr = 3, _MODE
                with archive.open(member, "w", force_zip64=True) as stream:
                    np.lib.format.write_array(stream, values, allow_pickle=False)

            add("__meta__", np.array(_meta(dump.run)))
            yield lambda site, values: add(key_of(site), values)
        give_name(file, temporary, path, dump.replace)


@contextmanager
def _safetensors(path: Path, dump: Dump) -> Iterator[Take]:
    """A SafeTensors file, tensors in the order of their names; sizes are known before anything is computed."""
    sites = sorted(dump.stages, key=key_of)
    sizes = [4 * rows * channels for rows, channels in (dump.stages[site] for site in sites)]
    begins = list(accumulate(sizes, initial=0))
    entries: dict[str, object] = {"__metadata__": {"__meta__": _meta(dump.run)}}
    for site, begin, size in zip(sites, begins, sizes, strict=False):
        shape = list(dump.stages[site])
        entries[key_of(site)] = {"dtype": "F32", "shape": shape, "data_offsets": [begin, begin + size]}
    header = json.dumps(entries, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)
    with temporary_beside(path) as (temporary, file):
        file.write(len(header).to_bytes(8, "little") + header)
        starts = {site: file.tell() + begin for site, begin in zip(sites, begins, strict=False)}

        def add(site: Site, values: NDArray[np.float32]) -> None:
            file.seek(starts[site])
            file.write(_bytes(values))

        yield add
        give_name(file, temporary, path, dump.replace)


@contextmanager
def _aprt(path: Path, dump: Dump) -> Iterator[Take]:
    """A folder as `apr trace --save-tensor` writes it: of lm_head the last token only; two names of one tensor once."""
    too_long = [site for site, (rows, channels) in dump.stages.items() if rows * channels > _MAX_COUNT]
    if too_long:
        raise StoreError(
            f"{too_long[0]} has more values than an APRT file counts; take fewer tokens, or another format."
        )
    with temporary_folder_beside(path) as temporary:

        def add(site: Site, values: NDArray[np.float32]) -> None:
            place, last_only = place_of(site)
            kept = values[-1:] if last_only else values
            (temporary / place).parent.mkdir(exist_ok=True)
            with (temporary / place).open("wb") as file:
                file.write(header_of(site, kept.size) + _bytes(kept))

        yield add
        require_writable_folder(path, is_stage_file, dump.replace)  # once more, as the run may have taken long
        give_folder_name(temporary, path)


FORMATS: dict[str, Callable[[Path, Dump], AbstractContextManager[Take]]] = {
    "h5": _hdf5,
    "aprt": _aprt,
    "npz": _npz,
    "safetensors": _safetensors,
}


def require_writable_dump(format: str, path: Path, inputs: Iterable[Path], force: bool) -> None:
    """Raise OutputError, one sentence, unless an output of this format may be written at `path`."""
    if format == "aprt":
        require_writable_folder(path, is_stage_file, force)
    else:
        require_writable(path, inputs, force)


def dump_writer(format: str, path: Path, dump: Dump) -> AbstractContextManager[Take]:
    """Return the writer of a format, a key of FORMATS; what cannot be written is told as StoreError or OSError."""
    return FORMATS[format](path, dump)


def _meta(run: RunRecord) -> str:
    """What is known of the run, as docs/traces.md describes it; no time, no place."""
    facts = {
        "tokens": list(run.tokens),
        "engine": ENGINE,
        "engine_version": run.versions[DISTRIBUTION],
        "numeric_path": run.numeric_path,
        "dtype": "float64" if run.numeric_path == "f64" else "float32",
        "model": Path(run.artifact).name,
        "model_sha256": run.sha256,
        "architecture": run.config.architecture,
    }
    return json.dumps(facts, sort_keys=True)


def _bytes(values: NDArray[np.float32]) -> bytes:
    return np.ascontiguousarray(values, "<f4").tobytes()
