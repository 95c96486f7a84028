// The flow: between two stages every token moves to the token it becomes part of. Dropped tokens
// fade where they stand; compensation tokens gather in the lower right corner.

const MOVE = 1300; // milliseconds of one move, and of the rest before it
const REST = 700;

const still = () => matchMedia("(prefers-reduced-motion: reduce)").matches;

class Flow {
  // go(stage) shows a stage; done() is told the end.
  constructor(picture, { go, done }) {
    Object.assign(this, { picture, go, done, running: 0 });
  }

  get playing() {
    return this.running !== 0;
  }

  stop() {
    cancelAnimationFrame(this.running);
    clearTimeout(this.resting);
    this.running = 0;
  }

  // Play from a stage to the last.
  play(stage) {
    this.stop();
    const { trace } = this.picture;
    this.running = -1; // until the first frame
    this.go(stage);
    if (stage >= trace.last) return this.finish();
    this.resting = setTimeout(() => (still() ? this.play(stage + 1) : this.move(stage)), REST);
  }

  finish() {
    this.stop();
    this.done();
  }

  move(stage) {
    const begin = performance.now();
    const frame = (now) => {
      const time = Math.min(1, (now - begin) / MOVE);
      if (time === 1) return this.play(stage + 1);
      this.drawBetween(stage, time * time * (3 - 2 * time));
      this.running = requestAnimationFrame(frame);
    };
    this.running = requestAnimationFrame(frame);
  }

  drawBetween(stage, time) {
    const { picture } = this;
    const { trace, base } = picture;
    const from = trace.stages[stage];
    const to = trace.stages[stage + 1];
    const ctx = picture.pen(picture.canvas);
    const corner = this.corner();
    ctx.globalAlpha = 0.16;
    ctx.drawImage(base, 0, 0, picture.width, picture.height);
    const at = (root) => (isExtra(root) ? corner : picture.centre(root));
    for (const root of from.rootOf) {
      if (isExtra(root) || !picture.shows(root)) continue;
      const next = to.root[root];
      const away = next === GONE || (next >= 0 && !picture.shows(next)); // into another picture
      const [x0, y0] = at(root);
      const [x1, y1] = away ? [x0, y0] : at(next);
      const stays = next === root;
      const shrink = stays ? 1 : 1 - 0.55 * time;
      ctx.globalAlpha = stays ? 1 : away ? 1 - time : 1 - 0.75 * time * time;
      this.tile(ctx, root, x0 + time * (x1 - x0), y0 + time * (y1 - y0), shrink);
    }
    ctx.globalAlpha = 1;
    if (to.extras.length) this.bin(ctx, corner, from.extras.length ? 1 : time);
  }

  corner() {
    const frame = this.picture.frames.at(-1);
    return [frame.x + frame.width - 24, frame.y + frame.height - 24];
  }

  tile(ctx, root, x, y, size) {
    const { base, scale } = this.picture;
    const [left, top, w, h] = this.picture.box(root);
    ctx.drawImage(
      base,
      left * scale,
      top * scale,
      w * scale,
      h * scale,
      x - (w * size) / 2,
      y - (h * size) / 2,
      w * size,
      h * size,
    );
  }

  bin(ctx, [x, y], size) {
    const look = this.picture.looks.fates[Fate.COMPENSATED];
    const side = 32 * size;
    ctx.fillStyle = look.tint;
    ctx.fillRect(x - side / 2, y - side / 2, side, side);
    ctx.fillStyle = hatchPattern(ctx, ...look.hatch, this.picture.scale);
    ctx.fillRect(x - side / 2, y - side / 2, side, side);
    ctx.strokeStyle = this.picture.looks.ink;
    ctx.strokeRect(x - side / 2, y - side / 2, side, side);
  }
}
