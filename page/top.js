// Of the whole page: the theme, the keys of the tabs, figures that are there before they are seen.
const chosen = localStorage.getItem("theme");
if (chosen) document.body.classList.toggle("dark", chosen === "dark");
element.addEventListener("click", event => {
  if (!event.target.closest("button")) return;
  const dark = document.body.classList.toggle("dark");
  localStorage.setItem("theme", dark ? "dark" : "light");
});

document.addEventListener("keydown", event => {
  const list = event.target.closest("#tabs [role=tablist]");
  const step = {ArrowLeft: -1, ArrowRight: 1}[event.key];
  if (!list || !step) return;
  const all = [...list.querySelectorAll("[role=tab]")];
  const next = all.at((all.indexOf(event.target) + step) % all.length);
  event.preventDefault();
  next.click();
  next.focus();
});

// Gradio gives each radio button a name of its own, so that arrow keys know no neighbours.
document.addEventListener("keydown", event => {
  const step = {ArrowLeft: -1, ArrowUp: -1, ArrowRight: 1, ArrowDown: 1}[event.key];
  const group = event.target.closest?.(".segments input[type=radio]")?.closest(".segments");
  if (!group || !step) return;
  const all = [...group.querySelectorAll("input[type=radio]:enabled")];
  const next = all.at((all.indexOf(event.target) + step) % all.length);
  event.preventDefault();
  next.click();
  next.focus();
});

// Gradio loads a picture when it is about to be scrolled to: what stands below it would jump.
const load = () => document.querySelectorAll('.figure img[loading="lazy"]').forEach(img => { img.loading = "eager"; });
new MutationObserver(load).observe(document.body, {childList: true, subtree: true});

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
