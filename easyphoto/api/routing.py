"""What all our routes have in common: unknown queries are refused, and the service is at hand."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from fastapi.routing import APIRoute
from starlette.requests import Request
from starlette.responses import Response

from easyphoto.api.guard import OWNER
from easyphoto.api.problems import BadFields, bad_field
from easyphoto.api.service import Service
from easyphoto.api.wire import FieldProblem
from easyphoto.errors import NameRefused
from easyphoto.store.paths import check_name

Handler = Callable[[Request], Coroutine[Any, Any, Response]]


class StrictRoute(APIRoute):
    """A route that refuses query parameters it does not have, and any that comes twice."""

    def get_route_handler(self) -> Handler:
        """FastAPI's handler behind the check."""
        handle = super().get_route_handler()
        known = {param.alias for param in self.dependant.query_params}

        async def strict(request: Request) -> Response:
            said = [name for name, _ in request.query_params.multi_items()]
            faults = [
                FieldProblem(field=name[:100], message="is no parameter here" if name not in known else "may come once only")
                for name in dict.fromkeys(said)
                if name not in known or said.count(name) > 1
            ]
            if faults:
                raise BadFields(faults)
            return await handle(request)

        return strict


def service_of(request: Request) -> Service:
    """What the request's application serves."""
    service: Service = request.app.state.service
    return service


def owner_of(request: Request) -> str:
    """Whose request this is; the guard has found out."""
    owner: str = request.scope[OWNER]
    return owner


def person_named(service: Service, owner: str, said: str) -> str:
    """The name of who was named by id or by name; blocks for a moment.

    Raises:
        BadFields: Nobody can be called so.
    """
    try:
        return check_name(service.name_of(owner, said))
    except NameRefused as error:
        raise bad_field("person", error) from error
