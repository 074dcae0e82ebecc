"""Errors of the files that tensors are read from or written to."""

from kernels.errors import UnsupportedModelError, WorkbenchError
from store.text import printable


class ArtifactError(WorkbenchError, ValueError):
    """A model file that cannot be read: truncated, malformed, mislabelled or incomplete."""


class StoreError(WorkbenchError, ValueError):
    """A tensor store that cannot be read or written."""


def not_run(file: str, what: str, name: str) -> UnsupportedModelError:
    """Return the error for a family that is not computed. what : the setting that names it. name : as in the file."""
    return UnsupportedModelError(
        f"{file} has the {what} {printable(name, 80)}, which this program does not run (docs/models.md lists what it "
        "does); `inspect`, `weights` and `conventions` read it."
    )
