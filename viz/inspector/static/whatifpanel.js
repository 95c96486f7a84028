const AGAIN =
  "Move a slider: this step is decided again with that setting, on the tokens that stood before " +
  "it. The model does not run.";
const ROUNDED = "For another number of tokens, similarities are only known to ±";
const NOT_HELD = "The trace does not hold what it takes to decide this step again.";
const BEFORE = "Choose a stage after compression.";
const NO_STEP = "Without compression there is no step to decide again.";

// What if: sliders for what can be decided again on the stored tokens.
class WhatIfPanel {
  constructor(element, change) {
    this.element = element;
    this.controls = element.querySelector(".i-controls");
    this.controls.addEventListener("input", ({ target }) => {
      const { name, read } = this.sliders.find((s) => s.name === target.name);
      const value = read(Number(target.value));
      change(this.changedTo(name, value));
    });
    this.controls.addEventListener("click", (event) => {
      if (event.target.closest(".i-reset")) change({});
    });
  }

  // What is changed once a slider stands at a value. Where nothing tells how alike the tokens are,
  // another count leaves no targets to compare with: tau and eta go back to what they were.
  changedTo(name, value) {
    const lost = this.comparable ? {} : { keep: undefined };
    const before = this.comparable || name !== "keep" ? this.changed : {};
    this.changed = { ...before, ...lost, [name]: value }; // more may be moved before it is shown
    return this.changed;
  }

  // now: what the inspector shows; change: what has been moved.
  show({ trace, stage, decision, situation, changed }, change) {
    const find = (name) => this.element.querySelector(name);
    this.changed = change;
    this.comparable = comparable(decision);
    this.sliders = stage > 0 ? slidersOf(decision.whatIf) : [];
    this.build();
    for (const { name, write, text, stored } of this.sliders) {
      const value = change[name] ?? stored;
      const label = this.controls.querySelector(`[name=${name}]`).parentElement;
      const slider = label.querySelector("input");
      slider.value = write(value);
      slider.ariaValueText = label.querySelector("output").textContent = text(value);
    }
    this.controls.hidden = this.sliders.length === 0;
    find(".i-reset").disabled = !changed;
    const { pairs, kept, whatIf } = decision;
    const rounded = this.comparable && kept !== whatIf.keep?.kept;
    const precision = rounded ? ` ${ROUNDED}${short((pairs.high - pairs.low) / 510)}.` : "";
    find(".i-note").textContent =
      this.sliders.length > 0
        ? AGAIN + precision
        : stage > 0
          ? NOT_HELD
          : trace.stages.length > 1
            ? BEFORE
            : NO_STEP;
    find(".i-result").textContent = changed ? difference(trace.stages[stage], situation) : "";
  }

  // The sliders, built anew only where they are others than before: one may be in use.
  build() {
    const key = this.sliders.map(({ name, max }) => name + max).join();
    if (key === this.key) return;
    this.key = key;
    const rows = this.sliders.map(({ name, label, title, min, max, step }) =>
      node(
        "label",
        { title },
        node("span", {}, label),
        node("input", { type: "range", name, min, max, step }),
        node("output", { "aria-live": "off" }), // the slider says it
      ),
    );
    const reset = node("button", { type: "button", className: "i-reset" }, "As it was");
    this.controls.replaceChildren(...rows, reset);
  }
}

// A slider for each parameter; `write` and `read` turn its value into the slider's and back.
function slidersOf({ keep, tau, eta }) {
  const same = (value) => value;
  const sliders = [];
  if (keep)
    sliders.push({
      ...{ name: "keep", label: "Tokens kept", title: "How many tokens this step leaves" },
      ...{ min: 1, max: keep.of, step: 1, stored: keep.kept, write: same, read: same },
      text: (value) => `${value} of ${keep.of}, R = ${Math.round(100 * (1 - value / keep.of))} %`,
    });
  if (tau !== undefined)
    sliders.push({
      ...{ name: "tau", label: "τ, the similarity from which tokens merge", title: "Tokens more similar than this to a target merge" },
      ...{ min: -1, max: 1, step: 0.01, stored: tau, write: same, read: same, text: similar },
    });
  if (eta)
    sliders.push({
      ...{ name: "eta", label: "η, the temperature of the weights", title: "Temperature of the merging weights" },
      ...{ min: -3, max: 3, step: 0.1, stored: eta, text: short },
      write: (value) => Math.log2(value / eta),
      read: (power) => eta * 2 ** power,
    });
  return sliders;
}

// "12 patches change: kept 288, merged 240 (+12), ..."
function difference(stored, situation) {
  const differs = (p) =>
    situation.fate[p] !== stored.fate[p] || situation.root[p] !== stored.root[p];
  const changed = situation.fate.reduce((sum, _, p) => sum + differs(p), 0);
  const counts = [];
  for (const fate of [Fate.KEPT, Fate.MERGED, Fate.COMPENSATED, Fate.DROPPED, Fate.UNDECIDED]) {
    const count = situation.counts[fate];
    const by = count - stored.counts[fate];
    const more = by ? ` (${by > 0 ? "+" : "−"}${Math.abs(by)})` : "";
    if (count || by) counts.push(`${FATES[fate]} ${count}${more}`);
  }
  const what = changed ? `${plural(changed, "patch")} change${changed === 1 ? "s" : ""}` : "Only weights change";
  return `${what}: ${counts.join(", ")}.`;
}
