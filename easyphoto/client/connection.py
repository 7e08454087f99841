"""What both clients share: where the server is, who asks, and httpx's errors as ours."""

from __future__ import annotations

import base64
import contextlib
import os
import ssl
from collections.abc import AsyncIterable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address
from urllib.parse import quote, urlencode, urlsplit

import httpx

from easyphoto import __version__
from easyphoto.client.problems import BadAnswer, Disconnected
from easyphoto.client.steps import Answer, Request
from easyphoto.errors import SpecError

PREFIX = "/easyphoto/v1"
DEFAULT_URL = "http://127.0.0.1:7861"
LIMITS = httpx.Limits(max_connections=None, max_keepalive_connections=20)
"""Each job that is followed holds a connection of its own, however many there are."""


@dataclass(frozen=True, kw_only=True)
class Connection:
    """A server and who asks it; shown without the token."""

    url: str
    """Address of the server, without `/easyphoto/v1`."""
    credentials: str | None = field(default=None, repr=False)
    """Value of the Authorization header."""
    timeout: float = 60.0
    """Seconds without any progress after which a try is given up: to connect, to send a piece, to receive one."""

    def address(self, request: Request) -> str:
        """The whole address of a request; the token is never part of it."""
        query = urlencode(request.query, quote_via=quote, errors="surrogatepass")
        return f"{self.url}{PREFIX}/{request.path}" + (f"?{query}" if query else "")

    def headers(self, request: Request) -> dict[str, str]:
        """The request's headers with ours."""
        headers = {"User-Agent": f"easyphoto-client/{__version__}", "Accept": "application/json, */*", **dict(request.headers)}
        if request.body is not None:
            headers["Content-Type"] = request.body.media_type
            headers["Content-Length"] = str(request.body.length)
        if self.credentials is not None:
            headers["Authorization"] = self.credentials
        return headers

    def build(
        self, http: httpx.Client | httpx.AsyncClient, request: Request,
        content: Iterable[bytes] | AsyncIterable[bytes] | None, silence: float | None,
    ) -> httpx.Request:  # fmt: skip
        """The request as httpx wants it; `silence` is how many seconds a stream may say nothing."""
        return http.build_request(
            request.method,
            self.address(request),
            headers=self.headers(request),
            content=content,
            timeout=httpx.Timeout(self.timeout, read=self.timeout if silence is None else silence),
        )

    @property
    def trusts_environment(self) -> bool:
        """Proxies and certificates of the environment count; for this very machine no proxy is of use."""
        host = urlsplit(self.url).hostname or ""
        with contextlib.suppress(ValueError):
            return not ip_address(host).is_loopback
        return host != "localhost"


def connection(
    url: str | None, token: str | None, login: tuple[str, str] | None, timeout: float, env: Mapping[str, str] | None = None
) -> Connection:
    """The connection that a caller asks for; what is left open comes from EASYPHOTO_URL and EASYPHOTO_TOKEN.

    Raises:
        SpecError: The address, the token or the timeout cannot be used.
    """
    env = os.environ if env is None else env
    if token is not None and login is not None:
        raise SpecError("a client has a token or a login, not both; leave one out")
    if timeout <= 0:
        raise SpecError(f"the timeout must be above 0 s, got {timeout}")
    if login is None and token is None:
        token = env.get("EASYPHOTO_TOKEN") or None
    return Connection(
        url=_checked(url or env.get("EASYPHOTO_URL") or DEFAULT_URL), credentials=_credentials(token, login), timeout=timeout
    )


def _checked(url: str) -> str:
    try:
        parts = urlsplit(url.strip())
        _ = parts.port
    except ValueError as error:
        raise SpecError(f"the server's address cannot be read ({error}); give one such as {DEFAULT_URL}") from None
    if parts.username is not None or parts.password is not None:
        # Not repeated in the message: it may be a secret.
        raise SpecError("the server's address may hold no name or password, because addresses are logged; use token or login")
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
        raise SpecError(f"the server's address must be like {DEFAULT_URL}, got {parts.scheme}://{parts.netloc}{parts.path}")
    return f"{parts.scheme}://{parts.netloc}{parts.path.rstrip('/').removesuffix(PREFIX).rstrip('/')}"


def _credentials(token: str | None, login: tuple[str, str] | None) -> str | None:
    if login is not None:
        return "Basic " + base64.b64encode(":".join(login).encode("utf-8")).decode("ascii")
    if token is None:
        return None
    kept = token.strip()
    if not kept.isascii() or not kept.isprintable() or " " in kept or not kept:
        raise SpecError("the token holds what no token has; copy it again, or make one by `easyphoto tokens add NAME`")
    return f"Bearer {kept}"


def answer_of(response: httpx.Response, whole: bool) -> Answer:
    """httpx's answer as ours; without the body if that is read piece by piece."""
    headers = {name.lower(): value for name, value in response.headers.items()}
    return Answer(status=response.status_code, headers=headers, body=response.content if whole else b"")


@contextlib.contextmanager
def translated(url: str) -> Iterator[None]:
    """httpx's errors as ours.

    Raises:
        Disconnected: The try broke off; another one may succeed.
        BadAnswer: What answers does not speak HTTP, or shows a certificate that is not to be trusted.
    """
    try:
        yield
    except (httpx.ConnectTimeout, httpx.PoolTimeout) as error:
        raise Disconnected(f"{url} did not take the connection in time", sent=False) from error
    except httpx.ConnectError as error:
        if _has_cause(error, ssl.SSLCertVerificationError):
            raise BadAnswer(f"{url} cannot be trusted: {error}; check its certificate") from error
        raise Disconnected(f"{url} cannot be reached: {error or 'no connection'}", sent=False) from error
    except httpx.TimeoutException as error:
        raise Disconnected(f"{url} was silent for too long", sent=True) from error
    except httpx.WriteError as error:
        raise Disconnected(
            f"{url} closed the connection while the request was sent; it may be larger than the server takes", sent=True
        ) from error
    except httpx.TransportError as error:
        raise Disconnected(f"the connection to {url} broke off: {error or type(error).__name__}", sent=True) from error
    except (httpx.DecodingError, httpx.InvalidURL) as error:
        raise BadAnswer(f"the answer of {url} cannot be read: {error}") from error


def _has_cause(error: BaseException | None, kind: type[BaseException]) -> bool:
    while error is not None:
        if isinstance(error, kind):
            return True
        error = error.__cause__ or error.__context__
    return False
