// The form at the left: what to make. It writes into the settings and reads from them.
import { Refused } from "./api.js";
import { attempt, button, confirm, h, toast } from "./dom.js";
import { blame, bound, choice, dial, figure, lines, seed, toggle } from "./fields.js";
import { jobs, submit } from "./jobs.js";
import {
  DEFAULTS, change, emit, model, on, server, settings, size, takes, usualSize,
} from "./state.js";
import { clearStart, startFiles, startSection, started } from "./start.js";
import { boxesSection } from "./boxes.js";
import { t } from "./words.js";

const usual = (name) => model()?.defaults?.[name] ?? null;
const limit = (name, otherwise) => server.options.limits?.[name] ?? otherwise;
const named = (names) => names.map((one) => [one, one]);

/** @param {HTMLElement} place */
export function buildForm(place) {
  const go = button("spark", { text: "generate", class: "primary", type: "submit" });
  const form = h("form", { id: "form", noValidate: true, label: "create" },
    lines("prompt", 3, "prompt_hint"),
    lines("negative", 1, "negative_hint"),
    h("div", { class: "go" }, go, h("kbd", { "aria-hidden": "true" }, "Ctrl ⏎")),
    h("div", { class: "pair" }, choice("model", models), choice("sampler", samplers)),
    h("div", { class: "pair" },
      dial("steps", () => [1, Math.min(limit("steps", 150), 60), 1], () => usual("steps")),
      dial("guidance", () => [0, 20, 0.5], () => usual("guidance"))),
    sizes(),
    h("div", { class: "pair" },
      figure("n", () => [1, limit("n", 16), 1], () => 1), seed(lastSeed)),
    h("div", { class: "toggles" }, toggle("film"), toggle("explain")),
    extras(),
    startSection(), boxesSection(), more());
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    generate();
  });
  place.append(form);
  onLanguage(go);
}

function onLanguage(go) {
  on("offline", () => { go.disabled = true; });
  on("online", () => { go.disabled = false; });
}

function models() {
  return server.models.map((one) => [one.name === server.models[0].name ? "" : one.name, one.name]);
}

function samplers() {
  const known = server.options.samplers ?? [];
  const title = (name) => known.find((one) => one.name === name)?.title ?? name;
  const first = ["", usual("sampler") ? t("usual", { name: title(usual("sampler")) }) : t("auto")];
  return [first, ...known.map((one) => [one.name, one.title ?? one.name])];
}

/** Three usual shapes with the model's number of pixels, and any other size. */
function sizes() {
  const step = () => model()?.factor ?? 8;
  const shape = (ratio) => {
    const [width, height] = usualSize();
    const area = width * height;
    const round = (x) => Math.max(step(), Math.round(x / step()) * step());
    return [round(Math.sqrt(area * ratio)), round(Math.sqrt(area / ratio))];
  };
  const shapes = h("div", { class: "segmented shapes", role: "group", label: "shape" });
  for (const [name, ratio] of [["portrait", 3 / 4], ["square", 1], ["landscape", 4 / 3]]) {
    shapes.append(h("button", {
      type: "button", label: name, tip: name, class: name, value: String(ratio),
      on: { click: () => {
        const [width, height] = shape(ratio);
        change(ratio === 1 ? { width: null, height: null } : { width, height });
      } },
    }));
  }
  bound(["width", "height", "model"], () => {
    const now = size().join();
    for (const one of shapes.children) {
      one.setAttribute("aria-pressed", String(shape(Number(one.value)).join() === now));
    }
  });
  const side = (name) => figure(name, () => [step(), limit("width", 2048), step()],
    () => usual(name));
  return h("div", { class: "sizes" }, shapes, side("width"), side("height"));
}

/** Fields of a reused request that have no place in the form: shown, sent, and removable. */
function extras() {
  const row = h("ul", { class: "chips", label: "extras" });
  bound(["extra"], () => {
    const names = Object.keys(settings.extra);
    row.hidden = !names.length;
    row.replaceChildren(...names.map((name) => h("li", { class: "chip" },
      `${name}: ${shortly(settings.extra[name])}`,
      button("close", { label: ["remove", { what: name }], class: "quiet" }, () => {
        const { [name]: _, ...extra } = settings.extra;
        change({ extra });
      }))));
  });
  return row;
}

const shortly = (value) => (typeof value === "object" ? JSON.stringify(value) : String(value));

function more() {
  const reset = button("reuse", { text: "reset", class: "quiet" }, async () => {
    if (!(await confirm("reset_ask", {}, "reset"))) return;
    clearStart();
    change(structuredClone(DEFAULTS));
  });
  return h("details", {}, h("summary", { text: "more" }),
    h("div", { class: "pair" },
      choice("grid", () => [["", t("auto")], ...named(server.options.grids ?? [])]),
      figure("eta", () => [0, 1, 0.1], () => null)),
    h("div", { class: "pair" },
      dial("rescale", () => [0, 1, 0.05], () => 0),
      dial("preview", () => [0, 10, 1], () => 1)),
    reset);
}

/** The seed of the newest picture of this page. */
function lastSeed() {
  const all = [...jobs.values()].flatMap((job) => job.images);
  const newest = all.sort((a, b) => String(b.created).localeCompare(String(a.created)))[0];
  if (!newest) toast(t("no_seed"));
  return newest?.seed ?? null;
}

/**
 * The fields of POST /api/jobs that the settings ask for; pictures go beside them.
 * @param {import("./state.js").Settings} wish
 */
export function fieldsOf(wish) {
  const { boxes, extra, film, explain, preview, model: name, ...rest } = wish;
  const fields = { ...extra };
  for (const [field, value] of Object.entries(rest)) {
    if (value !== null && value !== "") fields[field] = value;
  }
  if (name && name !== server.models[0]?.name) fields.model = name;
  if (boxes.length && takes("boxes")) fields.boxes = boxes;
  return { ...fields, prompt: wish.prompt, film, explain, preview };
}

/** Post what the form says. What the server refuses stands under its field. */
export async function generate() {
  blame();
  // Ctrl+Enter leaves the field that was typed into last: what stands there counts.
  document.querySelector("#form :focus")?.dispatchEvent(new Event("change"));
  if (model()?.kind === "text" && !settings.prompt.trim() && !started()) {
    return blame("prompt", t("prompt_empty"));
  }
  return attempt(async () => {
    try {
      const files = await startFiles();
      const fields = fieldsOf(settings);
      if (!files.image) delete fields.strength;
      emit("open", "create");
      const job = await submit(fields, files);
      // On a narrow screen the stage stands below the form.
      document.querySelector(".stage").scrollIntoView({ block: "nearest", behavior: "smooth" });
      return job;
    } catch (error) {
      if (!(error instanceof Refused) || !document.getElementById(`f-${error.field}`)) throw error;
      blame(error.field, error.message);
      return undefined;
    }
  });
}
