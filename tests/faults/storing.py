"""Writing a plain model to disk in any format, and opening it as the program does."""

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import gguf
import numpy as np

from kernels.models import family
from kernels.rows.dequantize import dequantize
from kernels.weight import TensorType, Weight
from store.files.apr_writer import write_apr
from store.stored_model import NORM
from tests.artifacts import apr_metadata, apr_tensors
from tests.faults.engine import engine
from tests.faults.models import Plain
from tests.gguf_files import write_gguf
from tests.hf_files import less_one, write_safetensors
from tests.memory_model import MemoryModel
from tests.reference import blocks, k_quants

_K_TYPES = (TensorType.Q4_K, TensorType.Q5_K, TensorType.Q6_K)
_NAMES = ("BF16", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "TQ1_0", "TQ2_0")
_BY_GGUF = tuple(TensorType[name] for name in _NAMES)
_POINTS = ("IQ3_S", "IQ3_XXS", "IQ2_S", "IQ2_XS", "IQ2_XXS", "IQ1_M", "IQ1_S")  # of grids, which only ggml looks for


@dataclass(frozen=True)
class Format:
    """A file format and the type of its matrices; `mixed` stores V and down projections and the head in 6 bits."""

    container: str
    type: TensorType
    mixed: bool = False

    def __str__(self) -> str:
        return f"{self.container} {self.type.name}{'_M' if self.mixed else ''}"

    @property
    def by_engine(self) -> bool:
        """Whether only the engine makes it (engine.py)."""
        return self.type.name in _POINTS

    def fits(self, plain: Plain) -> bool:
        """Whether every row of the model fills whole blocks, in a container that can hold type and settings."""
        c = plain.config
        scaled = c.attention_scale and not (c.architecture == "granite" and self.container == "gguf")
        slides = c.sliding_window and not (c.rope_local_theta or c.architecture == "gemma2")
        if self.container != "safetensors" and (scaled or c.rope_factors or slides):
            return False
        rows = {values.shape[1] for values in plain.values.values() if values.ndim == 2}
        return all(size % self.type.block.elements == 0 for size in rows)


FORMATS = {
    "st-f32": Format("safetensors", TensorType.F32),
    "st-f16": Format("safetensors", TensorType.F16),
    "st-bf16": Format("safetensors", TensorType.BF16),
    "gguf-f32": Format("gguf", TensorType.F32),
    "gguf-f16": Format("gguf", TensorType.F16),
    "gguf-bf16": Format("gguf", TensorType.BF16),
    "gguf-q8_0": Format("gguf", TensorType.Q8_0),
    "gguf-q5_1": Format("gguf", TensorType.Q5_1),
    "gguf-q5_0": Format("gguf", TensorType.Q5_0),
    "gguf-q4_1": Format("gguf", TensorType.Q4_1),
    "gguf-q4_0": Format("gguf", TensorType.Q4_0),
    "gguf-q6_k": Format("gguf", TensorType.Q6_K),
    "gguf-q5_k": Format("gguf", TensorType.Q5_K),
    "gguf-q4_k": Format("gguf", TensorType.Q4_K),
    "gguf-q3_k": Format("gguf", TensorType.Q3_K),
    "gguf-q2_k": Format("gguf", TensorType.Q2_K),
    "gguf-iq4_nl": Format("gguf", TensorType.IQ4_NL),
    "gguf-iq4_xs": Format("gguf", TensorType.IQ4_XS),
    "gguf-mxfp4": Format("gguf", TensorType.MXFP4),
    "gguf-q4_k_m": Format("gguf", TensorType.Q4_K, mixed=True),
    "apr-f32": Format("apr", TensorType.F32),
    "apr-f16": Format("apr", TensorType.F16),
    "apr-q8_0": Format("apr", TensorType.Q8_0),
    "apr-q4_1": Format("apr", TensorType.Q4_1),
    "apr-q4_k": Format("apr", TensorType.Q4_K),
    "apr-q4_k_m": Format("apr", TensorType.Q4_K, mixed=True),
    "apr-q6_k": Format("apr", TensorType.Q6_K),
}
FORMATS |= {
    f"gguf-{name.lower()}": Format("gguf", TensorType[name])
    for name in ("NVFP4", "Q1_0", "Q2_0", "TQ1_0", "TQ2_0", *_POINTS)
}


def packed(values: np.ndarray, type: TensorType) -> np.ndarray:
    """uint8 rows of a matrix or vector in a type: by gguf-py, and what it cannot quantize by others.

    Points of grids by the engine, which must have been started, the rest by references in NumPy.
    """
    matrix = np.ascontiguousarray(np.atleast_2d(values), dtype=np.float32)
    if type == TensorType.F32:
        return matrix.view(np.uint8)
    if type == TensorType.F16:
        return matrix.astype(np.float16).view(np.uint8)
    if type in _K_TYPES:
        return k_quants.quantize(matrix, type)
    if type.name in _POINTS:
        return engine().rows(matrix, type)
    if type not in _BY_GGUF:
        return blocks.quantize(matrix, type.format)
    rows = gguf.quants.quantize(matrix, gguf.GGMLQuantizationType(type))
    return np.ascontiguousarray(rows).view(np.uint8).reshape(len(matrix), -1)


def type_of(name: str, values: np.ndarray, format: Format) -> TensorType:
    """Vectors stay F32 outside of SafeTensors, where a model has one type."""
    if values.ndim == 1:
        return format.type if format.container == "safetensors" else TensorType.F32
    six_bits = format.mixed and name.endswith(("v_proj.weight", "down_proj.weight", "lm_head.weight"))
    return TensorType.Q6_K if six_bits else format.type


@cache
def stored(plain: Plain, format: Format) -> MemoryModel:
    """The model with every tensor in its type."""
    weights = {}
    for name, values in plain.values.items():
        type = type_of(name, values, format)
        if format.container == "safetensors" and family(plain.config.architecture).less_one and name.endswith(NORM):
            found = less_one(Weight(name, TensorType.F32, values.shape, packed(values, TensorType.F32)), type)
            values, type = dequantize(found) + np.float32(1), TensorType.F32
        weights[name] = Weight(name, type, values.shape, packed(values, type))
    return MemoryModel(plain.config, weights)


def write(model: MemoryModel, format: Format, path: Path) -> Path:
    """Write a stored model; returns what to open."""
    if format.container == "safetensors":
        write_safetensors(path, model)
        return path
    file = path.with_name(f"{path.name}.{format.container}")
    if format.container == "gguf":
        write_gguf(file, model)
    else:
        write_apr(file, apr_metadata(model), apr_tensors(model))
    return file
