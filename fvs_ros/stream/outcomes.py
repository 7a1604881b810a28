"""Results that another thread waits for."""

from __future__ import annotations

from concurrent.futures import Future
from typing import TypeVar

Result = TypeVar("Result")


def done(result: Result) -> Future[Result]:
    """A future of what is known already."""
    future: Future[Result] = Future()
    future.set_result(result)
    return future


def settle(outcome: Future[Result], inner: Future[Result]) -> None:
    """Gives a future the outcome of another that is done."""
    error = inner.exception()
    if error is None:
        outcome.set_result(inner.result())
    else:
        outcome.set_exception(error)
