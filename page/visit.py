"""What a visitor does: ask, stop, look, pick, open a file. Each action returns what changes."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import gradio as gr

from libra.trace import Trace
from page import engine, knowledge, learn, link, media, panels, plan, texts, views
from page.ask import AskTab
from page.compare import CompareTab, settings_of
from page.controls import Controls
from page.errors import explained
from page.examples import Example
from page.readouts import hardly, readouts, seconds
from page.shown import Added, Result, Shown, overlays

LOADING = gr.Progress(track_tqdm=True)  # transformers and the hub count what they read


def waiting(model: str) -> str:
    """What happens before the first word."""
    if model in engine.shelf:
        return texts.READING
    return texts.LOADING.format(engine.label(model))


@dataclass(frozen=True)
class Visit:
    """The actions of the page. What belongs to one visitor comes in as `Shown`."""

    controls: Controls
    tab: AskTab
    several: CompareTab
    examples: Sequence[Example]

    def ask(self, shown: Shown, *values) -> Iterator[dict]:
        """Stream the answer, show its trace, then vanilla's numbers beside it.

        The trace on the page stays until the new one is complete.
        """
        with explained():
            model, request = self._request(shown, values)
            about = shown.media
            yield self._growing(request, "", waiting(model))
            trace = None
            for progress in engine.ask(model, request | {"memory": shown.memory}):
                shown.asking = progress.trace is None
                if progress.trace is None:
                    yield self._growing(request, progress.text, texts.ANSWERING)
                elif trace is None:
                    trace = progress.trace
                    asked = plan.comparison(request, ["vanilla", trace.method], {})
                    shown.show(trace, requests=asked)
                    shown.about, shown.status = about, texts.MEASURING
                    yield self.tab.draw(shown, texts.MEASURING)
                elif shown.trace is not trace:
                    return  # an example or a file has been opened since: its numbers stay
                elif progress.vanilla is None:
                    yield self._status(shown, texts.MEASURING)
                else:
                    shown.measure(progress.vanilla)
                    yield self._measured(shown, model)

    def restore(self, shown: Shown) -> dict:
        """A question failed or was stopped: put back what was there before."""
        if shown.status == texts.MEASURING:
            return self._status(shown, texts.NOT_MEASURED)
        begun, shown.asking = shown.asking and shown.trace is not None, False
        return self._status(shown, texts.UNFINISHED if begun else shown.status)

    def compare(
        self,
        shown: Shown,
        chosen: Sequence[str],
        ratio: str,
        overlay: str,
        position: int,
        *values,
    ) -> Iterator[dict]:
        """Answer under one method after the other, each in its own place as soon as it is there."""
        with explained():
            model, own = self._request(shown, values)
            requests = plan.comparison(own, chosen, settings_of(ratio))
            results = {r["method"]: Result(r["method"]) for r in requests}
            yield {self.several.status: panels.note(waiting(model))}
            for i, result in enumerate(engine.compare(model, requests)):
                if not i:  # nobody can have complained about picture or question
                    shown.begin(results, requests)
                    yield self.several.start(list(results.values()))
                if shown.compared is not results:
                    return  # something else has been opened since
                again, results[result.method] = results[result.method].complete, result
                if again:
                    yield {self.several.status: panels.note(texts.IN_TURNS)}
                    continue
                so_far = list(results.values())
                yield self.several.go_on(so_far, result, overlay, position, shown.image)

    def compared(self, shown: Shown, overlay: str, position: int) -> dict:
        """A comparison is complete: everything on one scale, with its files."""
        if not shown.ran:  # something else has been opened since
            return self.draw_compared(shown, overlay, position)
        return self._settled(shown, overlay, position, texts.COMPARED)

    def settle(self, shown: Shown, overlay: str, position: int) -> dict:
        """A comparison failed or was stopped: what is complete stays."""
        if shown.before is None:  # none was begun
            drawn = self.draw_compared(shown, overlay, position)
            return {self.several.status: panels.note("")} | drawn
        return self._settled(shown, overlay, position, texts.STOPPED)

    def _settled(self, shown: Shown, overlay: str, position: int, words: str) -> dict:
        """The comparison as it is left, and how many methods have answered."""
        of = len(shown.compared)
        shown.settle()
        status = panels.note(words.format(len(shown.traces), of))
        return self.several.draw(shown, overlay, position) | {self.several.status: status}

    def draw_compared(self, shown: Shown, overlay: str, position: int) -> dict:
        """The Compare tab as it stands.

        A comparison that begins or ends meanwhile is drawn too: what is drawn of the one before may
        reach the browser last.
        """
        while True:
            compared = shown.compared
            drawn = self.several.draw(shown, overlay, position)
            if shown.compared is compared:
                break
        if shown.traces and not shown.ran:
            drawn[self.several.status] = panels.note(texts.LAST_ANSWER)
        return drawn

    def pick_stage(self, shown: Shown, stage: int) -> dict:
        """Another stage was chosen."""
        shown.stage = stage
        return self.tab.draw_pictures(shown)

    def pick_image(self, shown: Shown, image: int) -> dict:
        """Another picture or frame was chosen."""
        shown.look_at(image)
        return self.tab.draw_picture(shown)

    def come_back(self, shown: Shown) -> dict:
        """The Ask tab is opened: another picture may have been chosen elsewhere."""
        if shown.trace is None or len(shown.trace.images) == 1:
            return gr.skip()
        return self.tab.draw_picture(shown) | {self.tab.frames: gr.HTML(value=shown.own_image)}

    def pick_compared(self, shown: Shown, image: int, overlay: str, position: int) -> dict:
        """Another picture or frame was chosen on the Compare tab."""
        shown.image = max(0, int(image))
        drawn = self.draw_compared(shown, overlay, position)
        return {part: look for part, look in drawn.items() if part is not self.several.frames}

    def pick_overlay(self, shown: Shown, event: gr.EventData) -> dict:
        """Another overlay was chosen."""
        shown.overlay = overlays(shown.trace)[event.index]
        return self.tab.draw_pictures(shown)

    def pick_word(self, shown: Shown, event: gr.EventData) -> dict:
        """A word of the answer was chosen: show where the model looked for it."""
        shown.word = event.index
        if "word" in overlays(shown.trace):
            shown.overlay = "word"
        return self.tab.draw_pictures(shown) | self._status(shown, shown.status)

    def open_example(self, shown: Shown, model: str, event: gr.EventData) -> dict:
        """Fill in an example, and show its stored trace if there is one."""
        return self._open(shown, self.examples[event.index], model)

    def _open(self, shown: Shown, example: Example, model: str) -> dict:
        """Fill in an example, and show its stored trace if there is one."""
        filled = self._fill_example(shown, example)
        trace = example.trace()
        if trace is None:
            return filled
        shown.show(trace, example.vanilla())
        return filled | self._stored(shown, model, _status_of_stored(shown, example.note))

    def share(self, shown: Shown, picture: dict | None, question: str, model: str, *values) -> str:
        """The query of a link to what is in the controls."""
        with explained():
            method, *rest = values
            settings = self.controls.settings(model, method, *rest)
            example = None
            if media.uploaded(picture):  # it has not been taken out
                example = link.example_of(shown, self.examples)
            return link.query(example, str(question or ""), method, settings)

    def arrive(self, shown: Shown, model: str, request: gr.Request) -> dict:
        """Somebody comes by a link: fill in what it says; the answer waits to be asked for."""
        if not (parts := dict(request.query_params)).keys() & link.PARTS:
            return gr.skip()
        with explained():
            example, question, method, settings = link.read(parts, self.examples, model)
            filled = self._open(shown, example, model) if example else {}
        stored = texts.STORED if shown.trace else ""
        filled |= self._status(shown, _joined(stored, texts.FROM_LINK))
        if question is not None:
            filled[self.controls.question] = question
        if method is not None:
            filled |= self.controls.show_settings(method, model, settings)
        return filled

    def open_lesson(self, shown: Shown, model: str, event: gr.EventData) -> dict:
        """Show the stored answer of a lesson."""
        _, example, file = learn.lessons(self.examples)[event.index]
        filled = self._fill_example(shown, example)
        shown.show(Trace.load(file), example.vanilla())
        return filled | self._stored(shown, model, _status_of_stored(shown, ""))

    def open_trace(self, file: str, shown: Shown, model: str) -> dict:
        """Show a trace file; its picture, question and settings go into the controls.

        Nothing changes for the visitor before all of it is drawn.
        """
        with explained():
            trace = Trace.load(file)
            opened = replace(shown)
            picture = views.save_png(views.image(trace), "from-trace")
            added = media.of_trace(trace)
            filled = self._fill(opened, picture, texts.TRACE_PICTURE, trace.question, added)
            opened.show(trace)
            drawn = filled | self._stored(opened, model, texts.FROM_FILE)
        vars(shown).update(vars(opened))
        return drawn

    def has_model(self, shown: Shown, method: str, model: str, *progress: gr.Progress) -> bool:
        """Whether a model that was chosen is there already."""
        return model in engine.shelf

    def choose_model(
        self, shown: Shown, method: str, model: str, progress: gr.Progress = LOADING
    ) -> Iterator[dict]:
        """Load the model that was chosen, and show what it knows and the method's defaults in it.

        All visitors share the models: where this one has no room beside another that is at work, it
        waits until that is done, and then takes its place.
        """
        with explained():
            progress(0, desc=texts.LOADING.format(engine.label(model)))
            engine.load(model)
        shown.model = model
        yield self.controls.show_model(method, model) | self.controls.media.draw_frames(shown)

    def follow(self, shown: Shown, on: bool) -> None:
        """The next question goes behind the answer that is shown, or begins anew."""
        shown.follow = on

    def last_model(self, shown: Shown) -> tuple[str, str]:
        """The model that was there before one that cannot be loaded, and what it knows."""
        return shown.model, panels.knows(shown.model)

    def check_picture(self, file: dict, shown: Shown) -> None:
        """Say at once what is wrong with an uploaded picture."""
        with explained():
            path = media.uploaded(file)
            media.check(path)
        shown.picture = path
        prepared = [tuple(map(str, example.more)) for example in self.examples]
        if shown.added.clip or shown.added.pictures in prepared:  # it takes the place of all
            shown.added = Added()

    def last_picture(self, shown: Shown) -> str | None:
        """The picture that was there before one that cannot be read."""
        shown.picture = shown.picture or shown.removed
        return shown.picture

    def _request(self, shown: Shown, values: Sequence) -> tuple[str, dict]:
        """The model and the request of the controls, about all of the media."""
        model, request = self.controls.request(*values)
        history = shown.history(request["question"])
        return model, shown.added.to(request) | ({"history": history} if history else {})

    def _fill_example(self, shown: Shown, example: Example) -> dict:
        """Put an example into the controls."""
        with explained():
            added = example.added()
        return self._fill(shown, str(example.image), example.alt, example.question, added)

    def _fill(self, shown: Shown, picture: str, alt: str, question: str, added: Added) -> dict:
        """Put media and a question into the controls."""
        shown.picture, shown.added = picture, added
        return self.controls.media.draw(shown, alt) | {self.controls.question: question}

    def _stored(self, shown: Shown, model: str, status: str) -> dict:
        """Everything for a trace that was not computed just now."""
        shown.status = status
        return self.tab.draw(shown, status) | self.controls.show_trace(shown.trace, model)

    def _measured(self, shown: Shown, model: str) -> dict:
        """Vanilla has been measured: only numbers change."""
        status = texts.ANSWERED.format(seconds(shown.trace.timings.total))
        known, question = knowledge.of(model), shown.trace.question
        if not known.covers(question):
            unknown = " and ".join(known.unknown(question))
            foreign = texts.UNKNOWN.format(unknown) if unknown else texts.OUTSIDE
            status = f"{status} {foreign}"
        elif shown.trace.history and known.words:
            status = f"{status} {texts.ONE_QUESTION}"
        status = _joined(status, _unlike(shown), hardly(shown.trace))
        numbers = readouts(shown.trace, shown.vanilla)
        return self._status(shown, status) | {self.tab.readouts: numbers}

    def _status(self, shown: Shown, status: str) -> dict:
        """The answer as it is, with a line on how it stands."""
        shown.status = status
        return {self.tab.answer: panels.answer(shown.trace, shown.word, status)}

    def _growing(self, request: dict, text: str, status: str) -> dict:
        """The answer so far."""
        history = request.get("history", ())
        return {self.tab.answer: panels.streaming(request["question"], text, status, history)}


def _status_of_stored(shown: Shown, note: str) -> str:
    """What is to be known of a stored answer."""
    return _joined(texts.FROM_EXAMPLE, _unlike(shown), note)


def _unlike(shown: Shown) -> str:
    """What vanilla says, where that is something else."""
    vanilla = shown.vanilla
    if vanilla is None or vanilla.answer == shown.trace.answer:
        return ""
    return texts.UNLIKE_VANILLA.format(vanilla.answer)


def _joined(*sentences: str) -> str:
    """Those that there are, one after the other."""
    return " ".join(filter(None, sentences))
