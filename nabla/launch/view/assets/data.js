/* What the page knows: problems, their texts and tokens, and the quantities that tokens are coloured by. It stands in
   the page as JSON, gzip and base64 (page.py): a fifth of the size. */
async function unzipped(text) {
  const bytes = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
  return new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"))).json();
}
if (!globalThis.DecompressionStream)
  document.getElementById("main").textContent = "This page needs a browser of 2023 or later: older ones cannot unpack what it holds.";
const DATA = await unzipped(document.getElementById("data").textContent);
const UNKNOWN = null;

function shown(x, digits = 3) {
  if (x === UNKNOWN || x === undefined) return "–";
  if (x === 0) return "0";
  const size = Math.abs(x);
  if (size >= 1e5 || size < 1e-3) return x.toExponential(digits - 1).replace("e+", "e");
  if (Number.isInteger(x)) return String(x);
  return String(Number(x.toPrecision(digits)));
}

function grouped(x) {
  if (x === UNKNOWN || x === undefined) return "–";
  return x >= 1e7 ? x.toExponential(2).replace("e+", "e") : Number(x.toPrecision(6)).toLocaleString("en");
}

function percent(x) {
  if (x === UNKNOWN || x === undefined) return "–";
  const p = 100 * x;
  return (p >= 99.95 || p === 0 ? p.toFixed(0) : p >= 1 ? p.toFixed(1) : p.toPrecision(1)) + " %";
}

function visible(piece) {
  if (piece === "") return "∅";
  return piece.replace(/ /g, "␣").replace(/\n/g, "↵").replace(/\t/g, "⇥").replace(/\r/g, "␍");
}

/* Columns as they were packed (texts.py): pieces by number, or the few numbers that are known by their place. */
function unpacked(packed) {
  const found = {};
  for (const [name, column] of Object.entries(packed)) {
    if (column.words) found[name] = column.at.map((i) => column.words[i]);
    else if (column.nodes) {
      found[name] = [];
      column.nodes.forEach((node, i) => { found[name][node] = column.values[i]; });
    } else found[name] = column;
  }
  return found;
}

class Problem {
  constructor(raw) {
    this.raw = raw;
    this.columns = unpacked(raw.columns);
    this.ranges = new Map();
  }
  /* Tokens of a text, as indices into the columns. */
  nodes(text) {
    if (text === null || text === undefined) return [];
    if (!this.ranges.has(text)) {
      const packed = this.raw.texts[text], found = [];
      for (let i = 0; i < packed.length; i += 2)
        for (let j = 0; j < packed[i + 1]; j++) found.push(packed[i] + j);
      this.ranges.set(text, found);
    }
    return this.ranges.get(text);
  }
  piece(node) { return this.columns.piece[node] ?? ""; }
  column(name, node) { return this.columns[name] ? (this.columns[name][node] ?? UNKNOWN) : UNKNOWN; }
  refined(nodes, position) {
    return this.raw.refined[position ? nodes[position - 1] : -1] ?? UNKNOWN;
  }
  reward(text) { return this.raw.rewards[text] ?? UNKNOWN; }
  get accepted() { return this.raw.steps.filter((s) => s.outcome === "accepted").length; }
  get proposals() { return this.raw.steps.filter((s) => s.kind === "proposal" && s.outcome).length; }
}

function column(name) {
  return { at: (p, text, nodes, i) => p.column(name, nodes[i]), all: (p) => p.columns[name] ?? [] };
}
function refined(name) {
  const index = DATA.refined.indexOf(name);
  return {
    at: (p, text, nodes, i) => p.refined(nodes, i)?.[index] ?? UNKNOWN,
    all: (p) => Object.values(p.raw.refined).map((row) => row[index] ?? UNKNOWN),
  };
}
const norms = {
  at: (p, text, nodes, i) => p.raw.norms[text]?.[i] ?? UNKNOWN,
  all: (p) => Object.values(p.raw.norms).flat(),
};

const QUANTITIES = [
  { key: "log_prob", label: "log-probability", short: "log π", unit: "nats", low: true, ...column("log_prob"),
    about: "log π of the token in the language model, given what stands before it. 0: it was certain to come; strong: it was a surprise." },
  { key: "entropy", label: "entropy", short: "entropy", unit: "nats", ...column("entropy"),
    about: "How undecided the language model was before this token. 0: one token was certain; log k: k tokens were equally likely." },
  { key: "value", label: "value of the reward", short: "value", unit: "reward", signed: true, ...column("value"),
    about: "The reward's reading of the text up to this token; blue is above zero, orange below. A fall says where the text goes wrong." },
  { key: "delta_prefix", label: "δ_prefix (refined)", short: "‖δ_prefix‖", unit: "", ...refined("delta_prefix"),
    about: "Length of the part of the gradient by this token's own probability, where it was refined." },
  { key: "delta_postfix", label: "δ_postfix (refined)", short: "‖δ_postfix‖", unit: "", ...refined("delta_postfix"),
    about: "Length of the part by what this token does to the probability of all later ones, where it was refined." },
  { key: "delta_reward", label: "δ_reward (refined)", short: "‖λ δ_reward‖", unit: "", ...refined("delta_reward"),
    about: "Length of the part by the reward, with its weight λ, where it was refined." },
  { key: "gradient_norm", label: "gradient norm in logits (refined)", short: "‖∂L/∂z‖", unit: "", ...refined("gradient_norm"),
    about: "Length of the objective's gradient in the logits that are refined, at the first step." },
  { key: "norm", label: "gradient norm in tokens (selector)", short: "‖∂L/∂y‖", unit: "", ...norms,
    about: "Length of the objective's gradient in the token, at every position, where a selector has asked for it." },
  { key: "kl", label: "KL moved (refined)", short: "KL moved", unit: "nats", ...refined("kl"),
    about: "How far refinement moved the token's distribution from the language model's. 0: not at all." },
  { key: "none", label: "nothing", short: "", unit: "", at: () => UNKNOWN, all: () => [] },
];

const RUNS = DATA.runs.map((run) => ({
  ...run,
  byId: new Map(run.problems.map((raw) => [raw.id, new Problem(raw)])),
}));
const IDS = [...new Set(RUNS.flatMap((run) => run.problems.map((p) => p.id)))];

/* One scale for all problems and runs, so that colours can be compared: the ends leave out 2 % of the tokens. */
for (const quantity of QUANTITIES) {
  const values = RUNS.flatMap((run) => [...run.byId.values()].map((p) => quantity.all(p))).flat()
    .filter((x) => x !== UNKNOWN && x !== undefined);
  const sizes = values.map(Math.abs).sort((a, b) => a - b);
  quantity.known = values.length;
  quantity.top = sizes.length ? sizes[Math.min(sizes.length - 1, Math.floor(0.98 * sizes.length))] || sizes.at(-1) || 1 : 1;
  quantity.clipped = sizes.length > 0 && sizes.at(-1) > quantity.top * 1.0001;
}

/* Strength of a colour, from -1 to 1. */
function strength(quantity, x) {
  const part = Math.max(-1, Math.min(1, x / quantity.top));
  return quantity.signed ? part : Math.abs(part);
}
