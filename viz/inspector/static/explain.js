// Why: the sentences about one patch, made from the evidence of the decisions.

const FATES = ["dropped", "kept", "merged", "summed up", "not kept"];

// ".0021", "1.2·10⁻⁶", "12"
function short(value) {
  if (value === 0) return "0";
  if (Math.abs(value) < 1e-4) {
    const [digits, exponent] = value.toExponential(1).split("e");
    return `${digits}·10${exponent.replace(/./g, (c) => "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"["-0123456789".indexOf(c)])}`;
  }
  if (Math.abs(value) >= 99.5) return value.toFixed(0);
  return Number(value.toPrecision(2))
    .toString()
    .replace(/^(-?)0\./, "$1.");
}

// What next to nothing weighs is no number that anybody could read.
const weightText = (weight) => (weight < 0.001 ? "< .001" : short(weight));
// Similarities in two digits, or in as many as tell them from 1.
const NEAREST = 6; // nines: what is nearer to 1 in single precision is 1
const nines = (value) => -Math.log10(Math.max(1 - value, 10 ** -NEAREST));
function likenessDigits(value) {
  const digits = Math.floor(nines(value)) + 1;
  return digits > NEAREST ? 2 : Math.max(2, digits);
}
const similar = (value) => value.toFixed(likenessDigits(value)).replace(/^(-?)0\./, "$1.");
// What is not quite all of it does not read as all.
const nearlyAll = (share) => share >= 0.9995 && share < 1;
function percent(share) {
  if (nearlyAll(share)) return "> 99.9 %";
  return share >= 0.0005 || share === 0 ? `${+(100 * share).toPrecision(3)} %` : "< 0.05 %";
}
// How likely a word was, as the answer itself says it: "47 %", "0.6 %", "99.6 %", "< 0.1 %".
function chance(share) {
  if (nearlyAll(share)) return "> 99.9 %";
  if (share > 0 && share < 0.001) return "< 0.1 %";
  const whole = share === 0 || share === 1 || (share >= 0.0995 && share < 0.995);
  return `${(100 * share).toFixed(whole ? 0 : 1)} %`;
}
const plural = (n, word) => `${n} ${word}${n === 1 ? "" : word.endsWith("ch") ? "es" : "s"}`;
const token = (root, { extra }) => (isExtra(root) ? `the ${extra}` : `patch ${root}`);
// " and the extra token", " and 2 extra tokens", or nothing.
const andExtra = (n, name) => (n > 1 ? ` and ${n} ${name}s` : n ? ` and the ${name}` : "");

// "row 3, column 9", with the picture or frame where there are several.
function place(trace, patch) {
  if (trace.row[patch] < 0) return "a line break without a patch";
  const parts = [`row ${trace.row[patch] + 1}`, `column ${trace.column[patch] + 1}`];
  const kind = trace.video ? "frame" : "picture";
  if (trace.pictures.length > 1) parts.unshift(`${kind} ${trace.image[patch] + 1}`);
  return parts.join(", ");
}

// Rank of a token among those that were decided about, from 1; and how many they are.
function rankOf(decision, t) {
  const score = ranking(decision);
  const counted = countedTokens(decision);
  const above = counted.filter((o) => score[o] > score[t] || (score[o] === score[t] && o < t));
  return { rank: above.length + 1, of: counted.length };
}

// The interval of a token: its number, its size, and its most important token.
function intervalOf(decision, t) {
  const { interval, importance } = decision.evidence;
  let size = 0;
  let winner = -1;
  interval.forEach((number, o) => {
    if (number !== interval[t]) return;
    size++;
    if (winner < 0 || importance[o] > importance[winner]) winner = o;
  });
  return { number: interval[t], size, winner };
}

// One plain sentence: what a decision did with the token that held a patch, and why.
function why(decision, patch, params) {
  const t = tokenBefore(decision, patch);
  if (t < 0) return "It was dropped before.";
  const { rootOf, extra } = decision.before;
  const root = rootOf[t];
  if (isExtra(root))
    return isExtra(decision.into[t])
      ? `It was in the ${extra} before, and stays in it.`
      : `The ${extra} that held it was ${outcome(decision, t)}.`;
  const subject = root === patch ? "" : `It had merged into patch ${root}, and that token: `;
  const score = ranking(decision);
  const forced = score && decision.rule && Number.isNaN(score[t]);
  const reasons = { interval: byInterval, top: byRank, redundancy: byRedundancy };
  const reason = forced
    ? () => `decided beforehand: ${outcome(decision, t)}`
    : (reasons[decision.rule] ?? outcome);
  const sentence = subject + reason(decision, t, params) + ".";
  return sentence[0].toUpperCase() + sentence.slice(1);
}

// "kept, and took in 5 others", "kept with 3 patches taken in before",
// "merged into patch 170 with weight .12", ...
function outcome(decision, t) {
  const into = decision.into[t];
  const weight = decision.weight[t];
  switch (decision.fate[t]) {
    case Fate.KEPT: {
      const size = decision.size?.[t] ?? decision.into.reduce((sum, r) => sum + (r === into), 0);
      if (size > 1) return `kept, and took in ${plural(size - 1, "other")}`;
      const held = decision.before.size(decision.before.rootOf[t]) - 1;
      return held > 0 ? `kept with ${plural(held, "patch")} taken in before` : "kept as it is";
    }
    case Fate.MERGED: {
      const share = Number.isNaN(weight) ? "" : ` with weight ${weightText(weight)}`;
      return `merged into ${token(into, decision.before)}${share}`;
    }
    case Fate.COMPENSATED:
      return `sent to the ${decision.before.extra}`;
    case Fate.DROPPED:
      return "dropped";
    default:
      return "not a target; where it would go depends on hidden states, so only a run can tell";
  }
}

function byInterval(decision, t) {
  const { importance, similarity, best_target: best } = decision.evidence;
  const { before } = decision;
  if (decision.kept !== decision.whatIf.keep.kept && !comparable(decision))
    return `with ${decision.kept} targets it would be ${outcome(decision, t)}`;
  const { number, size, winner } = intervalOf(decision, t);
  const own = `interval ${number}: importance ${short(importance[t])}`;
  if (decision.fate[t] === Fate.KEPT) {
    const rank = size > 1 ? `the highest of its ${size} tokens` : "the only token in it";
    return `${own}, ${rank}, so it was ${outcome(decision, t)}`;
  }
  const beaten = `${own}, beaten by ${token(before.rootOf[winner], before)} (${short(importance[winner])})`;
  if (!similarity) return `${beaten}, so it was ${outcome(decision, t)}`;
  const merged = decision.fate[t] === Fate.MERGED;
  const side = merged ? "above" : "not above";
  const limit = decision.tau === undefined ? "" : ` is ${side} τ ${similar(decision.tau)}`;
  const whom = merged ? "" : `, to ${token(before.rootOf[best[t]], before)},`; // else the outcome names it
  const likeness = `best similarity ${similar(similarity[t])}${whom}`;
  const end = {
    [Fate.MERGED]: outcome(decision, t),
    [Fate.COMPENSATED]: `joined the ${before.extra}`,
    [Fate.DROPPED]: "was dropped",
  }[decision.fate[t]];
  return `${beaten}; ${likeness}${limit}, so it ${end}`;
}

function byRank(decision, t) {
  const score = ranking(decision);
  const { rank, of } = rankOf(decision, t);
  const last = countedTokens(decision)
    .filter((o) => decision.fate[o] === Fate.KEPT)
    .reduce((least, o) => Math.min(least, score[o]), Infinity);
  const own = `importance ${short(score[t])} ranks ${rank} of ${of}`;
  const limit =
    decision.fate[t] === Fate.KEPT
      ? `the best ${decision.kept} stay`
      : `only the best ${decision.kept} stay (the last has ${short(last)})`;
  return `${own}; ${limit}, so it was ${outcome(decision, t)}`;
}

function byRedundancy(decision, t, params) {
  const { importance, redundancy } = decision.evidence;
  const factor = params.weight ?? 6;
  const degree = redundancy.map((r, o) => r - factor * importance[o]);
  const above = degree.reduce(
    (sum, d, o) => sum + (d > degree[t] || (d === degree[t] && o < t)),
    0,
  );
  const gone = decision.fate.reduce((sum, f) => sum + (f !== Fate.KEPT), 0);
  const less = `${short(factor)} × importance ${short(importance[t])}`;
  const own = `redundancy ${similar(redundancy[t])} less ${less} is ${similar(degree[t])}`;
  const rank = `rank ${above + 1} of ${degree.length}`;
  return `${own}, ${rank}; the first ${gone} go, so it was ${outcome(decision, t)}`;
}

// Everything the card says about a patch at a stage.
function describe(trace, stage, situation, decision, patch) {
  return {
    title: `Patch ${patch}`,
    place: place(trace, patch),
    fate: stage > 0 ? situation.fate[patch] : Fate.KEPT,
    why: whyAt(trace, stage, decision, patch),
    facts: [
      ...evidenceOf(decision, tokenBefore(decision, patch)),
      ...(stage > 0 ? sharesOf(situation, patch) : []),
    ],
    path: pathOf(trace, patch, stage, situation),
  };
}

function whyAt(trace, stage, decision, patch) {
  if (trace.last === 0) return "Without compression every patch keeps its own token.";
  const reason = why(decision, patch, trace.params);
  if (stage === 0)
    return `Before compression every patch is its own token. Next: ${within(reason)}`;
  const sealed = trace.stages.findIndex(({ root }, i) => i > 0 && root[patch] !== patch);
  if (sealed < 0 || sealed >= stage) return reason;
  const first = why(trace.decisions[sealed - 1], patch, trace.params);
  const its = `${capital(trace.stages[sealed].name)}: ${within(first)}`;
  if (tokenBefore(decision, patch) < 0) return its;
  return `${its} ${capital(trace.stages[stage].name)}: ${within(reason)}`;
}

// A sentence behind a colon.
function within(sentence) {
  return sentence[0].toLowerCase() + sentence.slice(1);
}

// What a decision knew about one of its tokens, as { label, value }.
function evidenceOf(decision, t) {
  const { evidence, before, spare, tau } = decision;
  const { importance, interval, redundancy, similarity, best_target: best } = evidence;
  const known = (fact) => t >= 0 && fact !== undefined && !Number.isNaN(fact[t]);
  const facts = [];
  if (known(importance)) {
    const { rank, of } = rankOf(decision, t);
    const ranked = spare.includes(t) ? "" : ` · rank ${rank} of ${of}`;
    facts.push({ label: "Importance", value: short(importance[t]) + ranked });
  }
  if (known(interval) && interval[t] >= 0) {
    const { number, winner } = intervalOf(decision, t);
    const winning = `won by ${token(before.rootOf[winner], before)} (${short(importance[winner])})`;
    facts.push({ label: "Interval", value: `${number} · ${winner === t ? "it wins" : winning}` });
  }
  if (known(redundancy)) facts.push({ label: "Redundancy", value: similar(redundancy[t]) });
  if (known(similarity) && best[t] !== t) {
    const limit = tau === undefined ? "" : `, τ ${similar(tau)}`;
    const likeness = `similarity ${similar(similarity[t])}${limit}`;
    facts.push({ label: "Best target", value: `${token(before.rootOf[best[t]], before)} · ${likeness}` });
  }
  return facts;
}

// How much a patch weighs in its token, and in how many tokens it is, as { label, value }.
function sharesOf(situation, patch) {
  const root = situation.root[patch];
  if (root === GONE) return [];
  const weight = situation.weight(patch);
  const size = situation.size(root);
  const parts = situation.tokens[patch];
  const facts = [];
  if (size > 1 && !Number.isNaN(weight))
    facts.push({
      label: "Weight",
      value: `${weightText(weight)} in a token of ${plural(size, "patch")}`,
    });
  if (parts > 1) facts.push({ label: "Part of", value: plural(parts, "token") });
  return facts;
}

// What became of a patch at a stage: "kept", "merged into patch 170", "dropped".
function whereTo(situation, patch) {
  const fate = situation.fate[patch];
  const into = { [Fate.MERGED]: "into", [Fate.COMPENSATED]: "in" }[fate];
  return into ? `${FATES[fate]} ${into} ${token(situation.root[patch], situation)}` : FATES[fate];
}

// What became of a patch, stage by stage, until it is gone; or until the stage whose situation is
// another than the stored one, because what follows from that only a run can tell.
function pathOf(trace, patch, here, situation) {
  const steps = [];
  for (let stage = 1; stage <= trace.last; stage++) {
    const stored = trace.stages[stage];
    const { root, fate } = stage === here ? situation : stored;
    const at = root[patch];
    const where = at === GONE ? "gone" : at === patch ? "its own token" : token(at, stored);
    steps.push({ stage, name: stored.name, where, fate: fate[patch] });
    if (at === GONE || (stage === here && situation !== stored)) break;
  }
  return steps;
}
