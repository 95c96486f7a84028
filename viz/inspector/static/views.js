// All views of one inspector, and what they show. `now` is what there is to see (see `look` in
// inspector.js), `state` how the visitor looks at it.

const TOOLS = [
  { value: "point", label: "Point", title: "Point and click; with Ctrl or Shift a click selects" },
  { value: "box", label: "Box", title: "Drag a rectangle to select patches" },
  { value: "brush", label: "Brush", title: "Paint over patches to select them" },
];
const EVERY = { value: -1, label: "All" };
const MODES = [
  { value: "mean", label: "Mean colour" },
  { value: "label", label: "Labels" },
];
const MAX_HEIGHT = 720; // of the picture, in CSS pixels
const AROUND = 160; // pixels of what else stands above and below the picture in its column
const WIDEST = 1.6; // width over height of pictures that half of the room is enough for
const CHART_HEIGHT = 138;
const WIDE = matchMedia("(min-width: 901px)"); // as in the style sheet: the picture has a column
// What a step of a tour can speak of beside the picture.
const SPOKEN_OF = {
  strip: ".i-timeline",
  importance: ".i-importance",
  similarity: ".i-similarity",
  card: ".i-card",
  play: ".i-playback",
  answer: ".i-words",
  layer: ".i-layer",
  whatif: ".i-whatif",
};

class Views {
  // act: what the views do when they are used, { update, pick, switchTo, ask, visit, startQuiz }.
  constructor(root, state, act) {
    Object.assign(this, { root, state });
    const find = (this.find = (selector) => root.querySelector(selector));
    const { update, pick } = act;
    this.picture = new Picture(find("canvas.i-picture"));
    this.strip = new Strip(find("canvas.i-strip"));
    this.importance = new Histogram(find(".i-importance canvas"), { log: true, format: short });
    this.similarity = new Histogram(find(".i-similarity canvas"), { log: false, format: similar });
    this.card = new Card(find(".i-card"), (stage) => pick({ stage }));
    this.answer = new AnswerPanel(find(".i-answer"), (word) =>
      pick({ word, overlay: "attention" }),
    );
    this.traces = new Choice(find(".i-answers"), act.switchTo);
    this.overlays = new Choice(find(".i-overlays"), (overlay) => pick({ overlay }));
    this.tools = new Choice(find(".i-tools"), (tool) => update({ tool }));
    this.modes = new Choice(find(".i-modes"), (mode) => update({ mode }));
    this.stages = new Choice(find(".i-stages"), (stage) => pick({ stage }));
    this.pictures = new Choice(find(".i-pictures"), (image) => pick({ image, hover: -1, lock: -1 }));
    this.beside = new Choice(find(".i-beside .i-choice"), (beside) => pick({ beside }));
    this.whatIf = new WhatIfPanel(find(".i-whatif"), (whatIf) => update({ whatIf }));
    this.selection = new SelectionPanel(find(".i-selection"), {
      clear: () => update({ selected: new Set() }),
      ask: act.ask,
    });
    this.quiz = new Quiz(find(".i-quiz"), {
      reveal: () =>
        pick({ quiz: { ...state.quiz, revealed: true }, stage: Infinity, overlay: "fate" }),
      again: act.startQuiz,
      close: () => update({ quiz: null }),
    });
    find(".i-selected").addEventListener("click", () =>
      this.travel(() => {
        this.jumpTo(".i-selection");
        find(".i-keep").focus({ preventScroll: true });
      }),
    );
    this.tour = new Tour(find(".i-guide"), {
      move: (by) => act.visit(state.tour + by),
      close: () => update({ tour: null, lock: -1 }),
    });
    this.charts = [this.importance, this.similarity];
  }

  get width() {
    return Math.floor(this.find(".i-frame").clientWidth);
  }

  // Take the room there is; `anew`: for other pictures, or in other colours.
  layout({ trace, looks, images }, anew) {
    const { picture, strip, charts, state } = this;
    const shown = trace.pictures.filter((_, i) => state.image < 0 || i === state.image);
    this.root.toggleAttribute("data-wide", aspect(shown.map((i) => images[i])) > WIDEST);
    const room = Math.floor(this.find(".i-stripbox").clientWidth);
    if (room && (anew || strip.width !== room)) strip.layout(trace, looks, room);
    const { width } = this;
    const touring = state.tour !== null;
    if (anew || picture.width !== width || this.touring !== touring) {
      this.touring = touring;
      const high = Math.max(300, Math.min(MAX_HEIGHT, this.room()));
      this.alone = state.image;
      picture.layout(trace, images, state.image, looks, width, high);
    }
    for (const chart of charts) {
      const wide = Math.floor(chart.canvas.clientWidth); // 0 where it is not shown
      if (wide && chart.width !== wide) chart.layout(wide, CHART_HEIGHT);
    }
  }

  // The height that there is for the picture: where it has a column, it fits the window with the
  // strip below it, and leaves room for the sentences of a tour.
  room() {
    if (!WIDE.matches) return 0.78 * innerHeight;
    const around = AROUND + this.find(".i-timeline").offsetHeight;
    return Math.min((this.touring ? 0.4 : 0.52) * innerHeight, innerHeight - around);
  }

  // All that stays while the pointer moves: what is painted, and the text around it.
  show(now, anew) {
    const { picture, strip, state, find } = this;
    const { trace, stage, situation, overlay, guessing } = now;
    this.root.dataset.tool = state.tool;
    this.root.toggleAttribute("data-guessing", guessing);
    this.choose(now); // first: labels take room, and what is hidden leaves it to others
    this.load(now);
    this.layout(now, anew);
    picture.paint(overlay, now);
    strip.paint(trace.stages.map((stored, s) => (s === stage ? situation : stored)));
    for (const chart of this.charts) chart.paint(now.looks);
    showLegend(find(".i-legend"), overlay.legend(now));
    find(".i-caption").textContent = overlay.caption(now);
    this.answer.show(trace, now.other, state.word, overlay === OVERLAYS.attention);
    this.selection.show(state.selected, [trace, ...now.others], now.ask, now.looks);
    find(".i-selected").hidden = state.selected.size === 0;
    find(".i-selected").textContent = `${plural(state.selected.size, "patch")} selected`;
    this.whatIf.show(now, state.whatIf);
    this.quiz.show(state.quiz, trace);
    this.tour.show(trace.tour, state.tour);
    this.follow(trace.tour[state.tour]?.look);
  }

  // Leave room for the tour or the quiz at the top of the window, and mark what a step speaks of.
  follow(look) {
    const covered = Math.max(this.quiz.element.offsetHeight, this.tour.element.offsetHeight);
    this.root.style.setProperty("--i-above", `${covered && covered + 8}px`);
    this.root.style.setProperty("--i-tall", `${this.find(".i-left").offsetHeight}px`);
    for (const [name, selector] of Object.entries(SPOKEN_OF))
      this.find(selector).classList.toggle("i-shown", name === look);
  }

  // Bring what a step of the tour speaks of into the window, below the tour itself. Where not all
  // of it fits, the patch comes first, and the picture last.
  reveal({ look, patch }) {
    this.travel(() => {
      this.jumpTo(WIDE.matches ? ".i-left" : ".i-frame");
      if (look) this.jumpTo(SPOKEN_OF[look]);
      if (patch !== null && (WIDE.matches || !look)) this.jumpToPatch(patch); // no room for both
    });
  }

  jumpTo(selector) {
    this.find(selector).scrollIntoView({ block: "nearest", behavior: "instant" });
  }

  jumpToPatch(patch) {
    const { canvas } = this.picture;
    const [, y, , height] = this.picture.box(patch);
    const top = canvas.getBoundingClientRect().top + y;
    const above = this.tour.element.getBoundingClientRect().bottom + height;
    const below = innerHeight - 2 * height;
    const by = top < above ? top - above : Math.max(0, top - below);
    if (by) scrollBy({ top: by, behavior: "instant" });
  }

  // Go smoothly to where a jump leads.
  travel(jump) {
    const from = scrollY;
    jump();
    const to = scrollY;
    if (still() || to === from) return;
    scrollTo({ top: from, behavior: "instant" });
    scrollTo({ top: to, behavior: "smooth" });
  }

  // The choices that there are, and which is on.
  choose(now) {
    const { trace, traces, others, overlay, overlays, attention } = now;
    const { stage, situation, changed } = now;
    const { find, state } = this;
    const names = (list) => list.map(({ name }, value) => ({ value, label: name }));
    this.traces.show(traces.length > 1 ? names(traces) : [], state.trace);
    this.beside.show(names(others), state.beside);
    find(".i-beside").hidden = others.length < 2;
    const pictures = trace.pictureNames.map((label, value) => ({ value, label }));
    this.pictures.show(pictures.length > 1 ? [EVERY, ...pictures] : [], state.image);
    find(".i-pictures").ariaLabel = trace.video ? "Frame" : "Picture";
    const possible = overlays.map(([value, { label }]) => ({ value, label }));
    this.overlays.show(possible, possible.find(({ value }) => OVERLAYS[value] === overlay)?.value);
    this.tools.show(TOOLS, state.tool);
    this.modes.show(overlay === OVERLAYS.groups ? MODES : [], state.mode);
    const stages = trace.stages.map(({ name, nTokens, extras }, value) => {
      const other = changed && value === stage; // than the stored one
      const gathered = other ? +(situation.counts[Fate.COMPENSATED] > 0) : extras.length;
      const kept = other ? situation.counts[Fate.KEPT] : nTokens - extras.length;
      if (changed && value > stage) return { value, label: capital(name), note: "?" }; // takes a run
      const note = gathered ? `${kept} + ${gathered}` : `${kept}`;
      return { value, label: capital(name), note };
    });
    this.stages.show(stages, state.stage);
    find(".i-layer").hidden = overlay !== OVERLAYS.attention;
    if (attention) {
      const input = find(".i-layer input");
      input.max = trace.attention.layers.length - 1;
      input.value = attention.index;
      find(".i-layer output").textContent = attention.layer;
    }
    find(".i-tour-button").hidden = trace.tour.length === 0;
    find(".i-quiz-button").hidden = find(".i-playback").hidden = trace.last === 0;
    for (const button of this.root.querySelectorAll(".i-moves")) button.hidden = trace.last === 0;
    find(".i-play").textContent = state.playing ? "Stop" : "Play";
  }

  // What the histograms count; those without anything to count are hidden.
  load({ decision }) {
    const { evidence, fate, tau, measure } = decision;
    const others = evidence.similarity?.map((value, t) => (fate[t] === Fate.KEPT ? NaN : value));
    this.importance.load(evidence.importance, fate);
    this.similarity.load(others, fate, tau);
    this.find(".i-importance .i-note").textContent = `${capital(measure)}; logarithmic.`;
    const drag = tau === undefined ? "" : " Drag τ: right of it they merge.";
    this.find(".i-similarity .i-note").textContent = `Of the tokens that are no targets.${drag}`;
  }

  // What follows the pointer: the lit patches, their ways, the markers and the card.
  draw(now, hand, moving) {
    const { state } = this;
    const { trace, stage, decision, situation, looks, guessing } = now;
    const patch = guessing ? -1 : hand;
    const root = patch < 0 ? GONE : situation.root[patch];
    const lit = patch < 0 ? state.bar : root === GONE ? [patch] : situation.members(root).patches;
    const marks = state.quiz
      ? guesses(state.quiz, trace, looks)
      : [{ patches: [...state.selected], colour: looks.sides[1] }];
    if (!moving) this.picture.draw({ lit, root, pointed: hand, locked: state.lock >= 0, marks });
    this.strip.draw({ stage, lit, root, pointed: patch });
    const tokens = new Set(patch < 0 ? [] : Array.from(lit, (p) => tokenBefore(decision, p)));
    tokens.delete(-1);
    for (const chart of this.charts)
      chart.draw({ held: patch < 0 ? -1 : tokenBefore(decision, patch), lit: tokens });
    const description = patch < 0 ? null : describe(trace, stage, situation, decision, patch);
    this.card.show(description, looks, guessing);
  }

  // Tell a screen reader a text, or what the card says.
  speak(text) {
    const { title, place, fate, why } = this.card.description ?? {};
    const held = this.state.lock >= 0 ? " Held." : "";
    const none = `No patch. ${this.find(".i-caption").textContent}`;
    const card = title ? `${title}, ${place}: ${FATES[fate]}. ${why}${held}` : none;
    this.find(".i-spoken").textContent = text ?? card;
  }
}
