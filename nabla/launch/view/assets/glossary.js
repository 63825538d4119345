/* What every word and number of the page means: for tooltips, and for the panel "What you see". */
const GLOSSARY = {
  "The text": {
    token: "One piece of text that the language model writes at a time. A colour says how much of the chosen quantity a token has.",
    position: "Place of a token in the answer, counted from 0.",
    probability: "What the language model gave to this token when it stood before it, at temperature 1.",
    "largest probability": "What it gave to the token that it held most likely. Equal to the probability where this one was written.",
    grey: "Nothing in the run has computed this number for this token. The page never computes one.",
    underlined: "New in this text, or put into the answer by an accepted proposal.",
    framed: "The position of this step. A dashed frame is the first bad token.",
    "␣ ↵ ⇥ ∅": "A space, a line end, a tab, a token without text.",
  },
  Steps: {
    "text written": "The method had the language model write a text, from the prompt or further.",
    "text kept": "A search wrote several texts a step further, and goes on from this one.",
    "text dropped": "The same, and the search does not go on from this one: others have a better reward, or more weight.",
    "text complete": "The same, and the text is at its end: a candidate for the answer.",
    "refined, same token drawn": "The token's distribution was refined by gradient descent, and the token that was drawn from it is the one that stood there: nothing to propose.",
    "proposal accepted": "Another token was put at one position and the rest was written anew; the new text is kept.",
    "proposal rejected": "The same, and the old text is kept.",
    "proposal passed over": "Several proposals were written together, and another one of them was decided on.",
    "proposal without a decision": "The run ended, or its budget did, before it was decided.",
    answer: "What the method returned. A search returns the best complete text, also one that it did not go on from.",
    "stopped at a bad token": "A screen read the reward's values while the text was written, and held that it had gone wrong.",
    "▲": "In the list of problems: proposals accepted, of each run.",
  },
  "At a step": {
    reward: "What the reward model (or another judge) gives to a text; more is better, and the scale is its own. With an arrow: of the old text and of the new one.",
    drawn: "How often this very text came out of the draws of one step.",
    "decided by": "What decided between the two texts, by the method's rule. 'Good up to token 6.2 before, 7.5 now' is where a screen expects the first bad token in the old text and in the new one (a mean over places, so with digits): the text that is good for longer is kept. Between two complete texts the reward decides.",
    "first bad token": "Position of the token at which a screen, by the reward's values, held that the new text had most probably gone wrong. Writing stopped there, or at the end of the step.",
    "KL moved": "How far refinement moved the distribution of the token: KL of the refined one from the language model's, in nats. 0: not at all; 0.69 turns a fair coin into one that always shows heads.",
    "gradient norm": "Length of the objective's gradient at the first step of refinement, in the logits. 0: the objective has no wish here.",
    term: "A part of the objective: its value, its weight, and its share in the gradient's length.",
    "models asked": "How often a gradient was taken from the models for this refinement. What was known of the same text is used again.",
    "positions selected": "Positions that may be changed next, by the method's selector.",
    why: "What decided between the two texts ('decided by'), or where a text was stopped.",
    p: "Probability in the language model; with an arrow, in its row and in the refined one.",
    candidate: "A token that might stand at the position: the old one (own), the new one (proposed), and the likeliest others.",
  },
  Cost: {
    "cost until here": "What this problem has cost up to this step.",
    calls: "Model calls: a token that is written is one, a pass over a whole text is one, forward and backward apart, as if the problem had run alone.",
    tokens: "Tokens that models have read or written.",
    FLOPs: "Floating point operations by formula: 2 for each parameter and token of a forward pass, the same again for a backward one, and attention. G: 10⁹.",
    seconds: "This problem's share of the wall-clock time of the batches it was in.",
    phase: "What the cost was for: rollout is writing, reward is judging, gradient is the passes of refinement, selection is choosing positions, method is the arithmetic between them.",
  },
};
const ABOUT = Object.assign({}, ...Object.values(GLOSSARY));

/* An element that explains itself when the mouse is on it. */
function explained(tag, name, attributes = {}, ...children) {
  const key = name in ABOUT ? name : name.split(" ")[0];
  return make(tag, { "data-about": ABOUT[key], text: name, ...attributes }, ...children);
}

function fillGlossary(place) {
  const quantities = Object.fromEntries(QUANTITIES.filter((q) => q.about).map((q) => [q.label, q.about]));
  const parts = { "Colours": quantities, ...GLOSSARY };
  place.replaceChildren(...Object.entries(parts).map(([title, entries]) => make("section", {}, make("h3", { text: title }),
    make("dl", {}, ...Object.entries(entries).flatMap(([name, text]) => [make("dt", { text: name }), make("dd", { text })])))));
}
