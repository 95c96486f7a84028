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
from page import (
    api,
    ask,
    compare,
    controls,
    efficiency,
    engine,
    examples,
    figures,
    learn,
    panels,
    theme,
)
from page.visit import Visit

LAUNCH = {
    "theme": theme.theme(),
    "css_paths": theme.STYLE,
    "head": theme.HEAD,
    "favicon_path": theme.ICON,
    "footer_links": [],
    "run_history": False,
    "enable_monitoring": False,
    "max_file_size": "20mb",
}
SLOT = {"concurrency_id": "model", "concurrency_limit": engine.SLOTS}
PRIVATE = {"show_progress": "hidden", "api_visibility": "private"}
QUICK = {"queue": False, **PRIVATE}
CHECKED = {"concurrency_limit": None, **PRIVATE}  # only queued events show their errors


def build(model: str = engine.MODEL, folder: Path = examples.FOLDER) -> gr.Blocks:
    """The page with one model loaded, and the first example of a folder already on it."""
    prepared = examples.load(folder)
    first = examples.first_shown(prepared)
    with gr.Blocks(
        title="Libra · visual tokens", delete_cache=(3600, 86400), fill_width=True
    ) as page:
        shown = gr.State(first)
        gr.HTML(
            panels.header(engine.title(model), engine.facts(model)),
            js_on_load=theme.SWITCH,
            elem_id="top",
        )
        with gr.Tabs(elem_id="tabs") as tabs:
            with gr.Tab("Ask", id="ask"), gr.Row(elem_id="ask-row"):
                with gr.Column(elem_id="left-column"):
                    c = controls.build(model, prepared)
                with gr.Column(elem_id="middle-column"):
                    pictures = ask.build_pictures(first)
                with gr.Column(elem_id="right-column"):
                    answer = ask.build_answer(first)
            a = ask.AskTab(**pictures, **answer)
            with gr.Tab("Compare", id="compare") as compare_tab:
                pair = compare.build(first)
            with gr.Tab("Figures", id="figures") as figures_tab:
                gallery = figures.build()
            with gr.Tab("Efficiency", id="efficiency") as efficiency_tab:
                charts = efficiency.build()
            with gr.Tab("Learn", id="learn"):
                learn.build(model)
        api.build(model, **SLOT)
        visit = Visit(c, a, pair, prepared)

        # Asking: the answer streams, then vanilla is measured; Stop frees the slot.
        asks = [c.ask.click, c.question.submit, a.compare.click, pair.run.click]
        buttons = [c.ask, c.stop, pair.run, pair.stop]
        a.compare.click(lambda: gr.Tabs(selected="compare"), None, tabs, **QUICK)
        gr.on(asks, None, None, buttons, js=panels.SHOW_STOP)
        running = gr.on(
            asks,
            visit.ask,
            [shown, *c.inputs],
            [*a.outputs, pair.right],
            preprocess=False,
            show_progress="minimal",
            show_progress_on=a.answer,
            api_visibility="private",
            **SLOT,
        )
        running.success(None, None, buttons, js=panels.SHOW_ASK)
        running.failure(None, None, buttons, js=panels.SHOW_ASK)
        running.success(pair.draw, [shown, pair.overlay, pair.stage], pair.outputs, **QUICK)
        running.failure(visit.restore, shown, [a.answer, pair.right], **QUICK)
        gr.on([c.stop.click, pair.stop.click], None, cancels=running)

        # Looking: stage, overlay and word move every picture of their tab.
        a.stage.input(visit.pick_stage, [shown, a.stage], a.outputs, **QUICK)
        a.overlays.select(visit.pick_overlay, shown, a.outputs, **QUICK)
        a.answer.select(visit.pick_word, shown, a.outputs, **QUICK)
        gr.on(
            [pair.overlay.input, pair.stage.input, compare_tab.select],
            pair.draw,
            [shown, pair.overlay, pair.stage],
            pair.outputs,
            **QUICK,
        )
        figures_tab.select(figures.draw, shown, gallery, **QUICK)
        efficiency_tab.select(efficiency.draw, shown, charts, **QUICK)

        # Choosing: examples, files, methods.
        everything = [*a.outputs, *c.outputs]
        c.strip.select(visit.open_example, [shown, c.model], everything, **QUICK)
        a.open_trace.upload(visit.open_trace, [a.open_trace, shown, c.model], everything, **CHECKED)
        uploaded = c.picture.upload(
            visit.check_picture, [c.picture, shown], None, preprocess=False, **CHECKED
        )
        uploaded.failure(visit.last_picture, shown, c.picture, **QUICK)
        c.method.input(c.show_method, [c.method, c.model], c.of_method, **QUICK)
        c.model.input(c.show_model, [c.method, c.model], [c.knows, *c.of_method], **QUICK)
        c.preset.input(c.show_preset, [c.preset, c.method, c.model], c.of_method, **QUICK)
    return page.queue(max_size=engine.QUEUE)


def main() -> int:
    """Serve the page; 2 and one line if the model or the port cannot be had."""
    host, port = os.environ.get("HOST"), os.environ.get("PORT", "")
    try:
        if port and not port.isdigit():
            raise InputError(f"PORT must be a number, not {port!r}.")
        page = build()
        page.launch(server_name=host, server_port=int(port) if port else None, **LAUNCH)
    except (OSError, ValueError) as error:  # an InputError is a ValueError
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
