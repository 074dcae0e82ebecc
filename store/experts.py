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
_PLAIN = ".mlp.shared_expert."
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
        if int(stack[1].split(".")[2]) >= config.num_hidden_layers:
            continue  # of layers that are not run
        info = tensors.pop(stack[0])
        if of.by_columns and info.packing is not None:
            info = _with_axis(info, config.num_experts)
        turned = of.by_columns and not is_gguf_name(info.raw_name)
        _check_stack(file, info, config.num_experts, stack, turned)
        whole = info, stack[1], stack[2], stack[3]
        for part in _by_columns(*whole, of.by_turns) if turned else _experts(*whole):
            if part.name in tensors:
                raise ArtifactError(f"{file} stores {part.name} twice, stacked and alone; remove one of them.")
            tensors[part.name] = part
    _reshape(tensors, config.num_experts)


def _check_stack(file: str, info: TensorInfo, experts: int, stack: re.Match[str], turned: bool) -> None:
    """Raise ArtifactError for what is no stack of so many experts. turned : it holds gate and up by turns."""
    if len(info.shape) != _AXES[stack[3]] or info.shape[0] != experts:
        shape = "×".join(map(str, info.shape))
        raise ArtifactError(
            f"{file}: tensor {printable(info.raw_name, 80)} has the shape {shape} where the configuration tells of "
            f"{experts} experts; the configuration and the tensors do not belong together."
        )
    rows = info.shape[1 if info.packing is not None else -1]
    if turned and (not _of_floats(info) or rows % (1 + stack[2].startswith("gate_"))):
        raise ArtifactError(
            f"{file}: tensor {printable(info.raw_name, 80)} does not hold floats, or an odd number of rows of gate "
            "and up; convert the model again."
        )


def _reshape(tensors: dict[str, TensorInfo], experts: int) -> None:
    """Take what is beside experts apart, and give vectors and matrices of one row the shapes that they have here."""
    for name in [name for name in tensors if name.endswith(_BESIDE) and tensors[name].shape[0] % 2 == 0]:
        for part in _halves(tensors.pop(name), name.removesuffix(".gate_up_proj.weight"), "weight"):
            tensors[part.name] = part
    for name in [name for name in tensors if name.endswith(_SELECTION)]:
        if tensors[name].shape == (1, experts):  # as some families store a vector
            tensors[name] = replace(tensors[name], shape=(experts,))
    for name in [name for name in tensors if _PLAIN in name and not experts]:  # it is the whole block
        tensors[name.replace(_PLAIN, ".mlp.")] = replace(tensors.pop(name), name=name.replace(_PLAIN, ".mlp."))
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
    return info.packing is not None or (isinstance(info.type, TensorType) and info.type.block.elements == 1)


def _with_axis(info: TensorInfo, count: int) -> TensorInfo:
    """A matrix of all rows of all experts as a stack of them, if it can be one."""
    rows, rest = divmod(info.shape[0], count)
    return info if rest else replace(info, shape=(count, rows, *info.shape[1:]))


def _by_columns(info: TensorInfo, module: str, part: str, kind: str, by_turns: bool) -> Iterator[TensorInfo]:
    """The same where an expert's matrix is stored as (inputs, rows); what is packed has rows and columns as they are.

    by_turns : with a row of gate and one of up by turns, and not all of gate before those of up.
    """
    parts, count, packing = ("gate", "up") if part == "gate_up" else (part,), info.shape[0], info.packing
    size, across = info.nbytes // count, kind == "weight" and packing is None
    whole, rest = (info.shape[-1], info.shape[1:-1]) if packing is None else (info.shape[1], info.shape[2:])
    rows = whole // len(parts)
    shape = (rows, *rest)
    for number in range(count):
        own_part = packing and replace(packing, first=packing.first + number * whole)
        offset = info.offset + (number * size if packing is None else 0)
        alone = replace(info, offset=offset, shape=shape, nbytes=size // len(parts), packing=own_part)
        for first, own in enumerate(parts):
            name = f"{module}.{number}.{own}_proj.{kind}"
            run = 1 if by_turns else rows
            yield replace(alone, name=name, picked=Picked(first * run, run, run * len(parts), across))


def _halves(info: TensorInfo, module: str, kind: str) -> Iterator[TensorInfo]:
    """The rows of gate, and those of up."""
    rows = info.shape[0] // 2
    for number, part in enumerate(("gate", "up")):
        yield replace(info.some_rows(number * rows, rows), name=f"{module}.{part}_proj.{kind}")
