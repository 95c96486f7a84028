// What is painted on the picture. Each overlay says when it can be shown, paints itself, and tells
// its legend and caption; `now` is what the inspector shows (see `current` in inspector.js).

const OVERLAYS = {
  fate: {
    label: "Fate",
    paint: (ctx, picture, { situation }) => paintFate(ctx, picture, situation),
    legend: (now) => [keptSample(now), ...fateSamples(now, [2, 3, 0, 4])],
    caption: stageCaption,
  },
  groups: {
    label: "Groups",
    paint: (ctx, picture, { situation, mode }) => paintGroups(ctx, picture, situation, mode),
    legend(now) {
      const { root } = now.situation;
      const groups = new Set(root.filter((r, p) => now.situation.isGroup(r) && isShown(now, p)));
      return [
        { text: groups.size ? `${plural(groups.size, "group")} of several patches` : "no groups" },
        ...fateSamples(now, [3, 0, 4]),
      ];
    },
    caption: stageCaption,
  },
  importance: {
    label: "Importance",
    grey: true,
    can: ({ decision }) => decision.evidence.importance,
    paint(ctx, picture, { decision: { before, evidence } }) {
      paintHeat(ctx, picture, before, evidence.importance);
    },
    legend: ({ looks, decision: { before, evidence } }) =>
      heatScale(looks, before, evidence.importance),
    caption({ trace, decision, stage }) {
      const led = stage ? ": it led to this stage" : ": the first step goes by it";
      return `${capital(decision.measure)}${trace.last ? led : ""}.`;
    },
  },
  attention: {
    label: "Attention",
    grey: true,
    can: ({ attention }) => attention,
    paint: (ctx, picture, { attention: { row, stage } }) =>
      paintHeat(ctx, picture, stage, row),
    legend: ({ looks, attention: { row, stage } }) => heatScale(looks, stage, row),
    caption({ trace, attention: { row, stage, layer, word } }) {
      const said = wordText(trace.words[word]?.text ?? "");
      const total = row.reduce((a, b) => a + b, 0);
      const { extras, extra } = stage;
      const share = extras.reduce((sum, token) => sum + row[token], 0);
      const whose = extras.length > 1 ? `${extras.length} ${extra}s` : `the ${extra}`;
      const lens = extras.length ? `, ${whose} ${percent(share)}` : "";
      const takes = `All visual tokens together take ${percent(total)} of its attention${lens}.`;
      return `Layer ${layer}, while the model produced “${said}”. ${takes}`;
    },
  },
  agreement: {
    label: "Agreement",
    can: ({ other }) => other,
    paint: (ctx, picture, now) =>
      paintAgreement(ctx, picture, agreement(now.situation, now.theirs).side),
    legend(now) {
      const { trace, other, situation, theirs, looks } = now;
      const { onlyMine, onlyTheirs, both, iou, n } = agreement(situation, theirs, (p) => isShown(now, p));
      const { chance, most } = blindAgreement(onlyMine + both, onlyTheirs + both, n);
      const bounds = `by chance ${chance.toFixed(2)}, at most ${most.toFixed(2)}`;
      return [
        { sample: looks.sides[0], look: "rising", text: `only ${trace.name} ${onlyMine}` },
        { sample: looks.sides[1], look: "falling", text: `only ${other.name} ${onlyTheirs}` },
        { sample: "transparent", look: "outlined", text: `both ${both}` },
        { text: `IoU ${iou.toFixed(2)} (${bounds})` },
      ];
    },
    caption({ trace, other, stage, situation, theirs }) {
      const [mine, its] = [situation, theirs].map(({ counts }) => counts[Fate.KEPT] === trace.n);
      if (stage === 0 && trace.last > 0)
        return "Before compression every patch is kept: choose a later stage.";
      if (mine || its)
        return (
          `${(mine ? trace : other).name} keeps every patch, so there is nothing to agree about. ` +
          "Compare two methods to see where they differ."
        );
      return `Kept by ${trace.name}, ${trace.stages[stage].name}, and by ${other.name}, ${theirs.name}.`;
    },
  },
};

// For the quiz: nothing gives an answer away.
const PLAIN = {
  label: "Picture",
  paint: (ctx, picture) => picture.borders(ctx, (p) => p), // what there is to choose from
  legend: () => [],
  caption: () => "",
};

// Whether a patch is in what is shown: all pictures, or one of them alone.
const isShown = ({ trace, image }, p) => image < 0 || trace.image[p] === image;

// How many of the patches that are shown have a fate.
const shownWith = (now, fate) =>
  now.situation.fate.reduce((sum, f, p) => sum + (f === fate && isShown(now, p)), 0);

const keptSample = (now) => ({
  sample: "transparent",
  look: "outlined",
  text: `kept ${shownWith(now, Fate.KEPT)}`,
});

const fateSamples = (now, fates) =>
  fates
    .map((f) => ({ sample: now.looks.sample(f), text: FATES[f], count: shownWith(now, f) }))
    .filter(({ count }) => count)
    .map(({ sample, text, count }) => ({ sample, text: `${text} ${count}` }));

const heatScale = (looks, { counts, extra }, row) => [
  {
    sample: looks.heatGradient(),
    look: "wide",
    text: `0 to ${percent(heatTop(row))} of the attention or more, per token`,
  },
  ...(counts[Fate.COMPENSATED]
    ? [{ sample: looks.sample(Fate.COMPENSATED), text: extra }]
    : []),
  ...(counts[Fate.DROPPED] ? [{ sample: "var(--line)", text: "no token here any more" }] : []),
];

function stageCaption({ trace, stage, situation, changed, image }) {
  const { counts } = situation;
  const { name, nTokens, extras, extra } = trace.stages[stage];
  if (changed) {
    const gathered = andExtra(+(counts[Fate.COMPENSATED] > 0), extra);
    const left = plural(counts[Fate.KEPT], "token");
    return `What if: ${left}${gathered} would stand for ${patches(trace, counts, image)}.`;
  }
  if (stage === 0) return `Before compression: one token for each of ${trace.n} patches.`;
  const gathered = andExtra(extras.length, extra);
  const tokens = plural(nTokens - extras.length, "token");
  const place = name.startsWith("encoder") ? `after ${name}` : name;
  return `${capital(place)}, ${tokens}${gathered} stand for ${patches(trace, counts, image)}.`;
}

/** Which of all patches are still there in a token, in words. */
function patches({ n, video, pictures }, counts, image) {
  const gone = counts[Fate.DROPPED];
  const among = image < 0 || pictures.length < 2 ? "" : ` of all ${video ? "frames" : "pictures"}`;
  const all = `${n} patches${among}`;
  return gone ? `${n - gone} of ${all}, the others are gone` : all;
}

const HEAT = 0.78; // how far a heat map covers the picture
const WITHIN = 0.99; // of all values lie within the heat scale: sinks would leave the rest black

// What became of each patch, or of some.
function paintFate(ctx, picture, situation, some = () => true) {
  picture.looks.fates.forEach((look, fate) => {
    const which = (p) => situation.fate[p] === fate && some(p);
    if (!situation.counts[fate]) return;
    if (look.strength) picture.fill(ctx, look.tint, look.strength, which);
    if (look.hatch) picture.fill(ctx, hatchPattern(ctx, ...look.hatch, picture.scale), 1, which);
    if (look.outlined) picture.frameAll(ctx, which);
  });
}

// Which patches became one token: in their mean colour, or in one that touching groups do not
// share.
function paintGroups(ctx, picture, situation, mode) {
  const { trace } = picture;
  const { root, fate } = situation;
  const grouped = (p) => situation.isGroup(root[p]);
  const lost = (p) => root[p] < 0 || fate[p] === Fate.UNDECIDED;
  const means = meanColours(trace.colour, situation);
  if (mode === "label") picture.paintGrey(ctx, grouped);
  for (let p = 0; p < trace.n; p++) {
    if (!grouped(p) || lost(p)) continue;
    ctx.globalAlpha = mode === "mean" ? 1 : 0.7;
    ctx.fillStyle = mode === "mean" ? colourAt(means, root[p]) : labelColour(picture, root[p]);
    ctx.fillRect(...picture.box(p));
  }
  ctx.globalAlpha = 1;
  paintFate(ctx, picture, situation, lost);
  picture.borders(ctx, (p) => (lost(p) ? -10 - fate[p] : root[p]));
}

// The colour that a group's root has at every stage. A what-if can make groups that no stage has.
function labelColour({ trace: { groupColour }, looks: { palette } }, root) {
  const known = groupColour.subarray(3 * root, 3 * root + 3).some((c) => c > 0);
  return known ? colourAt(groupColour, root) : palette[root % palette.length];
}

function meanColours(colour, situation) {
  const sums = new Float32Array(colour.length);
  const count = new Uint32Array(situation.n);
  situation.root.forEach((r, p) => {
    if (r < 0) return;
    count[r]++;
    for (let c = 0; c < 3; c++) sums[3 * r + c] += colour[3 * p + c];
  });
  return sums.map((sum, i) => Math.round(sum / Math.max(1, count[Math.floor(i / 3)])));
}

// The value of each token on all patches that it stands for, which have a border if they are
// several; those of compensation tokens are hatched, and patches without a token fade.
function paintHeat(ctx, picture, stage, row) {
  const { looks } = picture;
  const [values, top] = [ofPatches(stage, row), heatTop(row)];
  const gathered = (p) => isExtra(stage.root[p]);
  const part = (p) => (gathered(p) || stage.isGroup(stage.root[p]) ? stage.root[p] : GONE);
  for (let p = 0; p < values.length; p++) {
    const there = !Number.isNaN(values[p]);
    ctx.globalAlpha = there ? HEAT : 0.72;
    ctx.fillStyle = there ? looks.heatColour(values[p] / top) : picture.absent;
    ctx.fillRect(...picture.box(p));
  }
  ctx.globalAlpha = 1;
  const [direction] = looks.fates[Fate.COMPENSATED].hatch;
  picture.fill(ctx, hatchPattern(ctx, direction, "#fff", picture.scale), 0.7, gathered);
  picture.borders(ctx, (p) => (Number.isNaN(values[p]) ? null : part(p)), true);
}

function heatTop(row) {
  const sorted = Float32Array.from(row)
    .filter((v) => !Number.isNaN(v))
    .sort();
  const at = WITHIN * (sorted.length - 1);
  const low = Math.floor(at);
  const high = Math.min(low + 1, sorted.length - 1);
  return sorted.length ? sorted[low] + (at - low) * (sorted[high] - sorted[low]) || 1 : 1;
}

// Who keeps which patch: only one, only the other, both; how many of those that are `counted`.
function agreement(mine, theirs, counted = () => true) {
  const kept = (situation, p) => situation.fate[p] === Fate.KEPT;
  const side = Uint8Array.from(mine.fate, (_, p) => kept(mine, p) + 2 * kept(theirs, p));
  const counts = [0, 0, 0, 0];
  side.forEach((s, p) => (counts[s] += counted(p)));
  const [neither, onlyMine, onlyTheirs, both] = counts;
  return {
    side,
    onlyMine,
    onlyTheirs,
    both,
    n: neither + onlyMine + onlyTheirs + both,
    iou: both / Math.max(1, onlyMine + onlyTheirs + both),
  };
}

// What two sets of `a` and `b` out of `n` patches share as IoU: when both are chosen blindly, from
// the mean of what they share; and at most.
function blindAgreement(a, b, n) {
  const shared = (a * b) / n;
  return {
    chance: shared / Math.max(1, a + b - shared),
    most: Math.min(a, b) / Math.max(1, a, b),
  };
}

function paintAgreement(ctx, picture, side) {
  const { looks, panel, scale } = picture;
  picture.fill(ctx, panel, 0.7, (p) => side[p] === 0);
  ["/", "\\"].forEach((direction, i) => {
    const only = (p) => side[p] === i + 1;
    picture.fill(ctx, looks.sides[i], 0.65, only);
    picture.fill(ctx, hatchPattern(ctx, direction, "#fff", scale), 0.6, only);
  });
  picture.frameAll(ctx, (p) => side[p] === 3);
}
