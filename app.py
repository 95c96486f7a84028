"""The page: `python app.py`. Layout and wiring; what is shown comes from `page/`.

Environment: MODEL (a name, hub id or folder), HOST and PORT (or GRADIO_SERVER_NAME and
GRADIO_SERVER_PORT), LIBRA_SLOTS (questions computed at once), LIBRA_QUEUE (questions waiting).
"""

import os
import sys
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")

import gradio as gr

from libra.errors import InputError, MediaWarning
from libra.video import MAX_BYTES
from page import (
    api,
    ask,
    compare,
    controls,
    efficiency,
    engine,
    examples,
    figures,
    files,
    inspect,
    learn,
    link,
    panels,
    theme,
)
from page.ask import AskTab
from page.blocks import Page
from page.compare import CompareTab
from page.controls import Controls
from page.efficiency import EfficiencyTab
from page.examples import Example
from page.figures import FiguresTab
from page.inspect import InspectTab
from page.turns import Turns
from page.visit import Visit

LAUNCH = {
    "theme": theme.theme(),
    "css_paths": theme.STYLE,
    "head": theme.HEAD,
    "favicon_path": theme.ICON,
    "i18n": theme.WORDS,
    "footer_links": [],
    "run_history": False,
    "enable_monitoring": False,
    "max_file_size": MAX_BYTES,
    "max_threads": 150,  # those at work and those who wait for a model hold one each
    "state_session_capacity": 500,
}
QUEUED = 1000  # events of all kinds
MOST_SLOTS, MOST_WAITING = 32, 64
RENEW = 600  # seconds; Gradio may free what it keeps of a visitor after an hour without a sign
PRIVATE = {"show_progress": "hidden", "api_visibility": "private"}
QUICK = {"queue": False, **PRIVATE}
LAST = {"trigger_mode": "always_last", **QUICK}  # what is chosen meanwhile is drawn next
CHECKED = {"concurrency_id": "files", "concurrency_limit": 2, **PRIVATE}  # queued: errors show
IN_TURN = {"concurrency_limit": None, "api_visibility": "private"}  # `Turns` has the limits
DECODED = {"concurrency_id": "videos", "concurrency_limit": 2, **PRIVATE}  # up to a minute each
DRAWN = {"concurrency_id": "drawing", "concurrency_limit": 2, **PRIVATE}  # what takes seconds


@dataclass(frozen=True)
class Parts:
    """What the page is made of: the state of a visit, and the components of every tab."""

    page: gr.Blocks
    shown: gr.State
    top: gr.HTML
    tabs: gr.Tabs
    tab: dict[str, gr.Tab]  # by its id
    controls: Controls
    ask: AskTab
    compare: CompareTab
    inspect: InspectTab
    figures: FiguresTab
    efficiency: EfficiencyTab
    lessons: gr.HTML
    made: gr.DownloadButton  # hands files to the browser
    address: gr.Textbox  # the link of a visit

    @property
    def everything(self) -> list[gr.components.Component]:
        """The Ask tab and its controls."""
        return [*self.ask.outputs, *self.controls.outputs]

    @property
    def compared(self) -> tuple[list[gr.components.Component], list[gr.components.Component]]:
        """What the pictures of a comparison depend on, and what shows it."""
        several = self.compare
        return [self.shown, *several.looks], [several.status, *several.outputs]


def build(model: str = engine.MODEL, folder: Path = examples.FOLDER) -> gr.Blocks:
    """The page with one model loaded, and the first example of a folder already on it."""
    slots = setting("LIBRA_SLOTS", 1, MOST_SLOTS)
    turns = Turns(slots, setting("LIBRA_QUEUE", 20, MOST_WAITING))
    prepared = examples.load(folder)
    with Page(title="Libra · visual tokens", delete_cache=(3600, 86400), fill_width=True) as page:
        parts = _lay_out(page, model, prepared)
        api.build(model, turns)
        visit = Visit(parts.controls, parts.ask, parts.compare, prepared)
        _wire_visit(parts, visit)
        _wire_questions(parts, visit, turns)
        _wire_looking(parts, visit)
        _wire_figures(parts)
        _wire_sweep(parts, turns)
        _wire_asking_again(parts, turns)
        _wire_saving(parts)
        _wire_opening(parts, visit)
        _wire_media(parts, visit)
        _wire_settings(parts, visit, turns)
    return page.queue(max_size=QUEUED)


def _lay_out(page: gr.Blocks, model: str, prepared: Sequence[Example]) -> Parts:
    """Header and tabs, with the first example already shown."""
    first = examples.first_shown(prepared)
    first.model = model
    shown = gr.State(first)
    top = gr.HTML(header(model), js_on_load=theme.SCRIPT, elem_id="top")
    tab = {}
    with gr.Tabs(elem_id="tabs") as tabs:
        with gr.Tab("Ask", id="ask") as tab["ask"], gr.Row(elem_id="ask-row"):
            with gr.Column(elem_id="left-column"):
                c = controls.build(model, prepared)
            with gr.Column(elem_id="middle-column"):
                pictures = ask.build_pictures(first)
            with gr.Column(elem_id="right-column"):
                answer = ask.build_answer(first)
        with gr.Tab("Compare", id="compare") as tab["compare"]:
            several = compare.build()
        with gr.Tab("Inspect", id="inspect") as tab["inspect"]:
            inspected = inspect.build(model)
        with gr.Tab("Figures", id="figures") as tab["figures"]:
            gallery = figures.build()
        with gr.Tab("Efficiency", id="efficiency") as tab["efficiency"]:
            charts = efficiency.build(c)
        with gr.Tab("Learn", id="learn") as tab["learn"]:
            lessons = learn.build(model, prepared)
    return Parts(
        page=page,
        shown=shown,
        top=top,
        tabs=tabs,
        tab=tab,
        controls=c,
        ask=AskTab(**pictures, **answer),
        compare=several,
        inspect=inspected,
        figures=gallery,
        efficiency=charts,
        lessons=lessons,
        made=files.build(),
        address=gr.Textbox(visible="hidden"),
    )


def _wire_visit(p: Parts, visit: Visit) -> None:
    """A visit: how it begins, stays alive and is shared."""
    shown, c = p.shown, p.controls
    # Gradio frees what it keeps of a visitor only if an event has put it out, and does so an
    # hour later, also where a connection was lost for a moment: who is still there says so.
    signs = [p.page.load, gr.Timer(RENEW).tick]
    gr.on(signs, lambda shown: shown, shown, shown, **QUICK)

    # A visit can begin with what a link says, and end in one.
    come = p.page.load(visit.arrive, [shown, c.model], p.everything, **CHECKED)
    come.success(**c.noting("arrive"), **QUICK)
    shared = p.top.link(visit.share, [shown, *c.inputs], p.address, preprocess=False, **QUICK)
    shared.success(None, p.address, None, js=link.SHOW)


def _wire_questions(p: Parts, visit: Visit, turns: Turns) -> None:
    """Questions under one method or several, which share buttons and slots."""
    shown, c = p.shown, p.controls
    a, several = p.ask, p.compare
    looks, results = p.compared

    # Asking: the answer streams, then vanilla is measured; Stop frees the slot. The buttons
    # swap first: a browser goes through the events of one click in this order.
    asks = [c.ask.click, c.question.submit]
    buttons = [c.ask, c.stop, several.run, several.stop]
    starts = [*asks, several.run.click, a.compare.click]
    gr.on(starts, None, None, buttons, js=panels.SHOW_STOP)
    gr.on(asks, **c.noting("ask"), **QUICK)
    asking = gr.on(
        asks,
        turns.wait(visit.ask, a.answer, panels.waiting),
        [shown, *c.inputs],
        a.outputs,
        preprocess=False,
        show_progress="minimal",
        show_progress_on=a.answer,
        **IN_TURN,
    )
    asking.failure(visit.restore, shown, a.answer, **QUICK)

    # Comparing: one method after the other, in the same slot.
    vanilla = a.compare.click(
        compare.with_vanilla, c.method, [p.tabs, several.chosen, several.ratio], **QUICK
    )
    comparing = [
        start(
            turns.wait(visit.compare, several.status),
            [shown, several.chosen, several.ratio, *several.looks, *c.inputs],
            results,
            preprocess=False,
            show_progress="minimal",
            show_progress_on=several.status,
            **IN_TURN,
        )
        for start in (several.run.click, vanilla.success)
    ]
    for running in comparing:
        running.success(visit.compared, looks, results, **QUICK)
        running.failure(visit.settle, looks, results, **QUICK)

    for running in (asking, *comparing):
        running.success(None, None, buttons, js=panels.SHOW_ASK)
        running.failure(None, None, buttons, js=panels.SHOW_ASK)
    gr.on([c.stop.click, several.stop.click], None, cancels=[asking, *comparing])


def _wire_looking(p: Parts, visit: Visit) -> None:
    """Looking: stage, overlay and word move every picture of their tab."""
    shown, a = p.shown, p.ask
    several, inspected = p.compare, p.inspect
    looks, results = p.compared
    a.stage.input(visit.pick_stage, [shown, a.stage], a.outputs, **LAST)
    a.frames.input(visit.pick_image, [shown, a.frames], a.outputs, **LAST)
    several.frames.input(
        visit.pick_compared,
        [shown, several.frames, *several.looks],
        results,
        **LAST,
    )
    a.overlays.select(visit.pick_overlay, shown, a.outputs, **QUICK)
    a.pane.look(ask.look, shown, a.pane, **QUICK)
    several.pane.look(compare.look, shown, several.pane, **QUICK)
    for pane, point in ((a.pane, inspected.point), (several.pane, inspected.point_compared)):
        pointed = pane.select(point, shown, inspected.outputs, **QUICK)
        arrived = pointed.success(inspect.go_there, None, p.tabs, js=inspect.TO_TOP, **QUICK)
        arrived.success(None, None, None, js=inspect.TO_PICTURE)
    a.answer.select(visit.pick_word, shown, a.outputs, **QUICK)
    gr.on(
        [several.overlay.input, several.position.input, p.tab["compare"].select],
        visit.draw_compared,
        looks,
        results,
        **QUICK,
    )
    p.tab["ask"].select(visit.come_back, shown, a.outputs, **QUICK)
    p.tab["inspect"].select(inspected.draw, shown, inspected.outputs, **QUICK)
    inspected.view.select(inspected.follow, shown, None, **QUICK)


def _wire_figures(p: Parts) -> None:
    """The tabs of figures and costs, drawn when they are come to."""
    shown, c = p.shown, p.controls
    gallery, charts = p.figures, p.efficiency
    p.tab["figures"].select(gallery.draw, shown, gallery.outputs, **DRAWN)
    gallery.frames.input(
        gallery.pick,
        [shown, gallery.frames],
        gallery.outputs,
        trigger_mode="multiple",  # the last choice ends the drawing of those before
        **DRAWN,
    )
    costed = [shown, *charts.where]
    p.tab["efficiency"].select(charts.show_method, c.method, charts.after, **QUICK)
    p.tab["efficiency"].select(charts.draw, costed, charts.outputs, **DRAWN)
    elsewhere = gr.on(
        [charts.model.input, charts.device.input, charts.tokens.submit, charts.tokens.blur],
        charts.draw_elsewhere,
        costed,
        charts.outputs,
        trigger_mode="always_last",  # what is chosen meanwhile is drawn next
        **DRAWN,
    )
    elsewhere.failure(charts.last_tokens, charts.counted, charts.tokens, **QUICK)


def _wire_sweep(p: Parts, turns: Turns) -> None:
    """Sweeping over ratio and layer, in the same slot as questions."""
    shown, c, charts = p.shown, p.controls, p.efficiency
    sweeps = [charts.sweep, charts.stop]
    charts.sweep.click(None, None, sweeps, js=efficiency.SHOW_STOP)
    sweeping = charts.sweep.click(
        turns.wait(charts.run, charts.status),
        [shown, charts.ratios, charts.after, *c.inputs],
        charts.sweep_outputs,
        preprocess=False,
        show_progress="minimal",
        show_progress_on=charts.status,
        **IN_TURN,
    )
    sweeping.success(None, None, sweeps, js=efficiency.SHOW_SWEEP)
    ended = sweeping.failure(charts.settle, charts.swept, charts.status, **QUICK)
    ended.then(None, None, sweeps, js=efficiency.SHOW_SWEEP)
    charts.stop.click(None, None, None, cancels=sweeping)


def _wire_asking_again(p: Parts, turns: Turns) -> None:
    """Asking again without some patches, or with them, in the same slot."""
    shown, inspected = p.shown, p.inspect
    inspected.view.again(None, None, inspected.stop, js=inspect.SHOW_STOP)
    forcing = inspected.view.again(
        turns.wait(inspected.ask_again, inspected.again),
        shown,
        inspected.outputs,
        show_progress="minimal",
        show_progress_on=inspected.again,
        **IN_TURN,
    )
    forcing.failure(inspected.settle, shown, inspected.outputs[:3], **QUICK)
    inspected.stop.click(None, None, None, cancels=forcing)
    gone_back = inspected.back.click(inspected.go_back, shown, inspected.outputs, **QUICK)
    gone_back.success(None, None, None, js=inspect.TO_PICTURE)


def _wire_saving(p: Parts) -> None:
    """Saving, of what is drawn only when it is wanted."""
    shown, a, inspected = p.shown, p.ask, p.inspect
    gallery, charts = p.figures, p.efficiency
    files.hand_over(a.save_svg.click, ask.save_svg, shown, p.made, **DRAWN)
    files.hand_over(a.save_page.click, ask.save_page, shown, p.made, **DRAWN)
    files.hand_over(inspected.view.save, inspected.save, shown, p.made, **DRAWN)
    for card in gallery.cards.values():
        files.hand_over(card.saves.select, figures.save, shown, p.made, **DRAWN)
    for card in charts.cards.values():
        files.hand_over(card.saves.select, charts.save, [shown, *charts.where], p.made, **DRAWN)
    files.hand_over(charts.lines.saves.select, charts.save_sweep, charts.swept, p.made, **DRAWN)


def _wire_opening(p: Parts, visit: Visit) -> None:
    """Examples, lessons and stored traces."""
    shown, c = p.shown, p.controls
    a, inspected = p.ask, p.inspect
    filled = c.strip.select(
        visit.open_example, [shown, c.model], p.everything, js=controls.FILL, **QUICK
    )
    filled.then(None, None, None, js=controls.FILLED)
    filled.success(None, None, None, js=panels.SHOW_ANSWER)
    filled.success(**c.noting("fill"), **QUICK)
    opened = p.lessons.select(visit.open_lesson, [shown, c.model], p.everything, **QUICK)
    opened.success(**c.noting("open"), **QUICK)
    led = opened.success(inspected.lead, shown, inspected.outputs, **QUICK)
    led.success(inspect.go_there, None, p.tabs, js=inspect.TO_TOP, **QUICK)
    traced = a.open_trace.upload(
        visit.open_trace, [a.open_trace, shown, c.model], p.everything, **CHECKED
    )
    traced.success(**c.noting("open"), **QUICK)


def _wire_media(p: Parts, visit: Visit) -> None:
    """Pictures and videos of the visitor."""
    shown, c = p.shown, p.controls
    uploaded = c.picture.upload(
        visit.check_picture, [c.picture, shown], None, preprocess=False, **CHECKED
    )
    uploaded.success(c.media.draw_strip, shown, c.media.outputs, **QUICK)
    uploaded.failure(visit.last_picture, shown, c.picture, **QUICK)
    c.picture.clear(c.media.clear, shown, c.media.outputs, **QUICK)
    added, box = [c.media.add, shown], c.media.outputs
    taken = c.media.add.upload(c.media.take, added, box, **CHECKED)
    taken.success(c.media.watch, added, box, trigger_mode="always_last", **DECODED)
    c.media.frames.input(c.media.sample, [shown, c.media.frames], box, **DECODED)
    c.media.strip.select(c.media.drop, shown, c.media.outputs, **QUICK)


def _wire_settings(p: Parts, visit: Visit, turns: Turns) -> None:
    """Model, method and settings."""
    shown, c = p.shown, p.controls
    c.follow.input(visit.follow, [shown, c.follow], None, **QUICK)
    set_by = [c.preset, c.method, c.model]
    for choice in (
        c.method.input(c.show_method, set_by[1:], c.of_method, js=controls.FILL, **LAST),
        c.preset.input(c.show_preset, set_by, c.of_method, js=controls.FILL, **LAST),
    ):
        choice.then(None, None, None, js=controls.FILLED)
    loading = c.model.select(
        turns.wait(visit.choose_model, c.knows, unless=visit.has_model),
        [shown, c.method, c.model],
        [c.knows, c.media.frames, *c.of_method],
        show_progress_on=c.model,
        **IN_TURN,
    )
    loading.success(header, c.model, p.top, **QUICK)
    loading.failure(visit.last_model, shown, [c.model, c.knows], **QUICK)
    own = [c.ratio.input, c.layers.input, c.encoder_layers.input]
    own += [control.input for control in c.parameters.values()]
    gr.on(own, None, None, c.preset, js=controls.OWN)  # no preset any more
    changes = [control.change for control in (*c.noted, c.preset)]
    gr.on([p.page.load, *changes], **c.noting("change"), **QUICK)


def header(model: str) -> str:
    """The top of the page while a model is at work."""
    return panels.header(engine.title(model), engine.shape(model).facts)


def setting(variable: str, default: int | None, most: int) -> int | None:
    """A number of the environment, from 1 on."""
    text = os.environ.get(variable)
    if not text:
        return default
    if not text.isdecimal() or not 1 <= int(text) <= most:
        raise InputError(f"{variable} must be a whole number from 1 to {most}, not {text!r}.")
    return int(text)


def main() -> int:
    """Serve the page; 2 and one line if the model or the port cannot be had."""
    warnings.simplefilter("ignore", MediaWarning)  # the page says it to whom it concerns
    try:
        port = setting("PORT", None, 65535)
        build().launch(server_name=os.environ.get("HOST"), server_port=port, **LAUNCH)
    except (OSError, InputError) as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
