"""Whose turn it is at the models.

Gradio's own queue is one for everything: were it to hold back questions, those who wait would keep
others from uploading a picture or looking at a figure. And a call of the API comes by another way:
it decodes its video first, which may take a minute and needs no model. So all wait here.
"""

import asyncio
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from functools import wraps
from threading import Lock
from typing import Any

import gradio as gr
from anyio.to_thread import run_sync

from libra.errors import InputError
from page import panels, texts
from page.errors import explained

PAUSE = 0.1  # seconds between two looks at the line
TELL = 10  # looks after which a stop is noticed, if nothing changes
_OVER = object()


class Turns:
    """Who came first works first, as many at a time as there are slots; so many places to wait."""

    def __init__(self, slots: int, places: int = sys.maxsize):
        self._slots, self._room = slots, slots + places
        self._line: list[object] = []  # those at work, then those who wait
        self._entrance = Lock()

    @contextmanager
    def stand(self) -> Iterator[Callable[[], int]]:
        """Stand in line while this is open; tells how many must leave before one's turn comes.

        Raises:
            InputError: all places are taken.
        """
        me = object()
        with self._entrance:
            if len(self._line) >= self._room:
                raise InputError(texts.CROWDED.format(len(self._line)))
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
        unless: Callable[..., bool] = lambda *args: False,
    ) -> Callable[..., Iterator]:
        """An event of the page that works in its turn, and can be stopped while it waits.

        Args:
            work: the event, which streams what changes.
            place: where to say how many are before it.
            say: makes HTML of that.
            unless: whether the event needs no turn, by its arguments.
        """

        @wraps(work)
        def streaming(*args: Any) -> Iterator:
            if unless(*args):
                yield from work(*args)
                return
            with ExitStack() as stack:
                with explained():
                    before = stack.enter_context(self.stand())
                while n := before():
                    yield {place: say(texts.IN_LINE.format(n))}
                    for _ in range(TELL):
                        time.sleep(PAUSE)
                        if before() != n:
                            break
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
