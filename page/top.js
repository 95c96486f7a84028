// Of the whole page: theme, keys, fields, what is out of date, explanations.
const chosen = localStorage.getItem("theme");
if (chosen) document.body.classList.toggle("dark", chosen === "dark");
const acts = {
  theme: () => {
    const dark = document.body.classList.toggle("dark");
    localStorage.setItem("theme", dark ? "dark" : "light");
  },
  help: () => document.getElementById("help").showModal(),
  share: () => trigger("link"), // the link comes back, see `page/link.py`
  copy: button => {
    const field = button.parentElement.querySelector("input");
    field.select();
    const copied = navigator.clipboard?.writeText(field.value) ?? Promise.reject(); // needs HTTPS
    copied
      .catch(() => document.execCommand("copy") || Promise.reject())
      .then(() => (button.textContent = "Copied"))
      .catch(() => field.select()); // for the visitor's own keys
  },
};
element.addEventListener("click", ({target}) => {
  const button = target.closest("[data-act]");
  if (button) acts[button.dataset.act](button);
  if (target.matches("dialog")) target.close(); // a click beside it
});

// Come into view, at once for those who want nothing to move.
window.glideTo = part =>
  part.scrollIntoView({behavior: matchMedia("(prefers-reduced-motion: reduce)").matches ? "instant" : "smooth"});

// How far a key goes; with another one held, it is the browser's own.
const stepOf = (event, keys) =>
  event.altKey || event.ctrlKey || event.metaKey || event.shiftKey ? undefined : keys[event.key];

// Arrow keys go from tab to tab; up and down scroll.
const KEYS = {ArrowLeft: -1, ArrowRight: 1};
document.addEventListener("keydown", event => {
  const step = stepOf(event, KEYS);
  const all = [...event.target.closest("#tabs [role=tablist]")?.querySelectorAll("[role=tab]") ?? []];
  const place = all.indexOf(event.target);
  if (!step || place < 0) return;
  const next = all.at((place + step) % all.length);
  event.preventDefault();
  next.click();
  next.focus();
});

// Gradio's slider over two pictures has no names and knows no keys: arrow keys drag its handle.
const DRAGS = {...KEYS, ArrowDown: -1, ArrowUp: 1};
const HANDLE = "#slider [data-testid=slider]";
const nameSlider = () => {
  const methods = document.querySelectorAll("#cards h3");
  for (const [i, picture] of document.querySelectorAll("#slider img").entries())
    picture.alt = methods[i]?.textContent ?? "";
  const handle = document.querySelector(HANDLE);
  if (!handle || handle.role === "slider") return;
  Object.assign(handle, {tabIndex: 0, role: "slider", ariaLabel: "Share of the left picture"});
  const tell = () => {
    const share = new DOMMatrix(getComputedStyle(handle).transform).m41 / handle.parentElement?.clientWidth;
    const value = Math.round(100 * share) || 0; // of a closed tab
    Object.assign(handle, {ariaValueNow: value, ariaValueText: `${value} %`});
  };
  new MutationObserver(tell).observe(handle, {attributeFilter: ["style"]}); // wherever it goes
  tell();
};
document.addEventListener("keydown", event => {
  const step = stepOf(event, DRAGS);
  if (!step || !event.target.matches(HANDLE)) return;
  event.preventDefault();
  const {left, top, width, height} = event.target.getBoundingClientRect();
  const by = step * event.target.parentElement.clientWidth / 20;
  const at = {view: window, bubbles: true, clientX: left + width / 2, clientY: top + height / 2};
  const moved = {...at, clientX: at.clientX + by};
  event.target.querySelector(".inner").dispatchEvent(new MouseEvent("mousedown", at));
  for (const end of ["mousemove", "mouseup"]) window.dispatchEvent(new MouseEvent(end, moved));
});

// One question at a time: while one runs, Enter asks no other.
document.addEventListener("keydown", event => {
  const running = document.getElementById("stop-button");
  if (running && event.key === "Enter" && event.target.closest("#question")) {
    event.preventDefault();
    event.stopImmediatePropagation();
  }
}, true);

// Who starts something while a choice still fills in the controls is heard when it has.
const STARTS = "#ask-button, #compare-button, #compare-run, #sweep-run";
let filling = false, held = null, given;
const release = () => {
  filling = false;
  held?.click();
  held = null;
};
const releaseIn = time => {
  clearTimeout(given);
  given = setTimeout(release, time);
};
window.fill = () => {
  filling = true;
  releaseIn(5000); // what has not come by then may never
};
window.filled = () => releaseIn(100); // what one step changes does not arrive at once
const hold = (event, start) => {
  if (!filling || !start) return;
  event.preventDefault();
  event.stopImmediatePropagation();
  held = start;
};
document.addEventListener("click", event => hold(event, event.target.closest(STARTS)), true);
document.addEventListener("keydown", event => {
  if (event.key === "Enter" && event.target.closest("#question"))
    hold(event, document.getElementById("ask-button"));
}, true);

// Gradio's lists of choices stay open behind who leaves them, and closed after Escape.
const press = (field, key) => field.dispatchEvent(new KeyboardEvent("keydown", {key, bubbles: true}));
document.body.addEventListener("keydown", event => {  // such keys are for the list alone
  if (!event.isTrusted) event.stopPropagation();
});
document.addEventListener("focusout", ({target}) => {
  if (target.role !== "combobox") return;
  setTimeout(() => document.activeElement === target || press(target, "Escape"), 150);
});
document.addEventListener("click", ({target}) => {
  if (target.role !== "combobox") return;
  setTimeout(() => target.ariaExpanded === "false" && press(target, "ArrowDown"), 60);
});

// A field for a number that is left empty keeps its number; Gradio would make it zero.
let number = "";
document.addEventListener("focusin", ({target}) => {
  if (target.type === "number") number = target.value;
});
document.addEventListener("blur", ({target}) => {
  if (target.type !== "number" || target.value !== "") return;
  target.value = number;
  target.dispatchEvent(new Event("input", {bubbles: true}));
}, true);

// Who changes the controls sees that the answer is to what they were before, until they are so again.
const complete = () => document.querySelector("#answer .answer")?.dataset.of;
let current, answered; // what would be asked now, and what the shown answer is an answer to
let sent, begun; // what was asked last, and what an answer is being given to
let shown = complete(), before; // the complete answer, and the one that an example may replace
const media = () => Array.from(document.querySelectorAll("#media img"), ({src}) => src);
const compare = () => {
  const now = JSON.stringify([current, media()]);
  document.body.classList.toggle("outdated", answered !== undefined && now !== answered);
};
let due = 0;
const compareSoon = () => {
  clearTimeout(due);
  due = setTimeout(compare, 60); // what one step changes does not arrive at once
};
let touched = false; // whether the visitor has changed anything yet
document.addEventListener("input", () => (touched = true), true);
// What would be asked, at a step of `Controls.noting`.
window.noteSettings = (step, values) => {
  current = values;
  const now = JSON.stringify([current, media()]);
  if (step === "ask") sent = now;
  if (step === "arrive" && !touched) answered = now; // by a link, which fills the controls
  if (step === "open" || (step === "fill" && complete() !== before)) answered = now;
  answered ??= now; // the page has just been opened
  compareSoon();
};
const look = () => {
  const of = complete();
  if (!of) {
    begun ??= sent;
    return;
  }
  if (of !== shown && begun) answered = begun;
  [shown, begun] = [of, undefined];
  compareSoon();
};
document.addEventListener("click", event => {
  const example = event.target.closest(".strip [data-pick]");
  if (example) before = "stored" in example.dataset ? null : complete(); // it brings an answer
  if (!event.target.closest(".jump")) return;
  event.preventDefault(); // with a query in the address, the link would load the page anew
  document.querySelector("#tabs [role=tab]").click();
  requestAnimationFrame(() => document.querySelector("#left-column").scrollIntoView());
});

// What the page keeps of a visitor is gone an hour after the last sign of life. A computer that has
// slept for longer begins anew: all it would be shown is of somebody who has just come.
let awake = Date.now();
setInterval(() => {
  if (Date.now() - awake > 3600_000) location.reload();
  awake = Date.now();
}, 60_000);

// Gradio loads a picture when it is about to be scrolled to: what stands below it would jump. It makes
// buttons and links of pictures without a name, which keys need not stop at. It tells no group of
// choices what it is called, and no radio button its neighbours, which arrow keys go to.
new MutationObserver(changes => {
  for (const group of document.querySelectorAll("fieldset:has(> [data-testid=block-info]):not([aria-label])"))
    group.ariaLabel = group.querySelector("[data-testid=block-info]").textContent;
  for (const radio of document.querySelectorAll(".segments input[type=radio]"))
    radio.name = radio.closest("fieldset").id;
  for (const picture of document.querySelectorAll('.figure img[loading="lazy"]')) picture.loading = "eager";
  for (const part of document.querySelectorAll(".image-container > button, .image-container a[download]"))
    part.tabIndex = -1;
  nameSlider();
  if (changes.some(({target}) => target.closest?.("#answer"))) look();
  if (changes.some(({target}) => target.closest?.("#media"))) compareSoon();
}).observe(document.body, {childList: true, subtree: true});

// One explanation at a time, beside its term and inside the window, whatever it stands in.
const tip = document.createElement("div");
tip.id = "tip";
tip.hidden = true;
document.body.append(tip);
let term = null; // that is explained
const place = () => {
  if (!term) return;
  const at = term.getBoundingClientRect(), {offsetWidth: width, offsetHeight: height} = tip;
  const below = at.bottom + 8 + height < innerHeight;
  tip.style.left = `${Math.max(8, Math.min(at.left - 60, innerWidth - width - 8))}px`;
  tip.style.top = `${Math.max(8, below ? at.bottom + 8 : at.top - height - 8)}px`;
};
const explain = ({target}) => {
  if (target === tip) return; // it can be pointed at
  term = target?.closest?.(".tip") ?? document.activeElement.closest(".tip"); // or that in focus
  tip.hidden = !term;
  tip.textContent = term?.dataset.tip;
  place();
};
for (const event of ["pointerover", "focusin"]) document.addEventListener(event, explain);
document.addEventListener("focusout", () => explain({}));
document.addEventListener("scroll", place, true);
document.addEventListener("keydown", ({key}) => {
  if (key === "Escape") tip.hidden = true;
});
