// Colours and marks, shared with the other figures: they come with the data.

// The theme's colours, as the style sheet resolves them for an element: whatever is drawn on a
// canvas reads them anew, so that it follows light and dark.
function themeOf(element) {
  const style = getComputedStyle(element);
  return {
    ink: style.color,
    panel: style.backgroundColor,
    line: style.borderTopColor,
    accent: style.caretColor,
    quiet: style.outlineColor,
    font: style.fontFamily,
  };
}

class Looks {
  constructor(raw) {
    Object.assign(this, raw);
    this.heat = unpack(raw.heat);
    // Not a fate: the token is not a target, and only a run could tell more.
    this.fates = [
      ...raw.fates,
      { name: "not kept", tint: raw.ink, strength: 0.55, hatch: null, outlined: false },
    ];
  }

  heatColour(level) {
    const i = 3 * Math.round(255 * Math.min(1, Math.max(0, level)));
    return `rgb(${this.heat[i]} ${this.heat[i + 1]} ${this.heat[i + 2]})`;
  }

  heatGradient() {
    const stops = [0, 0.2, 0.4, 0.6, 0.8, 1].map((level) => this.heatColour(level));
    return `linear-gradient(to right, ${stops})`;
  }

  // A CSS background for the legend's sample of a fate.
  sample(fate) {
    const { tint, strength, hatch } = this.fates[fate];
    if (!strength) return "transparent";
    const base = `color-mix(in srgb, ${tint} ${100 * strength}%, #969696)`;
    if (!hatch) return base;
    const angle = hatch[0] === "/" ? -45 : 45;
    const lines = `transparent 0 3px, ${hatch[1]} 3px 5px`;
    return `repeating-linear-gradient(${angle}deg, ${lines}), ${base}`;
  }
}

const colourAt = (colours, i) =>
  `rgb(${colours[3 * i]} ${colours[3 * i + 1]} ${colours[3 * i + 2]})`;

// Diagonal lines as a pattern: "/" rising or "\" falling.
function hatchPattern(ctx, direction, colour, scale) {
  const tile = document.createElement("canvas");
  const side = Math.round(7 * scale);
  tile.width = tile.height = side;
  const pen = tile.getContext("2d");
  pen.strokeStyle = colour;
  pen.lineWidth = 1.6 * scale;
  pen.beginPath();
  for (const shift of [-side, 0, side]) {
    const [from, to] = direction === "/" ? [side, 0] : [0, side];
    pen.moveTo(shift, from);
    pen.lineTo(shift + side, to);
  }
  pen.stroke();
  const pattern = ctx.createPattern(tile, "repeat");
  pattern.setTransform(new DOMMatrix().scale(1 / scale));
  return pattern;
}
