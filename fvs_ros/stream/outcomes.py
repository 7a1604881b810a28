"""Results that another thread waits for."""

from __future__ import annotations

import contextlib
from concurrent.futures import Future, InvalidStateError
from typing import TypeVar

Result = TypeVar("Result")


def done(result: Result) -> Future[Result]:
    """A future of what is known already."""
    future: Future[Result] = Future()
    future.set_result(result)
    return future


def settle(outcome: Future[Result], inner: Future[Result]) -> None:
    """Gives a future the outcome of another that is done, unless it has one."""
    error = inner.exception()
    if error is not None:
        fail(outcome, error)
        return
    with contextlib.suppress(InvalidStateError):
        outcome.set_result(inner.result())


def fail(outcome: Future[Result], error: BaseException) -> None:
    """Fails a future, unless it has an outcome."""
    with contextlib.suppress(InvalidStateError):
        outcome.set_exception(error)
