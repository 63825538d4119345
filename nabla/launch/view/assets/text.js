/* Texts token by token, and what a token's tooltip says. Texts of models only ever go in as textContent. */
function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === false || value === null || value === undefined) continue;
    if (name === "text") element.textContent = value;
    else if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.filter((c) => c !== null && c !== undefined));
  return element;
}

function coloured(span, quantity, x) {
  span.classList.remove("grey", "low");
  span.style.removeProperty("--s");
  if (quantity.key === "none") return;
  if (x === UNKNOWN) span.classList.add("grey");
  else {
    const s = strength(quantity, x);
    if (s < 0) span.classList.add("low");
    span.style.setProperty("--s", (100 * Math.abs(s)).toFixed(0) + "%");
  }
}

/* Fills a box with a text. Marks: position → class names. */
function fillText(box, problem, text, quantity, { marks = new Map(), from = 0, upto = Infinity } = {}) {
  const nodes = problem.nodes(text);
  const end = Math.min(nodes.length, upto);
  box.replaceChildren();
  box.problem = problem;
  box.text = text;
  for (let i = from; i < end; i++) {
    const piece = problem.piece(nodes[i]);
    const span = make("span", { class: "tok", "data-i": i, text: piece });
    if (piece === "") span.classList.add("nothing");
    if (piece.includes("\n")) span.classList.add("line");
    for (const name of (marks.get(i) ?? "").split(" ").filter(Boolean)) span.classList.add(name);
    coloured(span, quantity, quantity.at(problem, text, nodes, i));
    box.append(span);
  }
  if (end < nodes.length) box.append(make("span", { class: "quiet", text: ` … ${nodes.length - end} tokens more` }));
  if (!nodes.length) box.append(make("span", { class: "quiet", text: "(no text)" }));
}

const TIP = document.getElementById("tip");

function tipFor(box, i) {
  const { problem, text } = box, nodes = problem.nodes(text), node = nodes[i];
  const logProb = problem.column("log_prob", node);
  const rows = [
    ["position", String(i)],
    ["probability", logProb === UNKNOWN ? UNKNOWN : percent(Math.exp(logProb))],
    ["largest probability", problem.columns.top1 ? percent(problem.column("top1", node)) : UNKNOWN],
    ...QUANTITIES.filter((q) => q.key !== "none").map((q) => {
      const x = q.at(problem, text, nodes, i);
      return [q.short, x === UNKNOWN ? UNKNOWN : shown(x) + (q.unit === "nats" ? " nats" : "")];
    }),
  ];
  const piece = problem.piece(node);
  TIP.replaceChildren(
    make("div", { class: "piece", text: visible(piece.length > 60 ? piece.slice(0, 60) + "…" : piece) }),
    make("table", {}, ...rows.map(([name, value]) => make("tr", { class: value === UNKNOWN || value === "–" ? "missing" : "" },
      make("th", { text: name }), make("td", { text: value === UNKNOWN || value === "–" ? "not computed" : value })))),
  );
}

function showTip(span) {
  const box = span.parentElement;
  if (!box || !box.problem) return;
  tipFor(box, Number(span.dataset.i));
  placeTip(span);
}

function placeTip(span) {
  TIP.hidden = false;
  const at = span.getClientRects()[0] ?? span.getBoundingClientRect();
  const own = TIP.getBoundingClientRect();
  const left = Math.max(8, Math.min(at.left, innerWidth - own.width - 8));
  const below = at.bottom + 8 + own.height < innerHeight;
  TIP.style.left = `${left}px`;
  TIP.style.top = `${Math.max(8, below ? at.bottom + 8 : at.top - own.height - 8)}px`;
}

function hideTip() { TIP.hidden = true; }

document.addEventListener("mouseover", (event) => {
  const span = event.target.closest?.(".tok, [data-about]");
  if (!span || !span.closest("body")) hideTip();
  else if (span.classList.contains("tok")) showTip(span);
  else {
    TIP.replaceChildren(make("p", { class: "about-tip", text: span.dataset.about }));
    placeTip(span);
  }
});
document.addEventListener("scroll", hideTip, true);
