// The quiz: guess which patches still have a token of their own at the last stage, then reveal.

const GUESSES = 12;

class Quiz {
  constructor(element, { reveal, again, close }) {
    this.element = element;
    element.querySelector(".i-reveal").addEventListener("click", reveal);
    element.querySelector(".i-again").addEventListener("click", again);
    element.querySelector(".i-close").addEventListener("click", close);
  }

  show(quiz, trace) {
    const { element } = this;
    const held = holdsFocus(quiz ? element.closest(".inspector") : element);
    element.hidden = !quiz;
    const place = !quiz ? ".i-quiz-button" : quiz.revealed ? ".i-again" : ".i-picture";
    const moved = held && this.place !== undefined && place !== this.place;
    this.place = place;
    if (!quiz) return moved && focusOn(element, place);
    const left = quiz.goal - quiz.picks.size;
    const choose = `Choose ${quiz.goal}: ${left ? `${left} left` : "done, reveal"}.`;
    const reveal = element.querySelector(".i-reveal");
    reveal.disabled = quiz.picks.size === 0;
    reveal.hidden = quiz.revealed;
    element.querySelector(".i-again").hidden = !quiz.revealed;
    if (moved) focusOn(element, place);
    element.querySelector(".i-text").textContent = quiz.revealed
      ? verdict(quiz.picks, trace)
      : `“${trace.question}” Which patches does ${trace.name} keep to the end? ${choose}`;
  }
}

const newQuiz = (trace) => ({
  picks: new Set(),
  revealed: false,
  goal: Math.min(GUESSES, trace.stages[trace.last].counts[Fate.KEPT]),
});

// The guesses as marks on the picture; once revealed, hits apart from misses.
function guesses({ picks, revealed }, trace, looks) {
  const { fate } = trace.stages[trace.last];
  const kept = (p) => fate[p] === Fate.KEPT;
  if (!revealed) return [{ patches: [...picks], colour: looks.sides[1] }];
  return [
    { patches: [...picks].filter((p) => !kept(p)), colour: looks.sides[1] },
    { patches: [...picks].filter(kept), colour: looks.hit },
  ];
}

// Hits, and what blind guessing would have got.
function score(picks, trace) {
  const { fate, counts } = trace.stages[trace.last];
  let hits = 0;
  for (const p of picks) hits += fate[p] === Fate.KEPT;
  return { hits, of: picks.size, chance: (picks.size * counts[Fate.KEPT]) / trace.n };
}

function verdict(picks, trace) {
  const { hits, of, chance } = score(picks, trace);
  const luck = `blind guessing would get ${chance.toFixed(1)}`;
  const judged =
    hits > 1.5 * chance
      ? "You did clearly better than that."
      : hits > chance
        ? "You did a little better than that."
        : "You did no better than that.";
  return `${hits} of your ${of} survive; ${luck}. ${judged} Green: hit, orange: miss.`;
}
