"""What every request passes before any route sees it: whose it is, from where, how often, how large; what every answer bears.

A plain ASGI middleware of our own application alone: in a WebUI none of the host's routes passes here.
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, field
from urllib.parse import quote, urlsplit

from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect, Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from easyphoto.api.auth import Authenticator
from easyphoto.api.options import LOOPBACK, ApiOptions, Limits
from easyphoto.api.problems import Refused, answer, internal
from easyphoto.api.rates import RateLimit
from easyphoto.api.service import Service
from easyphoto.errors import EasyPhotoError

logger = logging.getLogger("easyphoto.access")

OPEN_PATHS = frozenset({"/easyphoto/v1/health"})
"""Asked without a token; they tell nothing but that the server answers."""
OWNER = "easyphoto.owner"
"""Where in an ASGI scope the owner stands."""
_SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
_ELSEWHERE = frozenset({"cross-site", "same-site"})
"""What a browser says in `Sec-Fetch-Site` of a page that is not ours."""
_HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"cache-control", b"private, no-cache"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"referrer-policy", b"no-referrer"),
)
"""As ASGI has them: lower case."""


@dataclass
class Passage:
    """One request on its way through."""

    send: Send
    receive: Receive
    most: int
    """Bytes that its body may have."""
    began: float = field(default_factory=time.perf_counter)
    status: int = 0
    """Of the answer; 0 while there is none."""
    read: int = 0

    @property
    def too_large(self) -> bool:
        """More has come than may."""
        return self.read > self.most

    async def receive_counted(self) -> Message:
        """The next piece of the request; raises Refused as soon as the pieces are too many."""
        message = await self.receive()
        self.read += len(message.get("body", b""))
        if self.too_large:
            raise too_large(self.most)
        return message

    async def send_dressed(self, message: Message) -> None:
        """A piece of the answer, with the headers that every answer bears."""
        if self.too_large and not self.status:
            return  # whatever a route made of the broken body; the refusal follows
        if message["type"] == "http.response.start":
            self.status = message["status"]
            there = {name for name, _ in message["headers"]}
            message["headers"] = [*message["headers"], *(pair for pair in _HEADERS if pair[0] not in there)]
        await self.send(message)


class Guard:
    """Wraps our application."""

    def __init__(self, app: ASGIApp, service: Service, authenticator: Authenticator) -> None:
        self._app = app
        self._service = service
        self._authenticator = authenticator
        self._rates = RateLimit(service.options.rates)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        passage = Passage(send=send, receive=receive, most=_most(Headers(scope=scope), self._service.options.limits))
        try:
            self._service.hub.start()
            self._check(scope, passage)
            await self._app(scope, passage.receive_counted, passage.send_dressed)
        except EasyPhotoError as error:
            await self._refuse(scope, passage, error)
        except ClientDisconnect:
            passage.status = passage.status or 499
        except Exception as error:
            # The border of the process: nothing of ours may reach the server's own page.
            if passage.status:
                raise
            await internal(scope["path"], error)(scope, receive, passage.send_dressed)
        else:
            if passage.too_large and not passage.status:
                await self._refuse(scope, passage, too_large(passage.most))
        finally:
            self._note(scope, passage)

    def _check(self, scope: Scope, passage: Passage) -> None:
        request = Request(scope)
        check_host(request, self._service.options)
        check_origin(request)
        if scope["path"] not in OPEN_PATHS:
            scope[OWNER] = self._owner(request)
            self._rates.take(scope[OWNER], makes_job=request.method == "POST")
        length = request.headers.get("content-length", "")
        if length.isdecimal() and int(length[:20]) > passage.most:
            raise too_large(passage.most)

    def _owner(self, request: Request) -> str:
        try:
            owner = self._authenticator.owner(request)
        except EasyPhotoError as error:
            raise Refused(503, f"nobody can be let in: {error}") from error
        if owner is None:
            challenge = {"WWW-Authenticate": self._authenticator.challenge}
            raise Refused(401, "send a valid token in the header Authorization: Bearer TOKEN", challenge)
        return owner

    async def _refuse(self, scope: Scope, passage: Passage, error: EasyPhotoError) -> None:
        passage.read = 0
        await answer(scope["path"], error)(scope, passage.receive, passage.send_dressed)

    def _note(self, scope: Scope, passage: Passage) -> None:
        """One line for each request, without its query: somebody may have put a token there."""
        route = getattr(scope.get("route"), "path", "other")
        self._service.metrics.request(str(route), scope["method"], passage.status)
        if not logger.isEnabledFor(logging.INFO):
            return
        path = scope.get("raw_path") or quote(scope["path"]).encode()
        took = (time.perf_counter() - passage.began) * 1000
        logger.info("%s %s %d %.1f ms", scope["method"], path.split(b"?")[0].decode("latin-1"), passage.status, took)


def check_host(request: Request, options: ApiOptions) -> None:
    """Refuse a foreign name for this machine: a page elsewhere can point its own name here (DNS rebinding).

    Raises:
        Refused: 421.
    """
    if not options.is_loopback:
        return
    name = _name_of(request.headers.get("host", ""))
    # No name server is asked for an address: a page elsewhere cannot point 0.0.0.0 here, and old clients ask for it.
    if name not in {*LOOPBACK, "0.0.0.0"}:  # noqa: S104 (nothing listens there)
        raise Refused(421, f"this server is not called {name!r}; use http://127.0.0.1:{options.port}")


def check_origin(request: Request) -> None:
    """Refuse what a page of another origin asks to be changed (CSRF).

    Raises:
        Refused: 403.
    """
    if request.method in _SAFE:
        return
    headers = request.headers
    if not _is_own(headers.get("origin"), headers.get("host", "")) or headers.get("sec-fetch-site") in _ELSEWHERE:
        raise Refused(403, "a page of another origin may not change anything here; ask from your own program or page")


def _is_own(origin: str | None, host: str) -> bool:
    if origin is None:
        return True
    try:
        return urlsplit(origin).netloc.lower() == host.lower() != ""
    except ValueError:
        return False


def too_large(most: int) -> Refused:
    """The refusal of a body that is too large."""
    return Refused(413, f"a request of this kind may have {most:,} bytes; send less at once, large sets by multipart")


def _most(headers: Headers, limits: Limits) -> int:
    form = headers.get("content-type", "").lower().startswith("multipart/")
    return limits.form_bytes if form else limits.json_bytes


def _name_of(host: str) -> str:
    """The name in a Host header, without its port and an IPv6 address's brackets."""
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0].lower()
