// A pane over a picture that stands elsewhere on the page: the patch under the pointer.

const BESIDE = 14; // pixels between the picture and the card

class Pane extends Picture {
  // Lie over `box`, where one of the pictures of a trace stands in the window.
  cover(trace, image, box) {
    const [width, height] = [box.width, box.height].map(Math.round);
    Object.assign(this.canvas.style, { left: `${box.left}px`, top: `${box.top}px` });
    const key = [image, width, height, window.devicePixelRatio].join();
    if (this.trace === trace && this.key === key) return;
    this.key = key;
    const size = { naturalWidth: box.width, naturalHeight: box.height };
    this.place(trace, new Array(image + 1).fill(size), image, width, Infinity);
    Object.assign(this.canvas, { width: width * this.scale, height: this.height * this.scale });
    Object.assign(this.canvas.style, { width: `${width}px`, height: `${this.height}px` });
  }
}

// What is seen of a picture that keeps its proportions in its frame.
function contained(img) {
  const frame = img.getBoundingClientRect();
  const scale = Math.min(frame.width / img.naturalWidth, frame.height / img.naturalHeight);
  const [width, height] = [img.naturalWidth * scale, img.naturalHeight * scale];
  return {
    left: frame.left + (frame.width - width) / 2,
    top: frame.top + (frame.height - height) / 2,
    width,
    height,
  };
}

// The pane of an element over the picture of a CSS selector; `look` asks for what it knows.
function createPane(element, selector, look) {
  const pane = new Pane(element.querySelector("canvas"));
  const card = new Card(element.querySelector(".i-card"), () => {});
  const parts = [...element.children]; // there while the pointer is over a patch
  const now = { of: null, trace: null, stage: 0, image: 0, pointed: -1 };
  let last = null; // where the pointer was over a picture that nothing is known of yet

  function point(patch) {
    now.pointed = patch;
    if (patch < 0) return element.replaceChildren();
    if (!element.firstChild) element.append(...parts);
    const { trace, stage } = now;
    const situation = trace.stages[stage];
    const decision = trace.decisions[decisionIndex(stage)];
    pane.point(pane.pen(pane.canvas), { pointed: patch, root: situation.root[patch] });
    card.show(describe(trace, stage, situation, decision, patch), pane.looks, false);
  }

  // Beside the picture, where there is room, else over it; at the height of the pointer.
  function stand({ clientY }, box) {
    const { offsetWidth: width, offsetHeight: height } = card.element;
    const right = box.left + box.width + BESIDE;
    const left = Math.max(8, Math.min(right, innerWidth - width - 8));
    const clear = clientY > innerHeight / 2 ? -height - 2 * BESIDE : 2 * BESIDE; // of the pointer
    const top = clientY + (left < right ? clear : -height / 3);
    Object.assign(card.element.style, {
      left: `${left}px`,
      top: `${Math.max(8, Math.min(top, innerHeight - height - 8))}px`,
    });
  }

  function leave() {
    last = null;
    if (now.pointed >= 0) point(-1);
  }

  function follow(event) {
    const img = event.pointerType === "mouse" && event.target.closest?.(selector);
    if (!img?.naturalWidth) return leave();
    if (!now.trace) {
      if (!last && now.of !== null) look();
      last = event;
      return;
    }
    const box = contained(img);
    pane.cover(now.trace, now.image, box);
    const patch = pane.patchAt(event.clientX - box.left, event.clientY - box.top);
    if (patch !== now.pointed) point(patch);
    if (patch >= 0) stand(event, box);
  }

  function know(trace, looks) {
    [now.trace, pane.looks] = [openTrace(trace), new Looks(looks)];
    if (last) follow(last);
  }

  point(-1);
  document.addEventListener("pointermove", follow);
  for (const away of ["scroll", "click", "keydown"]) document.addEventListener(away, leave, true);

  return {
    // Another trace, stage or picture, or what is known of the trace.
    show({ trace, looks, of = null, stage = 0, image = 0 }) {
      if (trace) return of === now.of && know(trace, looks); // else it was asked for too long ago
      if (of !== now.of) [now.trace, last] = [null, null];
      const same = now.trace && image === now.image;
      Object.assign(now, { of, stage, image });
      point(same ? now.pointed : -1);
    },
  };
}
