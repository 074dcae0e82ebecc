"""The base of every error that this project raises on purpose.

A message is one sentence that names the file, tensor or option and says what to do about it.
"""


class WorkbenchError(Exception):
    """A question that cannot be answered, told in one sentence; the command line turns it into exit code 2."""


class MissingTensorError(WorkbenchError, KeyError):
    """A tensor that the forward needs is not in the artifact."""

    def __str__(self) -> str:
        return str(self.args[0])  # KeyError would show the message in quotes


class UnsupportedModelError(WorkbenchError, ValueError):
    """An architecture, tensor type or setting that this project does not compute."""
