"""Whose turn it is at the models.

Gradio's queue lets in as many events of the page as there are slots. A call of the API comes by
another way: it decodes its video first, which may take a minute and needs no model. Here they meet.
"""

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from functools import wraps
from typing import Any

import gradio as gr
from anyio.to_thread import run_sync

from page import panels, texts

PAUSE = 0.1  # seconds between two looks at the line
_OVER = object()


class Turns:
    """Who came first works first, as many at a time as there are slots."""

    def __init__(self, slots: int):
        self._slots = slots
        self._line: list[object] = []  # those at work, then those who wait

    @contextmanager
    def stand(self) -> Iterator[Callable[[], int]]:
        """Stand in line while this is open; tells how many must leave before one's turn comes."""
        me = object()
        self._line.append(me)
        try:
            yield lambda: max(0, self._line.index(me) + 1 - self._slots)
        finally:
            self._line.remove(me)

    def wait(
        self,
        work: Callable[..., Iterator],
        place: gr.HTML,
        say: Callable[[str], str] = panels.note,
    ) -> Callable[..., Iterator]:
        """An event of the page that works in its turn, and can be stopped while it waits.

        Args:
            work: the event, which streams what changes.
            place: where to say how many are before it.
            say: makes HTML of that.
        """

        @wraps(work)
        def streaming(*args: Any) -> Iterator:
            with self.stand() as before:
                while n := before():
                    yield {place: say(texts.IN_LINE.format(n))}
                    time.sleep(PAUSE)
                yield from work(*args)

        return streaming

    async def last(self, steps: Iterator) -> Any:
        """The last of some steps, which are taken in threads and in turn."""
        with self.stand() as before, closing(steps):
            while before():
                await asyncio.sleep(PAUSE)
            while (step := await in_thread(next, steps, _OVER)) is not _OVER:
                last = step
        return last


async def in_thread(work: Callable, *args: Any) -> Any:
    """What a call returns; one that is called off ends first, since a thread cannot be stopped."""
    task = asyncio.ensure_future(run_sync(work, *args))
    try:
        return await asyncio.shield(task)
    finally:
        await asyncio.wait([task])
