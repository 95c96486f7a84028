"""The Ask tab: the picture under its overlays, the answer, the numbers."""

from dataclasses import dataclass

import gradio as gr

import viz
from libra.trace import Trace
from page import panels, texts, views
from page.legends import legend
from page.readouts import readouts


@dataclass(frozen=True)
class Shown:
    """What one visitor looks at; kept in the session."""

    trace: Trace | None = None
    vanilla: Trace | None = None  # the same inputs without compression, once measured
    overlay: str = "fate"
    word: int = 0


@dataclass(frozen=True)
class AskTab:
    """Components of the tab's middle and right column."""

    hero: gr.Image
    caption: gr.HTML
    overlays: gr.HTML
    stage: gr.Radio
    tokens: gr.Image
    answer: gr.HTML
    readouts: gr.HTML
    compare: gr.Button
    save_picture: gr.DownloadButton
    save_trace: gr.DownloadButton
    open_trace: gr.UploadButton

    @property
    def outputs(self) -> list[gr.components.Component]:
        """What `draw` fills."""
        pictures = [self.hero, self.caption, self.overlays, self.tokens, self.save_picture]
        return [*pictures, self.stage, self.answer, self.readouts, self.save_trace]

    def draw_pictures(self, shown: Shown, stage: int) -> dict:
        """All pictures at one stage."""
        if shown.trace is None:
            return {}
        return {
            self.hero: gr.Image(**hero(shown, stage)),
            self.caption: caption(shown, stage),
            self.overlays: overlays(shown, stage),
            self.tokens: strip(shown, stage),
            self.save_picture: gr.DownloadButton(
                value=picture_file(shown, stage), interactive=True
            ),
        }

    def draw(self, shown: Shown, stage: int, status: str = "") -> dict:
        """The whole tab for a new trace; the stage stays where it is if the trace has it."""
        stage = min(stage, len(shown.trace.events))
        return self.draw_pictures(shown, stage) | {
            self.stage: gr.Radio(views.stage_choices(shown.trace), value=stage),
            self.answer: panels.answer(shown.trace, shown.word, status),
            self.readouts: readouts(shown.trace, shown.vanilla),
            self.save_trace: gr.DownloadButton(
                value=views.save_trace(shown.trace), interactive=True
            ),
        }


def build_pictures(shown: Shown) -> dict[str, gr.components.Component]:
    """Place the middle column, filled with what is shown first."""
    stage = len(shown.trace.events) if shown.trace else 0
    there = shown.trace is not None
    parts = {
        "hero": gr.Image(
            **(hero(shown, stage) if there else {}),
            show_label=False,
            format="png",
            interactive=False,
            buttons=["fullscreen"],
            elem_id="hero",
        ),
        "caption": gr.HTML(caption(shown, stage) if there else "", elem_id="caption"),
        "stage": gr.Radio(
            views.stage_choices(shown.trace),
            value=stage,
            label="Stage",
            info=texts.STAGE_HELP,
            elem_classes="segments",
            elem_id="stage",
        ),
        "overlays": gr.HTML(
            overlays(shown, stage) if there else "", js_on_load=panels.PICKS, elem_id="overlays"
        ),
        "tokens": gr.Image(
            strip(shown, stage) if there else None,
            show_label=False,
            format="png",
            interactive=False,
            buttons=["download"],
            elem_id="tokens",
            alt_text=texts.STRIP,
        ),
    }
    gr.HTML(f'<p class="note">{texts.STRIP}</p>')
    with gr.Row(elem_id="files"):
        parts["save_picture"] = gr.DownloadButton(
            "Save picture",
            picture_file(shown, stage) if there else None,
            interactive=there,
            size="sm",
            elem_id="save-picture",
        )
        parts["save_trace"] = gr.DownloadButton(
            "Save trace",
            views.save_trace(shown.trace) if there else None,
            interactive=there,
            size="sm",
            elem_id="save-trace",
        )
        parts["open_trace"] = gr.UploadButton(
            "Open trace", size="sm", file_types=[".zip"], elem_id="open-trace"
        )
    gr.HTML(f'<p class="note">{texts.TRACE_HELP}</p>')
    return parts


def build_answer(shown: Shown) -> dict[str, gr.components.Component]:
    """Place the right column."""
    status = texts.FROM_EXAMPLE if shown.trace else ""
    return {
        "answer": gr.HTML(
            panels.answer(shown.trace, status=status), js_on_load=panels.PICKS, elem_id="answer"
        ),
        "readouts": gr.HTML(readouts(shown.trace, shown.vanilla), elem_id="readouts"),
        "compare": gr.Button("Compare with vanilla", elem_id="compare-button"),
    }


def hero(shown: Shown, stage: int) -> dict:
    """File and description of the large picture."""
    trace, overlay, word = shown.trace, shown.overlay, shown.word
    name = views.file_name(trace, overlay, trace.stages[stage])
    picture = views.picture(trace, overlay, stage, word, legend=False)
    return {
        "value": views.save_png(picture, name),
        "alt_text": views.caption(trace, overlay, stage, word),
    }


def picture_file(shown: Shown, stage: int) -> str:
    """The large picture with its legend, as a file to download."""
    trace, overlay = shown.trace, shown.overlay
    name = views.file_name(trace, overlay, trace.stages[stage])
    return views.save_png(views.picture(trace, overlay, stage, shown.word), name)


def caption(shown: Shown, stage: int) -> str:
    """Legend and explanation of the large picture, below it."""
    at = (shown.trace, shown.overlay, stage, shown.word)
    return f'{legend(*at)}<p class="caption">{views.caption(*at)}</p>'


def overlays(shown: Shown, stage: int) -> str:
    """The overlays to choose from, as small pictures of this stage."""
    thumbnails = views.thumbnails(shown.trace, stage, shown.word)
    return panels.overlay_picker(thumbnails, shown.overlay)


def strip(shown: Shown, stage: int) -> str:
    """The token strip of this stage, as a file."""
    name = views.file_name(shown.trace, "tokens", shown.trace.stages[stage])
    return views.save_png(viz.token_strip(shown.trace, stage), name)
