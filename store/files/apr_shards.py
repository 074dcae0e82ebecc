"""APR models in several files: found from any of them by its name, or through their manifest.

A shard says which it is (`sharding`: `shard_index`, from 0, of `shard_count`); its name ends in -00001-of-00003.apr. A
manifest is a JSON object with the files (`shards`) and the number of the one that holds each tensor (`weight_map`).
"""

import re
from collections.abc import Iterable, Mapping

from kernels.errors import UnsupportedModelError
from store.errors import ArtifactError
from store.files.apr_index import AprFile, read_apr
from store.files.fields import Fields
from store.files.json_text import read_object
from store.files.model_file import ModelFile
from store.text import printable

MAX_SHARDS = 1 << 12
_NAME = re.compile(r"(.+-)([0-9]{1,6})-of-([0-9]{1,6})\.apr", re.DOTALL | re.ASCII)


def shard_of(file: str, metadata: Mapping[str, object]) -> tuple[int, int]:
    """Return which shard a file says it is, from 0, and of how many; (0, 1) for a whole model."""
    sharding = metadata.get("sharding")
    if not isinstance(sharding, dict):
        return 0, 1
    fields = Fields(file, sharding)
    count, index = fields.integer("shard_count") or 1, fields.integer("shard_index", low=0) or 0
    if index >= count or count > MAX_SHARDS:
        raise ArtifactError(f"{file} is malformed: it says that it is shard {index} of {count}; convert it again.")
    return index, count


def all_shards(one: AprFile) -> list[AprFile]:
    """Return the shards of the model that a file belongs to, in order: the file alone if it is whole.

    Raises UnsupportedModelError where shards are missing or cannot be found, ArtifactError where one is of another
    model.
    """
    file = one.file
    index, count = shard_of(file.shown, one.metadata)
    if count == 1:
        return [one]
    says = f"{file.shown} is one of {count} shards of a model"
    match = _NAME.fullmatch(file.path.name)
    first = None if match is None else int(match[2]) - index
    if match is None or first not in (0, 1) or int(match[3]) != count:
        raise UnsupportedModelError(
            f"{says}, number {index + 1}, and its name, which the others are found by, does not say so; give the "
            "manifest, or the name that it had."
        )
    names = [f"{match[1]}{first + n:0{len(match[2])}d}-of-{match[3]}.apr" for n in range(count)]
    found = {name: file if n == index else file.beside(name) for n, name in enumerate(names)}
    missing = [name for name, other in found.items() if other is None]
    if missing:
        shown = ", ".join(printable(name, 120) for name in missing[:3]) + (", …" if len(missing) > 3 else "")
        raise UnsupportedModelError(f"{says}, and {shown} {'is' if len(missing) == 1 else 'are'} not beside it.")
    files = [other for other in found.values() if other is not None]
    return [one if n == index else _shard(other, n, count) for n, other in enumerate(files)]


def is_manifest(file: ModelFile) -> bool:
    """Tell by its content whether a JSON file is a manifest of shards."""
    return isinstance(read_object(file).get("shards"), list)


def of_manifest(manifest: ModelFile) -> tuple[list[AprFile], list[str]]:
    """Return the shards that a manifest names, and sentences about what is odd; the errors are those of all_shards."""
    content = read_object(manifest)
    listed, weight_map = content.get("shards"), content.get("weight_map")
    if not isinstance(listed, list) or not isinstance(weight_map, dict) or not 0 < len(listed) <= MAX_SHARDS:
        raise ArtifactError(f"{manifest.shown} is no manifest of 1 to {MAX_SHARDS} shards; download it again.")
    entries = [
        Fields(f"{manifest.shown}, shard {n}", entry if isinstance(entry, dict) else {})
        for n, entry in enumerate(listed)
    ]
    entries.sort(key=lambda entry: entry.integer("index", low=0) or 0)
    shards = [
        _shard(_beside(manifest, entry.needed_text("filename")), n, len(entries)) for n, entry in enumerate(entries)
    ]
    holders = {info.raw_name: n for n, shard in enumerate(shards) for info in shard.tensors}
    for tensor, n in weight_map.items():
        if holders.get(tensor) != n:
            raise ArtifactError(
                f"{manifest.shown} places tensor {printable(tensor, 80)} in shard {printable(str(n), 20)}, which does "
                "not hold it; download all of them again."
            )
    unlisted = sorted(holders.keys() - weight_map.keys())
    if not unlisted:
        return shards, []
    return shards, [
        f"{manifest.shown} does not list {len(unlisted)} tensors that its files hold, the first is "
        f"{printable(unlisted[0], 80)}."
    ]


def merged(shards: Iterable[AprFile]) -> dict[str, object]:
    """Return what all shards say of the model; what the first says counts."""
    metadata: dict[str, object] = {}
    for shard in shards:
        metadata = {key: value for key, value in shard.metadata.items() if value is not None} | metadata
    return metadata


def _shard(file: ModelFile, index: int, count: int) -> AprFile:
    found = read_apr(file)
    said = shard_of(found.file.shown, found.metadata)
    if said not in ((index, count), (0, 1)):
        raise ArtifactError(
            f"{found.file.shown} says that it is shard {said[0] + 1} of {said[1]}, and not {index + 1} of {count}; it "
            "belongs to another model, put the right file there."
        )
    return found


def _beside(manifest: ModelFile, name: str) -> ModelFile:
    if name in ("", ".", "..") or any(character in name for character in "/\\\0"):
        raise ArtifactError(
            f"{manifest.shown} names the file {printable(name, 80)}, which is not a plain name in its own folder."
        )
    found = manifest.beside(name)
    if found is None:
        raise ArtifactError(f"{manifest.shown} names the file {printable(name, 80)}, which is not beside it.")
    return found
