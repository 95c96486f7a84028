// The parts of the inspector that are text: choices, legend, answer, card, stages.

let groupsOfChoices = 0; // radio buttons need a name of their own on the page

// A row of choices out of which one is on. options: [{ value, label, title, note }].
class Choice {
  constructor(element, pick) {
    this.element = element;
    this.name = `inspector-choice-${groupsOfChoices++}`;
    element.addEventListener("change", ({ target }) => pick(this.options[target.value].value));
  }

  show(options, value) {
    const { element } = this;
    this.options = options;
    refill(element, options, () => options.map((option, i) => this.choice(option, i)));
    element.hidden = options.length === 0;
    const inputs = element.querySelectorAll("input");
    inputs.forEach((input, i) => (input.checked = options[i].value === value));
  }

  choice({ label, title = "", note }, value) {
    const text = node("span", {}, label, ...(note ? [node("small", {}, note)] : []));
    return node("label", { title }, node("input", { type: "radio", name: this.name, value }), text);
  }
}

// An element with properties and children; strings become text.
function node(name, properties = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(properties))
    key.includes("-") || key === "style"
      ? element.setAttribute(key, value)
      : (element[key] = value);
  element.append(...children);
  return element;
}

// Fill an element with children, unless it holds just that: a button in use keeps its focus.
function refill(element, content, build) {
  const key = JSON.stringify(content);
  if (element.content === key) return;
  element.content = key;
  element.replaceChildren(...build());
}

// A word of the answer as text; white space made visible.
const wordText = (text) => text.trim() || "␣";

// The first word at which two answers part, or -1.
function firstDifference(a, b) {
  const n = Math.max(a.words.length, b.words.length);
  for (let i = 0; i < n; i++) if (a.words[i]?.text !== b.words[i]?.text) return i;
  return -1;
}

// Question, words, and what else the model weighed there.
class AnswerPanel {
  constructor(element, pick) {
    this.element = element;
    element.querySelector(".i-words").addEventListener("click", (event) => {
      const button = event.target.closest("button");
      if (button) pick(Number(button.value));
    });
  }

  show(trace, other, word, attending) {
    const { element } = this;
    const find = (name) => element.querySelector(name);
    const parting = other ? firstDifference(trace, other) : -1;
    find(".i-question").textContent = trace.question;
    refill(find(".i-words"), [trace.words, parting], () =>
      trace.words.map(({ text, probability }, value) => {
        const className = value === parting ? "i-parts" : "";
        const title = `${chance(probability)} sure`;
        return node("button", { type: "button", value, className, title }, wordText(text));
      }),
    );
    find(".i-words")
      .querySelectorAll("button")
      .forEach((button, i) => button.setAttribute("aria-pressed", attending && i === word));
    const note = find(".i-parting");
    note.hidden = !other;
    if (other) note.textContent = this.parts(trace, other, parting);
    const place = attending || parting < 0 ? word : parting;
    const lists = [[trace, trace.words[place]]];
    if (other && place === parting) lists.push([other, other.words[place]]);
    find(".i-rivals").replaceChildren(
      ...lists
        .filter(([, w]) => w)
        .map(([{ name }, w]) => this.rivals(lists.length > 1 ? name : "", w)),
    );
  }

  parts(trace, other, parting) {
    if (parting < 0) return `${other.name} gives the same answer.`;
    const said = (t) =>
      t.words[parting] ? `“${wordText(t.words[parting].text)}”` : "nothing more";
    const both = `${trace.name} says ${said(trace)}, ${other.name} ${said(other)}`;
    return `The answers part at word ${parting + 1}: ${both}.`;
  }

  rivals(title, word) {
    const rows = word.top.map(([text, p]) =>
      node(
        "li",
        {},
        node("span", {}, wordText(text)),
        node("i", { style: `--share:${p}` }),
        node("b", {}, chance(p)),
      ),
    );
    return node(
      "div",
      {},
      node("h3", {}, title || "The chosen word, and what else the model weighed there"),
      node("ol", {}, ...rows),
    );
  }
}

const TAPS = matchMedia("(hover: none)").matches; // there is no pointer, and hardly a keyboard
const HINT = TAPS
  ? "Tap a patch to see where it went, and why."
  : "Point at a patch to see where it went, and why. Click to hold it.";
const SECRET = "The card keeps quiet until you reveal.";

// The card of the patch in hand.
class Card {
  constructor(element, goTo) {
    this.element = element;
    element.querySelector(".i-path").addEventListener("click", (event) => {
      const button = event.target.closest("button");
      if (button) goTo(Number(button.value));
    });
  }

  // description: what `describe` says, or null; `secret`: a quiz is on.
  show(description, looks, secret) {
    this.description = description;
    const { element } = this;
    const find = (name) => element.querySelector(name);
    element.classList.toggle("i-empty", !description);
    find("header").hidden = !description;
    find("h3").textContent = description?.title ?? "";
    find(".i-place").textContent = description?.place ?? "";
    find(".i-why").textContent = description?.why ?? (secret ? SECRET : HINT);
    const chip = find(".i-fate");
    chip.textContent = description ? FATES[description.fate] : "";
    chip.hidden = !description;
    if (description) chip.style.setProperty("--sample", looks.sample(description.fate));
    const { facts = [], path = [] } = description ?? {};
    refill(find("dl"), facts, () =>
      facts.map(({ label, value }) =>
        node("div", {}, node("dt", {}, label), node("dd", {}, value)),
      ),
    );
    refill(find(".i-path"), path, () =>
      path.map(({ stage, name, where, fate }) => {
        const look = { type: "button", value: stage, "data-fate": FATES[fate] };
        return node("li", {}, node("button", look, `${name}: ${where}`));
      }),
    );
  }
}

const capital = (text) => text[0].toUpperCase() + text.slice(1);

// The legend under the picture: samples with their numbers.
function showLegend(element, entries) {
  const sample = (background, look) =>
    node("i", { className: look ? `i-${look}` : "", style: `background:${background}` });
  element.replaceChildren(
    ...entries.map(({ sample: background, text, look }) =>
      node("li", {}, ...(background ? [sample(background, look)] : []), text),
    ),
  );
}
