/* One run of one problem: its text at a step, the time line, what happened at the step, its cost. */
const SVG = "http://www.w3.org/2000/svg";
const COST_NAMES = { calls: "model calls", tokens: "tokens", flops: "FLOPs", seconds: "seconds" };
const SHOWN_TOKENS = 160;
const BAD = "first bad token";

function svg(tag, attributes = {}, ...children) {
  const element = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name === "text") element.textContent = value;
    else if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value);
  }
  element.append(...children.filter(Boolean));
  return element;
}

const OUTCOMES = {
  draft: "text written", refine: "refined, same token drawn", accepted: "proposal accepted",
  rejected: "proposal rejected", "passed over": "proposal passed over", open: "proposal without a decision",
  kept: "text kept", dropped: "text dropped", complete: "text complete", answer: "answer",
};
const outcomeOf = (step) => step.outcome ?? (step.kind === "proposal" ? "open" : step.kind);
const CHOSEN = {
  kept: "A text as it was written; the search goes on from it.",
  dropped: "A text as it was written; the search does not go on from it.",
  complete: "A text as it was written, to its end: a candidate for the answer.",
};

class Panel {
  constructor(run) {
    this.run = run;
    this.cost = "calls";
    this.element = make("article", { class: "run", "aria-label": run.name });
  }

  open(id) {
    this.problem = this.run.byId.get(id) ?? null;
    this.element.replaceChildren(make("h3", { class: "run-name", text: this.run.name }));
    if (!this.problem) {
      this.element.append(make("p", { class: "quiet", text: "This run has no such problem." }));
      return;
    }
    const raw = this.problem.raw;
    this.steps = [...raw.steps, { kind: "answer", position: null, text: raw.final, spent: this.total(), reward: raw.reward }];
    this.at = this.steps.length - 1;
    this.box = make("div", { class: "text", tabindex: "0", role: "region", "aria-label": "Text at this step" });
    this.note = make("p", { class: "note" });
    this.line = make("div", { class: "timeline" });
    this.detail = make("section", { class: "detail", "aria-live": "polite" });
    this.rows = make("tbody");
    const parts = [this.summary(), this.note, this.box, this.controls(), this.line, this.detail, this.list(), this.phases()];
    this.element.append(...parts.filter(Boolean));
    this.select(this.at);
  }

  total() {
    const total = this.problem.raw.total;
    return Object.keys(total).length ? DATA.units.map((unit) => total[unit] ?? UNKNOWN) : UNKNOWN;
  }

  summary() {
    const raw = this.problem.raw, p = this.problem;
    const chip = (text, kind = "", about = undefined) => make("span", { class: `fact ${kind}`, "data-about": about, text });
    const facts = [];
    if ("correct" in raw) facts.push(chip(raw.correct ? "✓ right" : "✗ wrong", raw.correct ? "right" : "wrong"));
    if (raw.error) facts.push(chip(`failed: ${raw.error}`, "wrong"));
    if (raw.reward !== UNKNOWN && raw.reward !== undefined) facts.push(chip(`reward ${shown(raw.reward, 4)}`, "", ABOUT.reward));
    if (raw.finished === false) facts.push(chip("cut off at the length limit", "wrong"));
    if (p.proposals) facts.push(chip(`${p.accepted} of ${p.proposals} proposals accepted`));
    const spent = this.total();
    if (spent) facts.push(chip(`${grouped(spent[0])} calls`, "", ABOUT.calls), chip(`${grouped(spent[2])} FLOPs`, "", ABOUT.FLOPs));
    if (!this.run.traced) facts.push(chip("no trace: solved without --trace", "quiet"));
    return make("p", { class: "facts" }, ...facts);
  }

  controls() {
    const button = (label, name, move) => make("button", { type: "button", "aria-label": name, title: name, text: label, onclick: move });
    this.counter = make("span", { class: "counter" });
    const unit = make("select", { "aria-label": "Cost that is drawn", onchange: (e) => { this.cost = e.target.value; this.draw(); } },
      ...DATA.units.map((u) => make("option", { value: u, text: COST_NAMES[u] })));
    return make("div", { class: "controls" },
      button("«", "first step", () => this.select(0)), button("◀", "step before", () => this.move(-1)), this.counter,
      button("▶", "next step", () => this.move(1)), button("»", "answer", () => this.select(this.steps.length - 1)),
      make("label", { class: "cost-unit" }, "cost: ", unit));
  }

  move(by) { if (this.problem) this.select(this.at + by); }

  select(index) {
    if (!this.problem) return;
    this.at = Math.max(0, Math.min(this.steps.length - 1, index));
    this.counter.textContent = `${this.at + 1} / ${this.steps.length}`;
    this.draw();
    this.describe();
    this.paint();
    this.rows.querySelectorAll("tr").forEach((row, i) => row.setAttribute("aria-selected", String(i === this.at)));
    const row = this.rows.children[this.at], frame = row?.closest(".scroll");
    if (row && frame) frame.scrollTop = Math.max(0, row.offsetTop - frame.clientHeight / 2);
  }

  /* The text that is current behind the step. */
  paint() {
    if (!this.problem) return;
    const step = this.steps[this.at], marks = new Map();
    let text = step.text, words = "";
    const taken = step.outcome === "accepted" && step.proposed !== undefined;
    if (taken) text = step.proposed;
    const whole = step.whole;
    if (step.kind === "answer") {
      words = "The answer" + (this.problem.raw.revised.length ? "; underlined: tokens that an accepted proposal put there." : ".");
      for (const i of this.problem.raw.revised) marks.set(i, "revised");
    } else if (step.kind === "draft") words = CHOSEN[step.outcome] ?? "A text as it was written.";
    else if (taken) {
      words = "The text after this step; underlined: what is new.";
      if (!whole) for (let i = step.position; i < this.problem.nodes(text).length; i++) marks.set(i, i === step.position ? "revised here" : "fresh");
    } else if (!whole) {
      words = "The current text, which stays; framed: the position of this step.";
      marks.set(step.position, "here");
    } else words = "The current text, which stays.";
    if (step.stop !== undefined && step.kind === "draft") marks.set(step.stop, "bad");
    this.note.textContent = words;
    fillText(this.box, this.problem, text, currentQuantity(), { marks });
    for (const box of this.detail.querySelectorAll(".text"))
      if (box.problem) fillText(box, box.problem, box.text, currentQuantity(), box.how);
  }

  draw() {
    const steps = this.steps, count = steps.length;
    const width = Math.max(420, this.line.clientWidth - 16, 116 + 17 * count), left = 52, right = width - 64, top = 12, low = 92, base = 142;
    const x = (i) => (count === 1 ? (left + right) / 2 : left + ((right - left) * i) / (count - 1));
    const rewardAt = (s) => (s.kind === "proposal" ? s.proposed_reward : s.reward) ?? UNKNOWN;
    const rewards = steps.flatMap((s) => [rewardAt(s), s.reward ?? UNKNOWN]).filter((r) => r !== UNKNOWN);
    const min = Math.min(...rewards), max = Math.max(...rewards), span = max - min || 1;
    const y = (r) => (rewards.length ? low - ((low - top) * (r - min)) / span : (top + low) / 2);
    const index = DATA.units.indexOf(this.cost);
    const spent = steps.map((s) => s.spent?.[index] ?? UNKNOWN), most = Math.max(0, ...spent.filter((c) => c !== UNKNOWN));
    const picture = svg("svg", { viewBox: `0 0 ${width} 158`, width, height: 158, role: "group", "aria-label": "Steps" });
    picture.append(svg("rect", { class: "band", x: x(this.at) - 8, y: 2, width: 16, height: base - 2 }));
    for (const [value, label] of rewards.length ? [[max, shown(max)], [min, shown(min)]] : []) {
      picture.append(svg("line", { class: "grid", x1: left, x2: right, y1: y(value), y2: y(value) }));
      picture.append(svg("text", { class: "axis", x: left - 12, y: y(value) + 4, "text-anchor": "end", text: label }));
      if (max === min) break;
    }
    picture.append(svg("text", { class: "axis name", x: 2, y: (top + low) / 2 + 4, text: "reward" }));
    if (most) {
      const points = steps.map((s, i) => (spent[i] === UNKNOWN ? null : `${x(i)},${base - (32 * spent[i]) / most}`)).filter(Boolean);
      const known = spent.map((c, i) => (c === UNKNOWN ? -1 : i)).filter((i) => i >= 0);
      picture.append(svg("polygon", { class: "cost", points: `${x(known[0])},${base} ${points.join(" ")} ${x(known.at(-1))},${base}` }));
      picture.append(svg("text", { class: "axis", x: right + 12, y: base - 26, text: grouped(most) }));
      picture.append(svg("text", { class: "axis name", x: 2, y: base - 4, text: "cost" }));
    }
    let held = UNKNOWN, best = -Infinity, path = ""; // of complete texts a search holds the best
    steps.forEach((s, i) => {
      if (s.outcome === "complete") best = Math.max(best, s.reward ?? best);
      if (s.kind === "draft") held = s.outcome === "dropped" ? held : best > -Infinity ? best : s.reward ?? held;
      else if (s.outcome === "accepted") held = s.proposed_reward ?? held;
      else if (s.kind === "answer") held = s.reward ?? held;
      if (held !== UNKNOWN) path += `${path ? "H" : "M"}${x(i)}${path ? "V" : ","}${y(held)}`;
      s.y = y(rewardAt(s) ?? held ?? 0);
      if (rewardAt(s) === UNKNOWN) s.y = held !== UNKNOWN ? y(held) : (top + low) / 2;
    });
    if (path) picture.append(svg("path", { class: "held", d: path }));
    steps.forEach((s, i) => picture.append(this.glyph(s, i, x(i), s.y)));
    this.line.replaceChildren(make("div", { class: "scroll-x" }, picture), legendOfSteps(steps));
    const frame = this.line.firstChild;
    frame.scrollLeft = Math.max(0, x(this.at) - frame.clientWidth / 2);
  }

  glyph(step, i, x, y) {
    const outcome = outcomeOf(step);
    const group = svg("g", {
      class: `glyph ${outcome.replace(" ", "-")}${i === this.at ? " now" : ""}`, "data-step": i, role: "button",
      "aria-label": `step ${i + 1}: ${OUTCOMES[outcome]}`, onclick: () => this.select(i),
    });
    group.append(svg("rect", { class: "hit", x: x - 8, y: 0, width: 16, height: 150 }), mark(outcome, x, y));
    if (step.stop !== undefined) group.append(svg("path", { class: "abort", d: `M${x - 4},${y + 9}l8,8m0,-8l-8,8` }));
    group.append(svg("title", { text: `${i + 1}: ${OUTCOMES[outcome]}${step.position === null ? "" : `, position ${step.position}`}` }));
    return group;
  }

  describe() {
    const step = this.steps[this.at], outcome = outcomeOf(step), parts = [];
    const title = `Step ${this.at + 1}: ${OUTCOMES[outcome]}` + (step.position === null ? "" : ` at position ${step.position}`);
    parts.push(make("h4", { class: outcome.replace(" ", "-"), text: title }));
    if (step.kind === "proposal") parts.push(this.swap(step));
    const facts = [];
    if (step.kind === "proposal" && (step.reward ?? UNKNOWN) !== UNKNOWN)
      facts.push(["reward", `${shown(step.reward, 4)} → ${shown(step.proposed_reward, 4)}`]);
    else if ((step.reward ?? UNKNOWN) !== UNKNOWN) facts.push(["reward", shown(step.reward, 4)]);
    if (step.times) facts.push(["drawn", `${step.times} times`]);
    if (step.why) facts.push(["decided by", step.why]);
    if (step.stop !== undefined) {
      const last = this.problem.nodes(step.proposed ?? step.text).length;
      facts.push(["first bad token", `at position ${step.stop} of the ${step.kind === "proposal" ? "new " : ""}text, which ends at ${last - 1}`]);
    }
    if ((step.kl ?? UNKNOWN) !== UNKNOWN) facts.push(["KL moved", `${shown(step.kl)} nats`]);
    if ((step.gradient_norm ?? UNKNOWN) !== UNKNOWN) facts.push(["gradient norm", shown(step.gradient_norm)]);
    for (const [name, term] of Object.entries(step.terms ?? {}))
      facts.push([`term ${name}`, `${shown(term.value)} ${term.unit} × ${shown(term.weight)}, ${percent(term.gradient_share)} of the gradient`]);
    if (step.gradients !== undefined) facts.push(["models asked", step.gradients === 1 ? "once" : `${step.gradients} times`]);
    if (step.selected) facts.push(["positions selected", step.selected.length ? step.selected.join(", ") : "none"]);
    if (step.spent) facts.push(["cost until here", DATA.units.map((u, i) => `${grouped(step.spent[i])} ${u === "flops" ? "FLOPs" : u}`).join(", ")]);
    if (facts.length) parts.push(make("dl", { class: "about" }, ...facts.flatMap(([k, v]) => [explained("dt", k), make("dd", { text: v })])));
    if (step.candidates) parts.push(this.candidates(step));
    if (step.kind === "proposal" && step.proposed !== undefined) parts.push(this.continuations(step));
    this.detail.replaceChildren(...parts);
  }

  swap(step) {
    const p = this.problem, before = p.nodes(step.text), after = p.nodes(step.proposed);
    const piece = (own, nodes) => own ?? (step.whole ? null : p.piece(nodes[step.position]));
    const old = piece(step.old_piece, before), fresh = piece(step.new_piece, after);
    const one = (name, text, id, logProb, pair, k) => make("div", { class: "token-card" },
      make("span", { class: "quiet", text: name }),
      make("span", { class: "big", text: text === null || text === undefined ? `id ${id}` : visible(text) }),
      make("span", { class: "numbers", "data-about": ABOUT.p, text: pair
        ? `p ${percent(pair[0][k])} → ${percent(pair[1][k])} refined`
        : (logProb ?? UNKNOWN) === UNKNOWN ? "p not known" : `p ${percent(Math.exp(logProb))}` }));
    const pair = step.before && step.after ? [step.before, step.after] : null;
    return make("div", { class: "swap" },
      one("before", old, step.old, step.old_log_prob, pair, 0), make("span", { class: "arrow", text: "→" }),
      one("after", fresh, step.new, step.new_log_prob, pair, 1));
  }

  candidates(step) {
    const rows = step.candidates.map(([id, piece, before, after], i) => make("tr", { class: id === step.new ? "chosen" : "" },
      make("th", {}, make("span", { class: "mono", text: visible(piece) }), i === 0 ? make("span", { class: "quiet", text: " own" }) : null,
        id === step.new ? make("span", { class: "quiet", text: " proposed" }) : null),
      ...[["before", before], ["after", after]].map(([name, value]) => make("td", {},
        make("span", { class: `bar ${name}`, style: `--w:${(100 * value).toFixed(1)}%` }), make("span", { class: "numbers", text: percent(value) })))));
    return make("table", { class: "candidates" },
      make("thead", {}, make("tr", {}, explained("th", "candidate"), make("th", { text: "language model" }), make("th", { text: "refined" }))),
      make("tbody", {}, ...rows));
  }

  continuations(step) {
    const from = step.whole ? 0 : step.position;
    const box = (name, text, mark) => {
      const inner = make("div", { class: "text small" });
      const marks = new Map(step.whole ? [] : [[step.position, mark]]);
      if (step.stop !== undefined && text === step.proposed) marks.set(step.stop, `${marks.get(step.stop) ?? ""} bad`);
      inner.how = { marks, from, upto: from + SHOWN_TOKENS };
      fillText(inner, this.problem, text, currentQuantity(), inner.how);
      return make("div", {}, make("h5", { text: name }), inner);
    };
    const where = step.whole ? "" : `, from position ${step.position}`;
    return make("div", { class: "pair" }, box(`Before${where}`, step.text, "here"),
      box(`Proposed${where}`, step.proposed, "revised here"));
  }

  list() {
    const head = ["step", "what", "position", "token", "reward", "why", "calls"];
    const lines = this.steps.map((s, i) => {
      const old = s.old_piece ?? (s.kind === "proposal" && !s.whole ? this.problem.piece(this.problem.nodes(s.text)[s.position]) : null);
      const fresh = s.new_piece ?? (s.proposed !== undefined && !s.whole ? this.problem.piece(this.problem.nodes(s.proposed)[s.position]) : null);
      const token = s.kind !== "proposal" ? "" : old === null ? `${s.old} → ${s.new}` : `${visible(old)} → ${visible(fresh ?? "")}`;
      const reward = s.kind === "proposal" && (s.proposed_reward ?? UNKNOWN) !== UNKNOWN ? `${shown(s.reward)} → ${shown(s.proposed_reward)}` : (s.reward ?? UNKNOWN) === UNKNOWN ? "" : shown(s.reward);
      const stopped = s.stop === undefined ? "" : `${s.why ? "; " : ""}${BAD} at ${s.stop}`;
      const why = (s.why ?? "") + stopped;
      const cells = [i + 1, OUTCOMES[outcomeOf(s)] + (s.times ? ` ×${s.times}` : ""), s.position ?? "", token, reward, why, s.spent ? grouped(s.spent[0]) : ""];
      return cells.map(String);
    });
    const columns = head.map((_, k) => k).filter((k) => lines.some((cells) => cells[k] !== "")); // empty columns take room
    lines.forEach((cells, i) => this.rows.append(make("tr", { class: outcomeOf(this.steps[i]).replace(" ", "-"), onclick: () => this.select(i) },
      ...columns.map((k) => make("td", { class: `of-${head[k]}`, text: cells[k] })))));
    return make("details", { class: "all", open: true }, make("summary", { text: `All ${this.steps.length} steps` }),
      make("div", { class: "scroll" }, make("table", { class: "steps" }, make("thead", {}, make("tr", {}, ...columns.map((k) => explained("th", head[k], { class: `of-${head[k]}` })))), this.rows)));
  }

  phases() {
    const entries = Object.entries(this.problem.raw.phases);
    if (!entries.length) return null;
    const line = (name, u) => make("tr", {}, make("th", { text: name }), ...[u.calls, u.tokens, u.flops, u.seconds].map((v) => make("td", { text: grouped(v) })));
    return make("details", { class: "all" }, make("summary", { text: "Cost by phase" }),
      make("table", { class: "costs" }, make("thead", {}, make("tr", {}, ...["phase", "calls", "tokens", "FLOPs", "seconds"].map((text) => explained("th", text)))),
        make("tbody", {}, ...entries.map(([name, usage]) => line(name, usage)), line("total", this.problem.raw.total))));
  }
}

function mark(outcome, x, y) {
  if (outcome === "accepted") return svg("path", { d: `M${x},${y - 7}l6.5,11.5h-13z` });
  if (outcome === "rejected") return svg("path", { d: `M${x},${y + 7}l6.5,-11.5h-13z` });
  if (outcome === "refine") return svg("circle", { cx: x, cy: y, r: 2.5 });
  if (outcome === "answer" || outcome === "complete") return svg("path", { d: `M${x},${y - 7}l6.5,7l-6.5,7l-6.5,-7z` });
  if (["draft", "kept", "dropped"].includes(outcome)) return svg("circle", { cx: x, cy: y, r: 5 });
  return svg("rect", { x: x - 4, y: y - 4, width: 8, height: 8 });
}

function legendOfSteps(steps) {
  const kinds = [...new Set(steps.map(outcomeOf))];
  const entry = (kind, drawing) => make("span", { class: "key" }, svg("svg", { width: 18, height: 18, class: "glyph-key" },
    svg("g", { class: `glyph ${kind.replace(" ", "-")}` }, drawing)), OUTCOMES[kind] ?? kind);
  const found = kinds.map((kind) => entry(kind, mark(kind, 9, 9)));
  if (steps.some((s) => s.stop !== undefined)) found.push(entry("stopped at a bad token", svg("path", { class: "abort", d: "M5,5l8,8m0,-8l-8,8" })));
  return make("p", { class: "keys" }, ...found);
}
