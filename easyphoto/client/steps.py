"""Calls as lists of steps: what is sent and what is made of the answer, apart from who waits for it.

Each call of the API is one generator. It yields what it wants done (send this, wait so long) and is handed the outcome;
`Client` does it and blocks, `AsyncClient` does it and lets others run meanwhile. So every rule of the API (retries, pages,
streams that are taken up again) is written once and is the same for both.
"""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Generator, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Concatenate, Generic, ParamSpec, Protocol, TypeVar, overload

from easyphoto.client.uploads import Body
from easyphoto.errors import EasyPhotoError
from easyphoto.events import Event

if TYPE_CHECKING:
    from easyphoto.client.asynchronous import AsyncClient
    from easyphoto.client.synchronous import Client

Result = TypeVar("Result")
Given = ParamSpec("Given")


@dataclass(frozen=True, kw_only=True)
class Request:
    """One HTTP request; the address of the server, the token and the timeouts are the client's."""

    method: str
    path: str
    """Below `/easyphoto/v1/`, percent-encoded already."""
    query: tuple[tuple[str, str], ...] = ()
    headers: tuple[tuple[str, str], ...] = ()
    body: Body | None = None


@dataclass(frozen=True, kw_only=True)
class Answer:
    """One HTTP answer."""

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    """Names in lower case."""
    body: bytes = b""
    after_loss: bool = False
    """An earlier try broke off after the server may have seen it: its answer is lost, what it did is not."""


class Sink(Protocol):
    """Takes a successful answer's body piece by piece instead of keeping it in memory."""

    def begin(self) -> None:
        """The body begins, perhaps once more: what came before is void."""

    def write(self, piece: bytes) -> None:
        """The next piece."""


@dataclass(frozen=True, kw_only=True)
class Send:
    """Send this and take the whole answer: gives an `Answer` or raises `Disconnected`."""

    request: Request
    sink: Sink | None = None


@dataclass(frozen=True, kw_only=True)
class Open:
    """Send this and leave the answer's body open for `Read`: gives an `Answer`, whose body is filled unless it is 200.

    An answer that was open before is closed. What is open at the end of a call is closed by whoever performs it.
    """

    request: Request
    silence: float
    """Seconds without a byte after which the connection counts as lost."""


@dataclass(frozen=True)
class Read:
    """The next piece of the open answer's body: gives bytes, none at its end, or raises `Disconnected`."""


@dataclass(frozen=True)
class Sleep:
    """Wait so many seconds."""

    seconds: float


@dataclass(frozen=True)
class Work:
    """Something that keeps the disk busy, out of the way of whoever must not be blocked: gives what it returns."""

    do: Callable[[], Any]


EventListener = Callable[[Event], object]
"""Receives each event; with `AsyncClient` it may be an `async def`."""


@dataclass(frozen=True)
class Say:
    """Hand on an event: to the listener, or to whoever iterates if there is none."""

    event: Event
    listener: EventListener | None = None


Step = Send | Open | Read | Sleep | Work | Say
Steps = Generator[Step, Any, Result]


def work(do: Callable[[], Result]) -> Steps[Result]:
    """The step `Work` with its type."""
    done: Result = yield Work(do)
    return done


class Machine(Generic[Result]):
    """Runs a call from step to step; whoever performs the steps tells it what came of each."""

    def __init__(self, steps: Steps[Result]) -> None:
        self._steps = steps
        self.step: Step | None = None
        """What is to be done next; None when the call is done."""
        self.result: Result
        """What the call gives, once `step` is None."""

    def start(self) -> None:
        """Come to the first step."""
        self._go(lambda: next(self._steps))

    def tell(self, outcome: object) -> None:
        """This came of the step."""
        self._go(lambda: self._steps.send(outcome))

    def fail(self, error: EasyPhotoError) -> None:
        """The step could not be done; the call may go on all the same."""
        self._go(lambda: self._steps.throw(error))

    def close(self) -> None:
        """The call is given up, or is done already; it tidies up after itself."""
        self._steps.close()

    def _go(self, advance: Callable[[], Step]) -> None:
        try:
            self.step = advance()
        except StopIteration as stop:
            self.step, self.result = None, stop.value


class Call(Generic[Given, Result]):
    """A method that blocks on `Client` and is awaited on `AsyncClient`."""

    def __init__(self, steps: Callable[Concatenate[Any, Given], Steps[Result]]) -> None:
        self.steps = steps
        self.__doc__ = steps.__doc__

    @overload
    def __get__(self, client: None, owner: type) -> Callable[Concatenate[Any, Given], Steps[Result]]: ...
    @overload
    def __get__(self, client: Client, owner: type) -> Callable[Given, Result]: ...
    @overload
    def __get__(self, client: AsyncClient, owner: type) -> Callable[Given, Coroutine[Any, Any, Result]]: ...

    def __get__(self, client: Client | AsyncClient | None, owner: type) -> Callable[..., Any]:
        """The method bound to a client; the plain function (for `help`) when asked of the class."""
        if client is None:
            return self.steps

        @functools.wraps(self.steps)
        def bound(*values: Any, **named: Any) -> Result | Awaitable[Result]:  # noqa: ANN401 (the call's own types hold)
            return client._run(self.steps(client, *values, **named))

        return bound


class Stream(Generic[Given]):
    """A method that gives an iterator of events on `Client` and an asynchronous one on `AsyncClient`."""

    def __init__(self, steps: Callable[Concatenate[Any, Given], Steps[object]]) -> None:
        self.steps = steps
        self.__doc__ = steps.__doc__

    @overload
    def __get__(self, client: None, owner: type) -> Callable[Concatenate[Any, Given], Steps[object]]: ...
    @overload
    def __get__(self, client: Client, owner: type) -> Callable[Given, Iterator[Event]]: ...
    @overload
    def __get__(self, client: AsyncClient, owner: type) -> Callable[Given, AsyncIterator[Event]]: ...

    def __get__(self, client: Client | AsyncClient | None, owner: type) -> Callable[..., Any]:
        """As for `Call`."""
        if client is None:
            return self.steps

        @functools.wraps(self.steps)
        def bound(*values: Any, **named: Any) -> Iterator[Event] | AsyncIterator[Event]:  # noqa: ANN401 (as above)
            return client._iterate(self.steps(client, *values, **named))

        return bound
