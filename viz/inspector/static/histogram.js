// A histogram of one number per token, stacked by fate; a line for tau, a marker for the patch in
// hand. Pointing at a bar lights its tokens.

const BINS = 40;
const MARGIN = { left: 6, right: 6, top: 14, bottom: 28 }; // below: the pointer, then the labels
const STACK = [Fate.KEPT, Fate.MERGED, Fate.COMPENSATED, Fate.UNDECIDED, Fate.DROPPED];

// How values lie along an axis: to a place on it and back, and the values that are marked.
const AXES = {
  even: { to: (value) => value, from: (place) => place, ticks: [] },
  log: { to: Math.log, from: Math.exp, ticks: [] },
  // .9, .99 and .999 are as far apart: for similarities that are nearly all 1.
  nines: { to: nines, from: (place) => 1 - 10 ** -place, ticks: [0.9, 0.99, 0.999, 0.9999, 0.99999] },
};
const CROWDED = 0.95; // where half of the values are above, they would share a few bars

class Histogram {
  constructor(canvas, { log, format }) {
    Object.assign(this, { canvas, log, format });
    this.painted = document.createElement("canvas");
  }

  layout(width, height) {
    Object.assign(this, { width, height, scale: window.devicePixelRatio || 1 });
    for (const canvas of [this.canvas, this.painted]) {
      canvas.width = Math.round(width * this.scale);
      canvas.height = Math.round(height * this.scale);
    }
    this.canvas.style.height = `${height}px`;
  }

  // values[t] and fates[t] of the tokens; NaN is not counted. `tau`, if given, is a line. Without
  // any value the panel of the chart is hidden.
  load(values, fates, tau) {
    const counted = (t) => !Number.isNaN(values[t]) && (!this.log || values[t] > 0);
    const there = values ? [...values.keys()].filter(counted) : [];
    this.hidden = there.length === 0;
    this.canvas.closest(".i-panel").hidden = this.hidden;
    if (this.hidden) return;
    Object.assign(this, { values, tau });
    this.bounds(there.map((t) => values[t]));
    this.tokens = Array.from({ length: BINS }, () => []);
    this.stacks = Array.from({ length: BINS }, () => [0, 0, 0, 0, 0]);
    for (const t of there) {
      const bin = this.binOf(values[t]);
      this.tokens[bin].push(t);
      this.stacks[bin][fates[t]]++;
    }
    this.most = Math.max(1, ...this.tokens.map((tokens) => tokens.length));
  }

  // The axis that suits the data, and its ends: theirs on a logarithmic one, else at least 0 to 1.
  bounds(values) {
    const crowded = values.toSorted((a, b) => a - b)[values.length >> 1] > CROWDED;
    this.axis = this.log ? AXES.log : crowded ? AXES.nines : AXES.even;
    const ends = this.log ? values : [0, 1, ...values];
    this.low = ends.reduce((a, b) => Math.min(a, b));
    this.high = ends.reduce((a, b) => Math.max(a, b));
    if (this.low === this.high) [this.low, this.high] = [this.low / 2, this.high * 2];
  }

  // Where a value lies between low and high, 0 to 1.
  share(value) {
    const { to } = this.axis;
    return (to(value) - to(this.low)) / (to(this.high) - to(this.low));
  }

  valueAt(x) {
    const share = (x - MARGIN.left) / (this.width - MARGIN.left - MARGIN.right);
    const { to, from } = this.axis;
    return from(to(this.low) + share * (to(this.high) - to(this.low)));
  }

  binOf(value) {
    return Math.min(BINS - 1, Math.max(0, Math.floor(this.share(value) * BINS)));
  }

  x(value) {
    return MARGIN.left + this.share(value) * (this.width - MARGIN.left - MARGIN.right);
  }

  // The patches behind the bar at x: the same array for as long as it is the same bar.
  patchesAt(x, stage) {
    const share = (x - MARGIN.left) / (this.width - MARGIN.left - MARGIN.right);
    const tokens = share < 0 || share >= 1 ? [] : this.tokens[Math.floor(share * BINS)];
    if (tokens !== this.bar)
      this.barPatches = tokens.map((t) => stage.rootOf[t]).filter((root) => root >= 0);
    this.bar = tokens;
    return this.barPatches;
  }

  pen(canvas) {
    const ctx = canvas.getContext("2d");
    ctx.setTransform(this.scale, 0, 0, this.scale, 0, 0);
    ctx.clearRect(0, 0, this.width, this.height);
    return ctx;
  }

  paint(looks) {
    this.visible = !this.hidden && this.canvas.clientWidth > 0;
    if (!this.visible) return;
    this.looks = looks;
    const ctx = this.pen(this.painted);
    const theme = themeOf(this.canvas);
    this.theme = theme;
    const floor = this.height - MARGIN.bottom;
    const room = floor - MARGIN.top;
    const wide = (this.width - MARGIN.left - MARGIN.right) / BINS;
    ctx.fillStyle = theme.line;
    ctx.fillRect(0, floor, this.width, 1);
    this.stacks.forEach((stack, bin) => {
      let y = floor;
      for (const fate of STACK) {
        if (!stack[fate]) continue;
        const high = (room * stack[fate]) / this.most;
        const look = looks.fates[fate];
        const box = [MARGIN.left + bin * wide, y - high, Math.max(1, wide - 0.75), high];
        ctx.fillStyle =
          fate === Fate.KEPT ? theme.accent : fate === Fate.DROPPED ? theme.quiet : look.tint;
        ctx.fillRect(...box);
        if (look.hatch) {
          ctx.fillStyle = hatchPattern(ctx, ...look.hatch, this.scale);
          ctx.fillRect(...box);
        }
        y -= high;
      }
    });
    ctx.fillStyle = theme.ink;
    this.mark(ctx);
  }

  // The ends of the axis, and the values to be marked between them, each if it has room.
  mark(ctx) {
    const y = this.height - 5;
    ctx.font = `12px ${this.theme.font}`;
    ctx.textAlign = "left";
    const [low, high] = [this.low, this.high].map((value) => this.format(value));
    ctx.fillText(low, MARGIN.left, y);
    const end = this.width - MARGIN.right - ctx.measureText(high).width;
    ctx.fillText(high, end, y);
    let free = MARGIN.left + ctx.measureText(low).width + 8;
    for (const value of this.axis.ticks) {
      const text = `${value}`.slice(1);
      const wide = ctx.measureText(text).width;
      const left = this.x(value) - wide / 2;
      if (left < free || left + wide + 8 > end) continue;
      ctx.fillText(text, left, y);
      free = left + wide + 8;
    }
  }

  // Copy the bars; draw tau, the token `held`, and ticks for the lit tokens.
  draw({ held, lit }) {
    if (!this.visible) return;
    const { tau } = this;
    const value = held < 0 ? NaN : this.values[held];
    const ctx = this.pen(this.canvas);
    const { theme, looks } = this;
    ctx.drawImage(this.painted, 0, 0, this.width, this.height);
    const floor = this.height - MARGIN.bottom;
    ctx.fillStyle = theme.ink;
    for (const t of lit) {
      if (Number.isNaN(this.values[t])) continue;
      ctx.fillRect(this.x(this.values[t]) - 0.5, floor + 1, 1, 5);
    }
    ctx.font = `12px ${theme.font}`;
    if (tau !== undefined) {
      const x = this.x(tau);
      ctx.fillStyle = looks.mark;
      ctx.fillRect(x - 1, 0, 2, floor);
      ctx.beginPath();
      ctx.arc(x, 5, 5, 0, 7);
      ctx.fill();
      this.label(ctx, `τ ${similar(tau)}`, x, 10, theme.ink, theme.panel);
    }
    if (Number.isNaN(value)) return;
    const x = Math.min(this.width - MARGIN.right, Math.max(MARGIN.left, this.x(value)));
    ctx.fillStyle = theme.ink;
    ctx.beginPath();
    ctx.moveTo(x, floor);
    ctx.lineTo(x - 5, floor + 8);
    ctx.lineTo(x + 5, floor + 8);
    ctx.fill();
    ctx.fillRect(x - 0.75, MARGIN.top, 1.5, floor - MARGIN.top);
    this.label(ctx, this.format(value), x, MARGIN.top + 12, theme.ink, theme.panel);
  }

  // Text beside a line, on a ground of its own.
  label(ctx, text, x, y, colour, ground) {
    const wide = ctx.measureText(text).width + 8;
    const left = x + 6 + wide > this.width ? x - 6 - wide : x + 6;
    ctx.globalAlpha = 0.85;
    ctx.fillStyle = ground;
    ctx.fillRect(left, y - 11, wide, 15);
    ctx.globalAlpha = 1;
    ctx.fillStyle = colour;
    ctx.textAlign = "left";
    ctx.fillText(text, left + 4, y);
  }
}
