"""A file that model data is read from: bounds are checked before any byte is touched."""

import mmap
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from store.errors import ArtifactError
from store.text import printable

_POINTER = b"version https://git-lfs"


@dataclass(frozen=True)
class ModelFile:
    """A regular file as it was when the artifact was opened; reading it after it changed is an ArtifactError."""

    path: Path
    size: int
    modified: int  # ns
    inode: int

    @classmethod
    def at(cls, path: Path) -> "ModelFile":
        """Look at `path` without reading it; ArtifactError unless it is a readable regular file."""
        shown = printable(str(path))
        try:
            status = path.stat()
            if not stat.S_ISREG(status.st_mode):  # opening a pipe or device could block for ever
                raise ArtifactError(f"{shown} is not a regular file; give the path of a model file.")
            with path.open("rb"):
                pass
        except FileNotFoundError:
            raise ArtifactError(f"{shown} does not exist; check the path.") from None
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else None
            raise ArtifactError(f"{shown} cannot be read ({reason or error}); check the path.") from None
        return cls(path, status.st_size, status.st_mtime_ns, status.st_ino)

    @property
    def whole(self) -> bool:
        """Whether all of it is at hand, so that it may be read from end to end."""
        return True

    @property
    def shown(self) -> str:
        """The file's name as messages give it."""
        return printable(self.path.name)

    def require_content(self) -> None:
        """Raise ArtifactError if the file is the pointer that Git LFS leaves in the place of a large file."""
        if self.read(0, min(self.size, len(_POINTER)), "its first bytes") == _POINTER:
            raise ArtifactError(
                f"{self.shown} is a Git LFS pointer instead of the file that belongs there; run `git lfs pull` in its "
                "folder."
            )

    def require(self, offset: int, length: int, what: str) -> None:
        """Raise ArtifactError unless `length` bytes at `offset` lie within the file."""
        if offset < 0 or length < 0 or offset + length > self.size:
            raise ArtifactError(
                f"{self.shown} is truncated or malformed: {what} would end at byte {offset + length}, but the file "
                f"has {self.size} bytes; download or convert it again."
            )

    def present(self, end: int) -> int:
        """See that the bytes up to `end` are in what `mapped` yields; return up to which they are."""
        self.require(0, end, "what is read")
        return self.size

    def beside(self, name: str) -> "ModelFile | None":
        """Return the file of that name in the same folder; None if there is none."""
        path = self.path.with_name(name)
        return ModelFile.at(path) if path.is_file() else None

    def read(self, offset: int, length: int, what: str) -> bytes:
        """Return `length` bytes at `offset`."""
        self.require(offset, length, what)
        self.require_unchanged()
        with self.path.open("rb") as file:
            file.seek(offset)
            data = file.read(length)
        if len(data) != length:
            raise self._changed()
        return data

    def map(self, offset: int, length: int, what: str) -> NDArray[np.uint8]:
        """Return `length` > 0 bytes at `offset` as a writable array, mapped copy-on-write: the file never changes."""
        self.require(offset, length, what)
        self.require_unchanged()
        try:
            return self._whole[offset : offset + length]
        except (OSError, ValueError) as error:
            raise ArtifactError(f"{self.shown}: {what} cannot be mapped ({error}); open the file again.") from None

    @cached_property
    def _whole(self) -> NDArray[np.uint8]:
        """Mapped once, because pages of a new mapping have to be found again one by one."""
        return np.asarray(np.memmap(self.path, np.uint8, "c"))

    @contextmanager
    def mapped(self) -> Iterator[mmap.mmap]:
        """Map the whole file read-only for the length of a `with` block; the file must not be empty."""
        self.require_unchanged()
        with self.path.open("rb") as file, mmap.mmap(file.fileno(), self.size, access=mmap.ACCESS_READ) as data:
            yield data

    def require_unchanged(self) -> None:
        """Raise ArtifactError if the file was replaced or written to since it was opened, as its time stamp tells."""
        try:
            status = self.path.stat()
        except OSError:
            raise self._changed() from None
        if (status.st_size, status.st_mtime_ns, status.st_ino) != (self.size, self.modified, self.inode):
            raise self._changed()

    def _changed(self) -> ArtifactError:
        return ArtifactError(f"{printable(str(self.path))} has changed since it was opened; open it again.")
