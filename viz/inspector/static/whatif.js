// What if: a decision taken again on its stored tokens, with another tau, eta or count.
// Earlier decisions stay as they were, so these are the tokens that the model would have seen.

// The decision with the changes { tau, eta, keep } applied; the stored one where there are none.
function reconsider(decision, change) {
  const can = decision.whatIf;
  const keep = change.keep ?? can.keep?.kept;
  const tau = change.tau ?? can.tau;
  const eta = change.eta ?? can.eta;
  if (keep === can.keep?.kept && tau === can.tau && eta === can.eta) return decision;
  const again = {
    ...decision,
    evidence: { ...decision.evidence },
    fate: decision.fate.slice(),
    into: decision.into.slice(),
    weight: decision.weight.slice(),
    size: null, // to be counted
    tau,
    kept: keep,
  };
  if (keep !== can.keep.kept) {
    elect(again, keep);
    if (!comparable(again)) return again;
    compare(again);
    divide(again, tau);
    weigh(again, eta ?? Infinity); // without a temperature all weigh the same
  } else {
    if (tau !== can.tau) divide(again, tau);
    if (can.eta) weigh(again, eta);
  }
  return again;
}

// Whether the others of another count can be told where they would go.
const comparable = ({ pairs, evidence }) => pairs !== null && evidence.similarity !== undefined;

// Another count: the best of all, or of each of as many intervals, stay.
function elect(decision, keep) {
  const counted = countedTokens(decision);
  const score = ranking(decision);
  const choose = decision.rule === "interval" ? bestOfIntervals : bestOfAll;
  const chosen = new Set(choose(counted, score, keep));
  const rest = decision.whatIf.keep.rest ?? Fate.UNDECIDED;
  for (const token of counted) {
    const stays = chosen.has(token);
    decision.fate[token] = stays ? Fate.KEPT : rest;
    decision.into[token] = stays
      ? decision.before.rootOf[token]
      : rest === Fate.COMPENSATED
        ? COMPENSATION
        : GONE;
    decision.weight[token] = stays ? 1 : NaN; // weights of others would need a run
  }
  if (decision.rule !== "interval") return;
  decision.evidence.interval = new Int32Array(score.length).fill(-1);
  counted.forEach((token, i) => {
    const interval = Math.floor(((i + 1) * keep - 1) / counted.length);
    decision.evidence.interval[token] = interval;
  });
}

// Other targets: the most similar one of each token, out of the stored pairs; of equals the first.
function compare(decision) {
  const { fate, pairs } = decision;
  const counted = countedTokens(decision);
  const targets = counted.filter((token) => fate[token] === Fate.KEPT);
  const similarity = new Float32Array(fate.length).fill(NaN);
  const best = new Int32Array(fate.length).fill(-1);
  for (const token of counted) {
    const own = fate[token] === Fate.KEPT;
    best[token] = own ? token : targets[0];
    similarity[token] = own ? 1 : cosine(pairs, token, targets[0]);
    if (own) continue;
    for (const target of targets) {
      const likeness = cosine(pairs, token, target);
      if (likeness > similarity[token]) [similarity[token], best[token]] = [likeness, target];
    }
  }
  Object.assign(decision.evidence, { similarity, best_target: best });
}

// The cosine of two tokens: pairs of a token and a later one are stored row by row in 8 bits.
function cosine({ n, low, high, codes }, a, b) {
  const [i, j] = a < b ? [a, b] : [b, a];
  return low + ((high - low) * codes[(i * (2 * n - i - 1)) / 2 + j - i - 1]) / 255;
}

// Another tau, or other targets: who resembles the best target enough to merge into it. Without
// tau all do.
function divide(decision, tau) {
  const { similarity, best_target: best } = decision.evidence;
  const negative = decision.whatIf.negative;
  const limit = tau === undefined ? -Infinity : Math.fround(tau); // single precision, as they are
  for (const token of countedTokens(decision)) {
    if (decision.fate[token] === Fate.KEPT) continue;
    const merges = similarity[token] > limit;
    decision.fate[token] = merges ? Fate.MERGED : negative;
    decision.into[token] = merges
      ? decision.before.rootOf[best[token]]
      : negative === Fate.COMPENSATED
        ? COMPENSATION
        : GONE;
  }
}

// Weights: softmax of importance / eta within each token.
function weigh(decision, eta) {
  const { importance } = decision.evidence;
  const { into, weight } = decision;
  const peak = new Map();
  const total = new Map();
  into.forEach((root, t) => peak.set(root, Math.max(peak.get(root) ?? -Infinity, importance[t])));
  into.forEach((root, t) => {
    if (Number.isNaN(importance[t])) return; // decided beforehand: it stands alone
    weight[t] = Math.exp((importance[t] - peak.get(root)) / eta);
    total.set(root, (total.get(root) ?? 0) + weight[t]);
  });
  into.forEach((root, t) => {
    if (!Number.isNaN(importance[t])) weight[t] /= total.get(root);
  });
}

// The patches after a decision that was taken again.
function situationAfter(decision) {
  const { before, fate: fates, into: roots, weight: weights } = decision;
  const { n, rootOf, tokenOf } = before;
  const fate = new Uint8Array(n);
  const root = new Int32Array(n).fill(GONE);
  for (let p = 0; p < n; p++) {
    if (before.root[p] === GONE) continue;
    const token = tokenOf(before.root[p]);
    root[p] = roots[token];
    const stands = fates[token] === Fate.KEPT;
    fate[p] = stands && rootOf[token] !== p ? Fate.MERGED : fates[token];
  }
  const source = [];
  const into = [];
  const weight = [];
  for (let token = 0; token < rootOf.length; token++) {
    if (roots[token] === GONE) continue;
    const held = before.members(rootOf[token]);
    held.patches.forEach((p, i) => {
      source.push(p);
      into.push(roots[token]);
      weight.push(held.weights[i] * weights[token]);
    });
  }
  return new Situation({ fate, root, source, into, weight });
}

const ranking = (decision) => decision.evidence.received ?? decision.evidence.importance;

// The tokens that the method itself decided about: no earlier compensation token, and none
// that was forced in or out.
function countedTokens(decision) {
  const score = ranking(decision);
  const counted = [];
  for (let t = 0; t < score.length; t++)
    if (!decision.spare.includes(t) && !Number.isNaN(score[t])) counted.push(t);
  return counted;
}

// Of equal scores the first stays: sorting keeps their order.
const bestOfAll = (tokens, score, k) => [...tokens].sort((a, b) => score[b] - score[a]).slice(0, k);

function bestOfIntervals(tokens, score, k) {
  const n = tokens.length;
  const best = [];
  for (let i = 0; i < k; i++) {
    const members = tokens.slice(Math.floor((i * n) / k), Math.floor(((i + 1) * n) / k));
    best.push(members.reduce((a, b) => (score[b] > score[a] ? b : a)));
  }
  return best;
}
