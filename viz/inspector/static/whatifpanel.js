// What if: sliders for what can be decided again on the stored tokens.
class WhatIfPanel {
  constructor(element, change) {
    this.element = element;
    this.controls = element.querySelector(".controls");
    this.controls.addEventListener("input", ({ target }) => {
      const { name, read } = this.sliders.find((s) => s.name === target.name);
      const value = read(Number(target.value));
      // Another count leaves no targets to compare with, so tau and eta go back to what they were.
      change(name === "keep" ? { keep: value } : { ...this.changed, keep: undefined, [name]: value });
    });
    this.controls.addEventListener("click", ({ target }) => target.closest(".reset") && change({}));
  }

  // now: what the inspector shows; change: what has been moved.
  show({ trace, stage, decision, situation, changed }, change) {
    const { element } = this, can = stage > 0 ? decision.whatIf : {};
    this.changed = change;
    const sliders = [];
    if (can.keep) sliders.push({ name: "keep", label: "Tokens kept", min: 1, max: can.keep.of, step: 1, at: change.keep ?? can.keep.kept, write: (v) => v, read: (v) => v, text: (v) => `${v} of ${can.keep.of}` });
    if (can.tau !== undefined) sliders.push({ name: "tau", label: "τ", min: -1, max: 1, step: 0.01, at: change.tau ?? can.tau, write: (v) => v, read: (v) => v, text: similar });
    if (can.eta) sliders.push({ name: "eta", label: "η", min: -3, max: 3, step: 0.1, at: change.eta ?? can.eta, write: (v) => Math.log2(v / can.eta), read: (v) => (v === 0 ? can.eta : can.eta * 2 ** v), text: short });
    this.sliders = sliders;
    const names = sliders.map((s) => s.name + s.max).join();
    if (names !== this.names) {
      this.controls.replaceChildren(
        ...sliders.map((s) => node("label", {}, node("span", {}, s.label), node("input", { type: "range", name: s.name, min: s.min, max: s.max, step: s.step }), node("output", {}))),
        node("button", { type: "button", className: "reset" }, "As it was"),
      );
      this.names = names;
    }
    for (const s of sliders) {
      const label = this.controls.querySelector(`[name=${s.name}]`).parentElement;
      label.querySelector("input").value = s.write(s.at);
      label.querySelector("output").textContent = s.text(s.at);
    }
    this.controls.hidden = sliders.length === 0;
    this.controls.querySelector(".reset").disabled = !changed;
    element.querySelector(".note").textContent = sliders.length
      ? "This step decided again on the tokens that stood before it, without running the model."
      : stage > 0 ? "A trace does not hold what this step could be decided again with." : "Choose a stage after compression.";
    element.querySelector(".result").textContent = changed ? difference(trace.stages[stage], situation) : "";
  }
}

// "12 patches change: kept 288, merged 240 (+12), ..."
function difference(stored, situation) {
  const changed = situation.fate.reduce((sum, f, p) => sum + (f !== stored.fate[p] || situation.root[p] !== stored.root[p]), 0);
  const counts = [1, 2, 3, 0, 4]
    .filter((f) => situation.counts[f] || stored.counts[f])
    .map((f) => {
      const by = situation.counts[f] - stored.counts[f];
      return `${FATES[f]} ${situation.counts[f]}${by ? ` (${by > 0 ? "+" : "−"}${Math.abs(by)})` : ""}`;
    });
  return `${changed ? plural(changed, "patch") + " change" : "Only weights change"}: ${counts.join(", ")}.`;
}
