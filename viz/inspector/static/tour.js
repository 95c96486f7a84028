// The guided tour: sentences that drive the inspector step by step.

class Tour {
  constructor(element, { move, close }) {
    this.element = element;
    element.querySelector(".back").addEventListener("click", () => move(-1));
    element.querySelector(".next").addEventListener("click", () => move(1));
    element.querySelector(".close").addEventListener("click", close);
  }

  show(steps, index) {
    const { element } = this;
    const on = index !== null;
    element.hidden = !on;
    if (!on) return;
    element.querySelector(".text").textContent = steps[index].text;
    element.querySelector(".count").textContent = `${index + 1} of ${steps.length}`;
    element.querySelector(".back").disabled = index === 0;
    element.querySelector(".next").textContent = index === steps.length - 1 ? "Done" : "Next";
  }
}
