"""Read the tensor tables of .safetensors files, one by one or through the index of a sharded model.

The header rules are those of the safetensors format: an 8-byte little-endian length, a JSON object, and tensors
that fill the rest of the file without gap or overlap.
"""

from collections.abc import Mapping
from math import prod

from store.errors import ArtifactError
from store.files.fields import Fields
from store.files.json_text import MAX_JSON, parse_object, read_object
from store.files.model_file import ModelFile
from store.layout import MAX_RANK
from store.stored_model import TensorInfo
from store.tensor_types import StoredType, safetensors_type
from store.text import printable

MAX_TENSORS = 1 << 16


def read_header(file: ModelFile) -> list[TensorInfo]:
    """Read the tensor table of one .safetensors file; ArtifactError if it breaks a rule of the format."""
    file.require_content()
    length = int.from_bytes(file.read(0, 8, "the header length"), "little")
    file.require(8, length, "the header")
    if length > MAX_JSON:
        raise ArtifactError(f"{file.shown} has a header of {length} bytes; at most {MAX_JSON} are read.")
    header = parse_object(file.read(8, length, "the header"), f"the header of {file.shown}", unique_keys=True)
    header.pop("__metadata__", None)
    if len(header) > MAX_TENSORS:
        raise ArtifactError(f"{file.shown} is malformed: it claims {len(header)} tensors; download it again.")
    tensors = [_entry(file, 8 + length, name, entry) for name, entry in header.items()]
    position = 8 + length
    for info in sorted(tensors, key=lambda info: (info.offset, info.nbytes)):
        if info.offset != position:
            raise ArtifactError(
                f"{file.shown} is malformed: tensor {printable(info.raw_name, 80)} starts at byte {info.offset} where "
                f"the one before it ends at {position}; download it again."
            )
        position += info.nbytes
    if position != file.size:
        raise ArtifactError(
            f"{file.shown} is malformed: its tensors end at byte {position}, but the file has {file.size} bytes; "
            "download it again."
        )
    return tensors


def _entry(file: ModelFile, start: int, name: str, entry: object) -> TensorInfo:
    fields = Fields(f"the header of {file.shown}", entry if isinstance(entry, dict) else {})
    dtype = fields.text("dtype")
    shape, offsets = (_whole_numbers(fields.find(key)[1]) for key in ("shape", "data_offsets"))
    if dtype is None or shape is None or len(shape) > MAX_RANK or offsets is None or len(offsets) != 2:
        raise ArtifactError(
            f"{file.shown} is malformed: its header describes tensor {printable(name, 80)} without type, shape or "
            "place; download it again."
        )
    begin, end = offsets
    kind = safetensors_type(printable(dtype, 40))
    file.require(start + begin, max(end - begin, 0), f"tensor {printable(name, 80)}")
    nbytes = _bytes(kind, shape)
    if end < begin or nbytes not in (None, end - begin):
        raise ArtifactError(
            f"{file.shown} is malformed: tensor {printable(name, 80)} takes {nbytes} bytes by its shape and "
            f"{end - begin} by its place; download it again."
        )
    return TensorInfo(name, name, kind, shape, file.path, start + begin, end - begin)


def _bytes(kind: StoredType, shape: tuple[int, ...]) -> int | None:
    """Bytes that a shape takes, whatever its rows: values follow each other without a gap."""
    block = kind.block
    return None if block is None else -(-prod(shape) * block.bytes // block.elements)


def _whole_numbers(value: object) -> tuple[int, ...] | None:
    if not isinstance(value, list):
        return None
    numbers = tuple(item for item in value if isinstance(item, int) and not isinstance(item, bool) and item >= 0)
    return numbers if len(numbers) == len(value) else None


def read_index(index: ModelFile) -> tuple[list[ModelFile], list[TensorInfo], list[str]]:
    """Return the files, tensors and oddities of a sharded model."""
    weight_map = read_object(index).get("weight_map")
    if not isinstance(weight_map, dict):
        raise ArtifactError(
            f"{index.shown} has no weight_map; give a .safetensors file, its index, or the model's folder."
        )
    shards = {name: _shard(index, name) for name in sorted(set(_shard_names(index, weight_map)))}
    tensors = {name: {info.raw_name: info for info in read_header(shard)} for name, shard in shards.items()}
    for tensor, shard in weight_map.items():
        if tensor not in tensors[shard]:
            raise ArtifactError(
                f"{index.shown} places tensor {printable(tensor, 80)} in {printable(shard, 80)}, which does not hold "
                "it; download both again."
            )
    stored = [info for infos in tensors.values() for info in infos.values()]
    unlisted = [info.raw_name for info in stored if weight_map.get(info.raw_name) != info.file.name]
    if not unlisted:
        return list(shards.values()), stored, []
    problem = (
        f"{index.shown} does not list {len(unlisted)} tensors that its files hold, the first is "
        f"{printable(unlisted[0], 80)}; they are not used."
    )
    listed = [info for info in stored if weight_map.get(info.raw_name) == info.file.name]
    return list(shards.values()), listed, [problem]


def _shard_names(index: ModelFile, weight_map: Mapping[str, object]) -> list[str]:
    names = [name for name in weight_map.values() if isinstance(name, str)]
    if len(names) < len(weight_map):
        raise ArtifactError(f"{index.shown} names a file that is not a text; download it again.")
    return names


def _shard(index: ModelFile, name: str) -> ModelFile:
    if name in ("", ".", "..") or any(character in name for character in "/\\\0"):
        raise ArtifactError(
            f"{index.shown} names the file {printable(name, 80)}, which is not a plain name in its own folder; "
            "download it again."
        )
    return index.beside(name) or ModelFile.at(index.path.with_name(name))
