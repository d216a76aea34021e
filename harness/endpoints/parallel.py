"""Several requests at a time, and no more."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import TypeVar

Q = TypeVar("Q")


async def ask_each(questions: Iterable[Q], ask: Callable[[Q], Awaitable[None]], parallel: int) -> None:
    """Ask every question, `parallel` at a time, in their order. With the first that fails those under way are dropped."""
    left = iter(questions)

    async def work() -> None:
        for question in left:  # shared by all
            await ask(question)

    workers = [asyncio.create_task(work()) for _ in range(parallel)]
    try:
        await asyncio.gather(*workers)
    finally:
        for worker in workers:
            worker.cancel()
        await asyncio.gather(*workers, return_exceptions=True)
