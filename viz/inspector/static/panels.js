// The parts of the inspector that are text: choices, legend, answer, card, stages.

let groupsOfChoices = 0; // radio buttons need a name of their own on the page

// A row of choices out of which one is on. options: [{ value, label, title, disabled }].
class Choice {
  constructor(element, pick) {
    Object.assign(this, { element, pick, name: `inspector-choice-${groupsOfChoices++}` });
    element.addEventListener("change", (event) =>
      pick(this.options[Number(event.target.value)].value),
    );
  }

  show(options, value) {
    const key = JSON.stringify(options);
    if (key !== this.key) {
      this.options = options;
      this.key = key;
      this.element.replaceChildren(
        ...options.map((option, i) => {
          const input = node("input", {
            type: "radio",
            name: this.name,
            value: i,
            disabled: !!option.disabled,
          });
          return node(
            "label",
            { title: option.title ?? "" },
            input,
            node(
              "span",
              {},
              option.label,
              ...(option.note ? [node("small", {}, option.note)] : []),
            ),
          );
        }),
      );
    }
    this.element.hidden = options.length === 0;
    this.element
      .querySelectorAll("input")
      .forEach((input, i) => (input.checked = options[i].value === value));
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
    find(".i-words").replaceChildren(
      ...trace.words.map(({ text, probability }, i) =>
        node(
          "button",
          {
            type: "button",
            value: i,
            className: i === parting ? "i-parts" : "",
            title: `${percent(probability)} sure`,
            "aria-pressed": String(attending && i === word),
          },
          wordText(text),
        ),
      ),
    );
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
        node("b", {}, percent(p)),
      ),
    );
    return node(
      "div",
      {},
      node("h5", {}, title || "The chosen word, and what else the model weighed there"),
      node("ol", {}, ...rows),
    );
  }
}

const HINT = "Point at a patch to see where it went, and why. Click to hold it.";
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
    find("h3").textContent = description?.title ?? "";
    find(".i-place").textContent = description?.place ?? "";
    find(".i-why").textContent = description?.why ?? (secret ? SECRET : HINT);
    const chip = find(".i-fate");
    chip.textContent = description ? FATES[description.fate] : "";
    chip.hidden = !description;
    if (description) chip.style.setProperty("--sample", looks.sample(description.fate));
    find("dl").replaceChildren(
      ...(description?.facts ?? []).map(({ label, value }) =>
        node("div", {}, node("dt", {}, label), node("dd", {}, value)),
      ),
    );
    find(".i-path").replaceChildren(
      ...(description?.path ?? []).map(({ stage, name, where, fate }) =>
        node(
          "li",
          {},
          node(
            "button",
            { type: "button", value: stage, "data-fate": FATES[fate] },
            `${name}: ${where}`,
          ),
        ),
      ),
    );
  }
}

const capital = (text) => text[0].toUpperCase() + text.slice(1);

// The legend under the picture: samples with their numbers.
function showLegend(element, entries) {
  element.replaceChildren(
    ...entries.map(({ sample, text, look = "" }) =>
      node(
        "li",
        {},
        ...(sample
          ? [node("i", { className: look && `i-${look}`, style: `background:${sample}` })]
          : []),
        text,
      ),
    ),
  );
}
