"""Whether a file has the tensors that its model is made of."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from math import prod
from typing import overload

from kernels.config import ModelConfig
from kernels.errors import UnsupportedModelError
from kernels.family import Family
from kernels.kinds.bias import Bias
from kernels.layer_embeddings import PROJECTION
from kernels.models import Graph, family
from kernels.weight import TensorType
from store.artifact import TensorInfo
from store.errors import ArtifactError
from store.experts import split_experts
from store.fused import BY_GROUP, fused_parts
from store.latent import split_heads
from store.names import ROPE_FREQS, ROPE_LONG, ROPE_SHORT, canonical_name, layer_of, module_names
from store.stored_model import Picked
from store.tensor_types import StoredType
from store.text import printable
from store.wrapped_names import without_wrapper

MAX_RANK = 16  # axes of a tensor; no known file has more than 5
# Tensors of a layer that no engine uses: its own frequencies, and factors of products that the family does not apply.
_IGNORED = ("rotary_emb.inv_freq", ".output_scale", ".input_scale")
_FUSED = re.compile(
    rf"\.(?:self_attn|mlp)\.(?:(?:qkv_proj|{BY_GROUP}|gate_up_proj)\.(?:weight|bias)|qkv_proj\.output_scale)\Z"
    r"|\.linear_attn\.in_proj_(?:qkv|qkvz|ba|z|b|a)\.(?:weight|output_scale)\Z"
)
_GATED = re.compile(r"\.self_attn\.q_proj\.(?:weight|bias|output_scale)\Z")
SUPPORTED_TYPES = ", ".join(tensor_type.name for tensor_type in TensorType)

Shape = tuple[int, ...]


@overload
def stored_bytes(type: TensorType, shape: Shape) -> int: ...
@overload
def stored_bytes(type: StoredType, shape: Shape) -> int | None: ...
def stored_bytes(type: StoredType, shape: Shape) -> int | None:
    """Bytes of a tensor of `shape` [..., out, in], [n] or []; None for a type of unknown size.

    ValueError if its rows do not fill whole blocks.
    """
    block = type.block
    if block is None:
        return None
    row = shape[-1] if shape else 1
    if row % block.elements:
        raise ValueError(f"a row of {row} values does not fill whole {type.name} blocks of {block.elements}")
    return prod(shape[:-1]) * (row // block.elements * block.bytes)


def interleaved_tensors(tensors: Mapping[str, TensorInfo], heads: int, kv_heads: int) -> dict[str, int]:
    """Return the q and k tensors, whose rows llama conversions store for adjacent-pair rotation, with their heads."""
    of_module = {"q_proj": heads, "k_proj": kv_heads}
    names = (
        (name, of_module[module])
        for name in tensors
        if layer_of(name) is not None and (module := name.split(".")[-2]) in of_module
    )
    return {name: count for name, count in names if tensors[name].shape[0] % (2 * count) == 0}


def by_canonical_name(
    file: str, stored: Iterable[TensorInfo], architecture: object = None
) -> tuple[dict[str, TensorInfo], list[str]]:
    """Rename stored tensors to canonical names, and say so where all names had something before them.

    architecture : GGUF's name for it where the names may be GGUF's. Raises ArtifactError if two tensors claim the same
    name.
    """
    infos, of = list(stored), architecture.lower() if isinstance(architecture, str) else None
    names, problem = without_wrapper([info.raw_name for info in infos])
    tensors: dict[str, TensorInfo] = {}
    for info, plain in zip(infos, names, strict=True):
        name = info.raw_name if plain is None else canonical_name(plain, of)
        if name in tensors:
            both = " and ".join(printable(raw, 80) for raw in (tensors[name].raw_name, info.raw_name))
            raise ArtifactError(f"{file} stores {printable(name, 80)} twice, as {both}; remove one of them.")
        tensors[name] = replace(info, name=name)
    return tensors, [f"{file} {problem}"] if problem else []


def by_family(file: str, tensors: Mapping[str, TensorInfo], of: Family | None) -> dict[str, TensorInfo]:
    """Rename the tensors that Hugging Face calls otherwise in a family; ArtifactError for two of one name."""
    new = {} if of is None else module_names(tensors, of.modules)
    renamed = {new.get(name, name): replace(info, name=new.get(name, name)) for name, info in tensors.items()}
    if len(renamed) != len(tensors):
        twice = next(name for own, name in new.items() if name in tensors)
        raise ArtifactError(f"{file} stores {printable(twice, 80)} twice, under two names; remove one of them.")
    return renamed


def check_overlaps(file: str, stored: Iterable[TensorInfo]) -> None:
    """Raise ArtifactError if two tensors of one file share bytes."""
    in_order = sorted(stored, key=lambda info: (info.offset, info.nbytes))
    for before, after in pairwise(in_order):
        if before.offset + before.nbytes > after.offset:
            both = " and ".join(printable(info.raw_name, 80) for info in (before, after))
            raise ArtifactError(f"{file} is malformed: tensors {both} overlap; convert or download it again.")


def check_tensors(file: str, tensors: dict[str, TensorInfo], config: ModelConfig) -> tuple[list[str], tuple[str, ...]]:
    """Check the tensors against the configuration; fused ones are replaced in `tensors` by their parts.

    Returns sentences about what is odd, and the names of tensors that are not used. Raises ArtifactError for a required
    tensor that is missing or has another shape, UnsupportedModelError for a layer tensor that the forward does not
    compute with.
    """
    split_experts(file, tensors, config)
    of = family(config.architecture)
    gated = of.output_gate and not of.gates_apart
    split_heads(file, tensors, config)
    _split_layers(file, tensors, config)
    for name in [name for name in tensors if _FUSED.search(name) or (gated and _GATED.search(name))]:
        if (layer := layer_of(name)) is None or layer >= config.num_hidden_layers:
            continue  # of layers that are not run
        _split_fused(file, tensors, name, config.of_layer(layer))
    known = {ROPE_FREQS, ROPE_SHORT} if config.rope_factors is not None else set()
    if config.length_limit is not None:
        known.add(ROPE_LONG)
    for tensor in family(config.architecture).tensors(config):
        if tensor.name in tensors:
            if tensor.loose and _alike(tensors[tensor.name].shape, tensor.shape):
                tensors[tensor.name] = replace(tensors[tensor.name], shape=tensor.shape)
            _check(file, tensors[tensor.name], tensor.shape)
        elif not tensor.optional:
            instead = _instead(tensor.name, tensors)
            raise ArtifactError(f"{file} lacks the tensor {tensor.name}, which the forward needs{instead}.")
        known.add(tensor.name)
    problems = _check_biases(file, tensors, config)
    unused = _unused(file, tensors, known, config)
    if unused:
        problems.append(f"{file} stores {counted([info.raw_name for info in unused])} that the forward does not use.")
    return problems, tuple(info.name for info in unused)


def _alike(stored: Shape, shape: Shape) -> bool:
    """Whether two shapes have the same axes but for those of length 1, or one is the other in one axis."""
    long = tuple(size for size in stored if size != 1)
    return long == tuple(size for size in shape if size != 1) or (len(shape) == 1 and prod(stored) == shape[0])


def _instead(name: str, tensors: dict[str, TensorInfo]) -> str:
    """Say which tensors bear the name of a missing one after something else, and what to do."""
    tail = name.removeprefix("model.")
    found = [info.raw_name for info in tensors.values() if f".{info.raw_name}".endswith(f".{tail}")]
    if not found:
        return "; convert the model again"
    return f", and has {counted(found)} in its place; give a copy of one decoder with the plain names"


def _check(file: str, info: TensorInfo, shape: Shape) -> None:
    """Raise unless the forward can read a tensor and it has the right shape."""
    if not isinstance(info.type, TensorType) and info.packing is None:
        raise unsupported_type(file, info.raw_name, info.type.name + info.type.note)
    if info.shape != shape:
        raise ArtifactError(
            f"{file}: tensor {_both_names(info)} has the shape {show_shape(info.shape)} where the configuration "
            f"implies {show_shape(shape)}; the configuration and the tensors do not belong together."
        )


def _split_fused(file: str, tensors: dict[str, TensorInfo], name: str, config: ModelConfig) -> None:
    """Replace a fused tensor by its parts: rows that follow each other, or in every one of some groups."""
    fused = tensors.pop(name)
    module, _, kind = name.rpartition(".")
    module = module.rpartition(".")[2]
    sizes, groups = fused_parts(module, config)
    rows = sum(size for _, size in sizes)
    shapes = {"weight": (rows, config.hidden_size), "bias": (rows,), "output_scale": (1,)}
    _check(file, fused, shapes[kind])
    require_rows(file, fused)
    first = 0
    for own, size in sizes:
        part = name.replace(module, own)
        if part in tensors:
            raise ArtifactError(f"{file} stores {part} twice, fused with others and alone; remove one of them.")
        if kind == "output_scale":  # one factor for all
            tensors[part] = replace(fused, name=part)
            continue
        if groups > 1:
            picked = Picked(first // groups, size // groups, rows // groups)
            tensors[part] = replace(fused.some_rows(0, size), name=part, picked=picked)
        else:
            tensors[part] = replace(fused.some_rows(first, size), name=part)
        first += size


def _split_layers(file: str, tensors: dict[str, TensorInfo], config: ModelConfig) -> None:
    """Replace what projects for the embeddings of all layers by the rows of each."""
    size, layers = config.layer_embedding_size, config.num_hidden_layers
    whole = tensors.pop(f"model.{PROJECTION}.weight", None) if size else None
    if whole is None:
        return
    _check(file, whole, (layers * size, config.hidden_size))
    require_rows(file, whole)
    for layer in range(layers):
        name = f"model.layers.{layer}.{PROJECTION}.weight"
        tensors[name] = replace(whole.some_rows(layer * size, size), name=name)


def require_rows(file: str, info: TensorInfo) -> None:
    """Raise UnsupportedModelError unless every row of a tensor that is to be divided lies in one piece."""
    if info.encoding is not None and not info.encoding.by_rows:
        raise UnsupportedModelError(
            f"{file}: tensor {printable(info.raw_name, 80)} holds several and is stored {info.encoding.name}, which "
            "is not read; convert the model again."
        )


def _check_biases(file: str, tensors: dict[str, TensorInfo], config: ModelConfig) -> list[str]:
    """Check that every layer has all biases that are added in one stage, as those of q, k and v, or none of them."""
    without, every = [], Graph(config)
    stages = [
        [stage for stage in every.layer(n) if isinstance(stage.kind, Bias)] for n in range(config.num_hidden_layers)
    ]
    for layer, biased in enumerate(stages):
        for stage in biased:
            missing = [name for name in stage.biases if name not in tensors]
            if 0 < len(missing) < len(stage.biases):
                raise ArtifactError(
                    f"{file} lacks the tensor {missing[0]}, though the layer has other q/k/v biases; convert the model "
                    "again."
                )
            if missing:
                without.append(layer)
    if without and (family(config.architecture).biased or len(without) < sum(map(bool, stages))):
        return [
            f"{file} lacks the q/k/v biases of {len(without)} of {config.num_hidden_layers} layers, from layer "
            f"{without[0]} on, which other copies of a {config.architecture} model have."
        ]
    return []


def _unused(file: str, tensors: dict[str, TensorInfo], known: set[str], config: ModelConfig) -> list[TensorInfo]:
    """Tensors that the forward does not use; UnsupportedModelError for those of its layers."""
    unused = [info for name, info in tensors.items() if name not in known]
    for info in unused:
        layer = layer_of(info.name)
        if layer is None or layer >= config.num_hidden_layers or info.name.endswith(_IGNORED):
            continue
        if info.name.split(".", 3)[-1] not in family(config.architecture).unused(config, layer):
            raise UnsupportedModelError(
                f"{file} has the tensor {_both_names(info)}, which this program does not compute with in "
                f"{config.architecture} models; give one whose layers are made of what those have."
            )
    return unused


def counted(names: Sequence[str]) -> str:
    """Say how many tensors there are and which are the first: 5 tensors (a, b, c, …)."""
    listed = ", ".join(printable(name, 80) for name in names[:3]) + (", …" if len(names) > 3 else "")
    return f"{len(names)} tensor{'s' * (len(names) != 1)} ({listed})"


def unsupported_type(file: str, tensor: str, type: str) -> UnsupportedModelError:
    """Return the error for a tensor whose type this program does not read."""
    return UnsupportedModelError(
        f"{file}: tensor {printable(tensor, 80)} has the type {type}; supported are {SUPPORTED_TYPES}."
    )


def check_rank(file: str, raw_name: str, shape: Shape) -> None:
    """Raise ArtifactError unless `shape` is that of a tensor with values."""
    if not 1 <= len(shape) <= MAX_RANK or min(shape) < 1:
        raise ArtifactError(
            f"{file}: tensor {printable(raw_name, 80)} has the shape {show_shape(shape[:MAX_RANK])}, which holds no "
            "values; convert the model again."
        )


def check_blocks(file: str, raw_name: str, type: StoredType, shape: Shape) -> int:
    """Return the bytes of a tensor, 0 for a type of unknown size; ArtifactError unless rows fill whole blocks."""
    try:
        return stored_bytes(type, shape) or 0
    except ValueError:
        block = type.block
        assert block is not None
        raise ArtifactError(
            f"{file}: tensor {printable(raw_name, 80)} has rows of {shape[-1]} values, which do not fill whole "
            f"{type.name} blocks of {block.elements}; convert the model again."
        ) from None


def _both_names(info: TensorInfo) -> str:
    name, raw = printable(info.name, 80), printable(info.raw_name, 80)
    return name if name == raw else f"{name} (stored as {raw})"


def show_shape(shape: Shape) -> str:
    """Write a shape as 256×1024."""
    return "×".join(str(size) for size in shape) or "()"
