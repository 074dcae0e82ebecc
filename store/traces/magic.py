"""How files of traces begin."""

from pathlib import Path

APRT, HDF5, ZIP = b"APRT", b"\x89HDF\r\n\x1a\n", b"PK\x03\x04"


def is_hdf5(path: Path) -> bool:
    """Tell whether a regular file starts as every HDF5 file does."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(len(HDF5)) == HDF5
