"""Stage dumps: one array for every stage of every layer, in a NumPy archive or a SafeTensors file.

Keys are "stage|<layer>|<stage>", layer -1 for whole-model stages; `qkv_matmul` and `qkv_bias` may stand in three parts,
".q", ".k" and ".v". `__meta__` is a JSON object (in SafeTensors an entry of `__metadata__`) with what is known of the
run. See docs/traces.md.
"""

import math
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kernels.models import in_layers
from kernels.stages import FIRST_STAGES, LAST_STAGES, Site
from store.errors import StoreError
from store.files.model_file import ModelFile
from store.text import printable
from store.traces.arrays import FLOATS, StoredArray, parse_json
from store.traces.kind import STAGE_KEY
from store.traces.trace import LLAMA_CPP, MAX_LAYERS, StoredStage, Trace

_TRANSFORMERS = "transformers"
_PARTS = tuple(f"{stage}.{letter}" for stage in ("qkv_matmul", "qkv_bias") for letter in "qkv")
_FUSED_SILU = "llama.cpp fuses it into ffn_swigl; the dump holds what its writer computed from ffn_gate, not the engine"
_RECOMPUTED = "the engine adds the bias in the same call; the product alone was computed again by the recorder"
_UNSAID = {
    "model_sha256": "No checksum of the model is there: that it was this model is your word.",
    "dtype": "The precision that the engine computed in is not there.",
    "engine_version": "The version of the engine is not there.",
}


def trace_of_arrays(file: ModelFile, arrays: Mapping[str, StoredArray], meta_text: str | None) -> Trace:
    """Make a trace of the stage arrays of a dump; StoreError, one sentence, for one that contradicts itself."""
    meta = read_meta(file, meta_text)
    tokens = take_tokens(file, meta)
    engine = _engine(meta)
    found, unknown = _sorted(file, arrays)
    if not found:
        raise StoreError(f"{file.shown} holds no array of a known stage; see docs/traces.md for the keys of a dump.")
    absent: set[Site] = set()
    remarks: dict[Site, str] = {}
    for site in list(found):
        if engine == LLAMA_CPP and site.stage == "ffn_silu":
            del found[site]
            remarks[site] = _FUSED_SILU
        if engine == _TRANSFORMERS and site.stage == "qkv_matmul":
            if (bias := Site(site.layer, "qkv_bias")) in found:
                remarks[site] = _RECOMPUTED
            else:
                absent.add(bias)
    rows = len(tokens) if tokens is not None else None
    stages = {site: _stage(file, site, array, rows) for site, array in found.items()}
    return Trace(
        path=file.path,
        engine=engine,
        tokens=tokens,
        settings=meta,
        stages=stages,
        files=(file,),
        not_carried=unsaid(tokens, meta | ({"engine_version": ""} if engine in meta else {}), _UNSAID),
        notes=_notes(engine, meta, unknown),
        remarks=remarks,
        absent=frozenset(absent),
    )


def read_meta(file: ModelFile, text: str | None) -> dict[str, Any]:
    """Return the JSON object `__meta__`, empty if there is none."""
    meta = {} if text is None else parse_json(text, f"__meta__ of {file.shown}")
    if not isinstance(meta, dict):
        raise StoreError(f"{file.shown}: __meta__ is JSON, but not an object; record the trace again.")
    return meta


def take_tokens(file: ModelFile, meta: dict[str, Any]) -> tuple[int, ...] | None:
    """Take the token ids out of `__meta__`; None if there are none."""
    tokens = meta.pop("tokens", None)
    if tokens is None:
        return None
    if not isinstance(tokens, list) or not tokens or not all(type(token) is int and token >= 0 for token in tokens):
        raise StoreError(f"{file.shown}: the tokens of __meta__ are not token ids; record the trace again.")
    return tuple(tokens)


def site_of(layer: int, stage: str) -> Site | None:
    """Return the site of a stage that a dump numbers with `layer`, -1 for the whole model; None if there is none."""
    if stage in FIRST_STAGES + LAST_STAGES:
        return Site(None, stage) if layer == -1 else None
    return Site(layer, stage) if in_layers(stage) and 0 <= layer < MAX_LAYERS else None


def key_of(site: Site) -> str:
    """Return the key of a stage in a dump; `site_of` reads its parts."""
    return f"stage|{-1 if site.layer is None else site.layer}|{site.stage}"


def side_by_side(loads: Iterable[Callable[[], NDArray[Any]]]) -> NDArray[Any]:
    """Read several (rows, channels) arrays and join their channels."""
    return np.concatenate([load() for load in loads], axis=1)


def unsaid(tokens: tuple[int, ...] | None, meta: Mapping[str, Any], sentences: Mapping[str, str]) -> tuple[str, ...]:
    """Return what a dump does not say: the tokens, and each of `sentences` whose key `meta` does not have."""
    missing = () if tokens is not None else ("The token ids are not there: those that went in are your word.",)
    return (*missing, *(sentence for key, sentence in sentences.items() if key not in meta))


def _engine(meta: Mapping[str, Any]) -> str:
    if isinstance(meta.get("engine"), str):
        return printable(meta["engine"], 40)
    if _TRANSFORMERS in meta:
        return _TRANSFORMERS
    return LLAMA_CPP if {"repack", "flash", "kv"} <= meta.keys() else "unknown"


def _sorted(file: ModelFile, arrays: Mapping[str, StoredArray]) -> tuple[dict[Site, StoredArray], list[str]]:
    """Return the stage arrays by site, parts joined, and the stages that have no place on the map."""
    found: dict[Site, StoredArray] = {}
    pieces: dict[Site, dict[str, StoredArray]] = {}
    unknown: list[str] = []
    for key, array in arrays.items():
        match = STAGE_KEY.fullmatch(key)
        if match is None:
            continue
        layer, name = int(match[1]), match[2]
        site = site_of(layer, name.rpartition(".")[0] if name in _PARTS else name)
        if site is None:
            unknown.append(name)
            continue
        if array.dtype not in FLOATS or 0 in array.shape or not array.shape:
            kind = f"{printable(array.dtype, 40)} of shape {array.shape}"
            raise StoreError(f"{file.shown}: {site} is {kind}, which no stage tensor is; record it again.")
        if name in _PARTS:
            pieces.setdefault(site, {})[name[-1]] = array
        else:
            found[site] = array
    for site, letters in pieces.items():
        if site not in found and letters.keys() == set("qkv"):
            found[site] = _joined(file, site, [letters[letter] for letter in "qkv"])
    return found, sorted(set(unknown))


def _joined(file: ModelFile, site: Site, pieces: list[StoredArray]) -> StoredArray:
    first = pieces[0]
    if any(len(p.shape) != 2 or p.shape[0] != first.shape[0] or p.dtype != first.dtype for p in pieces):
        raise StoreError(f"{file.shown}: q, k and v of {site} do not have the same rows; record the trace again.")
    shape = (first.shape[0], sum(piece.shape[1] for piece in pieces))
    return first._replace(shape=shape, load=partial(side_by_side, [piece.load for piece in pieces]))


def _stage(file: ModelFile, site: Site, array: StoredArray, tokens: int | None) -> StoredStage:
    """Measure a stage array: its first axis is rows, but a prompt of one token has one row of everything."""
    count = math.prod(array.shape)
    rows = 1 if tokens == 1 or len(array.shape) == 1 else array.shape[0]
    if tokens is not None and rows > tokens:
        raise StoreError(f"{file.shown}: {site} has {rows} rows, but __meta__ names {tokens} tokens; record it again.")
    positions = tuple(range(rows)) if rows == tokens else None
    return StoredStage(count, array.dtype, array.load, count // rows, positions)


def _notes(engine: str, meta: Mapping[str, Any], unknown: list[str]) -> tuple[str, ...]:
    notes = []
    if engine == _TRANSFORMERS and meta.get("dtype") == "float64":
        notes.append("transformers computes norms and rotary tables in float32 even in a float64 model.")
    if unknown:
        names = ", ".join(printable(name, 40) for name in unknown[:5])
        notes.append(f"The dump also holds stages that have no place on the map: {names}{' ...' * (len(unknown) > 5)}.")
    return tuple(notes)
