// Selected patches: how many of them are still there at each layer, per answer; and asking again.

class SelectionPanel {
  constructor(element, { clear, ask }) {
    this.element = element;
    element.querySelector(".clear").addEventListener("click", clear);
    for (const name of ["keep", "drop", "only"])
      element.querySelector(`.${name}`).addEventListener("click", () => ask(name));
  }

  // selected: a set of patches; traces: the answer shown, then others about the same picture.
  show(selected, traces, canAsk, looks) {
    const { element } = this, find = (name) => element.querySelector(name);
    const n = selected.size, [trace] = traces;
    element.classList.toggle("none", n === 0);
    find(".note").textContent = n
      ? `${plural(n, "patch")} of ${trace.n}. Share of them that still has a token of its own:`
      : "Hold Ctrl or Shift and click, press Space, or use the rectangle or the brush to mark an object. Then read how much of it survives each layer" +
        (canAsk ? ", and ask again with or without it." : ".");
    for (const name of ["keep", "drop", "only"]) find(`.${name}`).hidden = !canAsk;
    if (!n) {
      find(".evidence").replaceChildren();
      find(".shares").replaceChildren();
      return;
    }
    const shares = traces.map((t) => aliveByLayer(t, selected));
    drawShares(find(".evidence"), traces, shares, looks.series);
    const head = node("tr", {}, node("th", {}, ""), node("th", {}, "first layer"), node("th", {}, "last layer"));
    const rows = traces.map((t, i) =>
      node("tr", { className: t === trace ? "current" : "" },
        node("th", { scope: "row" }, node("i", { style: `background:${looks.series[i % looks.series.length]}` }), t.name),
        node("td", {}, percent(shares[i].at(0))), node("td", {}, percent(shares[i].at(-1)))),
    );
    find(".shares").replaceChildren(node("thead", {}, head), node("tbody", {}, ...rows));
  }
}

// The share of some patches that keeps a token of its own, for each decoder layer and after the last.
function aliveByLayer(trace, patches) {
  const alive = trace.stages.map(({ fate }) => {
    let kept = 0;
    for (const p of patches) kept += fate[p] === Fate.KEPT;
    return kept / patches.size;
  });
  return [...trace.stageAt.map((s) => alive[s]), alive[trace.last]];
}

// A stepped line per answer over the layers.
function drawShares(svg, traces, shares, colours) {
  const [width, height, left, bottom] = [320, 120, 34, 20];
  const steps = Math.max(...shares.map((s) => s.length)) - 1;
  const x = (layer) => left + (layer / Math.max(1, steps)) * (width - left - 8);
  const y = (share) => 8 + (1 - share) * (height - bottom - 8);
  const lines = shares.map((share, i) => {
    // Each layer from its left edge to its right; a little apart, so that equal lines all show.
    const points = share.slice(0, -1).map((s, l) => `${x(l)},${y(s) + 1.5 * i} ${x(l + 1)},${y(s) + 1.5 * i}`);
    points.push(`${x(steps)},${y(share.at(-1)) + 1.5 * i}`);
    const dash = ["", "6 3", "2 3", "8 3 2 3"][i % 4];
    return `<polyline points="${points.join(" ")}" stroke="${colours[i % colours.length]}" stroke-dasharray="${dash}" />`;
  });
  const grid = [0, 0.5, 1].map((s) => `<line x1="${left}" x2="${width - 8}" y1="${y(s)}" y2="${y(s)}" /><text x="${left - 6}" y="${y(s) + 4}" text-anchor="end">${100 * s}%</text>`);
  svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
  svg.setAttribute("aria-label", traces.map((t, i) => `${t.name}: ${percent(shares[i].at(-1))} after the last layer`).join("; "));
  svg.innerHTML = `${grid.join("")}<text x="${left}" y="${height - 4}">layer 0</text><text x="${width - 8}" y="${height - 4}" text-anchor="end">end</text>${lines.join("")}`;
}
