// The inspector: one state, one hover and one lock, and the views that follow them.

const TOOLS = [
  { value: "explore", label: "Explore", title: "Point and click; with Ctrl or Shift a click selects" },
  { value: "rectangle", label: "Rectangle", title: "Drag a rectangle to select patches" },
  { value: "brush", label: "Brush", title: "Paint over patches to select them" },
];
const MODES = [{ value: "mean", label: "Mean colour" }, { value: "label", label: "Labels" }];
const MAX_HEIGHT = 720, CHART_HEIGHT = 130; // CSS pixels

// root: the element of inspector.html; emit(name, detail) tells the page, where there is one.
// Returns { show(data), update(change), state, current() }.
function createInspector(root, emit = null) {
  const find = (selector) => root.querySelector(selector);
  const data = { traces: [], images: [], looks: null, ask: false, ready: false };
  const state = {};
  let pending = 0, stale = true, width = 0, rows = [], description = null;

  const picture = new Picture(find("canvas.picture"));
  const strip = new Strip(find("canvas.strip"));
  const charts = {
    importance: new Histogram(find(".importance canvas"), { log: true, format: short }),
    similarity: new Histogram(find(".similarity canvas"), { log: false, format: similar }),
  };
  const flow = new Flow(picture, {
    go: (stage) => update({ stage }),
    done: () => update({ playing: false }),
  });
  const card = new Card(find(".card"), (stage) => pick({ stage }));
  const answer = new AnswerPanel(find(".answer"), (word) => pick({ word, overlay: "attention" }));
  const choices = {
    traces: new Choice(find(".answers"), (index) => pick({ ...fresh(index), lock: state.lock })),
    overlays: new Choice(find(".overlays"), (overlay) => pick({ overlay })),
    tools: new Choice(find(".tools"), (tool) => update({ tool })),
    modes: new Choice(find(".modes"), (mode) => update({ mode })),
    stages: new Choice(find(".stages"), (stage) => pick({ stage })),
  };
  const selection = new SelectionPanel(find(".selection"), {
    clear: () => update({ selected: new Set() }),
    ask: (name) => emit(name, { patches: [...state.selected].sort((a, b) => a - b) }),
  });
  const whatIf = new WhatIfPanel(find(".whatif"), (change) => update({ whatIf: change }));
  const quiz = new Quiz(find(".quiz"), {
    reveal: () => update({ quiz: { ...state.quiz, revealed: true }, stage: trace().last, overlay: "fate" }),
    again: () => startQuiz(),
    close: () => update({ quiz: null }),
  });
  const tour = new Tour(find(".guide"), {
    move: (by) => visit(state.tour + by),
    close: () => update({ tour: null, lock: -1 }),
  });

  // ----- state -----

  const trace = () => data.traces[state.trace];
  const hand = () => (state.lock >= 0 ? state.lock : state.hover); // the patch in hand
  const guessing = () => state.quiz !== null && !state.quiz.revealed;

  // The state of an answer that comes up.
  const fresh = (index) => ({
    trace: index, stage: data.traces[index].last, word: 0, layer: Infinity, hover: -1, bar: null,
    lock: -1, whatIf: {}, quiz: null, tour: null, playing: false,
  });

  // Show what viz.inspector.view made. Resolves when the pictures are there and drawn.
  async function show(raw) {
    flow.stop();
    const images = raw.pictures.map(({ source }) => Object.assign(new Image(), { src: source }));
    data.images = images;
    await Promise.all(images.map((image) => image.decode()));
    if (data.images !== images) return; // newer data came meanwhile
    Object.assign(data, {
      looks: new Looks(raw.looks), traces: raw.traces.map(openTrace), ask: raw.ask && emit !== null, ready: true,
    });
    Object.assign(state, { overlay: "fate", mode: "mean", tool: "explore", selected: new Set(), ...fresh(0) });
    relayout();
    render();
  }

  // Change the state and draw. A hover leaves what is painted as it is.
  function update(change) {
    const hovers = Object.keys(change).every((key) => key === "hover" || key === "bar");
    if (("stage" in change || "trace" in change) && !change.whatIf) change = { ...change, whatIf: {} };
    Object.assign(state, change);
    stale ||= !hovers;
    if ("trace" in change) relayout();
    pending ||= requestAnimationFrame(render);
  }

  // A change that the page may want to know.
  function pick(change) {
    flow.stop();
    update({ playing: false, ...change });
    const { stage, overlay, word, lock } = state;
    emit?.("select", { trace: trace().name, stage, overlay, word, patch: lock });
  }

  // ----- what is shown -----

  // Everything the views need: the answer and the one beside it, the decision that led to the
  // stage, where the patches are (both under the what-if), and the attention row.
  function current() {
    const t = trace(), stored = t.decisions[decisionIndex(state.stage)];
    const decision = reconsider(stored, state.whatIf), changed = decision !== stored;
    const others = data.traces.filter((o) => o !== t && samePatches(o, t)), [other] = others;
    return {
      trace: t, stage: state.stage, mode: state.mode, looks: data.looks, decision, changed, others, other,
      situation: changed && state.stage > 0 ? situationAfter(decision) : t.stages[state.stage],
      theirs: other?.stages[Math.min(state.stage, other.last)],
      attention: t.attention.words.length > 0 && attentionRow(t, state.word, state.layer),
    };
  }

  const possible = (now) => Object.entries(OVERLAYS).filter(([, { can }]) => !can || can(now));

  function render() {
    cancelAnimationFrame(pending);
    pending = 0;
    if (!data.ready || !width) return;
    const now = current();
    if (stale) {
      const overlays = possible(now), shown = overlays.some(([name]) => name === state.overlay) ? state.overlay : "fate";
      const overlay = guessing() ? PLAIN : OVERLAYS[shown];
      paint(now, overlay);
      write(now, overlay, overlays, shown);
      stale = false;
    }
    draw(now);
  }

  // All that stays while the pointer moves.
  function paint(now, overlay) {
    const { decision: { evidence, fate }, trace: t, situation } = now;
    picture.paint(overlay, now);
    rows = t.stages.map((stage, s) => (s === state.stage ? situation : stage));
    strip.paint(rows);
    const others = evidence.similarity?.map((value, i) => (fate[i] === Fate.KEPT ? NaN : value));
    for (const [name, values] of [["importance", evidence.importance], ["similarity", others]]) {
      const there = values?.some((value) => !Number.isNaN(value)) ?? false;
      find(`.panel.${name}`).hidden = charts[name].hidden = !there;
      if (!there) continue;
      const bounds = name === "similarity" ? [Math.min(0, ...values.filter((v) => v < 0)), 1] : [];
      charts[name].load(values, fate, ...bounds);
      charts[name].paint(data.looks);
    }
  }

  function write(now, overlay, overlays, shown) {
    const { trace: t, decision, changed, situation, attention } = now, heat = overlay === OVERLAYS.attention;
    root.dataset.tool = state.tool;
    choices.traces.show(data.traces.map((x, i) => ({ value: i, label: x.name })), state.trace);
    choices.traces.element.hidden = data.traces.length < 2;
    choices.overlays.show(overlays.map(([value, { label }]) => ({ value, label })), shown);
    choices.tools.show(TOOLS, state.tool);
    choices.modes.show(overlay === OVERLAYS.groups ? MODES : [], state.mode);
    choices.stages.show(
      t.stages.map((s, i) => ({
        value: i, label: capital(s.name), note: `${s.nTokens - s.compensated}${s.compensated ? " + 1" : ""}`,
      })),
      state.stage,
    );
    find(".layer").hidden = !heat;
    if (heat) {
      Object.assign(find(".layer input"), { max: t.attention.layers.length - 1, value: attention.index });
      find(".layer output").textContent = attention.layer;
    }
    showLegend(find(".legend"), overlay.legend(now));
    find(".caption").textContent = overlay.caption(now);
    answer.show(t, now.other, state.word, heat);
    selection.show(state.selected, [t, ...now.others], data.ask, data.looks);
    whatIf.show(now, state.whatIf);
    quiz.show(state.quiz, t);
    tour.show(t.tour, state.tour);
    find(".tour-button").hidden = t.tour.length === 0;
    find(".quiz-button").hidden = find(".playback").hidden = t.last === 0;
    find(".play").textContent = state.playing ? "Stop" : "Play";
    find(".importance .note").textContent = `${capital(decision.measure)}; logarithmic.`;
    find(".similarity .note").textContent =
      `Of the tokens that are no targets.${decision.tau === undefined ? "" : " Drag τ: right of it they merge."}`;
  }

  // What follows the pointer: the lit patches, their ways, markers and the card.
  function draw({ trace: t, decision, situation }) {
    const patch = guessing() ? -1 : hand(), root = patch < 0 ? GONE : situation.root[patch];
    const lit = patch < 0 ? state.bar : root === GONE ? [patch] : situation.members(root).patches;
    if (!flow.playing)
      picture.draw({ lit, root, pointed: hand(), locked: state.lock >= 0, chosen: state.quiz?.picks ?? state.selected });
    strip.draw({ rows, stage: state.stage, lit, pointed: patch });
    const tokens = patch < 0 ? [] : [...new Set(Array.from(lit, (p) => tokenBefore(decision, p)))];
    const held = patch < 0 ? -1 : tokenBefore(decision, patch);
    for (const chart of Object.values(charts))
      if (!chart.hidden) chart.draw({ held, lit: tokens.filter((token) => token >= 0), tau: chart === charts.similarity ? decision.tau : undefined });
    description = patch < 0 ? null : describe(t, state.stage, situation, decision, patch);
    card.show(description, data.looks, guessing());
  }

  // Tell a screen reader what the card says.
  function speak(text) {
    render();
    const { title, place, fate, why } = description ?? {};
    find(".spoken").textContent =
      text ?? (title ? `${title}, ${place}: ${FATES[fate]}. ${why}${state.lock >= 0 ? " Held." : ""}` : "No patch.");
  }

  // ----- pointing, and buttons -----

  const actions = { state, update, pick, speak, trace, hand, guessing, current, flow };
  followPicture(picture, actions);
  followStrip(strip, actions);
  for (const chart of Object.values(charts)) followChart(chart, actions);

  find(".layer input").addEventListener("input", ({ target }) => pick({ layer: Number(target.value) }));
  find(".play").addEventListener("click", () => {
    if (flow.playing) return pick({});
    update({ playing: true, lock: -1, hover: -1 });
    flow.play(state.stage === trace().last ? 0 : state.stage);
  });
  const step = (by) => pick({ stage: Math.min(trace().last, Math.max(0, state.stage + by)) });
  find(".playback .back").addEventListener("click", () => step(-1));
  find(".playback .forth").addEventListener("click", () => step(1));
  find(".quiz-button").addEventListener("click", startQuiz);
  find(".tour-button").addEventListener("click", () => visit(0));

  function startQuiz() {
    pick({ quiz: newQuiz(trace()), tour: null, lock: -1, hover: -1, bar: null });
  }

  function visit(index) {
    const step = trace().tour[index];
    if (!step) return update({ tour: null, lock: -1 });
    const { stage, overlay, patch, text } = step;
    pick({ tour: index, quiz: null, stage, overlay, lock: patch ?? -1, hover: -1 });
    speak(text);
  }

  // ----- surroundings: width and colours -----

  function relayout() {
    width = Math.floor(find(".frame").clientWidth);
    stale = true;
    if (!width || !data.ready) return;
    const high = Math.max(300, Math.min(MAX_HEIGHT, 0.78 * innerHeight));
    picture.layout(trace(), data.images, data.looks, width, high);
    strip.layout(trace(), data.looks, Math.floor(find(".stripbox").clientWidth));
    for (const chart of Object.values(charts)) {
      chart.canvas.closest(".panel").hidden = false;
      chart.layout(Math.floor(chart.canvas.clientWidth), CHART_HEIGHT);
    }
  }
  const again = () => {
    relayout();
    pending ||= requestAnimationFrame(render);
  };
  new ResizeObserver(() => Math.floor(find(".frame").clientWidth) !== width && again()).observe(find(".frame"));
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", again);
  new MutationObserver(again).observe(document.body, { attributeFilter: ["class"] });

  return (root.inspector = { show, update, state, current });
}

// Whether two answers are about the same patches of the same pictures.
function samePatches(a, b) {
  const same = (name) => a[name].every((value, i) => value === b[name][i]);
  return a.n === b.n && String(a.pictures) === String(b.pictures) && same("image") && same("row") && same("column");
}
