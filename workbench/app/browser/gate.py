"""Who may come in: a browser on this machine that was given the address, which works once.

Any page that a browser shows can send requests to this machine, under names of its own making, and any program of any
user here can. So a request must name this machine as its host, and carry what only the printed address gives.
"""

import hmac
import secrets
from urllib.parse import urlsplit

from aiohttp import hdrs, web
from aiohttp.typedefs import Handler

LOOPBACK = "127.0.0.1"
_NAMES = frozenset({LOOPBACK, "localhost"})
_BYTES = 32  # of chance in a secret
_OUTSIDE = (
    "This is not open to you. Open the address that `workbench serve` has printed; it works once, in one browser. "
    "Start `workbench serve` again for another.\n"
)
_HEADERS: dict[str, str] = {
    # What the terminal in the page needs, all of it from here: its styles are made by scripts.
    "Content-Security-Policy": "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    "frame-ancestors 'none'; form-action 'self'; base-uri 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
}


class Gate:
    """Lets in whoever brings the token, once, and from then on whoever brings the cookie that was given for it.

    port : of the server; cookies are shared by all ports of a machine, so it is part of the cookie's name.
    """

    def __init__(self, port: int) -> None:
        self._token: str | None = secrets.token_urlsafe(_BYTES)
        self._key = secrets.token_urlsafe(_BYTES)
        self._cookie = f"workbench-{port}"
        self.address = f"http://{LOOPBACK}:{port}/?token={self._token}"

    @web.middleware
    async def middleware(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Answer 403 to everybody else."""
        if not _is_for_us(request):
            return _refused("This server answers only to the name of this machine itself.\n")
        if "token" in request.query:
            return self._enter(request)
        if not _same(request.cookies.get(self._cookie, ""), self._key):
            return _refused(_OUTSIDE)
        response = await handler(request)
        if not response.prepared:
            response.headers.update(_HEADERS)
        return response

    def _enter(self, request: web.Request) -> web.StreamResponse:
        """Take the token for a cookie, and the token out of the address that the browser shows."""
        if request.path != "/" or request.method != hdrs.METH_GET:  # looking ahead does not use the token up
            return _refused(_OUTSIDE)
        known, given = self._token, request.query["token"]
        if not _same(given, known or self._key) or known is None:
            return _refused(_OUTSIDE)
        self._token = None
        response = web.Response(status=303, headers=_HEADERS | {hdrs.LOCATION: "/"})
        response.set_cookie(self._cookie, self._key, httponly=True, samesite="Strict", path="/")
        return response


def _is_for_us(request: web.Request) -> bool:
    """Whether a request names this machine, and comes from no page of anybody else's."""
    try:
        name = urlsplit(f"//{request.host}").hostname
    except ValueError:
        return False
    origin = request.headers.get(hdrs.ORIGIN)
    return name in _NAMES and origin in (None, f"http://{request.host}")


def _same(given: str, secret: str) -> bool:
    """Compare in a time that tells nothing of where they part."""
    return hmac.compare_digest(given.encode("utf-8", "surrogatepass"), secret.encode())


def _refused(sentence: str) -> web.Response:
    return web.Response(status=403, text=sentence, headers=_HEADERS)
