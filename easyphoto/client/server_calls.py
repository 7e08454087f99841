"""The calls about the server itself: its state, base models and gallery."""

from __future__ import annotations

from easyphoto.client.paging import get, pages, path
from easyphoto.client.records import Health, ModelView, TemplateView
from easyphoto.client.retry import Retry, exchange
from easyphoto.client.steps import Call, Request, Steps


class ServerCalls:
    """What a client can ask the server about itself."""

    _retry: Retry

    @Call
    def health(self) -> Steps[Health]:
        """That the server answers; needs no token."""
        return (yield from get(Health, "health", self._retry))

    @Call
    def models(self) -> Steps[tuple[ModelView, ...]]:
        """The base models that people can be trained on."""
        return (yield from pages(ModelView, "models", self._retry))

    @Call
    def templates(self) -> Steps[tuple[TemplateView, ...]]:
        """The gallery of templates that portraits can be made on, by name."""
        return (yield from pages(TemplateView, "templates", self._retry))

    @Call
    def template(self, name: str) -> Steps[bytes]:
        """A template of the gallery, as a picture file."""
        answer = yield from exchange(Request(method="GET", path=path("templates", name)), self._retry)
        return answer.body

    @Call
    def metrics(self) -> Steps[str]:
        """The server's figures in Prometheus' text format."""
        answer = yield from exchange(Request(method="GET", path="metrics"), self._retry)
        return answer.body.decode("utf-8", "replace")
