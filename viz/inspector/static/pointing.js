// Pointer and keyboard: what they do to the state.
//
// actions: { state, update, pick, speak, trace, hand, guessing, current, flow, views } of the
// inspector.

const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

const position = (element, event) => {
  const box = element.getBoundingClientRect();
  return [event.clientX - box.left, event.clientY - box.top];
};
const adds = (event) => event.ctrlKey || event.metaKey || event.shiftKey;

// Hold a patch, or let it go if it is held already.
function hold({ state, pick, speak }, patch) {
  pick({ lock: patch === state.lock ? -1 : patch, hover: patch });
  speak();
}

function point({ state, update }, patch, bar = null) {
  if (patch !== state.hover || bar !== state.bar) update({ hover: patch, bar });
}

// Clicks and strokes fill the guesses of a quiz, else the selection.
const chosen = ({ state, guessing }) => (guessing() ? state.quiz.picks : state.selected);

function choose({ state, update, guessing }, patches) {
  if (!guessing()) return update({ selected: patches });
  update({ quiz: { ...state.quiz, picks: new Set([...patches].slice(0, state.quiz.goal)) } });
}

function toggle(actions, patch) {
  const patches = new Set(chosen(actions));
  patches.delete(patch) || patches.add(patch);
  choose(actions, patches);
}

// What keys have done to the patch in hand, for those who do not see it.
function toggleAloud(actions, patch) {
  toggle(actions, patch);
  const patches = chosen(actions);
  const now = patches.has(patch) ? "Selected" : "Not selected";
  actions.speak(`${now}. ${plural(patches.size, "patch")} in all.`);
}

function followPicture(picture, actions) {
  const { canvas } = picture;
  const { state, update, pick, speak, hand, guessing, trace, flow } = actions;
  let stroke = null; // { from, patches }: a selection in the making
  const under = (event) => picture.patchAt(...position(canvas, event));

  function draw(event) {
    const [x, y] = position(canvas, event);
    const brush = state.tool === "brush";
    const touched = brush ? picture.near(x, y) : picture.within(...stroke.from, x, y);
    const patches = new Set([...stroke.patches, ...touched]);
    if (brush) stroke.patches = patches;
    choose(actions, patches);
  }

  canvas.addEventListener("pointerdown", (event) => {
    const patch = under(event);
    if (event.button !== 0 || flow.playing) return;
    if (state.tool !== "point") {
      canvas.setPointerCapture(event.pointerId);
      const more = adds(event) || guessing() || state.tool === "brush";
      stroke = { from: position(canvas, event), patches: more ? chosen(actions) : [] };
      draw(event);
    } else if (event.pointerType === "mouse") press(event, patch);
  });
  // A touch that turns into scrolling ends in pointercancel, so it is not a press.
  canvas.addEventListener("pointerup", (event) => {
    if (!stroke && event.pointerType !== "mouse" && !flow.playing) press(event, under(event));
    stroke = null;
  });
  function press(event, patch) {
    if (patch < 0) return state.lock >= 0 && pick({ lock: -1 });
    guessing() || adds(event) ? toggle(actions, patch) : hold(actions, patch);
  }
  canvas.addEventListener("pointermove", (event) => {
    if (stroke) draw(event);
    else if (event.pointerType === "mouse") point(actions, under(event));
  });
  canvas.addEventListener("pointerleave", () => stroke || point(actions, -1));
  canvas.addEventListener("pointercancel", () => (stroke = null));

  canvas.addEventListener("keydown", (event) => {
    const patch = hand();
    const { last } = trace();
    const { key } = event;
    if (ARROWS[key]) {
      const next = patch < 0 ? picture.first() : picture.neighbour(patch, ...ARROWS[key]);
      update({ hover: next, lock: state.lock < 0 ? -1 : next });
      speak();
    } else if (key === "Enter" && patch >= 0)
      guessing() ? toggleAloud(actions, patch) : hold(actions, patch);
    else if (key === "Escape") {
      pick({ lock: -1, hover: -1 });
      speak();
    } else if (key === " " && patch >= 0) toggleAloud(actions, patch);
    else if (key === "," || key === ".") {
      pick({ stage: Math.min(last, Math.max(0, state.stage + (key === "." ? 1 : -1))) });
      speak();
    } else return;
    event.preventDefault();
  });
}

// The strip: a bar is its patch; the compensation tokens light all that they hold.
function followStrip(strip, actions) {
  const { canvas } = strip;
  const { state, pick } = actions;
  let held = null; // { row, patches }: what the compensation tokens hold
  canvas.addEventListener("pointermove", (event) => {
    const { root, stage } = strip.at(...position(canvas, event));
    if (root !== COMPENSATION) return point(actions, root);
    const row = strip.rows[stage];
    if (held?.row !== row) held = { row, patches: row.summedUp() };
    point(actions, -1, held.patches);
  });
  canvas.addEventListener("pointerleave", () => point(actions, -1));
  canvas.addEventListener("click", (event) => {
    const { root, stage } = strip.at(...position(canvas, event));
    if (root < 0) return;
    if (stage !== state.stage) pick({ stage, lock: root });
    else hold(actions, root);
  });
}

// A histogram: a bar lights its tokens.
function followImportance(chart, actions) {
  const { canvas } = chart;
  canvas.addEventListener("pointermove", (event) => pointAtBar(chart, actions, event));
  canvas.addEventListener("pointerleave", () => point(actions, -1));
}

function pointAtBar(chart, actions, event) {
  const [x] = position(chart.canvas, event);
  point(actions, -1, chart.patchesAt(x, actions.current().decision.before));
}

// The histogram with tau, which can be dragged where it decides anything.
function followSimilarity(chart, actions) {
  const { canvas } = chart;
  const { state, update, views } = actions;
  let dragging = false;

  function nearTau(x) {
    return state.stage > 0 && chart.tau !== undefined && Math.abs(chart.x(chart.tau) - x) < 12;
  }
  function drag(x) {
    const tau = Math.min(1, Math.max(chart.low, chart.valueAt(x)));
    update({ whatIf: views.whatIf.changedTo("tau", Number(tau.toFixed(likenessDigits(tau)))) });
  }
  canvas.addEventListener("pointerdown", (event) => {
    const [x] = position(canvas, event);
    dragging = nearTau(x);
    if (!dragging) return;
    canvas.setPointerCapture(event.pointerId);
    drag(x);
  });
  canvas.addEventListener("pointermove", (event) => {
    const [x] = position(canvas, event);
    if (dragging) return drag(x);
    canvas.style.cursor = nearTau(x) ? "ew-resize" : "";
    pointAtBar(chart, actions, event);
  });
  for (const end of ["pointerup", "pointercancel"])
    canvas.addEventListener(end, () => (dragging = false));
  canvas.addEventListener("pointerleave", () => dragging || point(actions, -1));
}
