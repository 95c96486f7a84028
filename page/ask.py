"""The Ask tab: the picture under its overlays, the answer, the numbers."""

from dataclasses import dataclass
from html import escape

import gradio as gr
from PIL import Image

import viz
from libra import methods
from libra.errors import InputError
from libra.trace import Trace
from page import files, panels, scrubber, texts, views
from page.errors import explained
from page.legends import legend
from page.readouts import readouts
from page.shown import Shown
from viz import inspector
from viz.panel import named

FRAMES = "frames"  # the scrubber's id


@dataclass(frozen=True)
class AskTab:
    """Components of the tab's middle and right column."""

    hero: gr.Image
    frames: gr.HTML
    caption: gr.HTML
    overlays: gr.HTML
    stage: gr.Radio
    tokens: gr.Image
    pane: gr.HTML
    answer: gr.HTML
    readouts: gr.HTML
    compare: gr.Button
    save_picture: gr.DownloadButton
    save_svg: gr.Button
    save_page: gr.Button
    save_trace: gr.DownloadButton
    open_trace: gr.UploadButton

    @property
    def outputs(self) -> list[gr.components.Component]:
        """What `draw` fills."""
        pictures = [self.hero, self.frames, self.caption, self.overlays, self.tokens]
        words = [self.pane, self.stage, self.answer, self.readouts]
        return [*pictures, *words, self.save_picture, self.save_trace]

    def draw_pictures(self, shown: Shown) -> dict:
        """All pictures at the chosen stage."""
        if shown.trace is None:
            return {}
        return self.draw_picture(shown) | {
            self.frames: scrubber.update(FRAMES, shown.trace, shown.own_image, *_paint(shown)),
            self.tokens: gr.Image(strip(shown)),
        }

    def draw_picture(self, shown: Shown) -> dict:
        """What shows the chosen one of the pictures alone."""
        if shown.trace is None:
            return {}
        return {
            self.hero: gr.Image(**hero(shown)),
            self.caption: caption(shown),
            self.overlays: overlays(shown),
            self.pane: pane(shown),
            self.save_picture: gr.DownloadButton(value=picture_file(shown), interactive=True),
        }

    def draw(self, shown: Shown, status: str = "") -> dict:
        """The whole tab for a new trace."""
        return self.draw_pictures(shown) | {
            self.stage: gr.Radio(views.stage_choices(shown.trace), value=shown.stage),
            self.answer: panels.answer(shown.trace, shown.word, status),
            self.readouts: readouts(shown.trace, shown.vanilla),
            self.save_trace: gr.DownloadButton(
                value=views.save_trace(shown.trace), interactive=True
            ),
        }


def build_pictures(shown: Shown) -> dict[str, gr.components.Component]:
    """Place the middle column, filled with what is shown first."""
    there = shown.trace is not None
    parts = {
        "hero": gr.Image(
            **(hero(shown) if there else {}),
            show_label=False,
            format="png",
            interactive=False,
            buttons=["fullscreen"],
            elem_id="hero",
        ),
        "frames": scrubber.build(FRAMES, shown.trace, shown.own_image, *_paint(shown)),
        "caption": gr.HTML(caption(shown) if there else "", elem_id="caption"),
        "stage": gr.Radio(
            views.stage_choices(shown.trace),
            value=shown.stage,
            label="Stage",
            info=texts.STAGE_HELP,
            elem_classes="segments",
            elem_id="stage",
        ),
        "overlays": gr.HTML(
            overlays(shown) if there else "", js_on_load=panels.PICKS, elem_id="overlays"
        ),
        "tokens": gr.Image(
            strip(shown) if there else None,
            show_label=False,
            format="png",
            interactive=False,
            buttons=["download"],
            elem_id="tokens",
            alt_text=texts.STRIP,
        ),
    }
    parts["pane"] = gr.HTML(
        pane(shown) if there else None,
        elem_id="pane",
        **inspector.pane_component("#hero img"),
    )
    gr.HTML(f'<p class="note">{texts.STRIP}</p>')
    with gr.Row(elem_id="files"):
        parts["save_picture"] = gr.DownloadButton(
            "Save picture",
            picture_file(shown) if there else None,
            interactive=there,
            size="sm",
            elem_id="save-picture",
        )
        parts["save_svg"] = gr.Button("SVG", size="sm", elem_id="save-svg")
        parts["save_page"] = gr.Button("Web page", size="sm", elem_id="save-page")
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
    return {
        "answer": gr.HTML(
            panels.answer(shown.trace, status=shown.status),
            js_on_load=panels.PICKS,
            elem_id="answer",
        ),
        "readouts": gr.HTML(readouts(shown.trace, shown.vanilla), elem_id="readouts"),
        "compare": gr.Button("Compare with vanilla", elem_id="compare-button"),
    }


def hero(shown: Shown) -> dict:
    """File and description of the large picture."""
    picture = views.picture(*_at(shown), legend=False, image=shown.own_image)
    file = views.save_png(picture, _name(shown))
    return {"value": file, "alt_text": views.caption(*_at(shown))}


def pane(shown: Shown) -> dict:
    """Of what the pointer over the large picture would be told."""
    of = panels.identity(shown.trace)
    return {"of": of, "stages": [shown.stage], "image": shown.own_image}


def look(shown: Shown) -> dict:
    """What it is told."""
    if (trace := shown.trace) is None:
        return gr.skip()
    return inspector.pane(trace) | {"of": panels.identity(trace)}


def picture_file(shown: Shown) -> str:
    """The large picture with its legend, as a file to download."""
    return views.save_png(_with_legend(shown), _name(shown))


def save_svg(shown: Shown) -> str:
    """The large picture with its legend as a file for a paper or a slide."""
    with explained():
        path = files.new(_name(_answered(shown)), "svg", viz.FORMATS)
        viz.save(_with_legend(shown), path)
        return str(path)


def save_page(shown: Shown) -> str:
    """The answer as a web page to look into, which works offline."""
    with explained():
        answers = (_answered(shown).trace, shown.vanilla)
        named = {methods.title(trace.method): trace for trace in answers if trace}
        path = files.new(shown.trace.method, "html", ("html",))
        path.write_text(inspector.document(named), "utf-8")
        return str(path)


def _answered(shown: Shown) -> Shown:
    """Of which there is an answer."""
    if shown.trace is None:
        raise InputError(texts.NOTHING_TO_SAVE)
    return shown


def caption(shown: Shown) -> str:
    """Legend and explanation of the large picture, below it."""
    place = scrubber.place(shown.trace, shown.own_image, shown.stage)
    seen = views.caption(*_at(shown)), views.cropped(shown.trace, shown.own_image)
    words = escape(" ".join(filter(None, (place, *seen))))
    point = panels.pointing(texts.POINT)
    return f'{legend(*_at(shown), shown.own_image)}<p class="caption">{words} {point}</p>'


def overlays(shown: Shown) -> str:
    """The overlays to choose from, as small pictures of this stage."""
    thumbnails = views.thumbnails(shown.trace, shown.stage, shown.word, shown.own_image)
    return panels.overlay_picker(thumbnails, shown.overlay)


def strip(shown: Shown) -> str:
    """The token strip of this stage, as a file."""
    stage = shown.trace.stages[shown.stage]
    picture = viz.token_strip(shown.trace, shown.stage)
    return views.save_png(picture, views.file_name(shown.trace, "tokens", stage))


def _with_legend(shown: Shown) -> Image.Image:
    """The large picture as it is saved: with its legend, and which of several it is."""
    picture = views.picture(*_at(shown), image=shown.own_image)
    return named(picture, shown.trace, shown.own_image)


def _name(shown: Shown) -> str:
    which = [shown.own_image + 1] if len(shown.trace.images) > 1 else []
    return views.file_name(shown.trace, shown.overlay, *which, shown.trace.stages[shown.stage])


def _paint(shown: Shown) -> tuple[str, int, int]:
    return shown.overlay, shown.stage, shown.word


def _at(shown: Shown) -> tuple[Trace, str, int, int]:
    return shown.trace, *_paint(shown)
