"""The Efficiency tab: what compression saves, by the formula and by the clock."""

import gradio as gr

import viz
from page import panels, texts, views
from page.readouts import per_layer
from page.shown import Shown


def build() -> list[gr.components.Component]:
    """Place the two charts and the table that holds the same numbers."""
    gr.HTML(f'<p class="lead">{texts.EFFICIENCY}</p>')
    charts = []
    with gr.Row(equal_height=True):
        for title, explanation in texts.CHARTS:
            with gr.Column(elem_classes="figure", min_width=460):
                gr.HTML(f"<h3>{title}</h3><p>{explanation}</p>")
                charts.append(
                    gr.Image(
                        show_label=False,
                        format="png",
                        interactive=False,
                        buttons=["download", "fullscreen"],
                        alt_text=f"{title}. {explanation} The table below has the same numbers.",
                    )
                )
    return [*charts, gr.HTML(elem_id="per-layer")]


def draw(shown: Shown) -> list:
    """Charts and table of the current answer, beside vanilla's where that was measured."""
    trace, vanilla = shown.trace, shown.vanilla
    if trace is None:
        return [gr.skip()] * 3
    title = panels.title(trace.method)
    traces = ({"Vanilla": vanilla} if vanilla else {}) | {title: trace}
    charts = (viz.staircase(traces), viz.cost_bars(traces))
    names = (views.file_name(trace, "staircase"), views.file_name(trace, "cost"))
    return [*map(views.save_figure, charts, names), per_layer(trace)]
