"""Experts one by one, where a file stores those of a layer in one tensor: slices of it, of which nothing is copied."""

import re
from collections.abc import Iterator
from dataclasses import replace

from kernels.config import ModelConfig
from store.errors import ArtifactError
from store.stored_model import TensorInfo
from store.text import printable

_STACKED = re.compile(
    r"(model\.layers\.[0-9]+\.mlp\.experts)\.(gate|up|gate_up|down)_proj\.(weight|bias|output_scale)", re.ASCII
)
_AXES = {"weight": 3, "bias": 2, "output_scale": 1}
_BESIDE = ".mlp.shared_expert.gate_up_proj.weight"
_PLAIN = ".mlp.shared_expert."
_GATE = "mlp.shared_expert_gate.weight"


def split_experts(file: str, tensors: dict[str, TensorInfo], config: ModelConfig) -> None:
    """Replace in `tensors` what holds all experts of a layer by a tensor for each; gate and up lie one after the other.

    Raises ArtifactError where it does not hold as many experts as the configuration says, or another tensor does too.
    """
    stacks = [match for name in tensors if config.num_experts and (match := _STACKED.fullmatch(name))]
    for stack in stacks:
        if int(stack[1].split(".")[2]) >= config.num_hidden_layers:
            continue  # of layers that are not run
        info = tensors.pop(stack[0])
        if len(info.shape) != _AXES[stack[3]] or info.shape[0] != config.num_experts:
            shape = "×".join(map(str, info.shape))
            raise ArtifactError(
                f"{file}: tensor {printable(info.raw_name, 80)} has the shape {shape} where the configuration tells of "
                f"{config.num_experts} experts; the configuration and the tensors do not belong together."
            )
        for part in _experts(info, stack[1], stack[2], stack[3]):
            if part.name in tensors:
                raise ArtifactError(f"{file} stores {part.name} twice, stacked and alone; remove one of them.")
            tensors[part.name] = part
    for name in [name for name in tensors if name.endswith(_BESIDE) and tensors[name].shape[0] % 2 == 0]:
        for part in _halves(tensors.pop(name), name.removesuffix(".gate_up_proj.weight"), "weight"):
            tensors[part.name] = part
    for name in [name for name in tensors if _PLAIN in name and not config.num_experts]:  # it is the whole block
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


def _halves(info: TensorInfo, module: str, kind: str) -> Iterator[TensorInfo]:
    """The rows of gate, and those of up."""
    rows = info.shape[0] // 2
    for number, part in enumerate(("gate", "up")):
        offset = info.offset + number * (info.nbytes // 2)
        name = f"{module}.{part}_proj.{kind}"
        yield replace(info, name=name, shape=(rows, *info.shape[1:]), offset=offset, nbytes=info.nbytes // 2)
