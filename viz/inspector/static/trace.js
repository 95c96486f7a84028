// A trace as the views need it. Patches are numbered as in Python; everything speaks of them.

const Fate = { DROPPED: 0, KEPT: 1, MERGED: 2, COMPENSATED: 3, UNDECIDED: 4 };
// A token is called by the patch whose place it takes: its root. Some roots are no patches: none,
// and tokens that sum up others, of which there may be one for each picture: -2, -3, ...
const GONE = -1;
const COMPENSATION = -2;
const isExtra = (root) => root <= COMPENSATION;

// Where every patch is at one stage.
class Situation {
  // fate[p], root[p]: of each patch; edges: patch source[e] is in the token into[e] with weight[e].
  constructor({ fate, root, source, into, weight }) {
    const n = fate.length;
    Object.assign(this, { fate, root, n });
    this.counts = new Array(5).fill(0);
    for (const f of fate) this.counts[f]++;
    // The edges sorted by token: those of root r stand at start[r - lowest] .. start[r - lowest + 1].
    const lowest = into.reduce((least, r) => Math.min(least, r), COMPENSATION);
    this.lowest = lowest;
    this.start = new Uint32Array(n - lowest + 1);
    for (const r of into) this.start[r - lowest + 1]++;
    for (let i = 1; i < this.start.length; i++) this.start[i] += this.start[i - 1];
    const next = this.start.slice();
    this.member = new Int32Array(source.length);
    this.share = new Float32Array(source.length);
    this.tokens = new Uint16Array(n); // in how many tokens each patch is
    for (let e = 0; e < source.length; e++) {
      const place = next[into[e] - lowest]++;
      this.member[place] = source[e];
      this.share[place] = weight[e];
      this.tokens[source[e]]++;
    }
  }

  // The patches in the token `root`, and their weights.
  members(root) {
    if (root === GONE) return { patches: new Int32Array(0), weights: new Float32Array(0) };
    const begin = this.start[root - this.lowest];
    const end = this.start[root - this.lowest + 1];
    return { patches: this.member.subarray(begin, end), weights: this.share.subarray(begin, end) };
  }

  // The patches in all tokens that sum up others: those of the lowest roots.
  summedUp() {
    return this.member.subarray(0, this.start[GONE - this.lowest]);
  }

  size(root) {
    return root === GONE ? 0 : this.start[root - this.lowest + 1] - this.start[root - this.lowest];
  }

  // Whether a token is made of several patches; compensation tokens are a thing of their own.
  isGroup(root) {
    return root >= 0 && this.size(root) > 1;
  }

  // The weight of a patch in the token that holds most of it.
  weight(patch) {
    const { patches, weights } = this.members(this.root[patch]);
    return weights[patches.indexOf(patch)];
  }
}

function openTrace(raw) {
  const trace = { ...raw };
  for (const name of ["image", "row", "column", "box", "colour", "groupColour"])
    if (name in raw) trace[name] = unpack(raw[name]);
  trace.stages = raw.stages.map((stage) => openStage(stage, raw.extra));
  trace.decisions = raw.decisions.map((d, i) =>
    openDecision(d, trace.stages[i], raw.stages[i + 1]),
  );
  trace.last = trace.stages.length - 1;
  return trace;
}

function openStage(raw, extra) {
  const slot = unpack(raw.slot);
  const group = unpack(raw.group);
  // rootOf[o]: the root of token o.
  const rootOf = Int32Array.from(slot);
  raw.extras.forEach((o, i) => (rootOf[o] = COMPENSATION - i));
  const place = (o) => (o < 0 ? GONE : rootOf[o]);
  const situation = new Situation({
    fate: unpack(raw.fate),
    root: Int32Array.from(group, place),
    source: unpack(raw.source),
    into: Int32Array.from(unpack(raw.target), place),
    weight: unpack(raw.weight),
  });
  const { n, lowest } = situation;
  const tokens = new Int32Array(n - lowest).fill(-1);
  rootOf.forEach((r, o) => (tokens[r - lowest] = o));
  return Object.assign(situation, {
    name: raw.name,
    nTokens: raw.n,
    extras: raw.extras, // the tokens that sum up others
    extra, // what such a token is called
    rootOf,
    tokenOf: (root) => tokens[root - lowest], // the token of this root, or -1
  });
}

// One event. Its arrays run over the tokens of the stage before; `into` names roots.
function openDecision(raw, before, after) {
  const group = unpack(raw.group);
  const slot = unpack(raw.slot);
  const members = unpack(raw.members);
  const extras = after ? after.extras : [];
  const into = (o) => (extras.includes(o) ? COMPENSATION - extras.indexOf(o) : before.rootOf[slot[o]]);
  const place = (o) => (o < 0 ? GONE : into(o));
  const evidence = {};
  for (const [name, text] of Object.entries(raw.evidence)) evidence[name] = unpack(text);
  return {
    ...raw,
    evidence,
    before,
    pairs: raw.pairs && { ...raw.pairs, codes: unpack(raw.pairs.codes) },
    fate: unpack(raw.fate),
    into: Int32Array.from(group, place),
    // Of how many tokens the one is made that each goes into: a token may be part of several.
    size: Int32Array.from(group, (o) => (o < 0 ? 0 : members[o])),
    weight: unpack(raw.weight),
    tau: raw.whatIf.tau,
    kept: raw.whatIf.keep?.kept,
  };
}

// The decision that led to a stage; before compression: the first one to come.
const decisionIndex = (stage) => Math.max(stage - 1, 0);

// The token of a decision that held a patch, or -1 if nothing did.
const tokenBefore = (decision, patch) => {
  const root = decision.before.root[patch];
  return root === GONE ? -1 : decision.before.tokenOf(root);
};

// A value per token of a stage as a value per patch: at all patches that the token stands for.
function ofPatches(stage, values) {
  const { root, tokenOf } = stage;
  const spread = Float32Array.from(root, (r) => (r === GONE ? NaN : values[tokenOf(r)]));
  stage.rootOf.forEach((root, token) => {
    if (root >= 0) spread[root] = values[token];
  });
  return spread;
}

// The index of the stored layer that attends most to the pictures while it produces a word.
function loudest(trace, word) {
  const sums = trace.attention.layers.map((_, i) =>
    attentionRow(trace, word, i).row.reduce((a, b) => a + b, 0),
  );
  return sums.indexOf(Math.max(...sums));
}

// The attention row of a word in the stored layer of that index (or the last), with the stage whose
// tokens it runs over.
function attentionRow(trace, word, index) {
  const { layers, lengths, words } = trace.attention;
  index = Math.min(index, layers.length - 1);
  word = Math.min(word, words.length - 1);
  const rows = ((trace.rows ??= [])[word] ??= unpackAttention(words[word]));
  const begin = lengths.slice(0, index).reduce((a, b) => a + b, 0);
  const layer = layers[index];
  return {
    row: rows.subarray(begin, begin + lengths[index]),
    stage: trace.stages[trace.stageAt[layer]],
    index,
    layer,
    word,
  };
}
