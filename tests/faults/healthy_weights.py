"""Healthy copies of models whose weights are unusual, quantized by the engine with unusual importance matrices."""

import tempfile
import zlib
from collections.abc import Iterator
from functools import lru_cache, partial
from pathlib import Path

import numpy as np

from store.names import gguf_name
from tests.faults.cases import Case, Prepared
from tests.faults.distributions import DISTRIBUTIONS, IMPORTANCES
from tests.faults.engine import engine
from tests.faults.models import Plain
from tests.faults.storing import FORMATS, stored, write
from tests.memory_model import random_model

_LAYERS = 29  # of seven matrices, each another draw: 203
_SIZES = {"heads": 8, "kv_heads": 2, "head_dim": 32, "hidden": 256, "ffn": 256, "vocab": 160}  # whole super-blocks
_SOURCES = ("st-f32", "gguf-f16")
_OURS = ("gguf-f16", "gguf-bf16", "gguf-nvfp4")  # of NVFP4 llama_model_quantize knows no default type
_FTYPES = {  # number of the llama_ftype, and whether all matrices have one type
    "gguf-q8_0": (7, True),
    "gguf-q4_0": (2, True),
    "gguf-q4_1": (3, True),
    "gguf-q5_0": (8, True),
    "gguf-q5_1": (9, True),
    "gguf-q4_k": (14, True),
    "gguf-q5_k": (16, True),
    "gguf-q6_k": (18, True),
    "gguf-q4_k_m": (15, False),
    "gguf-q5_k_m": (17, False),
    "gguf-q2_k": (10, True),
    "gguf-q3_k": (12, True),
    "gguf-iq4_nl": (25, True),
    "gguf-iq4_xs": (30, True),
    "gguf-iq3_s": (26, True),
    "gguf-iq3_xxs": (23, True),
    "gguf-iq2_s": (28, True),
    "gguf-iq2_xs": (20, True),
    "gguf-iq2_xxs": (19, True),
    "gguf-iq1_m": (31, True),
    "gguf-iq1_s": (24, True),
    "gguf-tq1_0": (36, True),
    "gguf-tq2_0": (37, True),
    "gguf-mxfp4": (38, True),
    "gguf-q1_0": (40, True),
    "gguf-q2_0": (41, True),
}
_BROKEN = ("sparse", "gguf-iq3_s")  # by ggml, where a group is zero (findings/ggml-iq3s-zero-group.sh)
# llama.cpp makes none of these without importances
_WEIGHTED = ("gguf-iq3_xxs", "gguf-iq2_s", "gguf-iq2_xs", "gguf-iq2_xxs", "gguf-iq1_m", "gguf-iq1_s")


def healthy_weights(by_engine: bool) -> Iterator[Case]:
    """200 draws of every distribution in every format, with and without importances; by the engine where it is there.

    by_engine : whether there is one; types that need importances are made with them only.
    """
    for number, distribution in enumerate(DISTRIBUTIONS):
        for copy in (*_OURS, *_FTYPES):
            for importances in IMPORTANCES if by_engine and copy in _FTYPES else ("none",):
                made = (by_engine or _is_ours(copy)) and not (importances == "none" and copy in _WEIGHTED)
                if made and (distribution, copy) != _BROKEN:
                    source = _SOURCES[number % 2] if importances == "none" and copy != "gguf-f16" else _SOURCES[0]
                    prepare = partial(_prepare, distribution, source, copy, importances, by_engine)
                    kind, place = f"healthy weights {distribution}", f"importances {importances}"
                    yield Case(kind, place, distribution, f"{source} {copy}", None, prepare)


def _is_ours(copy: str) -> bool:
    return copy in FORMATS and not FORMATS[copy].by_engine


class _Drawn:
    """A deep model whose matrices are draws of a distribution, and its files, each written once."""

    def __init__(self, distribution: str) -> None:
        model = random_model("qwen2", layers=_LAYERS, tied=False, seed=0, **_SIZES)
        draw, values = DISTRIBUTIONS[distribution], {}
        for name, value in model.values().items():
            rng = np.random.default_rng([0, zlib.crc32(f"{distribution} {name}".encode())])
            values[name] = draw(rng, *value.shape) if value.ndim == 2 else value
        self.model = Plain(distribution, model.config, values)
        self._folder = tempfile.TemporaryDirectory()
        self._files: dict[str, Path] = {}

    def file(self, format: str) -> Path:
        """The model in a format, by our own quantizers."""
        if format not in self._files:
            path = Path(self._folder.name) / format
            of_model = stored.__wrapped__(self.model, FORMATS[format])  # nothing of this size is kept in memory
            self._files[format] = write(of_model, FORMATS[format], path)
        return self._files[format]

    def importances(self, kind: str) -> Path | None:
        """Importances of every matrix's columns by its name in GGUF; None where the kind has none."""
        path = Path(self._folder.name) / f"{kind}.npz"
        if not path.exists():
            drawn = {}
            for name, values in self.model.values.items():
                weights = IMPORTANCES[kind](np.random.default_rng(zlib.crc32(name.encode())), values.shape[-1])
                if values.ndim == 2 and weights is not None:
                    drawn[gguf_name(name)] = weights.astype(np.float32)
            if not drawn:
                return None
            np.savez(path, **drawn)  # type: ignore[arg-type]
        return path


@lru_cache(maxsize=1)  # the cases of a distribution stand together
def _drawn(distribution: str) -> _Drawn:
    return _Drawn(distribution)


def _prepare(distribution: str, a: str, b: str, importances: str, by_engine: bool, folder: Path) -> Prepared:
    drawn = _drawn(distribution)
    source, tokens = drawn.file(a), drawn.model.tokens()
    if not by_engine or b not in _FTYPES:
        return Prepared(source, drawn.file(b), tokens)
    (ftype, pure), weights, out = _FTYPES[b], drawn.importances(importances), folder / "b.gguf"
    job = {"source": str(drawn.file("gguf-f32")), "out": str(out), "ftype": ftype, "pure": pure}
    engine().quantize(**job, importances=weights and str(weights))
    return Prepared(source, out, tokens)
