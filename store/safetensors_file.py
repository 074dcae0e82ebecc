"""Read SafeTensors models: a single file, a sharded index, or a Hugging Face folder, each with its config.json.

The header rules are those of the safetensors format: an 8-byte little-endian length, a JSON object, and tensors
that fill the rest of the file without gap or overlap.
"""

import os
from collections.abc import Mapping
from pathlib import Path

from kernels.weight import TensorType
from store.artifact import Artifact, TensorInfo
from store.errors import ArtifactError
from store.fields import Fields
from store.hf_config import config_of, drop_unused_biases, supported_fields
from store.json_text import MAX_JSON, parse_object, read_object
from store.layout import by_canonical_name, check_blocks, check_tensors, unsupported_type
from store.model_file import ModelFile
from store.names import LM_HEAD
from store.text import printable
from store.vocabulary import Vocabulary

INDEX_NAME = "model.safetensors.index.json"
SINGLE_NAME = "model.safetensors"
MAX_TENSORS = 1 << 16

_ADAPTER = "adapter_"  # how the names of peft's files begin

_TYPES: dict[str, TensorType] = {"F32": TensorType.F32, "F16": TensorType.F16, "BF16": TensorType.BF16}


def open_folder(folder: Path) -> Artifact:
    """Open a Hugging Face folder; see `store.artifact.open_artifact` for the errors."""
    shown = printable(str(folder))
    if not os.path.isfile(folder / "config.json"):
        raise ArtifactError(f"{shown} holds no config.json; give a Hugging Face folder or a model file.")
    file = ModelFile.at(folder / _weights_name(folder))
    artifact = open_safetensors(file, folder)
    artifact.problems += tuple(_unread(folder, artifact.files, file.path))
    return artifact


def _weights_name(folder: Path) -> str:
    """Return the file that transformers loads from a folder: the one that config.json names, one file, or an index.

    A lone .safetensors file of another name, which transformers does not look for, is taken where nothing else is.
    """
    named = Fields("config.json", read_object(ModelFile.at(folder / "config.json"))).text("transformers_weights")
    if named is not None:
        if named in ("", ".", "..") or any(character in named for character in "/\\\0"):
            raise ArtifactError(
                f"config.json names the weights {printable(named, 80)}, which is not a plain name in its own folder."
            )
        return named
    for name in (SINGLE_NAME, INDEX_NAME):
        if os.path.isfile(folder / name):
            return name
    found = [name for name in _named(folder, "*.safetensors") if not name.startswith(_ADAPTER)]
    pickled = _named(folder, "pytorch_model*.bin")
    if len(found) == 1 and not pickled:
        return found[0]
    shown = printable(str(folder))
    if pickled:
        raise ArtifactError(
            f"{shown} holds {printable(pickled[0], 80)} and no {SINGLE_NAME} or {INDEX_NAME}; transformers reads the "
            "former, a Python pickle, which is not read here because it can run code."
        )
    raise ArtifactError(
        f"{shown} holds {len(found)} .safetensors files and no {INDEX_NAME}; give the one that is meant."
    )


def _unread(folder: Path, read: tuple[Path, ...], chosen: Path) -> list[str]:
    """Return sentences about weights that lie in a folder beside those that are read, and are not part of the model."""
    used = {path.name for path in read} | {chosen.name}
    weights = [*_named(folder, "*.safetensors"), *_named(folder, "*.safetensors.index.json")]
    weights += [*_named(folder, "pytorch_model*.bin"), *_named(folder, "pytorch_model*.bin.index.json")]
    others = [name for name in weights if name not in used and not name.startswith(_ADAPTER)]
    adapters = _named(folder, f"{_ADAPTER}*")
    problems = []
    if others:
        names = ", ".join(printable(name, 80) for name in others[:3]) + (", …" if len(others) > 3 else "")
        problems.append(
            f"{printable(folder.resolve().name)} holds {len(others)} more weight files, which are not read, as "
            f"transformers reads {printable(chosen.name, 80)}: {names}."
        )
    if adapters:
        problems.append(
            f"{printable(folder.resolve().name)} holds an adapter ({printable(adapters[0], 80)}), which is not "
            "applied: the model is read without it (transformers applies it where peft is installed)."
        )
    return problems


def _named(folder: Path, pattern: str) -> list[str]:
    return sorted(path.name for path in folder.glob(pattern))


def open_safetensors(file: ModelFile, path: Path | None = None) -> Artifact:
    """Open a .safetensors file or a sharded index, with the config.json beside it.

    path : what the user asked for, when it is the folder and not the file.
    """
    folder = file.path.parent
    config_path = folder / "config.json"
    if not os.path.isfile(config_path):
        raise ArtifactError(
            f"{file.shown} needs the config.json of its model beside it, in {printable(str(folder))}; copy it there."
        )
    config_file = ModelFile.at(config_path)
    values = read_object(config_file)
    fields, problems = supported_fields(f"{printable(folder.resolve().name)}/config.json", values)
    is_single = file.read(0, min(file.size, 8), "its start")[7:] == b"\0"  # JSON text has no zero byte
    sources, stored, odd_files = _single(file) if is_single else _sharded(file)
    tensors = by_canonical_name(file.shown, stored)
    config, odd_settings = config_of(fields, has_lm_head=LM_HEAD in tensors)
    problems += odd_files + odd_settings + drop_unused_biases(file.shown, tensors, fields)
    problems += check_tensors(file.shown, tensors, config)
    tokenizer = folder / "tokenizer.json"
    return Artifact(
        path=path or file.path,
        format="safetensors",
        config=config,
        tensors=tensors,
        sources=(*sources, config_file),
        problems=tuple(problems),
        metadata=values,
        vocabulary=Vocabulary("hf_json", json_path=tokenizer) if os.path.isfile(tokenizer) else None,
    )


def read_header(file: ModelFile) -> list[TensorInfo]:
    """Read the tensor table of one .safetensors file; ArtifactError if it breaks a rule of the format."""
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
    if dtype is None or shape is None or offsets is None or len(offsets) != 2:
        raise ArtifactError(
            f"{file.shown} is malformed: its header describes tensor {printable(name, 80)} without type, shape or "
            "place; download it again."
        )
    if dtype not in _TYPES:
        raise unsupported_type(file.shown, name, printable(dtype, 40))
    begin, end = offsets
    tensor_type = _TYPES[dtype]
    nbytes = check_blocks(file.shown, name, tensor_type, shape)
    file.require(start + begin, nbytes, f"tensor {printable(name, 80)}")
    if end - begin != nbytes:
        raise ArtifactError(
            f"{file.shown} is malformed: tensor {printable(name, 80)} takes {nbytes} bytes by its shape and "
            f"{end - begin} by its place; download it again."
        )
    return TensorInfo(name, name, tensor_type, shape, file.path, start + begin, nbytes)


def _whole_numbers(value: object) -> tuple[int, ...] | None:
    if not isinstance(value, list):
        return None
    numbers = tuple(item for item in value if isinstance(item, int) and not isinstance(item, bool) and item >= 0)
    return numbers if len(numbers) == len(value) else None


def _single(file: ModelFile) -> tuple[list[ModelFile], list[TensorInfo], list[str]]:
    return [file], read_header(file), []


def _sharded(index: ModelFile) -> tuple[list[ModelFile], list[TensorInfo], list[str]]:
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
    return ModelFile.at(index.path.parent / name)
