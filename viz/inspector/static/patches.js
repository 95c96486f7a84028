// Where the patches are on the canvas: their rectangles, and the patch behind each pixel.
// Several pictures stand side by side, or one of them alone.

const GAP = 10; // between pictures

class PatchMap {
  // Place the pictures of a trace in a box `width` wide and at most `maxHeight` high (CSS pixels):
  // all of them, or the one of that index.
  place(trace, images, alone, width, maxHeight) {
    this.trace = trace;
    this.scale = window.devicePixelRatio || 1;
    const shown = [...images.keys()].filter((i) => alone < 0 || i === alone);
    const places = mosaic(
      shown.map((i) => images[i]),
      width,
      maxHeight,
    );
    this.frames = places.map((frame, k) => ({ ...frame, image: shown[k] }));
    this.width = width;
    this.height = Math.max(1, Math.ceil(Math.max(...this.frames.map((f) => f.y + f.height))));
    this.measure();
  }

  // Rectangles of all patches, on whole device pixels, and the patch behind each CSS pixel.
  measure() {
    const { trace, scale, width } = this;
    const { n } = trace;
    const frames = new Map(this.frames.map((frame) => [frame.image, frame]));
    this.rect = new Float32Array(4 * n);
    this.patchAtPixel = new Int32Array(width * this.height).fill(-1);
    const snap = (v) => Math.round(v * scale + 1e-3) / scale;
    for (let p = 0; p < n; p++) {
      const frame = frames.get(trace.image[p]);
      if (trace.row[p] < 0 || !frame) continue;
      const box = trace.box.subarray(4 * p, 4 * p + 4);
      const x0 = snap(frame.x + Math.max(0, box[0]) * frame.width);
      const y0 = snap(frame.y + Math.max(0, box[1]) * frame.height);
      const x1 = snap(frame.x + Math.min(1, box[2]) * frame.width);
      const y1 = snap(frame.y + Math.min(1, box[3]) * frame.height);
      this.rect.set([x0, y0, x1 - x0, y1 - y0], 4 * p);
      for (let y = Math.floor(y0); y < y1; y++) {
        const line = y * width;
        this.patchAtPixel.fill(p, line + Math.floor(x0), line + Math.ceil(x1));
      }
    }
    const widths = Array.from({ length: n }, (_, p) => this.rect[4 * p + 2]).filter((w) => w > 0);
    this.side = widths.sort((a, b) => a - b)[widths.length >> 1] ?? 1; // the usual patch
    // The patches right of and below each patch, or -1.
    this.right = Int32Array.from({ length: n }, (_, p) => this.beside(p, 1, 0));
    this.below = Int32Array.from({ length: n }, (_, p) => this.beside(p, 0, 1));
    this.left = new Int32Array(n).fill(-1);
    this.above = new Int32Array(n).fill(-1);
    this.right.forEach((q, p) => q >= 0 && (this.left[q] = p));
    this.below.forEach((q, p) => q >= 0 && (this.above[q] = p));
  }

  beside(p, dx, dy) {
    const [x, y, w, h] = this.box(p);
    if (!w) return -1;
    const q = this.patchAt(x + w / 2 + dx * (w / 2 + 1.5), y + h / 2 + dy * (h / 2 + 1.5));
    return q === p ? -1 : q;
  }

  box(p) {
    return this.rect.subarray(4 * p, 4 * p + 4);
  }

  // Whether a patch is in a picture that is shown.
  shows(p) {
    return this.rect[4 * p + 2] > 0;
  }

  // The first patch that is.
  first() {
    return this.trace.row.findIndex((_, p) => this.shows(p));
  }

  centre(p) {
    const [x, y, w, h] = this.box(p);
    return [x + w / 2, y + h / 2];
  }

  // The patch at a point of the canvas in CSS pixels, or -1.
  patchAt(x, y) {
    const column = Math.floor(x);
    const line = Math.floor(y);
    const { width, height } = this;
    const inside = column >= 0 && line >= 0 && column < width && line < height;
    return inside ? this.patchAtPixel[line * width + column] : -1;
  }

  // The patches under a brush, and those that a rectangle touches.
  near(x, y) {
    const reach = Math.max(9, 0.75 * this.side);
    return this.within(x - reach, y - reach, x + reach, y + reach).filter((p) => {
      const [u, v, w, h] = this.box(p);
      return Math.hypot(Math.max(u - x, 0, x - u - w), Math.max(v - y, 0, y - v - h)) < reach * 0.6;
    });
  }

  within(x0, y0, x1, y1) {
    const [left, right, top, bottom] = [
      Math.min(x0, x1),
      Math.max(x0, x1),
      Math.min(y0, y1),
      Math.max(y0, y1),
    ];
    const patches = [];
    for (let p = 0; p < this.trace.n; p++) {
      const [x, y, w, h] = this.box(p);
      if (w && x < right && x + w > left && y < bottom && y + h > top) patches.push(p);
    }
    return patches;
  }

  // The nearest patch in a direction: how the arrow keys move.
  neighbour(p, dx, dy) {
    const [x, y] = this.centre(p);
    let best = p;
    let least = Infinity;
    for (let q = 0; q < this.trace.n; q++) {
      if (q === p || !this.shows(q)) continue;
      const [u, v] = this.centre(q);
      const along = (u - x) * dx + (v - y) * dy;
      const across = Math.abs((u - x) * dy) + Math.abs((v - y) * dx);
      if (along < 1 || across > along) continue;
      const distance = along + 4 * across;
      if (distance < least) [best, least] = [q, distance];
    }
    return best;
  }
}

// Width over height of pictures that stand together.
function aspect(images) {
  const frames = mosaic(images, 1000, Infinity);
  return 1000 / Math.max(...frames.map(({ y, height }) => y + height));
}

// Where pictures of these sizes go, in rows, within a width and a height.
function mosaic(images, width, maxHeight) {
  const columns = images.length < 4 ? images.length : Math.ceil(Math.sqrt(images.length));
  const rows = [];
  for (let i = 0; i < images.length; i += columns) rows.push(images.slice(i, i + columns));
  const tallest = (row) =>
    Math.max(...row.map((image) => image.naturalHeight / image.naturalWidth));
  const heights = rows.reduce((sum, row) => sum + tallest(row), 0);
  const widest = (width - GAP * (columns - 1)) / columns;
  const cell = Math.min(widest, (maxHeight - GAP * (rows.length - 1)) / heights);
  const left = (width - cell * columns - GAP * (columns - 1)) / 2;
  const frames = [];
  let y = 0;
  for (const row of rows) {
    row.forEach((image, i) => {
      const height = (cell * image.naturalHeight) / image.naturalWidth;
      frames.push({ x: left + i * (cell + GAP), y, width: cell, height });
    });
    y += cell * tallest(row) + GAP;
  }
  return frames;
}
