"""Errors of the files that tensors are read from or written to."""

from kernels.errors import WorkbenchError


class ArtifactError(WorkbenchError, ValueError):
    """A model file that cannot be read: truncated, malformed, mislabelled or incomplete."""


class StoreError(WorkbenchError, ValueError):
    """A tensor store that cannot be read or written."""
