"""Model files behind an address, of which only those pieces are fetched that are asked for: headers and tensor tables.

An address is `https://...`, or `hf://OWNER/MODEL/FILE` for a file on huggingface.co. A server that sends more than was
asked for, and one that sends to another host that was not allowed, is refused before anything else is read.
"""

import mmap
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urljoin, urlsplit, urlunsplit

import numpy as np
from numpy.typing import NDArray

from kernels.errors import UnsupportedModelError
from store.address import address_of
from store.errors import ArtifactError
from store.files.model_file import ModelFile
from store.text import printable

if TYPE_CHECKING:
    from aiohttp import ClientResponse, ClientSession

FIRST = 1 << 18  # bytes of the first piece
MAX_HEADER = 1 << 28
MAX_PIECE = 1 << 24  # of anything behind the header
_SECONDS = 60
_REDIRECTS = 5
_CONTENT_RANGE = re.compile(r"bytes ([0-9]{1,19})-([0-9]{1,19})/([0-9]{1,19})", re.ASCII)


class _RedirectedError(Exception):
    def __init__(self, location: str) -> None:
        self.location = location


class _RefusedError(Exception):
    """A server that does not send what was asked for."""


@dataclass(eq=False)
class _Server:
    """Reads pieces of files; `hosts` may send them, beside the one that was asked."""

    hosts: frozenset[str]
    length: int = field(default=0, init=False)  # of the file that the last piece is of

    def piece(self, address: str, start: int, count: int) -> tuple[bytes, str, int]:
        """Return `count` bytes, or as many as there are, the address that sent them, and the size of the file.

        ArtifactError says why there are none; FileNotFoundError if there is no such file.
        """
        origin = urlsplit(address)
        for _ in range(_REDIRECTS):
            try:
                return self._system.cat_file(address, start=start, end=start + count), address, self.length
            except FileNotFoundError:
                raise
            except _RedirectedError as redirected:
                address = self._followed(origin.hostname, address, redirected.location)
            except _RefusedError as refused:
                raise ArtifactError(f"{printable(address, 300)} {refused}.") from None
            except Exception as error:  # of the network there are many
                why = printable(f"{type(error).__name__}: {error}", 160)
                raise ArtifactError(f"{printable(address, 300)} cannot be read ({why}); try again.") from None
        raise ArtifactError(f"{printable(address, 300)} was sent on {_REDIRECTS} times; give the address behind it.")

    def _followed(self, origin: str | None, address: str, location: str) -> str:
        """Return where a redirect leads; ArtifactError for a host that was not allowed."""
        target = urljoin(address, location)
        parts = urlsplit(target)
        plain = parts.scheme == "http" and urlsplit(address).scheme != "http"
        if parts.scheme not in ("http", "https") or plain:
            raise ArtifactError(f"{printable(address, 300)} sends to {printable(target, 100)}, which is not followed.")
        if parts.hostname != origin and parts.hostname not in self.hosts:
            host = printable(parts.hostname or "", 200)
            raise ArtifactError(
                f"{printable(address, 300)} is kept on another host, {host}; allow that by --allow-host {host}, or "
                "download the file."
            )
        return target

    @cached_property
    def _system(self) -> Any:  # noqa: ANN401 - fsspec has no types
        try:
            from aiohttp import ClientTimeout
            from fsspec.implementations.http import HTTPFileSystem
        except ImportError:
            raise UnsupportedModelError(
                "An address is read with packages that are not installed; install layer-workbench[remote]."
            ) from None
        return HTTPFileSystem(
            get_client=self._session,
            client_kwargs={"timeout": ClientTimeout(total=_SECONDS)},
            allow_redirects=False,
            headers={"Accept-Encoding": "identity"},
            skip_instance_cache=True,
        )

    async def _session(self, **options: Any) -> "ClientSession":  # noqa: ANN401
        from aiohttp import ClientSession

        options.pop("loop", None)
        return ClientSession(raise_for_status=self._check, **options)

    async def _check(self, response: "ClientResponse") -> None:
        """Look at an answer before its content is read."""
        if response.status in (301, 302, 303, 307, 308):
            raise _RedirectedError(response.headers.get("Location", ""))
        if response.status == 404:
            raise FileNotFoundError
        if response.status not in (200, 206):
            raise _RefusedError(f"is answered with {response.status} ({printable(str(response.reason), 60)})")
        asked = response.request_info.headers.get("Range", "").removeprefix("bytes=").partition("-")
        told = _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", ""))
        if response.status != 206 or told is None or told[1] != asked[0]:
            raise _RefusedError("is sent only as a whole; download it")
        first, last, self.length = (int(number) for number in told.groups())
        if last > int(asked[2]) or response.content_length != last - first + 1:
            raise _RefusedError("is not sent in the pieces that are asked for; download it")


@dataclass(frozen=True, eq=False)
class RemoteFile(ModelFile):
    """A file behind an address; its beginning is kept, and grows as far as it is asked for.

    path is the address, of which nothing exists here. hosts : those that may send it beside the one that is asked.
    """

    address: str
    server: _Server
    start: mmap.mmap
    fetched: list[int]  # bytes of the beginning that are here: one number

    @classmethod
    def of(cls, address: str, hosts: frozenset[str]) -> "RemoteFile":
        """Ask for the first piece of a file; ArtifactError where none is to be had."""
        try:
            return cls._of(_resolved(address), address, _Server(hosts))
        except FileNotFoundError:
            raise ArtifactError(f"{printable(address, 300)} does not exist; check the address.") from None

    @classmethod
    def _of(cls, address: str, shown: str, server: _Server) -> "RemoteFile":
        data, address, size = server.piece(address, 0, FIRST)
        start = mmap.mmap(-1, max(1, min(size, MAX_HEADER)))
        start[: len(data)] = data[: len(start)]
        return cls(Path(shown), size, 0, 0, address, server, start, [len(data)])

    @property
    def whole(self) -> bool:
        return False

    def present(self, end: int) -> int:
        if end > len(self.start):
            raise ArtifactError(f"{self.shown} begins with a header of more than {MAX_HEADER} bytes; download it.")
        have = self.fetched[0]
        if end > have:
            wanted = min(len(self.start), max(end, 2 * have))
            data = self._piece(have, wanted - have)
            self.start[have:wanted] = data
            self.fetched[0] = wanted
        return self.fetched[0]

    def read(self, offset: int, length: int, what: str) -> bytes:
        self.require(offset, length, what)
        if offset + length <= self.fetched[0]:
            return self.start[offset : offset + length]
        if length > MAX_PIECE:
            raise ArtifactError(f"{self.shown}: {what} takes {length} bytes, which are not fetched; download the file.")
        return self._piece(offset, length)

    def map(self, offset: int, length: int, what: str) -> NDArray[np.uint8]:
        return np.frombuffer(bytearray(self.read(offset, length, what)), np.uint8)

    @contextmanager
    def mapped(self) -> Iterator[mmap.mmap]:
        yield self.start

    def beside(self, name: str) -> ModelFile | None:
        parts = urlsplit(self._asked)
        folder = parts.path.rpartition("/")[0]
        address = urlunsplit((parts.scheme, parts.netloc, f"{folder}/{quote(name)}", parts.query, ""))
        try:
            return RemoteFile._of(address, str(self.path.with_name(name)), self.server)
        except FileNotFoundError:
            return None

    @property
    def _asked(self) -> str:
        """The address that was asked for, not where it was sent on to."""
        return _resolved(address_of(self.path) or self.address)

    def require_unchanged(self) -> None:
        """Nothing: each piece is of the size that the first one told, and that is all that can be known."""

    def _piece(self, offset: int, length: int) -> bytes:
        try:
            data, _, size = self.server.piece(self.address, offset, length)
        except FileNotFoundError:
            size, data = -1, b""
        if size != self.size or len(data) != length:
            raise ArtifactError(f"{self.shown} has changed since it was opened; open it again.")
        return data


def _resolved(address: str) -> str:
    """Return the address of a file by https; ArtifactError for one of hf:// that names no file."""
    scheme, _, rest = address.partition("://")
    if scheme != "hf":
        return address
    owner, _, more = rest.partition("/")
    model, _, file = more.partition("/")
    if not owner or not model or not file:
        raise ArtifactError(f"{printable(address, 300)} names no file; give hf://OWNER/MODEL/FILE.")
    model, _, revision = model.partition("@")
    return f"https://huggingface.co/{quote(owner)}/{quote(model)}/resolve/{quote(revision or 'main')}/{quote(file)}"
