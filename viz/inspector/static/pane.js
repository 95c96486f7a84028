// Panes over pictures that stand elsewhere on the page: the patch under the pointer, in all of them.

const BESIDE = 14; // pixels between the picture and the card
const STILL = 4; // as far as the pointer may move in a click

class Pane extends Picture {
  constructor(canvas, note) {
    super(canvas);
    this.note = note; // on what became of the patch in this picture
  }

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

  // Outline a patch and the token that it went into, and say where at the foot.
  tell(patch, stage, looks, box) {
    const situation = this.trace.stages[stage];
    this.looks = looks;
    this.point(this.pen(this.canvas), { pointed: patch, root: situation.root[patch] });
    this.note.textContent = whereTo(situation, patch);
    Object.assign(this.note.style, {
      left: `${box.left + 6}px`,
      bottom: `${innerHeight - box.top - box.height + 6}px`,
      maxWidth: `${box.width - 12}px`,
    });
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

// The panes of an element over the pictures of a CSS selector, each of its own trace. `trigger` sends
// `look`, which asks for what they know, and `select`: which picture was clicked at, and where.
function createPane(element, selector, trigger) {
  const [glass, note, told] = element.children; // there while the pointer is over a patch
  const card = new Card(told, () => {});
  const panes = []; // by the place of their picture
  const now = { of: null, traces: null, looks: null, stages: [], image: 0, at: -1, patch: -1 };
  let last = null; // where the pointer was over a picture that nothing is known of yet
  let pressed = { clientX: 0, clientY: 0 }; // where it went down

  // Those of which stages are known: the pictures change a moment before these, or after.
  const pictures = () => [...document.querySelectorAll(selector)].slice(0, now.stages.length);

  // The pane over the picture of that place, there where it stands now.
  function cover(at, box) {
    const pane = (panes[at] ??= new Pane(glass.cloneNode(), note.cloneNode()));
    pane.cover(now.traces[at], now.image, box);
    return pane;
  }

  // Every picture shows what became of a patch, and the card tells of the one under the pointer.
  function point(patch, at) {
    Object.assign(now, { patch, at });
    if (patch < 0) return element.replaceChildren();
    const boxes = pictures().map(contained);
    const hidden = ({ width, left, top }, k) => // not there yet, or below the other under a slider
      !width || (k !== at && left === boxes[at].left && top === boxes[at].top);
    const parts = boxes.flatMap((box, k) => {
      if (hidden(box, k)) return [];
      const pane = cover(k, box);
      pane.tell(patch, now.stages[k], now.looks, box);
      return k === at ? [pane.canvas] : [pane.canvas, pane.note];
    });
    element.replaceChildren(...parts, told);
    const [trace, stage] = [now.traces[at], now.stages[at]];
    const decision = trace.decisions[decisionIndex(stage)];
    card.show(describe(trace, stage, trace.stages[stage], decision, patch), now.looks, false);
  }

  // Beside the picture, where there is room and no other picture, else below or above it, where the
  // window has room for it, else over it, clear of the pointer.
  function stand({ clientY }, box) {
    const { offsetWidth: width, offsetHeight: height } = told;
    const alone = element.childElementCount === 2; // one pane and the card
    const right = box.left + box.width + BESIDE;
    const wanted = alone ? right : box.left + (box.width - width) / 2;
    const left = Math.max(8, Math.min(wanted, innerWidth - width - 8));
    const lowest = innerHeight - height - 8;
    const clear = clientY + (clientY > innerHeight / 2 ? -height - 2 * BESIDE : 2 * BESIDE);
    const outside = [box.top + box.height + BESIDE, box.top - height - BESIDE];
    const free = outside.find((top) => top >= 8 && top <= lowest);
    const top = left < right ? (free ?? clear) : clientY - height / 3;
    Object.assign(told.style, {
      left: `${left}px`,
      top: `${Math.max(8, Math.min(top, lowest))}px`,
    });
  }

  function leave() {
    last = null;
    if (now.patch >= 0) point(-1);
  }

  // Which picture an event is over, and where in it; null where there is none.
  function under({ target, clientX, clientY }) {
    const at = pictures().indexOf(target.closest?.(selector));
    if (at < 0 || !target.naturalWidth) return null;
    const box = contained(target);
    return { at, box, x: clientX - box.left, y: clientY - box.top };
  }

  function follow(event) {
    const place = event.pointerType === "mouse" && under(event);
    if (!place) return leave();
    if (!now.traces) {
      if (!last) trigger("look");
      last = event;
      return;
    }
    const { at, box, x, y } = place;
    const patch = cover(at, box).patchAt(x, y);
    if (patch !== now.patch || at !== now.at) point(patch, at);
    if (patch >= 0) stand(event, box);
  }

  // A picture that is larger than its frame can be dragged: that is no click.
  function choose(event) {
    const moved = [event.clientX - pressed.clientX, event.clientY - pressed.clientY];
    const place = Math.hypot(...moved) < STILL && under(event);
    if (!place) return;
    const { at: index, box } = place;
    const [x, y] = [place.x / box.width, place.y / box.height];
    trigger("select", { of: now.of, index, stage: now.stages[index], x, y });
  }

  function know(traces, looks) {
    Object.assign(now, { traces: traces.map(openTrace), looks: new Looks(looks) });
    if (last) follow(last);
  }

  point(-1);
  document.addEventListener("pointermove", follow);
  document.addEventListener("pointerdown", (event) => (pressed = event), true);
  document.addEventListener("click", choose);
  for (const away of ["scroll", "wheel", "click", "keydown"])
    document.addEventListener(away, leave, true);

  return {
    // Other traces, stages or another picture, or what is known of the traces.
    show({ traces, looks, of = null, stages = [], image = 0 }) {
      if (traces) return of === now.of && know(traces, looks); // else it was asked for too long ago
      if (of !== now.of) [now.traces, last] = [null, null];
      Object.assign(now, { of, stages, image });
      point(-1);
    },
  };
}
