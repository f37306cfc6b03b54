// An X/Y comparison: two parameters against each other, one picture a cell, each cell a job.
import { bitmap } from "./api.js";
import { AXES, nameOf, proposal, title, values, vary } from "./axes.js";
import { announce, attempt, button, h, save, say, toast } from "./dom.js";
import { fieldsOf } from "./form.js";
import { active, cancel, cells, jobs, submitPatiently } from "./jobs.js";
import { emit, on, settings } from "./state.js";
import { startFiles } from "./start.js";
import { told } from "./stage.js";
import { t } from "./words.js";

const MOST = 100; // cells
const KEY = "suffuse.grid";

/** @type {?{x: {axis: string, values: any[]}, y: {axis: string, values: any[]}, ids: string[]}} */
let grid = null;
let control = null; // of the posting that goes on
let place;

/** @param {HTMLElement} parent */
export function buildCompare(parent) {
  const x = axis("x", "guidance");
  const y = axis("y", "steps");
  place = {
    run: button("spark", { text: "run_grid", class: "primary", type: "submit" }),
    stop: button("close", { text: "cancel_all" }, () => attempt(stop)),
    save: button("download", { text: "save_grid" }, () => attempt(picture)),
    state: h("p", { class: "note", role: "status", text: "grid_hint" }),
    table: h("div", { class: "grid-scroll", tabIndex: 0, role: "region", label: "compare" }),
  };
  const form = h("form", { class: "axes", noValidate: true, label: "compare" },
    x.element, y.element, h("div", { class: "axes-go" }, place.run, place.stop, place.save));
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    attempt(() => run(x.read(), y.read()));
  });
  parent.append(form, place.state, place.table);
  on("job", (job) => job.cell && update(job));
  on("deleted", () => grid && draw());
  on("language", () => grid && draw());
  recall();
  buttons();
}

function axis(name, first) {
  const options = Object.keys(AXES).map((one) => h("option", { value: one, text: nameOf(one) }));
  const select = h("select", { id: `axis-${name}` }, ...options);
  const list = h("input", { type: "text", label: [`axis_values`, { axis: name.toUpperCase() }],
    autocomplete: "off", id: `values-${name}` });
  select.value = first;
  const propose = () => {
    list.value = proposal(select.value);
    list.disabled = select.value === "none";
    say(list, "hint", select.value === "words" ? "axis_words_hint" : "axis_hint");
  };
  select.addEventListener("change", propose);
  on("server", () => { if (!list.value) propose(); });
  propose();
  const element = h("div", { class: "axis" },
    h("label", { htmlFor: select.id, text: `axis_${name}` }), select, list);
  const read = () => ({ axis: select.value, values: values(select.value, list.value) });
  return { element, read };
}

async function run(x, y) {
  const count = x.values.length * y.values.length;
  if (count > MOST) throw new Error(t("grid_large", { n: count, most: MOST }));
  if (x.axis === y.axis && x.axis !== "none") throw new Error(t("grid_same"));
  await stop();
  // All cells share what does not vary, so a random seed is drawn once.
  const base = { ...settings, n: 1, film: false, explain: false, preview: 0,
    seed: settings.seed ?? crypto.getRandomValues(new Uint32Array(1))[0] };
  const files = await startFiles();
  const wishes = y.values.flatMap((down) => x.values.map((across) =>
    vary(vary(base, x.axis, across, x.values), y.axis, down, y.values)));
  grid = { x, y, ids: [] };
  const posting = control = new AbortController();
  const mine = grid;
  draw();
  const how = { signal: posting.signal, cell: true };
  try {
    for (const wish of wishes) {
      const fields = fieldsOf(wish);
      if (!files.image) delete fields.strength;
      const job = await submitPatiently(fields, files, how);
      mine.ids.push(job.id);
      if (grid === mine) keep();
      update(job);
    }
  } finally {
    if (control === posting) control = null; // another grid may have been begun
    buttons();
  }
}

async function stop() {
  control?.abort();
  const open = (grid?.ids ?? []).filter((id) => jobs.has(id) && active(jobs.get(id)));
  await Promise.all(open.map(cancel));
}

/** A reload in the middle brings the grid back: the jobs went on. */
function keep() {
  try { sessionStorage.setItem(KEY, JSON.stringify(grid)); } catch { /* then it does not */ }
}

function recall() {
  try {
    grid = JSON.parse(sessionStorage.getItem(KEY));
  } catch { /* nothing, or nothing readable */ }
  if (!grid?.ids) return;
  for (const id of grid.ids) cells.add(id);
  draw();
}

/** The table, with what is known of every cell. */
function draw() {
  const { x, y } = grid;
  const head = h("tr", {}, h("td", {}, corner()),
    ...x.values.map((value) => h("th", { scope: "col" }, title(x.axis, value))));
  const rows = y.values.map((down, j) => h("tr", {},
    h("th", { scope: "row" }, title(y.axis, down)),
    ...x.values.map((across, i) => h("td", { class: "xy", "data-cell": `${i}-${j}`,
      "aria-label": `${title(x.axis, across)}, ${title(y.axis, down)}` }))));
  place.table.replaceChildren(h("table", { class: "xy-table" },
    h("thead", {}, head), h("tbody", {}, ...rows)));
  for (const id of grid.ids) if (jobs.has(id)) update(jobs.get(id));
  buttons();
}

const corner = () => [grid.y, grid.x].filter((one) => one.axis !== "none")
  .map((one) => t(nameOf(one.axis))).join(" ╲ ");

function update(job) {
  const at = grid?.ids.indexOf(job.id) ?? -1;
  if (at < 0) return;
  const columns = grid.x.values.length;
  const name = `${at % columns}-${Math.floor(at / columns)}`;
  const cell = place.table.querySelector(`[data-cell="${name}"]`);
  const image = job.images[0];
  if (image && cell.dataset.image !== image.id) {
    cell.dataset.image = image.id;
    const open = h("button", { type: "button", class: "tile",
      label: ["open_picture", { prompt: image.prompt, seed: image.seed }] },
    h("img", { alt: "", src: image.url }));
    open.addEventListener("click", () => emit("detail", { image, among: made() }));
    cell.replaceChildren(open);
  } else if (!image) {
    cell.classList.toggle("running", job.state === "running");
    cell.replaceChildren(h("small", {}, told(job)));
  }
  buttons();
}

const made = () => grid.ids.flatMap((id) => jobs.get(id)?.images[0] ?? []);

function buttons() {
  const waits = (id) => jobs.has(id) && active(jobs.get(id));
  const open = control !== null || (grid?.ids ?? []).some(waits);
  const all = grid ? grid.x.values.length * grid.y.values.length : 0;
  place.stop.hidden = !open;
  place.save.disabled = !grid || !made().length;
  if (!grid) return;
  const before = place.state.textContent;
  say(place.state, "text", "grid_state", { n: made().length, all });
  if (made().length === all && before !== place.state.textContent) announce("grid_done");
}

/** The whole grid with its heads as one PNG. */
async function picture() {
  const { x, y } = grid;
  const pictures = await Promise.all(grid.ids.map((id) => {
    const url = jobs.get(id)?.images[0]?.url;
    return url ? bitmap(url) : null;
  }));
  const wide = Math.max(...pictures.map((one) => one?.width ?? 0));
  const high = Math.max(...pictures.map((one) => one?.height ?? 0));
  const size = Math.max(12, Math.round(wide / 12));
  const pen = h("canvas").getContext("2d");
  const font = `${size}px system-ui, sans-serif`;
  pen.font = font;
  const left = Math.max(...y.values.map((v) => pen.measureText(title(y.axis, v)).width)) + 2 * size;
  const top = 3 * size;
  Object.assign(pen.canvas, { width: left + x.values.length * (wide + 4) + size,
    height: top + y.values.length * (high + 4) + 2.5 * size });
  Object.assign(pen, { font, fillStyle: "#fff", textBaseline: "middle" });
  pen.fillRect(0, 0, pen.canvas.width, pen.canvas.height);
  pen.fillStyle = "#222";
  y.values.forEach((v, j) => pen.fillText(title(y.axis, v), size, top + (j + 0.5) * (high + 4)));
  const columns = x.values.length;
  pictures.forEach((one, at) => one && pen.drawImage(one, left + (at % columns) * (wide + 4),
    top + Math.floor(at / columns) * (high + 4)));
  pen.fillText(made()[0].prompt, left, pen.canvas.height - 1.2 * size);
  pen.textAlign = "center";
  x.values.forEach((v, i) =>
    pen.fillText(title(x.axis, v), left + (i + 0.5) * (wide + 4), top / 2, wide));
  const file = await new Promise((done) => pen.canvas.toBlob(done, "image/png"));
  save(file, `grid-${x.axis}-${y.axis}.png`);
  toast(t("grid_saved"));
}
