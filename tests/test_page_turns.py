"""Who waits for whom: the model is taken in turn, and slow videos hold up nobody else."""

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from threading import Event

import gradio as gr
import httpx
import pytest
from gradio_client import Client, handle_file

from libra.errors import InputError
from page import engine
from page.turns import Turns
from page.visit import Visit
from tests import clips
from tests.conftest import QUESTION, make_image
from tests.serve_page import prepare_examples, said_to, serve_page

SOON = 60  # seconds; busy machines are slow


def until(done):
    """Wait for something that happens in another thread or process."""
    end = time.monotonic() + SOON
    while not done():
        assert time.monotonic() < end
        time.sleep(0.02)


# The line


@pytest.mark.parametrize("slots", [1, 2])
def test_who_came_first_works_first(slots):
    turns = Turns(slots)
    stands = [turns.stand() for _ in range(4)]
    befores = [stand.__enter__() for stand in stands]
    for gone in range(4):
        assert [before() for before in befores[gone:]] == [
            max(0, i + 1 - slots) for i in range(4 - gone)
        ]
        stands[gone].__exit__(None, None, None)


def words(*said, closed=None):
    """The steps of an answer."""
    try:
        yield from said
    finally:
        if closed is not None:
            closed.append(said)


def test_an_event_of_the_page_waits_and_says_for_how_many():
    turns, closed = Turns(1), []
    first = turns.wait(words, "place", str)("a", "b")
    second = turns.wait(lambda: words("c", closed=closed), "place", str)()
    third = turns.wait(words, "place", str)("d")
    assert next(first) == "a"
    assert next(second) == {"place": "Waiting for the model: 1 before you …"}
    assert next(third) == {"place": "Waiting for the model: 2 before you …"}
    second.close()  # stopped while it waits: it has not begun, and the next one moves up
    assert next(third) == {"place": "Waiting for the model: 1 before you …"} and not closed
    assert list(first) == ["b"] and list(third) == ["d"]


def test_a_line_has_an_end():
    """Who finds it full is told at once, and may come back."""
    turns = Turns(1, places=1)
    first, second = (turns.wait(words, "place", str)("a", "b") for _ in range(2))
    assert next(first) == "a" and "1 before you" in next(second)["place"]
    with pytest.raises(gr.Error, match="2 questions are waiting"):
        next(turns.wait(words, "place", str)("c"))
    with pytest.raises(InputError, match="2 questions are waiting"):
        asyncio.run(turns.last(words("c")))
    second.close()
    third = turns.wait(words, "place", str)("c")
    assert "1 before you" in next(third)["place"]
    assert list(first) == ["b"] and list(third) == ["c"]


def test_what_needs_no_turn_takes_none():
    turns = Turns(1, places=0)
    first = turns.wait(words, "place", str)("a", "b")
    assert next(first) == "a"
    free = turns.wait(words, "place", str, unless=lambda word: word == "c")
    assert list(free("c")) == ["c"]
    with pytest.raises(gr.Error):
        next(free("d"))


def test_a_call_that_is_called_off_gives_its_place_away():
    turns, closed, go, begun = Turns(1), [], Event(), Event()

    def slow():
        try:
            begun.set()
            go.wait(SOON)
            yield "a"
            yield "b"
        finally:
            closed.append("slow")

    async def calls():
        first = asyncio.create_task(turns.last(slow()))
        waits = asyncio.create_task(turns.last(words("c", closed=closed)))
        third = asyncio.create_task(turns.last(words("d", "e")))
        await asyncio.to_thread(begun.wait, SOON)
        waits.cancel()
        first.cancel()
        await asyncio.sleep(0.2)
        assert not third.done()  # what runs in a thread ends first
        go.set()
        assert await third == "e"
        assert first.cancelled() and waits.cancelled() and closed == ["slow"]

    asyncio.run(calls())


# The page


@pytest.fixture
def hanging(decoder, tmp_path):
    """A decoder that hangs until the test is over; tells how many of it run."""
    running, go = tmp_path / "running", tmp_path / "go"
    running.mkdir()
    decoder(
        "import os, pathlib, sys, time\n"
        f"pathlib.Path({str(running)!r}, str(os.getpid())).touch()\n"
        f"while not pathlib.Path({str(go)!r}).exists(): time.sleep(0.05)\n"
        "sys.exit(1)\n"
    )
    yield lambda: len(list(running.iterdir()))
    go.touch()


class Visitor:
    """Sends what a browser would, and says what the page answers."""

    def __init__(self, url):
        self.url = url
        self.config = httpx.get(f"{url}config").json()
        self.values = {c["id"]: c["props"].get("value") for c in self.config["components"]}

    def upload(self, file):
        """An uploaded file as a browser names it."""
        files = {"files": (file.name, file.read_bytes())}
        (path,) = httpx.post(f"{self.url}gradio_api/upload", files=files).json()
        return {"path": path, "orig_name": file.name, "meta": {"_type": "gradio.FileData"}}

    def does(self, name, first):
        """What an event answers with this as its first value, the others as they are."""
        event = next(d for d in self.config["dependencies"] if d["api_name"] == name)
        values = [self.values[i] for i in event["inputs"]]
        return said_to(self.url, event, [first, *values[1:]])


@pytest.fixture
def asking_slowly(monkeypatch):
    """Questions that go on until the test lets them end; tells how many have begun."""
    begun, go = [], Event()

    def slow(model, request):
        begun.append(request)
        while not go.wait(0.05):
            yield engine.Progress("slowly")

    monkeypatch.setattr(engine, "ask", slow)
    yield lambda: len(begun), go
    go.set()


def test_visitors_who_find_the_line_full_are_told(model, tmp_path, monkeypatch, asking_slowly):
    monkeypatch.setenv("LIBRA_QUEUE", "1")
    begun, go = asking_slowly
    with serve_page(model, prepare_examples(tmp_path, model)) as url:
        visitors = [Visitor(url) for _ in range(3)]
        with ThreadPoolExecutor(3) as threads:
            asked = [threads.submit(visitor.does, "ask_1", None) for visitor in visitors]
            until(lambda: any(each.done() for each in asked))
            (refused,) = (each for each in asked if each.done())
            assert "2 questions are waiting" in refused.result()
            assert begun() == 1
            go.set()


def test_a_model_is_loaded_in_turn(model, tmp_path, monkeypatch, asking_slowly):
    """Beside a question, it would be part of the time that is measured."""
    monkeypatch.setattr(Visit, "has_model", lambda *chosen: False)
    begun, go = asking_slowly
    with (
        serve_page(model, prepare_examples(tmp_path, model)) as url,
        ThreadPoolExecutor() as threads,
    ):
        threads.submit(Visitor(url).does, "ask_1", None)
        until(lambda: begun() == 1)
        chosen = threads.submit(Visitor(url).does, "choose_model", None)
        with pytest.raises(TimeoutError):
            chosen.result(timeout=1)
        go.set()
        assert '"success":true' in chosen.result(timeout=SOON)


def test_hanging_videos_hold_up_nobody_else(url, model, tmp_path, hanging):
    film = clips.write(tmp_path / "film.webm", [clips.numbered(0)] * 3)
    picture, trace = tmp_path / "picture.png", tmp_path / "some.trace.zip"
    make_image().save(picture)
    asked = {"images": [picture], "question": QUESTION, "max_new_tokens": 1}
    engine.load(model).answer(**asked).trace.save(trace)
    client, visitor = Client(url, verbose=False), Visitor(url)
    question = {"question": QUESTION, "api_name": "/ask"}
    with ThreadPoolExecutor(2) as threads:
        video = visitor.upload(film)
        added = [threads.submit(visitor.does, "watch", [video]) for _ in range(2)]
        calls = [client.submit(image=handle_file(str(film)), **question) for _ in range(2)]
        try:
            until(lambda: hanging() == 4)
            for event, first in (
                ("check_picture", visitor.upload(picture)),
                ("open_trace", visitor.upload(trace)),
                ("take", [visitor.upload(picture)]),
            ):
                assert '"success":true' in visitor.does(event, first), event
            client.submit(image=handle_file(str(picture)), **question).result(timeout=SOON)
            assert hanging() == 4 and not any(each.done() for each in (*added, *calls))
        finally:
            (tmp_path / "go").touch()
        assert all("cannot be decoded" in each.result() for each in added)
        assert all("cannot be decoded" in str(each.exception()) for each in calls)
