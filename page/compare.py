"""The Compare tab: the same question with and without compression."""

from dataclasses import dataclass

import gradio as gr

import viz
from page import legends, panels, texts, views
from page.readouts import comparison
from page.shown import Shown


@dataclass(frozen=True)
class CompareTab:
    """Components of the tab."""

    run: gr.Button
    stop: gr.Button
    left: gr.HTML
    right: gr.HTML
    numbers: gr.HTML
    overlay: gr.Radio
    stage: gr.Radio
    slider: gr.ImageSlider
    legend: gr.HTML

    @property
    def outputs(self) -> list[gr.components.Component]:
        """What `draw` fills."""
        return [self.left, self.right, self.numbers, self.stage, self.slider, self.legend]

    def draw(self, shown: Shown, overlay: str, stage: int) -> dict:
        """Both answers, their numbers and pictures; the stage is kept if the trace has it."""
        trace, vanilla = shown.trace, shown.vanilla
        choices = views.stage_choices(trace)
        stage = min(stage, len(choices) - 1)
        return {
            self.left: panels.card(vanilla, "Vanilla"),
            self.right: panels.card(trace, panels.side_title(trace), other=vanilla),
            self.numbers: comparison(trace, vanilla),
            self.stage: gr.Radio(choices, value=stage),
            **self._draw_pair(shown, overlay, stage),
        }

    def _draw_pair(self, shown: Shown, overlay: str, stage: int) -> dict:
        """The two pictures under the slider, heat maps of one layer on one colour scale."""
        trace, vanilla = shown.trace, shown.vanilla
        if trace is None or vanilla is None:
            return {self.slider: None, self.legend: ""}
        layer = views.deciding_layer(trace, stage)
        vmax = viz.heat_scale(viz.attention_row(each, layer) for each in (trace, vanilla))
        options = {"layer": layer, "vmax": vmax, "legend": False}
        left = views.picture(vanilla, overlay, 0, **options)
        right = views.picture(trace, overlay, stage, **options)
        scale = legends.scale(vmax, f"<li>layer {layer}</li>")
        explanation = texts.OVERLAYS[overlay][1]
        return {
            self.slider: (
                views.save_png(left, views.file_name(vanilla, overlay)),
                views.save_png(right, views.file_name(trace, overlay)),
            ),
            self.legend: f"{scale if overlay in texts.HEAT else ''}"
            f'<p class="caption">{texts.SLIDER} {explanation}</p>',
        }


def build(shown: Shown) -> CompareTab:
    """Place the components."""
    with gr.Row(elem_classes="toolbar"):
        gr.HTML(f'<p class="lead">{texts.COMPARE}</p>')
        run = gr.Button("Ask both", variant="primary", elem_id="compare-run", scale=0)
        stop = gr.Button("Stop", visible=False, elem_id="compare-stop", scale=0)
    with gr.Row(equal_height=True):
        left = gr.HTML(panels.card(None, "Vanilla"), elem_id="left")
        right = gr.HTML(panels.card(None, "Compressed"), elem_id="right")
    with gr.Row(elem_id="pair"):
        with gr.Column(scale=3):
            slider = gr.ImageSlider(
                show_label=False,
                format="png",
                interactive=False,
                buttons=["download", "fullscreen"],
                elem_id="slider",
                max_height=620,
            )
            legend = gr.HTML(elem_id="pair-legend")
        with gr.Column(scale=2):
            overlay = gr.Radio(
                [(label, key) for key, (label, _) in texts.OVERLAYS.items()],
                value="merged",
                label="Overlay",
                info=texts.OVERLAY_HELP,
                elem_classes="segments",
                elem_id="compare-overlay",
            )
            stage = gr.Radio(
                views.stage_choices(shown.trace),
                value=shown.stage,
                label="Stage",
                info=texts.STAGE_HELP,
                elem_classes="segments",
                elem_id="compare-stage",
            )
            numbers = gr.HTML(elem_id="numbers")
    return CompareTab(run, stop, left, right, numbers, overlay, stage, slider, legend)
