"""The Compare tab: one question under several methods, side by side and in step."""

from collections.abc import Sequence
from dataclasses import dataclass

import gradio as gr

from libra import methods
from libra.errors import InputError
from libra.trace import Trace
from page import comparison, panels, picker, readouts, scrubber, texts, views
from page.shown import Result, Shown, overlays
from viz import inspector

DEFAULT = ["vanilla", "fastv", "libra"]
DEFAULT_OVERLAY = "groups"
OWN = "Own"
RATIOS = {  # what takes the place of the methods' own; the papers' are removed in each step
    OWN: {},
    "50 %": {"ratio": 1 / 2},
    "67 %": {"ratio": 2 / 3},
    "80 %": {"ratio": 4 / 5},
    "½ left": {"left": 1 / 2},
    "¼ left": {"left": 1 / 4},
    "⅛ left": {"left": 1 / 8},
}
FRAMES = "compare-frames"  # the scrubber's id
OVERLAYS = [(label, key) for key, (label, _) in texts.OVERLAYS.items() if key != "word"]


@dataclass(frozen=True)
class CompareTab:
    """Components of the tab."""

    chosen: gr.HTML
    ratio: gr.Radio
    run: gr.Button
    stop: gr.Button
    status: gr.HTML
    overlay: gr.Radio
    position: gr.Radio
    frames: gr.HTML
    cards: Sequence[gr.HTML]
    slider: gr.ImageSlider
    pane: gr.HTML
    legend: gr.HTML
    table: gr.HTML
    save_table: gr.DownloadButton
    save_pictures: gr.DownloadButton

    @property
    def looks(self) -> list[gr.components.Component]:
        """What `draw` has to know besides what is shown."""
        return [self.overlay, self.position]

    @property
    def outputs(self) -> list[gr.components.Component]:
        """What `draw` fills."""
        files = [self.save_table, self.save_pictures]
        cards = [*self.cards, self.slider, self.pane, self.legend, self.table]
        return [*self.looks, self.frames, *cards, *files]

    def draw(self, shown: Shown, overlay: str, position: int) -> dict:
        """The whole comparison, with all pictures at one position.

        Each picture is on the card of its method; those of two methods share a slider.
        """
        results, traces = list(shown.compared.values()), shown.traces
        paints = _paints(traces)
        if overlay not in [key for _, key in paints]:
            overlay = DEFAULT_OVERLAY
        choices = comparison.positions(traces)
        if position not in [value for _, value in choices]:
            position = comparison.LAST
        image = shown.image_of(traces[0]) if traces else 0
        view = comparison.View.of(traces, overlay, position, image)
        slides = len(results) == len(traces) == 2
        paint = {
            trace.method: ("" if slides else views.data_url(picture), caption)
            for trace, picture, caption in zip(traces, view.pictures, view.captions, strict=True)
        }
        reference = comparison.reference(results)
        cards = [panels.card(r, reference, *paint.get(r.method, ())) for r in results]
        return {
            self.overlay: gr.Radio(paints, value=overlay),
            self.position: gr.Radio(choices, value=position),
            self.frames: scrubber.update(FRAMES, traces[0] if traces else None, image),
            **self._show_cards(cards),
            self.slider: gr.ImageSlider(_files(traces, view) if slides else None, visible=slides),
            self.pane: {"of": panels.identity(*traces), "stages": view.stages, "image": image},
            self.legend: panels.below(view.legend, overlay, traces if slides else ()),
            self.table: readouts.comparison(results, shown.stored),
            self.save_table: _file(traces and views.save_table(traces)),
            self.save_pictures: _file(traces and view.sheet(traces)),
        }

    def start(self, results: Sequence[Result]) -> dict:
        """A comparison begins: a place for every method, in which its answer will appear."""
        cards = [panels.card(result) for result in results]
        return {
            **self._show_cards(cards),
            self.slider: gr.ImageSlider(visible=False),
            self.pane: {},
            self.legend: "",
            self.table: "",
            self.status: panels.progress(0, len(results), results[0].method),
        }

    def go_on(
        self, results: Sequence[Result], result: Result, overlay: str, position: int, image: int = 0
    ) -> dict:
        """The answer of one method has grown, or is complete and gets its picture."""
        i = [each.method for each in results].index(result.method)
        if not result.complete:
            status = panels.progress(i, len(results), result.method)
            return {self.cards[i]: panels.card(result), self.status: status}
        paint, trace = (), result.trace
        if trace is not None:
            view = comparison.View.of([trace], overlay, position, min(image, len(trace.images) - 1))
            paint = (views.data_url(view.pictures[0]), view.captions[0])
        following = results[i + 1].method if i + 1 < len(results) else ""
        return {
            self.cards[i]: panels.card(result, comparison.reference(results), *paint),
            self.table: readouts.comparison(results),
            self.status: panels.progress(i + 1, len(results), following),
        }

    def _show_cards(self, cards: Sequence[str]) -> dict:
        """The first places hold the cards; the others do not show."""
        free = len(self.cards) - len(cards)
        shown = [gr.HTML(card, visible=True) for card in cards] + [gr.HTML(visible=False)] * free
        return dict(zip(self.cards, shown, strict=True))


def look(shown: Shown) -> dict:
    """What the panes over the pictures tell of."""
    return inspector.pane(*shown.traces) | {"of": panels.identity(*shown.traces)}


def settings_of(ratio: str) -> dict[str, float]:
    """What a choice of the ratio makes of the settings of all methods.

    Raises:
        InputError: the page does not offer it; a browser may send anything.
    """
    if ratio not in [*RATIOS]:
        raise InputError(f"There is no ratio {ratio!r} on this page.")
    return RATIOS[ratio]


def with_vanilla(method: str) -> tuple[gr.Tabs, list[str], str]:
    """Go to the tab with vanilla chosen, and the method of the Ask tab as it is set there.

    An answer without compression gets Libra-Merging beside it.
    """
    method = "libra" if method == "vanilla" else method
    return gr.Tabs(selected="compare"), list(dict.fromkeys(["vanilla", method])), OWN


def _paints(traces: Sequence[Trace]) -> list[tuple[str, str]]:
    """(label, overlay) of what all of the traces can be painted with."""
    return [(label, key) for label, key in OVERLAYS if all(key in overlays(t) for t in traces)]


def _files(traces: Sequence[Trace], view: comparison.View) -> tuple[str, ...]:
    """The pictures of a slider as files."""
    return tuple(
        views.save_png(picture, views.file_name(trace, "compared"))
        for trace, picture in zip(traces, view.pictures, strict=True)
    )


def _file(path: str | None) -> gr.DownloadButton:
    """A button that saves a file, if there is one."""
    return gr.DownloadButton(value=path or None, interactive=bool(path))


def build() -> CompareTab:
    """Place the components."""
    gr.HTML(panels.lead("Compare", texts.COMPARE))
    with gr.Row(elem_id="compare-controls"):
        parts = {
            "chosen": picker.build("Methods", texts.METHODS_HELP, DEFAULT, "compare-methods"),
            "ratio": _segments([*RATIOS], OWN, "Ratio", texts.COMPARE_RATIO_HELP, "compare-ratio"),
        }
        with gr.Column(elem_id="compare-buttons", min_width=120):
            parts["run"] = gr.Button("Compare", variant="primary", elem_id="compare-run")
            parts["stop"] = gr.Button("Stop", visible=False, elem_id="compare-stop")
    parts["status"] = gr.HTML(panels.note(""), elem_id="compare-status")
    with gr.Row(elem_id="compare-looks"):
        overlay = _segments(
            OVERLAYS, DEFAULT_OVERLAY, "Overlay", texts.OVERLAY_HELP, "compare-overlay"
        )
        position = _segments(
            comparison.positions([]), comparison.LAST, "Stage", texts.POSITION_HELP, "compare-stage"
        )
    parts["frames"] = scrubber.build(FRAMES)
    with gr.Row(elem_id="cards"):
        cards = [gr.HTML(visible=False, js_on_load=None) for _ in methods.names()]
    slider = gr.ImageSlider(
        visible=False,
        show_label=False,
        format="png",
        interactive=False,
        buttons=["download", "fullscreen"],
        elem_id="slider",
        max_height=620,
    )
    parts |= {"overlay": overlay, "position": position, "cards": cards, "slider": slider}
    panes = inspector.pane_component("#cards img, #slider img")
    parts["pane"] = gr.HTML(elem_id="panes", **panes)
    parts["legend"] = gr.HTML(elem_id="compare-legend")
    parts["table"] = gr.HTML(elem_id="numbers")
    with gr.Row(elem_id="compare-files"):
        parts["save_table"] = gr.DownloadButton(
            "Save table (CSV)", interactive=False, size="sm", elem_id="save-table"
        )
        parts["save_pictures"] = gr.DownloadButton(
            "Save pictures (PNG)", interactive=False, size="sm", elem_id="save-pictures"
        )
    return CompareTab(**parts)


def _segments(choices: Sequence, value, label: str, info: str, elem_id: str) -> gr.Radio:
    """A choice of which all options show."""
    return gr.Radio(
        choices, value=value, label=label, info=info, elem_classes="segments", elem_id=elem_id
    )
