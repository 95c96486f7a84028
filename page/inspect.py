"""The Inspect tab: where every visual token went, and why; and the answer without some of them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from time import monotonic_ns

import gradio as gr

from libra import methods
from libra.errors import InputError
from libra.trace import Trace
from page import engine, files, panels, texts, views
from page.again import Again, panel, request_of
from page.errors import explained
from page.shown import Shown
from viz import inspector

# The new question is asked at the foot of the inspector and answered at its head.
SHOW_STOP = """() => {
  glideTo(document.querySelector("#inspect-top"));
  return {visible: true, __type__: "update"};
}"""

TO_TOP = """() => {
  const bar = ":is(#hero, #slider).fullscreen .icon-button-wrapper";
  document.querySelector(`${bar} > button:last-of-type`)?.click();
  scrollTo({top: 0});
  return [];
}"""
TO_PICTURE = """() => {
  const focus = () => document.querySelector("canvas.i-picture").focus({preventScroll: true});
  setTimeout(focus, 300);  // once the tab is there
}"""


@dataclass(frozen=True)
class InspectTab:
    """Components of the tab, and the models that can be asked again."""

    again: gr.HTML
    stop: gr.Button
    back: gr.Button
    view: gr.HTML
    models: dict[str, str]  # by the title that a trace knows them under

    @property
    def outputs(self) -> list[gr.components.Component]:
        """What `draw` fills."""
        return [self.again, self.stop, self.back, self.view]

    def draw(self, shown: Shown) -> dict:
        """The answers that are compared, the current one first; nothing where they are shown.

        Where another picture or frame was chosen meanwhile, it comes up.
        """
        traces, own = named(shown), {id(shown.trace)}  # that of a click may be there besides
        if not traces:
            return gr.skip()
        if not _ids(traces) <= _ids(shown.inspected) <= _ids(traces) | own:
            return self.show(shown)
        if shown.followed == shown.image:
            return gr.skip()
        shown.followed = shown.image
        return {self.view: {"image": shown.image}}

    def point(self, shown: Shown, event: gr.EventData) -> dict:
        """The answer of the Ask tab, with the patch in hand that its picture was clicked at."""
        return self._hold(shown, [shown.trace] if shown.trace else [], event)

    def point_compared(self, shown: Shown, event: gr.EventData) -> dict:
        """That one of the compared answers whose picture was clicked at, with the patch in hand."""
        return self._hold(shown, shown.traces, event)

    def _hold(self, shown: Shown, traces: Sequence[Trace], event: gr.EventData) -> dict:
        """One of some answers, with the patch in hand that its picture was clicked at.

        Nothing where the picture is of answers that are there no more.
        """
        if event.of != panels.identity(*traces) or event.index not in range(len(traces)):
            return gr.skip()
        trace = traces[event.index]
        patch = views.patch_at(trace, shown.image_of(trace), event.x, event.y)
        there = named(shown)
        name = next((name for name, t in there.items() if t is trace), None)
        name = name or texts.ASKED.format(methods.title(trace.method))
        shown.inspected = {name: trace} | there
        return self._view(shown, stage=event.stage, patch=-1 if patch is None else patch)

    def follow(self, shown: Shown, event: gr.EventData) -> None:
        """One of several pictures was chosen here: the other tabs will show it."""
        if event.image >= 0 and shown.trace is not None:
            shown.look_at(event.image)
            shown.followed = shown.image

    def lead(self, shown: Shown) -> dict:
        """The answers that are compared, with the guided tour of the current one."""
        return self.show(shown, tour=True)

    def show(self, shown: Shown, **first: object) -> dict:
        """The answers that are compared; what `inspector.view` takes says how it begins."""
        shown.inspected = named(shown) or shown.inspected  # a comparison may have just begun
        return self.settle(shown) | self._view(shown, **first)

    def _view(self, shown: Shown, **first: object) -> dict:
        ask = next(iter(shown.inspected.values())).model in self.models
        shown.followed = shown.image
        alone = shown.image or -1  # all pictures, until one of them is chosen
        view = inspector.view(shown.inspected, ask=ask, image=alone, **first)
        return {self.view: view | {"sent": monotonic_ns()}}  # what is as before would not arrive

    def ask_again(self, shown: Shown, event: gr.EventData) -> Iterator[dict]:
        """Ask what one of the answers was an answer to, with the selected patches forced.

        What is inspected stays until the new answer is complete.
        """
        with explained():
            before = self._inspected(shown, event.trace)
            if shown.again is not None and before is shown.again.after:
                before = shown.again.before  # forced patches do not add up
            if before.model not in self.models:
                raise InputError(texts.AGAIN_ELSEWHERE.format(before.model))
            again = Again.of(before, event.how, event.patches)
            compared = any(result.trace is before for result in shown.compared.values())
            asked = shown.asked.get(before.method) if compared else None
            request = again.request(asked or request_of(before))
            shown.forcing = True
            try:
                yield {self.again: panel(again)}
                for result in engine.compare(self.models[before.model], [request]):
                    if result.error:
                        raise InputError(result.error)
                    if result.trace is None:
                        yield {self.again: panel(again, result.text)}
            finally:
                shown.forcing = False
            if len(result.trace.layout) != len(before.layout):
                raise InputError(texts.AGAIN_IN_PART)
            if before is shown.trace or id(before) in _ids(named(shown)):  # nothing else came up
                shown.again = replace(again, after=result.trace)
            yield self.show(shown)

    def settle(self, shown: Shown) -> dict:
        """Both answers if there are two, and the way back; unless something is being asked."""
        if shown.forcing:
            return {}
        there = shown.again is not None
        return {
            self.again: panel(shown.again) if there else "",
            self.stop: gr.Button(visible=False),
            self.back: gr.Button(visible=there),
        }

    def go_back(self, shown: Shown) -> dict:
        """Show the answer as it was, without the new one."""
        shown.again = None
        return self.show(shown)

    def save(self, shown: Shown, event: gr.EventData) -> str:
        """One of the answers as a web page that works offline, or as an animation."""
        with explained():
            trace = self._inspected(shown, event.trace)
            path = files.new(trace.method, event.format, FORMATS)
            if event.format == "html":
                path.write_text(inspector.document({event.trace: trace} | shown.inspected), "utf-8")
            else:
                inspector.save_animation(trace, path, max(0, event.image))
            return str(path)

    def _inspected(self, shown: Shown, name: str) -> Trace:
        """The answer of that name."""
        if name not in shown.inspected:
            raise InputError(texts.INSPECTED_NO_MORE)
        return shown.inspected[name]


def go_there() -> gr.Tabs:
    """Open the tab."""
    return gr.Tabs(selected="inspect")


def _ids(traces: dict[str, Trace]) -> set[int]:
    """Which answers these are."""
    return set(map(id, traces.values()))


FORMATS = ("html", *inspector.FORMATS)


def named(shown: Shown) -> dict[str, Trace]:
    """The answers that are compared by name: the newest first, then the current method's."""
    current = shown.trace.method if shown.trace is not None else ""
    results = sorted(shown.compared.values(), key=lambda r: r.method != current)
    traces = {methods.title(r.method): r.trace for r in results if r.trace is not None}
    if shown.again is None:
        return traces
    before = methods.title(shown.again.before.method)
    return {shown.again.name: shown.again.after, before: shown.again.before} | traces


def build(model: str) -> InspectTab:
    """Place the inspector of a page with that model; it fills when its tab is opened."""
    point = panels.pointing(texts.POINT_IN_INSPECT, texts.TAP_IN_INSPECT)
    lead = panels.lead("Inspect", f"{point} {texts.SELECT_TO_ASK}")
    gr.HTML(lead, elem_id="inspect-top")
    with gr.Column(elem_id="again-place"):
        again = gr.HTML("", elem_id="again")
        with gr.Row(elem_id="again-buttons"):
            stop = gr.Button("Stop", visible=False, size="sm", elem_id="again-stop")
            back = gr.Button(texts.BACK, visible=False, size="sm", elem_id="again-back")
    view = gr.HTML(None, elem_id="inspector", **inspector.component())
    return InspectTab(again, stop, back, view, engine.offered(model))
