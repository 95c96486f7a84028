"""The Figures tab: every figure that the trace gives, to look at and to download."""

import gradio as gr

import viz
from libra.trace import Trace
from page import texts, views
from page.shown import Shown


def build() -> list[gr.components.Component]:
    """Place one card per figure: a note for what is missing, and the picture."""
    gr.HTML(f'<p class="lead">{texts.FIGURES}</p>')
    cards = []
    with gr.Row(elem_id="gallery"):
        for spec in viz.FIGURES.values():
            with gr.Column(elem_classes="figure", min_width=460):
                gr.HTML(f"<h3>{spec.title}</h3><p>{spec.explanation}</p>")
                cards.append(gr.HTML(visible=False))
                cards.append(
                    gr.Image(
                        show_label=False,
                        format="png",
                        interactive=False,
                        buttons=["download", "fullscreen"],
                        alt_text=f"{spec.title}. {spec.explanation}",
                    )
                )
    return cards


def draw(shown: Shown) -> list:
    """The figures of the current answer; what its trace cannot give says why."""
    if shown.trace is None:
        return [gr.skip()] * 2 * len(viz.FIGURES)
    return [update for spec in viz.FIGURES.values() for update in _draw_card(spec, shown.trace)]


def _draw_card(spec: viz.FigureSpec, trace: Trace) -> tuple[gr.HTML, gr.Image]:
    missing = spec.missing(trace)
    if missing:
        return gr.HTML(f'<p class="empty">{missing}</p>', visible=True), gr.Image(visible=False)
    path = views.save_figure(spec.function(trace), views.file_name(trace, spec.name))
    return gr.HTML(visible=False), gr.Image(path, visible=True)
