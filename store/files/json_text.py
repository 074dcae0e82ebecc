"""JSON that comes from a model file."""

import json

from store.errors import ArtifactError
from store.files.model_file import ModelFile

MAX_JSON = 16 << 20
MAX_BRACKETS = 1 << 20  # each may open a container, which takes far more memory than text


def parse_object(data: bytes, what: str, unique_keys: bool = False, limit: int = MAX_JSON) -> dict[str, object]:
    """Return the JSON object that `data` holds; ArtifactError, which calls the text `what`, if it is none.

    unique_keys : refuse a key that stands twice in an object; otherwise the last one counts. limit : bytes.
    """
    if len(data) > limit or data.count(b"[") + data.count(b"{") > MAX_BRACKETS:
        raise ArtifactError(f"{what} is larger than that of any known model ({len(data)} bytes); download it again.")
    try:
        value = json.loads(data.decode("utf-8"), object_pairs_hook=_unique if unique_keys else None)
    except (ValueError, RecursionError) as error:
        reason = "nested too deeply" if isinstance(error, RecursionError) else str(error).partition(":")[0]
        raise ArtifactError(f"{what} is not valid JSON ({reason}); download or convert it again.") from None
    if not isinstance(value, dict):
        raise ArtifactError(f"{what} is JSON, but not an object; download or convert it again.")
    return value


def read_object(file: ModelFile, limit: int = MAX_JSON) -> dict[str, object]:
    """Return the JSON object that is the whole content of `file`, of at most `limit` bytes."""
    if file.size > limit:
        raise ArtifactError(f"{file.shown} has {file.size} bytes, too many for the JSON file it should be.")
    file.require_content()
    return parse_object(file.read(0, file.size, "its text"), file.shown, limit=limit)


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    values = dict(pairs)
    if len(values) < len(pairs):
        raise ValueError("a key stands twice")
    return values
