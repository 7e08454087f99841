"""What the routes may be told: where they listen, how much they take, how often they may be asked."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from easyphoto.errors import SpecError

MIB = 1024 * 1024
LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})
"""Addresses that only this machine can reach."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """How much one request may hold; what is more is refused with 413 or 422."""

    form_bytes: int = 256 * MIB
    """Of a multipart body."""
    json_bytes: int = 128 * MIB
    """Of a JSON body, base64 pictures included; larger sets come by multipart, which is never held in memory."""
    file_bytes: int = 50 * MIB
    files: int = 50
    text: int = 8_000
    """Characters of any text but base64."""
    list_items: int = 200
    """Entries of any list but the photos."""
    json_depth: int = 16
    json_parts: int = 20_000
    """Commas, brackets and braces of a JSON body."""
    form_fields: int = 500

    def __post_init__(self) -> None:
        if min(vars(self).values()) < 1:
            raise SpecError("each limit of the API must be at least 1")


@dataclass(frozen=True, kw_only=True)
class Rates:
    """How often each token may ask: so many a second, after a burst; 0 a second means no limit."""

    reads: float = 50.0
    reads_burst: int = 200
    posts: float = 5.0
    """Requests that make a job."""
    posts_burst: int = 20

    def __post_init__(self) -> None:
        if min(self.reads, self.posts) < 0 or min(self.reads_burst, self.posts_burst) < 1:
            raise SpecError("a rate must be 0 or more a second, with a burst of at least 1")


@dataclass(frozen=True, kw_only=True)
class ApiOptions:
    """Everything about the routes that is chosen when they start."""

    host: str = "127.0.0.1"
    port: int = 7861
    no_auth: bool = False
    """Ask nobody for a token; only together with a loopback `host`."""
    allow_urls: bool = False
    """Pictures may be named by URL and are fetched from public addresses."""
    allow_private_webhooks: bool = False
    """Webhooks may go to addresses of the own network."""
    models: Path | None = None
    """Folder of further base models (`EASYPHOTO_MODELS`), each a folder in diffusers layout."""
    limits: Limits = Limits()
    rates: Rates = Rates()

    def __post_init__(self) -> None:
        if self.no_auth and not self.is_loopback:
            raise SpecError(
                f"without a token the API may listen on this machine alone, not on {self.host}; "
                "leave out --no-auth, or listen on 127.0.0.1"
            )
        if not 0 <= self.port <= 65535:
            raise SpecError(f"port must be within 0-65535, got {self.port}; choose another one")

    @property
    def is_loopback(self) -> bool:
        """Only this machine can reach the routes."""
        return self.host in LOOPBACK
