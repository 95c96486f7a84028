// The guided tour: sentences that drive the inspector step by step.

class Tour {
  constructor(element, { move, close }) {
    this.element = element;
    element.querySelector(".i-back").addEventListener("click", () => move(-1));
    element.querySelector(".i-next").addEventListener("click", () => move(1));
    element.querySelector(".i-close").addEventListener("click", close);
  }

  show(steps, index) {
    const { element } = this;
    const on = index !== null;
    const turned = on === element.hidden;
    const held = holdsFocus(on ? element.closest(".inspector") : element);
    element.hidden = !on;
    if (turned && held) focusOn(element, on ? ".i-next" : ".i-tour-button");
    if (!on) return;
    element.querySelector(".i-text").textContent = steps[index].text;
    element.querySelector(".i-count").textContent = `${index + 1} of ${steps.length}`;
    element.querySelector(".i-back").disabled = index === 0;
    element.querySelector(".i-next").textContent = index === steps.length - 1 ? "Done" : "Next";
  }
}

// Whether the visitor's keys go to something inside; or nowhere, as nothing holds them.
const holdsFocus = (element) =>
  document.activeElement === document.body || element.contains(document.activeElement);

// What comes up or goes away takes the focus along: keys would begin at the top of the page again.
function focusOn(element, selector) {
  element.closest(".inspector").querySelector(selector).focus({ preventScroll: true });
}
