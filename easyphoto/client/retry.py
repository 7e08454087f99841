"""Trying again: when, after how long, and when to give up."""

from __future__ import annotations

import random
from dataclasses import dataclass, field, replace

from easyphoto.client.problems import (
    PASSING,
    BadAnswer,
    Disconnected,
    Unreachable,
    error_of,
    problem_of,
)
from easyphoto.client.steps import Answer, Request, Send, Sink, Sleep, Steps
from easyphoto.errors import SpecError, ToolMissing


@dataclass(frozen=True, kw_only=True)
class Retry:
    """How patient a client is.

    Every call may be tried again: reading and deleting do no harm twice, and what makes a job carries an idempotency key,
    so that the server makes it once however often it is asked.
    """

    tries: int = 6
    """Of each call, the first one included; 1 never tries again."""
    first_pause: float = 0.25
    """Seconds before the second try; each further pause is twice as long."""
    longest_pause: float = 20.0
    """Seconds; also the longest Retry-After that is waited for. A longer one is told as an error at once."""
    outage: float = 300.0
    """Seconds without a byte from the server after which following a job is given up."""
    silence: float = 60.0
    """Seconds without a byte after which the stream of a job's events is taken up anew."""
    chance: random.Random = field(default_factory=random.SystemRandom, repr=False, compare=False)
    """Spreads the pauses, so that many clients do not come back at one moment."""

    def __post_init__(self) -> None:
        if self.tries < 1 or min(self.first_pause, self.longest_pause, self.outage) < 0 or self.silence <= 0:
            raise SpecError(f"a client must try at least once, with pauses of 0 s or more, got {self}")

    def pause(self, failures: int, asked: float | None = None) -> float:
        """Seconds to wait after so many failures; never less than the server asked for."""
        grown = min(self.longest_pause, self.first_pause * 2.0 ** min(failures - 1, 32))
        spread = self.chance.uniform(0.5, 1.0) * grown
        return spread if asked is None else asked + self.chance.uniform(0.0, 0.25) * grown


def exchange(request: Request, retry: Retry, sink: Sink | None = None) -> Steps[Answer]:
    """Send a request, again where that may help, and give the good answer.

    Raises:
        ApiError: The server refused; for a trouble that may pass, after the last try.
        Unreachable: No try was answered.
    """
    lost = False
    for tried in range(1, retry.tries + 1):
        try:
            answer: Answer = yield Send(request=request, sink=sink)
        except Disconnected as error:
            lost = lost or error.sent
            trouble: Exception = error
            pause = retry.pause(tried)
        else:
            answer = replace(answer, after_loss=lost)
            if not may_pass(answer):
                return checked(answer)
            problem = problem_of(answer.status, answer.headers, answer.body)
            trouble = error_of(problem)
            if (problem.retry_after or 0.0) > retry.longest_pause:
                raise trouble
            pause = retry.pause(tried, problem.retry_after)
        if tried < retry.tries:
            yield Sleep(pause)
    if isinstance(trouble, Disconnected):
        raise given_up(trouble, f"after {retry.tries} tries" if retry.tries > 1 else "") from trouble
    raise trouble


def may_pass(answer: Answer) -> bool:
    """The answer is of a trouble that may be over in a moment; a package that is not installed will not come by waiting."""
    if answer.status not in PASSING:
        return False
    return problem_of(answer.status, answer.headers, answer.body).code != ToolMissing.code


def checked(answer: Answer) -> Answer:
    """The answer itself if it is a good one.

    Raises:
        ApiError: It is a refusal.
        BadAnswer: It is none of HTTP's kinds of answers that we know.
    """
    if 200 <= answer.status < 300 or answer.status == 304:
        return answer
    if 300 <= answer.status < 600:
        refusal = error_of(problem_of(answer.status, answer.headers, answer.body))
        refusal.after_loss = answer.after_loss
        raise refusal
    raise BadAnswer(f"the server answered with status {answer.status}, which means nothing here; check the address")


def given_up(last: Disconnected, after: str) -> Unreachable:
    """What is said when no try was answered."""
    said = f"{last} ({after})" if after else str(last)
    return Unreachable(f"{said}; check that the server runs and that its address is right")
