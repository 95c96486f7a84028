// Of the whole page: the theme, the keys of the tabs, figures that are there before they are seen.
const chosen = localStorage.getItem("theme");
if (chosen) document.body.classList.toggle("dark", chosen === "dark");
element.addEventListener("click", event => {
  if (!event.target.closest("button")) return;
  const dark = document.body.classList.toggle("dark");
  localStorage.setItem("theme", dark ? "dark" : "light");
});

const tabs = document.getElementById("tabs");
tabs.addEventListener("keydown", event => {
  const list = event.target.closest("[role=tablist]");
  const step = {ArrowLeft: -1, ArrowRight: 1}[event.key];
  if (!list || !step) return;
  const all = [...list.querySelectorAll("[role=tab]")];
  const next = all.at((all.indexOf(event.target) + step) % all.length);
  event.preventDefault();
  next.click();
  next.focus();
});

// Gradio loads a picture when it is about to be scrolled to: what stands below it would jump.
const load = () => tabs.querySelectorAll('.figure img[loading="lazy"]').forEach(img => { img.loading = "eager"; });
new MutationObserver(load).observe(tabs, {childList: true, subtree: true});
