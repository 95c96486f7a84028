// The token strip: one row per stage, all patches in reading order, so that places stay. The height
// of a bar tells the fate; lines between the rows follow the lit patches from stage to stage.

const ROW = 44; // CSS pixels: from row to row, and the highest bar
const BAR = 20;
const LEVELS = { 0: 0.14, 1: 1, 2: 0.55, 3: 0.32, 4: 0.32 }; // of the highest bar, by fate
const END = 26; // room at the end of a row for compensation tokens

class Strip {
  constructor(canvas) {
    this.canvas = canvas;
    this.painted = document.createElement("canvas");
  }

  layout(trace, looks, width) {
    Object.assign(this, { trace, looks, width });
    this.scale = window.devicePixelRatio || 1;
    this.height = ROW * trace.stages.length - (ROW - BAR) + 6;
    for (const canvas of [this.canvas, this.painted]) {
      canvas.width = Math.round(width * this.scale);
      canvas.height = Math.round(this.height * this.scale);
    }
    this.canvas.style.height = `${this.height}px`;
    this.end = trace.stages.some((stage) => stage.extras.length) ? END : 0;
    this.step = (width - this.end) / trace.n;
  }

  pen(canvas) {
    const ctx = canvas.getContext("2d");
    ctx.setTransform(this.scale, 0, 0, this.scale, 0, 0);
    ctx.clearRect(0, 0, this.width, this.height);
    return ctx;
  }

  // Paint all rows; `rows[s]` is the situation of stage s.
  paint(rows) {
    this.rows = rows;
    const ctx = this.pen(this.painted);
    const { trace, looks, scale } = this;
    const theme = (this.theme = themeOf(this.canvas));
    rows.forEach((situation, s) => {
      const bottom = s * ROW + BAR + 3;
      ctx.fillStyle = theme.line;
      ctx.fillRect(0, bottom, this.width - this.end, 1);
      for (let p = 0; p < trace.n; p++) this.bar(ctx, p, s, situation.fate[p], theme);
      if (situation.extras?.length ?? situation.counts[Fate.COMPENSATED]) {
        const look = looks.fates[Fate.COMPENSATED];
        const box = [this.width - END + 6, bottom - BAR, 18, BAR];
        ctx.fillStyle = look.tint;
        ctx.fillRect(...box);
        ctx.fillStyle = hatchPattern(ctx, ...look.hatch, scale);
        ctx.fillRect(...box);
      }
    });
  }

  bar(ctx, p, s, fate, theme) {
    ctx.fillStyle =
      fate === Fate.KEPT
        ? colourAt(this.trace.colour, p)
        : fate === Fate.DROPPED
          ? theme.quiet
          : this.looks.fates[fate].tint;
    this.column(ctx, p, s, fate, 0.5);
  }

  // A bar in the colour at hand, at least so many pixels wide.
  column(ctx, p, s, fate, least) {
    const height = BAR * LEVELS[fate];
    const wide = Math.max(least, this.step - (this.step > 3 ? 0.5 : 0));
    ctx.fillRect(p * this.step, s * ROW + BAR + 3 - height, wide, height);
  }

  // Where a token stands in the strip: the middle of its root, or where compensation tokens are.
  x(root) {
    return isExtra(root) ? this.width - END + 15 : (root + 0.5) * this.step;
  }

  // Copy the rows, and draw the lit patches with their way through the stages.
  draw({ stage, lit, root, pointed }) {
    const ctx = this.pen(this.canvas);
    const { theme, rows } = this;
    ctx.globalAlpha = lit?.length ? 0.45 : 1;
    ctx.drawImage(this.painted, 0, 0, this.width, this.height);
    ctx.globalAlpha = 1;
    if (lit?.length) {
      this.ways(ctx, lit, stage, { colour: theme.quiet, width: 1, alpha: 0.6, goal: root });
      ctx.fillStyle = theme.accent;
      rows.forEach(({ fate }, s) => {
        for (const p of lit) this.column(ctx, p, s, fate[p], 2);
      });
    }
    if (pointed < 0) return;
    this.ways(ctx, [pointed], rows.length - 1, { colour: this.looks.mark, width: 2.5, alpha: 1 });
    ctx.fillStyle = this.looks.mark;
    rows.forEach(({ fate }, s) => {
      const height = BAR * LEVELS[fate[pointed]];
      ctx.fillRect(this.x(pointed) - 1.5, s * ROW + BAR - height, 3, height + 6);
    });
  }

  // Lines from the place of each patch's token at one stage to that at the next, up to a stage.
  // There all lead to `goal`, if that is given: a patch can be in several tokens.
  ways(ctx, patches, upto, { colour, width, alpha, goal = GONE }) {
    const path = new Path2D();
    const drawn = new Set();
    const { rows } = this;
    const roots = 2 * this.trace.n + 2; // of a stage: at most as many are no patches, and none
    for (let s = 0; s < upto; s++) {
      const top = s * ROW + BAR + 4;
      const bottom = (s + 1) * ROW + 3;
      for (const p of patches) {
        const from = rows[s].root[p];
        const last = s + 1 === upto && goal !== GONE;
        const to = last ? goal : rows[s + 1].root[p];
        const key = (s * roots + from) * roots + to; // many patches share one way
        if (from === GONE || drawn.has(key)) continue;
        drawn.add(key);
        const x0 = this.x(from);
        path.moveTo(x0, top);
        if (to === GONE) {
          path.lineTo(x0, top + 7); // a dead end
          path.moveTo(x0 - 3, top + 7);
          path.lineTo(x0 + 3, top + 7);
        } else {
          const middle = (top + bottom) / 2;
          path.bezierCurveTo(x0, middle, this.x(to), middle, this.x(to), bottom);
        }
      }
    }
    ctx.strokeStyle = colour;
    ctx.lineWidth = width;
    ctx.globalAlpha = alpha;
    ctx.stroke(path);
    ctx.globalAlpha = 1;
  }

  // The root and the stage at a point: a patch, COMPENSATION for all such tokens, or none.
  at(x, y) {
    const place = Math.floor(x / this.step);
    const stage = Math.min(this.trace.last, Math.max(0, Math.floor((y + (ROW - BAR) / 2) / ROW)));
    if (place >= 0 && place < this.trace.n) return { root: place, stage };
    return { root: place < 0 ? GONE : COMPENSATION, stage };
  }
}
