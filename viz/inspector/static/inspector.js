// The inspector: one state, one hover and one lock, and the views that follow them.

// root: the element of inspector.html; emit(name, detail) tells the page, where there is one.
// Returns { show(data), update(change), current(), render(), state }.
function createInspector(root, emit = null) {
  const data = { traces: [], images: [], looks: null, ask: false, key: null };
  const state = {};
  let pending = 0; // the frame that will draw
  let anew = true; // whether pictures or colours are others than those painted
  let now = null; // what there is to see; null: to be found anew

  const act = { update, pick, switchTo, ask, visit, startQuiz, speak, trace, hand, guessing };
  const views = new Views(root, state, act);
  const flow = new Flow(views.picture, {
    go: (stage) => update({ stage }),
    done: () => update({ playing: false }),
  });

  // ----- state -----

  function trace() {
    return data.traces[state.trace];
  }

  // The patch in hand, or -1.
  function hand() {
    return state.lock >= 0 ? state.lock : state.hover;
  }

  function guessing() {
    return state.quiz !== null && !state.quiz.revealed;
  }

  // The state of an answer that comes up.
  const fresh = (index) => ({
    trace: index,
    stage: Infinity, // the last
    word: 0,
    layer: null, // the one that looks at the pictures most
    image: -1, // which of the pictures is shown alone; -1: all
    beside: 0, // which of the other answers stands beside
    hover: -1,
    bar: null, // the patches of the histogram's bar that is pointed at
    lock: -1,
    whatIf: {},
    quiz: null,
    tour: null,
    playing: false,
  });

  // Show what viz.inspector.view made, once its pictures are there. The way of looking stays, and
  // the selection where the patches do.
  async function show(raw) {
    flow.stop();
    const sources = raw.pictures.map(({ source }) => source);
    const images = (data.images = sources.map((src) => Object.assign(new Image(), { src })));
    await Promise.all(images.map((image) => image.decode()));
    if (data.images !== images) return; // newer data came meanwhile
    const key = String([raw.traces[0].n, ...sources]);
    const selected = key === data.key ? state.selected : new Set();
    Object.assign(data, {
      key,
      looks: new Looks(raw.looks),
      traces: raw.traces.map(openTrace),
      ask: raw.ask && emit !== null,
    });
    const look = { overlay: "fate", mode: "mean", tool: "point", ...state, selected };
    const first = { image: raw.image, stage: raw.stage ?? Infinity, lock: raw.patch };
    update({ ...look, ...fresh(0), ...first });
    if (raw.tour) visit(0);
    render();
  }

  // Change the state and draw. A hover leaves what is painted as it is.
  function update(change) {
    Object.assign(state, change);
    state.stage = Math.min(trace().last, Math.max(0, state.stage));
    state.image = Math.min(trace().pictures.length - 1, state.image);
    if (change.lock >= 0 && state.image >= 0) state.image = trace().image[change.lock];
    if ("stage" in change || "trace" in change) state.whatIf = {};
    anew ||= "trace" in change || state.image !== views.alone;
    if (Object.keys(change).some((key) => key !== "hover" && key !== "bar")) now = null;
    pending ||= requestAnimationFrame(render);
  }

  // A change that the page may want to know.
  function pick(change) {
    flow.stop();
    update({ playing: false, ...change });
    const { stage, overlay, word, image, lock } = state;
    emit?.("select", { trace: trace().name, stage, overlay, word, image, patch: lock });
  }

  // ----- drawing -----

  // Everything the views need: the answer and those about the same patches, the decision that led
  // to the stage and where the patches are (both under the what-if), attention row, and overlay.
  function look() {
    const { stage, mode, whatIf, beside, word, layer, image } = state;
    const { looks, images, traces, ask } = data;
    const mine = trace();
    const stored = mine.decisions[decisionIndex(stage)];
    const decision = reconsider(stored, whatIf);
    const changed = decision !== stored && stage > 0;
    const others = traces.filter((other) => other !== mine && samePatches(other, mine));
    const other = others[beside];
    const found = {
      ...{ trace: mine, traces, others, other, stage, mode, decision, changed, image },
      ...{ looks, images, ask },
      situation: changed ? situationAfter(decision) : mine.stages[stage],
      theirs: other?.stages[stage === mine.last ? other.last : Math.min(stage, other.last)],
      attention: mine.attention.words.length > 0 && attentionRow(mine, word, layer ?? loudest(mine, word)),
      guessing: guessing(),
    };
    found.overlays = Object.entries(OVERLAYS).filter(([, { can }]) => !can || can(found));
    const [, wanted] = found.overlays.find(([name]) => name === state.overlay) ?? found.overlays[0];
    return { ...found, overlay: found.guessing ? PLAIN : wanted };
  }

  function render() {
    cancelAnimationFrame(pending);
    pending = 0;
    if (!data.looks || !views.width) return; // nothing to show, or nowhere: a closed tab
    if (!now || anew) views.show((now = look()), anew);
    anew = false;
    views.draw(now, hand(), flow.playing);
  }

  function current() {
    render();
    return now;
  }

  function speak(text) {
    render();
    views.speak(text);
  }

  // ----- what visitors do -----

  function switchTo(index) {
    pick({ ...fresh(index), image: state.image, lock: state.lock });
  }

  // Ask the page for another answer, with the selected patches forced, or for a file.
  function ask(how) {
    const patches = [...state.selected].sort((a, b) => a - b);
    emit("again", { how, trace: trace().name, patches });
  }

  function save(format) {
    emit("save", { format, trace: trace().name, image: state.image });
  }

  function startQuiz() {
    pick({ quiz: newQuiz(trace()), tour: null, lock: -1, hover: -1, bar: null });
  }

  function visit(index) {
    const step = trace().tour[index];
    if (!step) return update({ tour: null, lock: -1 });
    const { stage, overlay, patch, text } = step;
    const look = { stage, overlay, word: 0, layer: null, lock: patch ?? -1, hover: -1 };
    pick({ tour: index, quiz: null, ...look });
    speak(text);
    requestAnimationFrame(() => views.reveal(step)); // once it is laid out
  }

  function play() {
    if (flow.playing) return pick({});
    update({ playing: true, lock: -1, hover: -1 });
    flow.play(state.stage === trace().last ? 0 : state.stage);
  }

  function step(by) {
    pick({ stage: state.stage + by });
    speak();
  }

  const on = (selector, event, listener) =>
    root.querySelector(selector).addEventListener(event, listener);
  on(".i-playback .i-back", "click", () => step(-1));
  on(".i-playback .i-play", "click", play);
  on(".i-playback .i-forth", "click", () => step(1));
  on(".i-quiz-button", "click", startQuiz);
  on(".i-tour-button", "click", () => visit(0));
  on(".i-save", "click", ({ target }) => target.value && save(target.value));
  root.querySelector(".i-save").hidden = emit === null;
  on(".i-layer input", "input", ({ target }) => pick({ layer: Number(target.value) }));

  const pointed = { ...act, state, current, flow, views };
  followPicture(views.picture, pointed);
  followStrip(views.strip, pointed);
  followImportance(views.importance, pointed);
  followSimilarity(views.similarity, pointed);

  // ----- the surroundings: width and colours -----

  const repaint = () => {
    anew = true;
    pending ||= requestAnimationFrame(render);
  };
  const resized = new ResizeObserver(() => {
    now = null;
    pending ||= requestAnimationFrame(render);
  });
  for (const room of [".i-frame", ".i-stripbox"]) resized.observe(root.querySelector(room));
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", repaint);
  new MutationObserver(repaint).observe(document.body, { attributeFilter: ["class"] });

  return (root.inspector = { show, update, current, render, state, picture: views.picture });
}

// Whether two answers are about the same patches of the same pictures.
function samePatches(a, b) {
  if (a.n !== b.n || String(a.pictures) !== String(b.pictures)) return false;
  return ["image", "row", "column"].every((name) => a[name].every((v, p) => v === b[name][p]));
}
