"""Experts one by one, where a file stores those of a layer in one tensor: slices of it, of which nothing is copied."""

import re
from collections.abc import Iterator
from dataclasses import replace

from kernels.config import ModelConfig
from kernels.models import family
from kernels.weight import TensorType
from store.errors import ArtifactError
from store.names import is_gguf_name
from store.stored_model import Picked, TensorInfo
from store.text import printable

_STACKED = re.compile(
    r"(model\.layers\.[0-9]+\.mlp\.experts)\.(gate|up|gate_up|down)_proj\.(weight|bias|output_scale)", re.ASCII
)
_AXES = {"weight": 3, "bias": 2, "output_scale": 1}
_BESIDE = ".mlp.shared_expert.gate_up_proj.weight"
_SELECTION = "mlp.gate.e_score_correction_bias"
_GATE = "mlp.shared_expert_gate.weight"


def split_experts(file: str, tensors: dict[str, TensorInfo], config: ModelConfig) -> None:
    """Replace in `tensors` what holds all experts of a layer by a tensor for each.

    Gate and up lie one after the other; what Hugging Face has of some families holds rows as columns, or those of both
    by turns.
    Raises ArtifactError where it does not hold as many experts as the configuration says, or another tensor does too.
    """
    of = family(config.architecture)
    stacks = [match for name in tensors if config.num_experts and (match := _STACKED.fullmatch(name))]
    for stack in stacks:
        info = tensors.pop(stack[0])
        if len(info.shape) != _AXES[stack[3]] or info.shape[0] != config.num_experts:
            shape = "×".join(map(str, info.shape))
            raise ArtifactError(
                f"{file}: tensor {printable(info.raw_name, 80)} has the shape {shape} where the configuration tells of "
                f"{config.num_experts} experts; the configuration and the tensors do not belong together."
            )
        turned = of.by_columns and not is_gguf_name(info.raw_name)
        if turned and (not _of_floats(info) or info.shape[-1] % (1 + stack[2].startswith("gate_"))):
            raise ArtifactError(
                f"{file}: tensor {printable(info.raw_name, 80)} does not hold floats, or an odd number of rows of gate "
                "and up; convert the model again."
            )
        whole = info, stack[1], stack[2], stack[3]
        for part in _by_columns(*whole, of.by_turns) if turned else _experts(*whole):
            if part.name in tensors:
                raise ArtifactError(f"{file} stores {part.name} twice, stacked and alone; remove one of them.")
            tensors[part.name] = part
    for name in [name for name in tensors if name.endswith(_BESIDE) and tensors[name].shape[0] % 2 == 0]:
        for part in _halves(tensors.pop(name), name.removesuffix(".gate_up_proj.weight"), "weight"):
            tensors[part.name] = part
    for name in [name for name in tensors if name.endswith(_SELECTION)]:
        if tensors[name].shape == (1, config.num_experts):  # as some families store a vector
            tensors[name] = replace(tensors[name], shape=(config.num_experts,))
    for name in [name for name in tensors if name.endswith(_GATE)]:
        if len(tensors[name].shape) == 1:  # as GGUF stores a matrix of one row
            tensors[name] = replace(tensors[name], shape=(1, *tensors[name].shape))


def _experts(info: TensorInfo, module: str, part: str, kind: str) -> Iterator[TensorInfo]:
    count = info.shape[0]
    size = info.nbytes // count
    shape = info.shape[1:] or (1,)
    for number in range(count):
        whole = replace(info, name=f"{module}.{number}.{part}_proj.{kind}", shape=shape, nbytes=size)
        whole = replace(whole, offset=info.offset + number * size)
        yield from (
            _halves(whole, f"{module}.{number}", kind) if part == "gate_up" and kind != "output_scale" else [whole]
        )


def _of_floats(info: TensorInfo) -> bool:
    return isinstance(info.type, TensorType) and info.type.block.elements == 1


def _by_columns(info: TensorInfo, module: str, part: str, kind: str, by_turns: bool) -> Iterator[TensorInfo]:
    """The same where an expert's matrix is stored as (inputs, rows).

    by_turns : with a row of gate and one of up by turns, and not all of gate before those of up.
    """
    parts, count = ("gate", "up") if part == "gate_up" else (part,), info.shape[0]
    rows, size, across = info.shape[-1] // len(parts), info.nbytes // count, kind == "weight"
    shape = (rows, info.shape[1]) if across else (rows,)
    for number in range(count):
        alone = replace(info, offset=info.offset + number * size, shape=shape, nbytes=size // len(parts))
        for first, own in enumerate(parts):
            name = f"{module}.{number}.{own}_proj.{kind}"
            run = 1 if by_turns else rows
            yield replace(alone, name=name, picked=Picked(first * run, run, run * len(parts), across))


def _halves(info: TensorInfo, module: str, kind: str) -> Iterator[TensorInfo]:
    """The rows of gate, and those of up."""
    rows = info.shape[0] // 2
    for number, part in enumerate(("gate", "up")):
        yield replace(info.some_rows(number * rows, rows), name=f"{module}.{part}_proj.{kind}")
