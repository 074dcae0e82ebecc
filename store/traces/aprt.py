"""APRT folders, as `apr trace --save-tensor` writes them: DIR/STAGE.bin for the whole model, DIR/layer-N/STAGE.bin.

A file is "APRT", the layer (u32, all ones for the whole model), the number of values (u32) and the values (float32),
little-endian. The embedding lies in layer-0, and lm_head holds the last token only.
"""

from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from kernels.models import in_layers
from kernels.stages import FIRST_STAGES, LAST_STAGES, SPINE, Site
from store.errors import StoreError
from store.files.model_file import ModelFile
from store.text import printable
from store.traces.kind import APRT, aprt_files, aprt_layer, begins_as_aprt
from store.traces.trace import MAX_LAYERS, StoredStage, Trace

_HEADER = 12
_WHOLE_MODEL = 0xFFFFFFFF
_ALIASES = {SPINE[-1]: SPINE[-2]}  # layer_output is a second name of post_ffn_residual
_UNSAID = (
    "The token ids are not there: those that went in are your word.",
    "Shapes are not there, only the number of values: tokens and channels come from the model and the tokens given.",
    "Neither name nor checksum of the model is there: that it was this model is your word.",
    "The settings, the version of the engine and the order of q and k channels are not there.",
)


def open_aprt(path: Path) -> Trace:
    """Open a folder, or a single stage file; StoreError names the file that is malformed."""
    found: dict[Site, ModelFile] = {}
    unknown: set[str] = set()
    listed = list(aprt_files(path)) if path.is_dir() else [(path, aprt_layer(path.parent))]
    for place, layer in sorted(listed, key=lambda item: (item[1] is not None, item[1] or 0, item[0].name)):
        file = ModelFile.at(place)
        _check_header(file, layer)
        site = _site(layer, place.stem)
        if site is None:
            unknown.add(place.stem)
        elif site in found:
            _check_same(found[site], file)
        else:
            found[site] = file
    if not found:
        raise StoreError(f"{printable(str(path))} holds no stage of the map; dump with --save-tensor all.")
    return Trace(
        path=path,
        engine="apr",
        tokens=None,
        settings={},
        stages={site: _stage(site, file) for site, file in found.items()},
        files=tuple(sorted(found.values(), key=lambda file: file.path)),
        not_carried=_UNSAID,
        notes=_notes(unknown),
    )


def is_stage_file(path: Path) -> bool:
    """Tell whether a path is a regular file that begins as a stage file does."""
    return path.suffix == ".bin" and path.is_file() and not path.is_symlink() and begins_as_aprt(path)


def place_of(site: Site) -> tuple[str, bool]:
    """Return where a stage belongs in a folder, and whether only its last token does."""
    name = f"{_ALIASES.get(site.stage, site.stage)}.bin"
    layer = 0 if site.stage in FIRST_STAGES else site.layer
    return (name if layer is None else f"layer-{layer}/{name}"), site.stage == LAST_STAGES[-1]


def header_of(site: Site, count: int) -> bytes:
    """Return the header of the file of a stage with so many values."""
    layer = 0 if site.stage in FIRST_STAGES else _WHOLE_MODEL if site.layer is None else site.layer
    return APRT + layer.to_bytes(4, "little") + count.to_bytes(4, "little")


def _notes(unknown: set[str]) -> tuple[str, ...]:
    if not unknown:
        return ()
    names = ", ".join(printable(name, 40) for name in sorted(unknown)[:5])
    return (f"The folder also holds stages that have no place on the map: {names}{' ...' * (len(unknown) > 5)}.",)


def _check_header(file: ModelFile, folder_layer: int | None) -> None:
    name = printable(str(file.path))
    if file.size < _HEADER:
        raise StoreError(f"{name} has {file.size} bytes, less than the header of a stage dump; dump it again.")
    header = file.read(0, _HEADER, "the header")
    layer, count = (int.from_bytes(header[at : at + 4], "little") for at in (4, 8))
    if header[:4] != APRT:
        raise StoreError(f"{name} does not begin with APRT, so it is no stage dump; take it out of the folder.")
    if file.size != _HEADER + 4 * count or count == 0:
        raise StoreError(f"{name} has {file.size} bytes where its header tells {count} values; dump it again.")
    expected = _WHOLE_MODEL if folder_layer is None else folder_layer
    if layer != expected:
        told, stands = ("the whole model" if n == _WHOLE_MODEL else f"layer {n}" for n in (layer, expected))
        raise StoreError(f"{name} says it is of {told}, but stands where {stands} belongs; move it or dump it again.")


def _site(layer: int | None, stage: str) -> Site | None:
    if stage in FIRST_STAGES + LAST_STAGES:
        return Site(None, stage)
    known = in_layers(stage) and layer is not None and layer < MAX_LAYERS
    return Site(layer, stage) if known else None


def _check_same(one: ModelFile, other: ModelFile) -> None:
    """Refuse two files of one whole-model stage that hold different values."""
    values = [_values(file) for file in (one, other)]
    if values[0].tobytes() != values[1].tobytes():
        names = " and ".join(printable(str(file.path)) for file in (one, other))
        raise StoreError(f"{names} hold different values of the same stage; remove the one of the wrong run.")


def _values(file: ModelFile) -> NDArray[np.float32]:
    return np.frombuffer(file.map(0, file.size, "the values"), "<f4", offset=_HEADER)


def _stage(site: Site, file: ModelFile) -> StoredStage:
    count = (file.size - _HEADER) // 4
    return StoredStage(count, "float32", partial(_values, file), last_token=site.stage == LAST_STAGES[-1])
