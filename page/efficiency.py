"""The Efficiency tab: what compression saves, by the formula and by the clock."""

import gradio as gr

import viz
from page import plan, texts, views
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
    """Charts and table of the answers that are compared: at first the last one, and vanilla's."""
    if not shown.traces:
        return [gr.skip()] * 3
    traces = {plan.title(trace.method): trace for trace in shown.traces}
    charts = (viz.staircase(traces), viz.cost_bars(traces))
    return [*map(views.save_figure, charts, ("staircase", "cost")), per_layer(shown.traces)]
