"""What the two sides of a comparison are: which numeric path a format runs on, and which tokens both run."""

from pathlib import Path

# What the engine that a format belongs to would compute.
DEFAULT_PATH = {"safetensors": "f32", "gguf": "ggml", "apr": "apr"}
_HDF5_MAGIC = b"\x89HDF\r\n\x1a\n"


def is_trace(path: Path) -> bool:
    """Tell by its content whether `path` is an HDF5 file, and so a recorded trace and not a model."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(len(_HDF5_MAGIC)) == _HDF5_MAGIC
