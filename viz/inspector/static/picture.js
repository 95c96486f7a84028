// The picture with its patches. The overlay is painted once per change into `painted`; a hover only
// copies it and draws the lit patches on top.

const SHADE = "rgb(12 12 14 / 62%)"; // over patches that are not lit
const UNSEEN = 0.25; // how much is left of what the model did not see

class Picture extends PatchMap {
  constructor(canvas) {
    super();
    this.canvas = canvas;
    this.base = document.createElement("canvas"); // the pictures alone
    this.painted = document.createElement("canvas"); // with their overlay
  }

  // Show the pictures of a trace, or one of them alone, in a box `width` wide and at most
  // `maxHeight` high.
  layout(trace, images, alone, looks, width, maxHeight) {
    const own = trace.pictures.map((i) => images[i]);
    this.looks = looks;
    this.place(trace, own, alone, width, maxHeight);
    for (const canvas of [this.canvas, this.base, this.painted]) {
      canvas.width = Math.round(width * this.scale);
      canvas.height = Math.round(this.height * this.scale);
    }
    this.canvas.style.height = `${this.height}px`;
    this.paintBase(own);
  }

  paintBase(images) {
    const ctx = this.pen(this.base);
    const { panel, line } = themeOf(this.canvas);
    Object.assign(this, { panel, absent: line }); // the ground, and what stands for no token
    for (const { image, x, y, width, height } of this.frames) {
      ctx.drawImage(images[image], x, y, width, height);
      // What lies outside of all patches was never seen: without colour, and faded.
      const seen = this.seen(image);
      const outside = new Path2D();
      outside.rect(x, y, width, height);
      if (seen) outside.rect(...seen);
      ctx.save();
      ctx.clip(outside, "evenodd");
      bleach(ctx, x, y, width, height);
      fade(ctx, panel, 1 - UNSEEN, x, y, width, height);
      ctx.restore();
    }
    const grey = (this.grey = document.createElement("canvas"));
    grey.width = this.base.width;
    grey.height = this.base.height;
    const pen = this.pen(grey);
    pen.drawImage(this.base, 0, 0, this.width, this.height);
    this.frames.forEach((f) => bleach(pen, f.x, f.y, f.width, f.height));
  }

  // The rectangle around all patches of a picture.
  seen(image) {
    let [x0, y0, x1, y1] = [Infinity, Infinity, -Infinity, -Infinity];
    for (let p = 0; p < this.trace.n; p++) {
      const [x, y, w, h] = this.box(p);
      if (this.trace.image[p] !== image || !w) continue;
      [x0, y0, x1, y1] = [
        Math.min(x0, x),
        Math.min(y0, y),
        Math.max(x1, x + w),
        Math.max(y1, y + h),
      ];
    }
    return x1 > x0 ? [x0, y0, x1 - x0, y1 - y0] : null;
  }

  // A fresh pen on a canvas, in CSS pixels.
  pen(canvas) {
    const ctx = canvas.getContext("2d");
    ctx.setTransform(this.scale, 0, 0, this.scale, 0, 0);
    ctx.clearRect(0, 0, this.width, this.height);
    return ctx;
  }

  // Paint an overlay over the pictures, in colour or grey.
  paint(overlay, now) {
    const ctx = this.pen(this.painted);
    this.lights = !overlay.grey; // a heat map keeps its colours: what is lit is only outlined
    ctx.drawImage(overlay.grey ? this.grey : this.base, 0, 0, this.width, this.height);
    overlay.paint(ctx, this, now);
  }

  // Draw what is painted: some patches lit and all others shaded, sets of patches marked, and the
  // way from the patch in hand to its root. marks: [{ patches, colour }].
  draw({ lit, root, pointed, locked, marks }) {
    const ctx = this.pen(this.canvas);
    ctx.drawImage(this.painted, 0, 0, this.width, this.height);
    if (lit?.length) {
      if (this.lights) this.light(ctx, lit);
      this.outline(ctx, lit, "#fff", 1.5);
    }
    for (const { patches, colour } of marks) {
      ctx.fillStyle = "rgb(255 255 255 / 25%)";
      for (const p of patches) ctx.fillRect(...this.box(p));
      this.outline(ctx, patches, colour, 3);
    }
    this.point(ctx, { pointed, root, locked });
  }

  // The patch in hand, and the way to its root.
  point(ctx, { pointed, root, locked }) {
    if (pointed < 0 || !this.shows(pointed)) return;
    if (root >= 0 && root !== pointed && this.shows(root)) {
      this.outline(ctx, [root], "#fff", 3);
      this.arrow(ctx, pointed, root);
    }
    this.outline(ctx, [pointed], this.looks.mark, locked ? 4 : 2.5);
  }

  // The pixels of some patches, all others in the shade.
  light(ctx, patches) {
    ctx.fillStyle = SHADE;
    this.frames.forEach((f) => ctx.fillRect(f.x, f.y, f.width, f.height));
    for (const p of patches) this.copy(ctx, this.base, p);
  }

  // One patch out of a canvas of the same size.
  copy(ctx, canvas, p) {
    const { scale } = this;
    const [x, y, w, h] = this.box(p);
    if (w) ctx.drawImage(canvas, x * scale, y * scale, w * scale, h * scale, x, y, w, h);
  }

  arrow(ctx, from, to) {
    const [x0, y0] = this.centre(from);
    const [x1, y1] = this.centre(to);
    const angle = Math.atan2(y1 - y0, x1 - x0);
    const head = 9;
    const path = new Path2D();
    path.moveTo(x0, y0);
    path.lineTo(x1, y1);
    for (const turn of [-0.45, 0.45]) {
      path.moveTo(x1, y1);
      path.lineTo(x1 - head * Math.cos(angle + turn), y1 - head * Math.sin(angle + turn));
    }
    strokeTwice(ctx, path, this.looks.mark, 2.5);
  }

  // The border around a set of patches.
  outline(ctx, patches, colour, width) {
    const inside = new Set(patches);
    const path = new Path2D();
    for (const p of patches) {
      const [x, y, w, h] = this.box(p);
      if (!w) continue;
      const side = (other, x0, y0, x1, y1) => {
        if (other >= 0 && inside.has(other)) return;
        path.moveTo(x0, y0);
        path.lineTo(x1, y1);
      };
      side(this.above[p], x, y, x + w, y);
      side(this.below[p], x, y + h, x + w, y + h);
      side(this.left[p], x, y, x, y + h);
      side(this.right[p], x + w, y, x + w, y + h);
    }
    strokeTwice(ctx, path, colour, width);
  }

  // One-pixel lines between patches that differ; soft ones leave the colours beside them alone.
  borders(ctx, label, soft = false) {
    const path = new Path2D();
    for (let p = 0; p < this.trace.n; p++) {
      const [x, y, w, h] = this.box(p);
      if (!w) continue;
      const right = this.right[p];
      const below = this.below[p];
      if (right >= 0 && label(p) !== label(right)) {
        path.moveTo(x + w, y);
        path.lineTo(x + w, y + h);
      }
      if (below >= 0 && label(p) !== label(below)) {
        path.moveTo(x, y + h);
        path.lineTo(x + w, y + h);
      }
    }
    if (!soft) return strokeTwice(ctx, path, "rgb(255 255 255 / 70%)", 1, "rgb(0 0 0 / 55%)");
    ctx.lineCap = "butt";
    ctx.lineWidth = 1;
    ctx.strokeStyle = "rgb(255 255 255 / 32%)";
    ctx.stroke(path);
  }

  // The pictures without colour, for some patches.
  paintGrey(ctx, which) {
    for (let p = 0; p < this.trace.n; p++) if (which(p)) this.copy(ctx, this.grey, p);
  }

  // Fill some patches with one style.
  fill(ctx, style, alpha, which) {
    ctx.globalAlpha = alpha;
    ctx.fillStyle = style;
    for (let p = 0; p < this.trace.n; p++) if (which(p)) ctx.fillRect(...this.box(p));
    ctx.globalAlpha = 1;
  }

  // Frames inside the patches for which `which` holds: bright with a dark edge.
  frameAll(ctx, which) {
    const fine = this.side < 12;
    const path = new Path2D();
    const inner = new Path2D();
    for (let p = 0; p < this.trace.n; p++) {
      const [x, y, w, h] = this.box(p);
      if (!w || !which(p)) continue;
      path.rect(x + 0.5, y + 0.5, w - 1, h - 1);
      inner.rect(x + 1.5, y + 1.5, w - 3, h - 3);
    }
    ctx.lineWidth = 1;
    ctx.strokeStyle = fine ? "rgb(255 255 255 / 80%)" : this.looks.ink;
    ctx.stroke(path);
    if (fine) return;
    ctx.strokeStyle = "#fff";
    ctx.stroke(inner);
  }
}

// A line with a dark edge: it shows on any picture.
function strokeTwice(ctx, path, colour, width, edge = "#000") {
  ctx.lineCap = "square";
  ctx.strokeStyle = edge;
  ctx.lineWidth = width + (width > 1 ? 2 : 1);
  ctx.stroke(path);
  ctx.strokeStyle = colour;
  ctx.lineWidth = width;
  ctx.stroke(path);
}

function bleach(ctx, x, y, width, height) {
  ctx.globalCompositeOperation = "saturation";
  ctx.fillStyle = "#808080";
  ctx.fillRect(x, y, width, height);
  ctx.globalCompositeOperation = "source-over";
}

function fade(ctx, colour, share, x, y, width, height) {
  ctx.globalAlpha = share;
  ctx.fillStyle = colour;
  ctx.fillRect(x, y, width, height);
  ctx.globalAlpha = 1;
}
