"""What a visitor does: ask, stop, pick, open a file. Each action returns what changes."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import gradio as gr

from libra.media import load_image
from libra.trace import Trace
from page import engine, panels, texts, views
from page.ask import AskTab, Shown
from page.compare import CompareTab
from page.controls import Controls
from page.errors import explained
from page.examples import Example
from page.readouts import readouts, seconds


@dataclass(frozen=True)
class Visit:
    """The actions of the page. What belongs to one visitor comes in and goes out as `Shown`."""

    state: gr.State
    controls: Controls
    tab: AskTab
    pair: CompareTab
    examples: Sequence[Example]

    def ask(self, shown: Shown, stage: int, *values) -> Iterator[dict]:
        """Stream the answer, show its trace, then vanilla's numbers beside it.

        The trace on the page stays until the new one is complete.
        """
        with explained():
            model, request = self.controls.request(*values)
            yield self._growing(request, "", texts.READING)
            for progress in engine.ask(model, request):
                if progress.trace is None:
                    yield self._growing(request, progress.text, texts.ANSWERING)
                elif progress.vanilla is None:
                    shown = Shown(progress.trace, overlay=shown.overlay)
                    yield {self.state: shown, **self.tab.draw(shown, stage, texts.MEASURING)}
                else:
                    shown = replace(shown, trace=progress.trace, vanilla=progress.vanilla)
                    yield self._measured(shown)

    def restore(self, shown: Shown) -> dict:
        """A question failed or was stopped: put back what was there before."""
        if shown.trace is None:
            status = ""
        else:
            status = texts.UNFINISHED if shown.vanilla else texts.NOT_MEASURED
        return {
            self.tab.answer: panels.answer(shown.trace, shown.word, status),
            self.pair.right: panels.card(
                shown.trace, panels.side_title(shown.trace), shown.vanilla
            ),
        }

    def pick_overlay(self, shown: Shown, stage: int, event: gr.EventData) -> dict:
        """Another overlay was chosen."""
        shown = replace(shown, overlay=list(texts.OVERLAYS)[event.index])
        return {self.state: shown, **self.tab.draw_pictures(shown, stage)}

    def pick_word(self, shown: Shown, stage: int, event: gr.EventData) -> dict:
        """A word of the answer was chosen: show where the model looked for it."""
        shown = replace(shown, overlay="word", word=event.index)
        answer = panels.answer(shown.trace, shown.word)
        return {
            self.state: shown,
            self.tab.answer: answer,
            **self.tab.draw_pictures(shown, stage),
        }

    def open_example(self, shown: Shown, stage: int, model: str, event: gr.EventData) -> dict:
        """Fill in an example, and show its stored trace if there is one."""
        example = self.examples[event.index]
        filled = {
            self.controls.picture: gr.Image(str(example.image), alt_text=example.alt),
            self.controls.question: example.question,
        }
        trace = example.trace()
        if trace is None:
            return filled
        shown = Shown(trace, example.vanilla(), shown.overlay)
        return filled | self._stored(shown, stage, model, texts.FROM_EXAMPLE)

    def open_trace(self, file: str, shown: Shown, stage: int, model: str) -> dict:
        """Show a trace file; its picture, question and settings go into the controls."""
        with explained():
            trace = Trace.load(file)
            picture = views.save_png(views.image(trace), "from-trace")
            filled = {
                self.controls.picture: gr.Image(picture, alt_text="The picture of the trace file"),
                self.controls.question: trace.question,
            }
            shown = Shown(trace, overlay=shown.overlay)
            return filled | self._stored(shown, stage, model, texts.FROM_FILE)

    def check_picture(self, file: dict) -> None:
        """Say at once what is wrong with an uploaded picture."""
        with explained():
            load_image(file["path"])

    def _stored(self, shown: Shown, stage: int, model: str, status: str) -> dict:
        """Everything for a trace that was not computed just now."""
        return {
            self.state: shown,
            **self.tab.draw(shown, stage, status),
            **self.controls.show_trace(shown.trace, model),
        }

    def _measured(self, shown: Shown) -> dict:
        """Vanilla has been measured: only numbers change."""
        status = texts.ANSWERED.format(seconds(shown.trace.timings.total))
        return {
            self.state: shown,
            self.tab.answer: panels.answer(shown.trace, shown.word, status),
            self.tab.readouts: readouts(shown.trace, shown.vanilla),
        }

    def _growing(self, request: dict, text: str, status: str) -> dict:
        """The answer so far, on both tabs that show it."""
        question, title = request["question"], panels.title(request["method"])
        return {
            self.tab.answer: panels.streaming(question, text, status),
            self.pair.right: panels.growing_card(title, question, text),
        }
