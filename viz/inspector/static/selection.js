// Selected patches: how many of them are still there at each layer, per answer; and asking again.

const HOW_TO_SELECT =
  "Mark an object with Box or Brush" +
  (TAPS ? ". " : ", or hold Ctrl or Shift and click, or press Space. ") +
  "Then read how much of it survives each layer";

class SelectionPanel {
  constructor(element, { clear, ask }) {
    this.element = element;
    element.querySelector(".i-clear").addEventListener("click", clear);
    for (const name of ["keep", "drop", "only"])
      element.querySelector(`.i-${name}`).addEventListener("click", () => ask(name));
  }

  // selected: a set of patches; traces: the answer shown, then others about the same picture.
  show(selected, traces, canAsk, looks) {
    const { element } = this;
    const find = (name) => element.querySelector(name);
    const n = selected.size;
    const [trace] = traces;
    element.classList.toggle("i-none", n === 0);
    const asking = canAsk ? ", and ask again with or without it" : "";
    find(".i-note").textContent = n
      ? `${plural(n, "patch")} of ${trace.n}. Share of them that still has a token of its own:`
      : `${HOW_TO_SELECT}${asking}.`;
    for (const name of ["asking", "keep", "drop", "only"]) find(`.i-${name}`).hidden = !canAsk;
    if (!n) {
      find(".i-evidence").replaceChildren();
      find(".i-shares").replaceChildren();
      return;
    }
    const shares = traces.map((t) => aliveByLayer(t, selected));
    drawShares(find(".i-evidence"), traces, shares, looks.series);
    const row = (...cells) => node("tr", {}, ...cells);
    const head = row(node("th"), node("th", {}, "first layer"), node("th", {}, "at the end"));
    const rows = traces.map(({ name }, i) => {
      const line = node("i", { style: `background:${looks.series[i % looks.series.length]}` });
      const [first, end] = [shares[i].at(0), shares[i].at(-1)];
      return row(
        node("th", { scope: "row" }, line, name),
        node("td", {}, percent(first)),
        node("td", {}, percent(end)),
      );
    });
    find(".i-shares").replaceChildren(node("thead", {}, head), node("tbody", {}, ...rows));
  }
}

// The share of some patches that keeps a token of its own: at each decoder layer, and at the end.
function aliveByLayer(trace, patches) {
  const alive = trace.stages.map(({ fate }) => {
    let kept = 0;
    for (const p of patches) kept += fate[p] === Fate.KEPT;
    return kept / patches.size;
  });
  return [...trace.stageAt.map((stage) => alive[stage]), alive[trace.last]];
}

const CHART = { width: 320, height: 120, left: 44, right: 8, top: 8, bottom: 20 };
const DASHES = ["", "6 3", "2 3", "8 3 2 3"];

// A stepped line per answer over the layers.
function drawShares(svg, traces, shares, colours) {
  const { width, height, left, right, top, bottom } = CHART;
  const steps = Math.max(1, ...shares.map((share) => share.length - 1));
  const x = (layer) => left + (layer / steps) * (width - left - right);
  const y = (share) => top + (1 - share) * (height - bottom - top);
  const grid = [0, 0.5, 1].flatMap((share) => [
    shape("line", { x1: left, x2: width - right, y1: y(share), y2: y(share) }),
    shape("text", { x: left - 6, y: y(share) + 4, "text-anchor": "end" }, `${100 * share}%`),
  ]);
  const axis = [
    shape("text", { x: left, y: height - 4 }, "layer 0"),
    shape("text", { x: width - right, y: height - 4, "text-anchor": "end" }, "end"),
  ];
  const lines = shares.map((share, i) => {
    // Each layer from its left edge to its right; a little apart, so that equal lines all show.
    const level = (s) => y(s) + 1.5 * i;
    const points = share.flatMap((s, layer) => [
      `${x(layer)},${level(s)}`,
      `${x(Math.min(steps, layer + 1))},${level(s)}`,
    ]);
    const stroke = colours[i % colours.length];
    const dash = DASHES[i % DASHES.length];
    return shape("polyline", { points: points.join(" "), stroke, "stroke-dasharray": dash });
  });
  const ends = traces.map(({ name }, i) => `${name}: ${percent(shares[i].at(-1))} at the end`);
  svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
  svg.setAttribute("aria-label", ends.join("; "));
  svg.replaceChildren(...grid, ...axis, ...lines);
}

// An element of a drawing.
function shape(name, attributes, text = "") {
  const element = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  element.textContent = text;
  return element;
}
