/* The list of problems, the quantity, keys, light and dark. */
const $ = (id) => document.getElementById(id);
const state = { id: null, quantity: 0, chip: "all", cursor: -1, panel: 0 };
const panels = RUNS.slice(0, 2).map((run) => new Panel(run));

function currentQuantity() { return QUANTITIES[state.quantity]; }

const raws = (id) => RUNS.map((run) => run.byId.get(id)).filter(Boolean);
const KINDS = {
  all: () => true,
  right: (ps) => ps.some((p) => p.raw.correct === true),
  wrong: (ps) => ps.some((p) => p.raw.correct === false),
  differ: (ps) => new Set(ps.map((p) => p.raw.correct)).size > 1,
  changed: (ps) => ps.some((p) => p.accepted > 0),
  failed: (ps) => ps.some((p) => p.raw.error),
};

function visibleIds() {
  const words = $("filter").value.toLowerCase().split(/\s+/).filter(Boolean);
  return IDS.filter((id) => {
    const found = raws(id);
    const text = [id, ...found.flatMap((p) => [p.raw.prompt, p.raw.response ?? "", p.raw.method])].join("\n").toLowerCase();
    return KINDS[state.chip](found) && words.every((word) => text.includes(word));
  });
}

function fillChips() {
  const useful = Object.keys(KINDS).filter((kind) => kind === "all" || IDS.some((id) => KINDS[kind](raws(id))));
  $("chips").replaceChildren(...useful.map((kind) => make("button", {
    type: "button", text: kind, "aria-pressed": String(kind === state.chip),
    onclick: () => { state.chip = kind; fillChips(); fillList(); },
  })));
}

function fillList() {
  const ids = visibleIds();
  $("count").textContent = ids.length === IDS.length ? `${IDS.length} problem${IDS.length === 1 ? "" : "s"}` : `${ids.length} of ${IDS.length} problems`;
  $("list").replaceChildren(...ids.map((id) => {
    const found = raws(id);
    const dots = found.filter((p) => "correct" in p.raw || p.raw.error).map((p) => make("span", {
      class: p.raw.correct ? "dot right" : "dot wrong", title: p.raw.error ? "failed" : p.raw.correct ? "right" : "wrong",
      text: p.raw.correct ? "✓" : "✗",
    }));
    const changes = found.map((p) => p.accepted).join(" / ");
    return make("li", { role: "option", id: `p-${IDS.indexOf(id)}`, "data-id": id, "aria-selected": String(id === state.id), onclick: () => openProblem(id) },
      make("span", { class: "name" }, make("b", { text: id }), ...dots),
      make("span", { class: "excerpt", text: found[0].raw.prompt.slice(0, 120) }),
      make("span", { class: "quiet small", "data-about": ABOUT["▲"], text: found.some((p) => p.proposals) ? `▲ ${changes}` : "" }));
  }));
}

function openProblem(id) {
  state.id = id;
  state.cursor = -1;
  hideTip();
  const first = raws(id)[0].raw;
  $("problem-id").textContent = id;
  $("prompt").textContent = first.prompt;
  for (const panel of panels) panel.open(id);
  for (const item of $("list").children) item.setAttribute("aria-selected", String(item.dataset.id === id));
  const chosen = $("list").querySelector('[aria-selected="true"]');
  $("list").setAttribute("aria-activedescendant", chosen?.id ?? "");
  chosen?.scrollIntoView({ block: "nearest" });
}

function chooseQuantity(index) {
  state.quantity = index;
  $("quantity").value = String(index);
  fillLegend();
  for (const panel of panels) panel.paint();
}

function fillLegend() {
  const q = currentQuantity(), legend = $("legend");
  legend.replaceChildren(make("b", { class: "printed", text: q.label }));
  $("about").textContent = q.about ?? "";
  if (q.key === "none") return;
  if (q.known) {
    const end = (q.clipped ? "≥ " : "") + shown(q.top), unit = q.unit && q.unit !== "reward" ? ` ${q.unit}` : "";
    const labels = q.signed ? [`${q.clipped ? "≤ " : ""}−${shown(q.top)}`, end] : q.low ? ["0", (q.clipped ? "≤ " : "") + "−" + shown(q.top) + unit] : ["0", end + unit];
    legend.append(make("span", { text: labels[0] }), make("span", { class: `ramp${q.signed ? " both" : ""}` }), make("span", { text: labels.at(-1) }));
  }
  legend.append(make("span", { class: "tok grey sample", text: "grey" }), make("span", { class: "quiet", text: q.known ? "not computed" : "not computed in this run" }));
}

function moveProblem(by) {
  const ids = visibleIds();
  if (!ids.length) return;
  const at = ids.indexOf(state.id);
  openProblem(ids[Math.max(0, Math.min(ids.length - 1, at < 0 ? 0 : at + by))]);
}

function moveCursor(by) {
  const box = panels[state.panel]?.box;
  const spans = box ? [...box.querySelectorAll(".tok")] : [];
  if (!spans.length) return;
  spans.forEach((s) => s.classList.remove("cursor"));
  state.cursor = Math.max(0, Math.min(spans.length - 1, state.cursor + by));
  const span = spans[state.cursor];
  span.classList.add("cursor");
  span.scrollIntoView({ block: "nearest" });
  showTip(span);
}

function flipTheme() {
  const dark = getComputedStyle(document.documentElement).getPropertyValue("--is-dark").trim() === "1";
  document.documentElement.dataset.theme = dark ? "light" : "dark";
}

const KEYS = {
  ArrowDown: () => moveProblem(1), ArrowUp: () => moveProblem(-1),
  ArrowRight: () => panels.forEach((p) => p.move(1)), ArrowLeft: () => panels.forEach((p) => p.move(-1)),
  Home: () => panels.forEach((p) => p.select(0)), End: () => panels.forEach((p) => p.steps && p.select(p.steps.length - 1)),
  ",": () => moveCursor(-1), ".": () => moveCursor(1),
  c: () => chooseQuantity((state.quantity + 1) % QUANTITIES.length),
  "/": () => $("filter").focus(), t: flipTheme, "?": () => $("help").showModal(), Escape: hideTip,
};

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || $("help").open) return;
  const field = event.target.matches("input, select, textarea");
  if (field && event.key === "Escape") { event.target.blur(); return; }
  if (field || !KEYS[event.key]) return;
  event.preventDefault();
  KEYS[event.key]();
});

$("filter").addEventListener("input", () => {
  fillList();
  const ids = visibleIds();
  if (ids.length && !ids.includes(state.id)) openProblem(ids[0]);
});
$("quantity").append(...QUANTITIES.map((q, i) => make("option", { value: String(i), text: q.key === "none" || q.known ? q.label : `${q.label} – not computed` })));
$("quantity").addEventListener("change", (event) => chooseQuantity(Number(event.target.value)));
$("theme").addEventListener("click", flipTheme);
$("help-button").addEventListener("click", () => $("help").showModal());
addEventListener("resize", () => panels.forEach((p) => p.problem && p.draw()));
addEventListener("beforeprint", () => document.querySelectorAll("details").forEach((d) => { d.open = true; }));

panels.forEach((panel, i) => {
  const choose = () => { if (state.panel !== i) { state.panel = i; state.cursor = -1; } };
  for (const event of ["pointerdown", "focusin"]) panel.element.addEventListener(event, choose);
  $("columns").append(panel.element);
});
$("columns").classList.toggle("two", panels.length > 1);
if (RUNS.length > 2) {
  panels.forEach((panel, i) => {
    const pick = make("select", { "aria-label": `Run ${i + 1}`, onchange: (event) => { panel.run = RUNS[Number(event.target.value)]; panel.open(state.id); } },
      ...RUNS.map((run, k) => make("option", { value: String(k), text: run.name, selected: k === i })));
    document.querySelector(".tools").append(make("label", { text: i ? "right: " : "left: " }), pick);
  });
}
state.quantity = QUANTITIES.findIndex((q) => q.known || q.key === "none");
fillGlossary($("glossary"));
fillChips();
fillList();
chooseQuantity(state.quantity);
openProblem(IDS[0]);
