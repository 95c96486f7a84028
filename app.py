"""The page: `python app.py`. Layout and wiring; what is shown comes from `page/`.

Environment: MODEL (a name, hub id or folder), HOST and PORT (or GRADIO_SERVER_NAME and
GRADIO_SERVER_PORT), LIBRA_SLOTS (questions computed at once), LIBRA_QUEUE (questions waiting).
"""

import os
import sys
from pathlib import Path

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")

import gradio as gr

from libra.errors import InputError
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
from page.blocks import Page
from page.turns import Turns
from page.visit import Visit

LAUNCH = {
    "theme": theme.theme(),
    "css_paths": theme.STYLE,
    "head": theme.HEAD,
    "favicon_path": theme.ICON,
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


def build(model: str = engine.MODEL, folder: Path = examples.FOLDER) -> gr.Blocks:
    """The page with one model loaded, and the first example of a folder already on it."""
    slots = setting("LIBRA_SLOTS", 1, MOST_SLOTS)
    turns = Turns(slots, setting("LIBRA_QUEUE", 20, MOST_WAITING))
    prepared = examples.load(folder)
    first = examples.first_shown(prepared)
    first.model = model
    with Page(title="Libra · visual tokens", delete_cache=(3600, 86400), fill_width=True) as page:
        shown = gr.State(first)
        top = gr.HTML(header(model), js_on_load=theme.SCRIPT, elem_id="top")
        with gr.Tabs(elem_id="tabs") as tabs:
            with gr.Tab("Ask", id="ask") as ask_tab, gr.Row(elem_id="ask-row"):
                with gr.Column(elem_id="left-column"):
                    c = controls.build(model, prepared)
                with gr.Column(elem_id="middle-column"):
                    pictures = ask.build_pictures(first)
                with gr.Column(elem_id="right-column"):
                    answer = ask.build_answer(first)
            a = ask.AskTab(**pictures, **answer)
            with gr.Tab("Compare", id="compare") as compare_tab:
                several = compare.build()
            with gr.Tab("Inspect", id="inspect") as inspect_tab:
                inspected = inspect.build(model)
            with gr.Tab("Figures", id="figures") as figures_tab:
                gallery = figures.build()
            with gr.Tab("Efficiency", id="efficiency") as efficiency_tab:
                charts = efficiency.build(c)
            with gr.Tab("Learn", id="learn"):
                lessons = learn.build(model, prepared)
        made = files.build()
        address = gr.Textbox(visible="hidden")
        api.build(model, turns)
        visit = Visit(c, a, several, prepared)
        looks, results = [shown, *several.looks], [several.status, *several.outputs]

        # Gradio frees what it keeps of a visitor only if an event has put it out, and does so an
        # hour later, also where a connection was lost for a moment: who is still there says so.
        signs = [page.load, gr.Timer(RENEW).tick]
        gr.on(signs, lambda shown: shown, shown, shown, **QUICK)

        # A visit can begin with what a link says, and end in one.
        everything = [*a.outputs, *c.outputs]
        come = page.load(visit.arrive, [shown, c.model], everything, **CHECKED)
        come.success(**c.noting("open"), **QUICK)
        shared = top.link(visit.share, [shown, *c.inputs], address, preprocess=False, **QUICK)
        shared.success(None, address, None, js=link.SHOW)

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
            compare.with_vanilla, c.method, [tabs, several.chosen, several.ratio], **QUICK
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

        # Looking: stage, overlay and word move every picture of their tab.
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
        pointed = a.hero.select(inspected.point, shown, inspected.outputs, **QUICK)
        arrived = pointed.success(inspect.go_there, None, tabs, js=inspect.TO_TOP, **QUICK)
        arrived.success(None, None, None, js=inspect.TO_PICTURE)
        a.answer.select(visit.pick_word, shown, a.outputs, **QUICK)
        gr.on(
            [several.overlay.input, several.position.input, compare_tab.select],
            visit.draw_compared,
            looks,
            results,
            **QUICK,
        )
        ask_tab.select(visit.come_back, shown, a.outputs, **QUICK)
        inspect_tab.select(inspected.draw, shown, inspected.outputs, **QUICK)
        inspected.view.select(inspected.follow, shown, None, **QUICK)
        figures_tab.select(gallery.draw, shown, gallery.outputs, **DRAWN)
        gallery.frames.input(
            gallery.pick,
            [shown, gallery.frames],
            gallery.outputs,
            trigger_mode="multiple",  # the last choice ends the drawing of those before
            **DRAWN,
        )
        costed = [shown, *charts.where]
        efficiency_tab.select(charts.show_method, c.method, charts.after, **QUICK)
        efficiency_tab.select(charts.draw, costed, charts.outputs, **DRAWN)
        elsewhere = gr.on(
            [charts.model.input, charts.device.input, charts.tokens.submit, charts.tokens.blur],
            charts.draw_elsewhere,
            costed,
            charts.outputs,
            trigger_mode="always_last",  # what is chosen meanwhile is drawn next
            **DRAWN,
        )
        elsewhere.failure(charts.last_tokens, charts.counted, charts.tokens, **QUICK)

        # Sweeping over ratio and layer, in the same slot as questions.
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

        # Asking again without some patches, or with them, in the same slot.
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

        # Saving what is drawn only when it is wanted.
        files.hand_over(a.save_svg.click, ask.save_svg, shown, made, **DRAWN)
        files.hand_over(a.save_page.click, ask.save_page, shown, made, **DRAWN)
        files.hand_over(inspected.view.save, inspected.save, shown, made, **DRAWN)
        for card in gallery.cards.values():
            files.hand_over(card.saves.select, figures.save, shown, made, **DRAWN)
        for card in charts.cards.values():
            files.hand_over(card.saves.select, charts.save, costed, made, **DRAWN)
        files.hand_over(charts.lines.saves.select, charts.save_sweep, charts.swept, made, **DRAWN)

        # Choosing: examples, files, methods.
        filled = c.strip.select(visit.open_example, [shown, c.model], everything, **QUICK)
        filled.success(None, None, None, js=panels.SHOW_ANSWER)
        filled.success(**c.noting("fill"), **QUICK)
        opened = lessons.select(visit.open_lesson, [shown, c.model], everything, **QUICK)
        opened.success(**c.noting("open"), **QUICK)
        led = opened.success(inspected.lead, shown, inspected.outputs, **QUICK)
        led.success(inspect.go_there, None, tabs, js=inspect.TO_TOP, **QUICK)
        traced = a.open_trace.upload(
            visit.open_trace, [a.open_trace, shown, c.model], everything, **CHECKED
        )
        traced.success(**c.noting("open"), **QUICK)
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
        c.follow.input(visit.follow, [shown, c.follow], None, **QUICK)
        c.method.input(c.show_method, [c.method, c.model], c.of_method, **QUICK)
        loading = c.model.select(
            turns.wait(visit.choose_model, c.knows, unless=visit.has_model),
            [shown, c.method, c.model],
            [c.knows, c.media.frames, *c.of_method],
            show_progress_on=c.model,
            **IN_TURN,
        )
        loading.success(header, c.model, top, **QUICK)
        loading.failure(visit.last_model, shown, [c.model, c.knows], **QUICK)
        own = [c.ratio.input, c.layers.input, c.encoder_layers.input]
        own += [control.input for control in c.parameters.values()]
        gr.on(own, None, None, c.preset, js=controls.OWN)  # no preset any more
        c.preset.input(c.show_preset, [c.preset, c.method, c.model], c.of_method, **QUICK)
        changes = [control.change for control in (*c.noted, c.preset)]
        gr.on([page.load, *changes], **c.noting("change"), **QUICK)
    return page.queue(max_size=QUEUED)


def header(model: str) -> str:
    """The top of the page while a model is at work."""
    return panels.header(engine.title(model), engine.facts(model))


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
    try:
        port = setting("PORT", None, 65535)
        build().launch(server_name=os.environ.get("HOST"), server_port=port, **LAUNCH)
    except (OSError, InputError) as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
