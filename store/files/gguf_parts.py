"""Models that `llama-gguf-split` cut into several GGUF files: whichever part is given, all of them are found.

A part says which it is (`split.no`, from 0, of `split.count`) and how many tensors all hold (`split.tensors.count`);
all settings stand in the first. Where the others are, only the name says: NAME-00001-of-00003.gguf (`llama_split_path`
of llama.cpp, 2026-10).
"""

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from kernels.errors import UnsupportedModelError
from store.errors import ArtifactError
from store.files.fields import Fields
from store.files.gguf_header import Header, read_header
from store.files.model_file import ModelFile
from store.text import printable

MAX_PARTS = 1 << 12
_NAME = re.compile(r"(.+)-([0-9]{5})-of-([0-9]{5})\.gguf", re.DOTALL | re.ASCII)


class Part(NamedTuple):
    """A file with its header."""

    file: ModelFile
    header: Header


def part_number(file: ModelFile, metadata: Mapping[str, object]) -> tuple[int, int]:
    """Return which part a file says it is, from 0, and of how many; (0, 1) for a whole model."""
    fields = Fields(file.shown, metadata)
    count = fields.integer("split.count", low=0) or 1
    number = fields.integer("split.no", low=0) or 0
    if number >= count or count > MAX_PARTS:
        raise ArtifactError(
            f"{file.shown} is malformed: it says that it is part {number + 1} of {count}; download it again."
        )
    return number, count


def all_parts(file: ModelFile, header: Header) -> list[Part]:
    """Return the parts of the model that a file belongs to, in order: the file alone if it is whole.

    Raises UnsupportedModelError where parts are missing or cannot be found, ArtifactError where one is of another
    model, or is none.
    """
    number, count = part_number(file, header.metadata)
    if count == 1:
        return [Part(file, header)]
    parts = []
    for index, other in enumerate(_files(file, number, count)):
        if index == number:
            parts.append(Part(file, header))
        else:
            parts.append(Part(other, read_header(other)))
            _require_number(other, parts[-1].header.metadata, index, count)
    _require_one_model(parts)
    return parts


def settings(file: ModelFile, metadata: dict[str, object]) -> dict[str, object]:
    """Return the metadata of a part with that of the first part, where all settings stand, if that lies beside it."""
    match = _NAME.fullmatch(file.path.name)
    if match is None or "general.architecture" in metadata:
        return metadata
    try:
        first = file.beside(_name(match[1], 0, int(match[3])))
        return metadata if first is None else read_header(first).metadata | metadata
    except (ArtifactError, UnsupportedModelError):
        return metadata


def _files(file: ModelFile, number: int, count: int) -> list[ModelFile]:
    """All parts; UnsupportedModelError where the name does not say, or some are not there."""
    match = _NAME.fullmatch(file.path.name)
    says = f"{file.shown} is part {number + 1} of {count} of a model"
    if match is None or (int(match[2]), int(match[3])) != (number + 1, count):
        raise UnsupportedModelError(
            f"{says} by what it says, and the others are found by names such as {_name('NAME', number, count)}; "
            "give it back the name that it had."
        )
    names = [_name(match[1], index, count) for index in range(count)]
    found = {name: file if n == number else file.beside(name) for n, name in enumerate(names)}
    files = [other for other in found.values() if other is not None]
    missing = [name for name, other in found.items() if other is None]
    if missing:
        raise UnsupportedModelError(
            f"{says}, and {_listed(missing)} {_are(missing)} not beside it; download all parts."
        )
    return files


def _require_number(file: ModelFile, metadata: Mapping[str, object], number: int, count: int) -> None:
    said = part_number(file, metadata)
    if said != (number, count):
        what = f"part {said[0] + 1} of {said[1]}" if said[1] > 1 else "a whole model"
        raise ArtifactError(
            f"{file.shown} is {what} by what it says, and not the part that its name promises; it belongs to another "
            "model, put the right file there."
        )


def _require_one_model(parts: Sequence[Part]) -> None:
    """Raise ArtifactError, naming a file, where a tensor stands in two parts or all do not add up."""
    holder: dict[str, ModelFile] = {}
    for part in parts:
        for entry in part.header.entries:
            first = holder.setdefault(entry.name, part.file)
            if first is not part.file:
                raise ArtifactError(
                    f"{part.file.shown} holds the tensor {printable(entry.name, 80)}, which {first.shown} holds too; "
                    "one of them belongs to another model, put the right file there."
                )
    for part in parts:
        told = Fields(part.file.shown, part.header.metadata).integer("split.tensors.count", low=0)
        if told not in (None, len(holder)):
            raise ArtifactError(
                f"{part.file.shown} says that all parts hold {told} tensors, and they hold {len(holder)}; it or "
                "another of them belongs to another model, put the right files there."
            )


def _name(prefix: str, index: int, count: int) -> str:
    return f"{prefix}-{index + 1:05d}-of-{count:05d}.gguf"


def _listed(names: list[str]) -> str:
    return ", ".join(printable(name, 120) for name in names[:3]) + (", …" if len(names) > 3 else "")


def _are(names: list[str]) -> str:
    return "is" if len(names) == 1 else "are"
