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
    fate: decision.fate.slice(),
    into: decision.into.slice(),
    weight: decision.weight.slice(),
    tau,
    kept: keep,
  };
  if (keep !== can.keep.kept) rank(again, keep);
  else if (tau !== can.tau) divide(again, tau);
  if (can.eta && keep === can.keep.kept) weigh(again, eta);
  return again;
}

// Another count: the best of all, or of each of as many intervals, stay.
function rank(decision, keep) {
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
}

// Another tau: who resembles the best target enough to merge into it.
function divide(decision, tau) {
  const { similarity, best_target: best } = decision.evidence;
  const negative = decision.whatIf.negative;
  const limit = Math.fround(tau); // similarities are single precision
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
    const token = tokenOf[before.root[p] + 2];
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

// The tokens that the method itself decided about: not the earlier compensation token, and none
// that was forced in or out.
function countedTokens(decision) {
  const score = ranking(decision);
  const counted = [];
  for (let t = 0; t < score.length; t++)
    if (t !== decision.spare && !Number.isNaN(score[t])) counted.push(t);
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
