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
    element.hidden = !on;
    if (!on) return;
    element.querySelector(".i-text").textContent = steps[index].text;
    element.querySelector(".i-count").textContent = `${index + 1} of ${steps.length}`;
    element.querySelector(".i-back").disabled = index === 0;
    element.querySelector(".i-next").textContent = index === steps.length - 1 ? "Done" : "Next";
  }
}
