"""The Efficiency tab: what compression saves, counted, measured, and elsewhere."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import gradio as gr

from libra import methods
from libra.architecture import ARCHITECTURES
from libra.roofline import DEVICES
from libra.statistics import percent
from libra.sweep import Row
from page import charts, costing, figures, panels, plan, sweeps, texts, views
from page.controls import Controls
from page.errors import explained
from page.readouts import clock, per_layer
from page.shown import Shown
from viz.sweep import sweep_lines

RATIOS = [(percent(share), share) for share in (1 / 4, 1 / 2, 2 / 3, 3 / 4, 4 / 5, 9 / 10)]
SPECS = {spec.name: spec for spec in (*charts.MEASURED, *charts.ELSEWHERE)}
SHOW_STOP, SHOW_SWEEP = (
    f"() => [{sweep}, {stop}].map(visible => ({{visible, __type__: 'update'}}))"
    for sweep, stop in (("false", "true"), ("true", "false"))
)


@dataclass(frozen=True)
class EfficiencyTab:
    """Components of the tab: a card per figure, by its name."""

    controls: Controls
    clock: gr.HTML  # where times were measured
    cards: dict[str, figures.Card]
    layers: gr.HTML
    model: gr.Dropdown
    device: gr.Dropdown
    tokens: gr.Textbox
    counted: gr.State  # what `tokens` said when the costs elsewhere were last found
    verdict: gr.HTML
    estimates: gr.HTML
    ratios: gr.CheckboxGroup
    after: gr.Textbox
    sweep: gr.Button
    stop: gr.Button
    status: gr.HTML
    swept: gr.State  # list of `Row`
    lines: figures.Card

    @property
    def where(self) -> list[gr.components.Component]:
        """What the costs elsewhere depend on besides what is shown."""
        return [self.model, self.device, self.tokens]

    @property
    def outputs(self) -> list[gr.components.Component]:
        """What `draw` fills."""
        return [part for card in self.cards.values() for part in card.parts] + [
            self.clock,
            self.layers,
            self.counted,
            self.verdict,
            self.estimates,
        ]

    @property
    def sweep_outputs(self) -> list[gr.components.Component]:
        """What a sweep fills."""
        return [self.status, self.swept, *self.lines.parts]

    def draw(self, shown: Shown, *where: Any) -> Iterator[dict]:
        """Everything about the answers that are compared: at first the last one, and vanilla's."""
        if not shown.traces:
            return
        with explained():
            times = texts.CLOCK.format(clock(shown.traces, shown.stored))
            first = {self.clock: panels.note(times), self.layers: per_layer(shown.traces)}
            yield from figures.together(
                [first],
                self._draw(charts.MEASURED, costing.Costing.of(shown)),
                self._elsewhere(shown, *where),
            )

    def draw_elsewhere(self, shown: Shown, *where: Any) -> Iterator[dict]:
        """What the same answers would cost in another model, on another device."""
        if not shown.traces:
            return
        with explained():
            yield from figures.together(self._elsewhere(shown, *where))

    def last_tokens(self, counted: str | None) -> str | None:
        """The number of visual tokens before one that was refused: that of the charts."""
        return counted

    def _elsewhere(self, shown: Shown, *where: Any) -> Iterator[dict]:
        found = costing.Costing.of(shown, *_where(*where))
        yield {
            self.counted: where[-1],
            self.verdict: verdict(found),
            self.estimates: charts.table(found),
        }
        yield from self._draw(charts.ELSEWHERE, found)

    def _draw(self, specs: Sequence[charts.Spec], found: costing.Costing) -> Iterator[dict]:
        """One figure after the other."""
        for spec in specs:
            card, missing = self.cards[spec.name], spec.missing(found)
            if missing:
                yield card.fill(missing)
            else:
                yield card.fill(path=views.save_figure(spec.draw(found), spec.name))

    def show_method(self, method: str) -> gr.Textbox:
        """The layers of a sweep, where the method of the Ask tab has any to choose."""
        if plan.acts_in_decoder(method):
            return gr.Textbox(interactive=True, info=texts.SWEEP_LAYERS_HELP)
        return gr.Textbox(value="", interactive=False, info=texts.NO_LAYERS)

    def run(
        self, shown: Shown, ratios: Sequence[float], after: str, *values: Any
    ) -> Iterator[dict]:
        """Sweep over ratio and layer under the method of the Ask tab, setting by setting."""
        with explained():
            model, request = self.controls.request(*values)
            request, rows = shown.added.to(request), []
            layers = plan.parse_layers(after) or ()
            yield {self.status: panels.note(texts.READING)}
            for chosen, row in sweeps.run(model, request, ratios, layers):
                rows.append(row)
                yield {self.status: panels.bar(len(rows), len(chosen), texts.SWEEPING)}
        yield self._swept(rows, texts.SWEPT.format(methods.title(request["method"]), len(rows) - 1))

    def settle(self, rows: Sequence[Row]) -> dict:
        """A sweep failed or was stopped: the last complete one stays."""
        return {self.status: panels.note(texts.UNSWEPT if rows else "")}

    def _swept(self, rows: list[Row], words: str) -> dict:
        """A complete sweep."""
        path = views.save_figure(sweep_lines(rows), "sweep")
        done = {self.status: panels.note(words), self.swept: rows}
        return done | self.lines.fill(path=path)

    def save(self, shown: Shown, event: gr.EventData, *where: Any) -> str:
        """One figure as a file to print, or the numbers behind it."""
        with explained():
            spec = SPECS[event.figure]
            elsewhere = _where(*where) if spec in charts.ELSEWHERE else ()
            found = costing.Costing.of(shown, *elsewhere)
            return figures.write(
                spec.name, event.kind, lambda: spec.numbers(found), lambda: spec.draw(found)
            )

    def save_sweep(self, rows: list[Row], event: gr.EventData) -> str:
        """The last sweep as a file."""
        with explained():
            return figures.write(
                "sweep",
                event.kind,
                lambda: [row.facts() for row in rows],
                lambda: sweep_lines(rows),
            )


def verdict(found: costing.Costing) -> str:
    """Where the answer in the focus saves, as HTML."""
    return f'<p class="verdict">{escape(found.verdict).replace(" %", "&nbsp;%")}</p>'


def _where(model: str, device: str, tokens: str | None) -> tuple[str, str, int | None]:
    """Model, device and number of visual tokens, as the controls have them."""
    return model, device, plan.parse_number(tokens, "Visual tokens", int)


def build(controls: Controls) -> EfficiencyTab:
    """Place the components; a sweep asks what the controls of the Ask tab say."""
    gr.HTML(panels.lead("Efficiency", texts.EFFICIENCY))
    times = gr.HTML(panels.note(""), elem_id="clock")
    with gr.Row(elem_classes="charts"):
        cards = {spec.name: _card(spec) for spec in charts.MEASURED[:2]}
    cards |= {spec.name: _card(spec, wide=True) for spec in charts.MEASURED[2:]}
    parts = {"layers": gr.HTML(elem_id="per-layer")}
    gr.HTML(f'<h2 class="section">{texts.ELSEWHERE}</h2><p class="lead">{texts.ELSEWHERE_HELP}</p>')
    with gr.Row(elem_id="elsewhere"):
        models = [(texts.AS_ASKED, costing.OWN), *((name, name) for name in ARCHITECTURES)]
        parts["model"] = gr.Dropdown(
            models, value=costing.OWN, label="Model", info=texts.ELSEWHERE_MODEL_HELP
        )
        devices = [(texts.THIS_MACHINE, costing.HERE), *((name, name) for name in DEVICES)]
        parts["device"] = gr.Dropdown(
            devices, value=costing.HERE, label="Device", info=texts.DEVICE_HELP
        )
        parts["tokens"] = gr.Textbox(
            label="Visual tokens",
            info=texts.TOKENS_HELP,
            placeholder="automatic",
            elem_id="elsewhere-tokens",
        )
    parts["counted"] = gr.State(None)
    parts["verdict"] = gr.HTML(elem_id="verdict")
    line, bars = charts.ELSEWHERE
    with gr.Row(elem_classes="charts"):
        cards[line.name] = _card(line)
        parts["estimates"] = gr.HTML(elem_id="estimates")
    cards[bars.name] = _card(bars, wide=True)
    return EfficiencyTab(controls=controls, clock=times, cards=cards, **parts, **_build_sweep())


def _build_sweep() -> dict[str, Any]:
    """The controls of a sweep, and the place for what it shows."""
    gr.HTML(f'<h2 class="section">{texts.SWEEP}</h2><p class="lead">{texts.SWEEP_HELP}</p>')
    with gr.Row(elem_id="sweep"):
        parts = {
            "ratios": gr.CheckboxGroup(
                RATIOS,
                value=[0.25, 0.5, 0.75, 0.9],
                label="Ratio",
                info=texts.RATIO_HELP,
                elem_classes="chips",
            ),
            "after": gr.Textbox(
                label="After layers",
                info=texts.SWEEP_LAYERS_HELP,
                placeholder="1, 3, 5",
                max_lines=1,
            ),
        }
        with gr.Column(elem_id="sweep-buttons", min_width=120):
            parts["sweep"] = gr.Button("Sweep", variant="primary", elem_id="sweep-run")
            parts["stop"] = gr.Button("Stop", visible=False, elem_id="sweep-stop")
    parts["status"] = gr.HTML(panels.note(""), elem_id="sweep-status")
    parts["swept"] = gr.State([])
    title, explained = texts.SWEEP, texts.SWEEP_CHART
    parts["lines"] = figures.card("sweep", title, explained, texts.NOT_SWEPT, wide=True)
    return parts


def _card(spec: charts.Spec, wide: bool = False) -> figures.Card:
    return figures.card(spec.name, spec.title, spec.explanation, wide=wide)
