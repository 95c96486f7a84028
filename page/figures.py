"""The Figures tab: every figure that the trace gives, to look at and to download."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from html import escape
from itertools import chain

import gradio as gr
from matplotlib.figure import Figure
from PIL import Image

import viz
from libra.report import as_csv
from libra.trace import Trace
from page import files, panels, scrubber, texts, views
from page.errors import explained
from page.shown import Shown

FRAMES = "figures-frames"  # the scrubber's id

KINDS = (*viz.FORMATS, "csv")  # that a figure is saved in

# A click on a format becomes the component's select event.
JS = """element.addEventListener("click", ({target: {dataset}}) => {
  if (dataset.kind) trigger("select", {figure: dataset.figure, kind: dataset.kind});
})"""


@dataclass(frozen=True)
class Card:
    """One figure: why there is none, or the picture and the files of it."""

    note: gr.HTML
    picture: gr.Image
    saves: gr.HTML

    @property
    def parts(self) -> list[gr.components.Component]:
        """What `fill` fills."""
        return [self.note, self.picture, self.saves]

    def fill(self, missing: str = "", path: str = "") -> dict:
        """The figure in a file, or why there is none."""
        return {
            self.note: gr.HTML(_empty(missing), visible=bool(missing)),
            self.picture: gr.Image(path or None, visible=bool(path)),
            self.saves: gr.HTML(visible=bool(path)),
        }


@dataclass(frozen=True)
class FiguresTab:
    """Components of the tab: a card per figure, by its name."""

    status: gr.HTML
    frames: gr.HTML
    cards: dict[str, Card]

    @property
    def outputs(self) -> list[gr.components.Component]:
        """What `draw` fills."""
        parts = (part for card in self.cards.values() for part in card.parts)
        return [self.status, self.frames, *parts]

    def draw(self, shown: Shown) -> Iterator[dict]:
        """The figures of the current answer, of the chosen one of its pictures, one by one.

        What its trace cannot give says why; nothing is drawn twice.
        """
        trace = shown.trace
        if trace is not None:
            first = {self.frames: scrubber.update(FRAMES, trace, shown.own_image)}
            yield from together([first], self._draw(shown, trace, shown.own_image))

    def pick(self, shown: Shown, image: int) -> Iterator[dict]:
        """Another picture or frame was chosen: draw what shows one of them."""
        shown.look_at(image)
        yield from together(self._draw(shown, shown.trace, shown.own_image))

    def _draw(self, shown: Shown, trace: Trace, image: int) -> Iterator[dict]:
        """What is not drawn yet."""
        drawn, of = shown.drawn or (None, 0)
        others = drawn is not trace
        specs = [s for s in viz.FIGURES.values() if others or (s.of_picture and of != image)]
        for i, spec in enumerate(specs, 1):
            status = texts.DRAWING.format(i, len(specs)), texts.DRAWING_FIGURES
            if i == len(specs):
                status = "", texts.DRAWN
            yield self._fill(spec, trace, image) | {self.status: panels.counting(*status)}
            if shown.trace is not trace or shown.own_image != image:
                return  # another answer or picture has come up meanwhile
        shown.drawn = trace, image

    def _fill(self, spec: viz.FigureSpec, trace: Trace, image: int) -> dict:
        """One card."""
        card, missing = self.cards[spec.name], spec.missing(trace)
        if missing:
            return card.fill(missing)
        path = views.save_figure(spec.draw(trace, image), views.file_name(trace, spec.name))
        return card.fill(path=path)


def together(*parts: Iterable[dict]) -> Iterator[dict]:
    """Each step of a drawing with all before it.

    A browser that is given several at once shows the last alone.
    """
    made = {}
    for step in chain(*parts):
        made = made | step
        yield made


def save(shown: Shown, event: gr.EventData) -> str:
    """One figure of the current answer as a file to print, or the numbers behind it."""
    with explained():
        spec, trace = viz.FIGURES[event.figure], shown.trace
        return write(
            f"{trace.method}-{spec.name}",
            event.kind,
            lambda: viz.NUMBERS[spec.name](trace),
            lambda: spec.draw(trace, shown.own_image),
        )


def write(
    name: str,
    kind: str,
    numbers: Callable[[], list[dict]],
    draw: Callable[[], Image.Image | Figure],
) -> str:
    """A figure as a file of one of the `KINDS`, or the numbers behind it; its path."""
    path = files.new(name, kind, KINDS)
    if kind == "csv":
        path.write_text(as_csv(numbers()), "utf-8")
    else:
        viz.save(draw(), path)
    return str(path)


def build() -> FiguresTab:
    """Place one card per figure."""
    gr.HTML(panels.lead("Figures", texts.FIGURES))
    status = gr.HTML(panels.counting("", ""), elem_id="figures-status")
    frames = scrubber.build(FRAMES)
    with gr.Row(elem_id="gallery"):
        cards = {
            spec.name: card(
                spec.name,
                spec.title,
                spec.explanation,
                lines=spec.lines,
                wide=spec.wide,
                chart=spec.lines or spec.chart,
            )
            for spec in viz.FIGURES.values()
        }
    return FiguresTab(status, frames, cards)


def card(
    name: str,
    title: str,
    explanation: str,
    missing: str = "",
    lines: bool = True,
    wide: bool = False,
    chart: bool = True,
) -> Card:
    """Place a card for a figure; `missing` says why there is none.

    All `lines` and bars are turned over on a dark page; pictures are not. `wide` takes the whole
    width of a page. On a phone text is as large in a `chart` as in a picture.
    """
    looks = {"lines": lines, "wide": wide, "chart": chart}
    classes = ["figure", *(name for name, on in looks.items() if on)]
    with gr.Column(elem_classes=classes, min_width=460):
        gr.HTML(f"<h3>{title}</h3><p>{explanation}</p>")
        note = gr.HTML(_empty(missing), visible=bool(missing))
        picture = gr.Image(
            visible=not missing,
            show_label=False,
            format="png",
            interactive=False,
            buttons=["fullscreen"],
            alt_text=f"{title}. {explanation}",
        )
        buttons = "".join(
            f'<button type="button" data-figure="{name}" data-kind="{kind}" '
            f'aria-label="Save {title} as {kind.upper()}">{kind.upper()}</button>'
            for kind in KINDS
        )
        saves = gr.HTML(
            f'<div class="saves">{texts.SAVE} {buttons}</div>', js_on_load=JS, visible=False
        )
        return Card(note, picture, saves)


def _empty(missing: str) -> str:
    """Why there is no figure, as HTML."""
    return f'<p class="empty">{escape(missing)}</p>'
