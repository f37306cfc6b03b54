// One picture, large: its settings, its film, how it came about, and what can be done with it.
import { blob, call } from "./api.js";
import { announce, attempt, button, confirm, h, large, save, segmented, toast } from "./dom.js";
import { explainView } from "./explain.js";
import { filmView } from "./film.js";
import { again, reuse } from "./reuse.js";
import { emit, on, server } from "./state.js";
import { startFromImage } from "./start.js";
import { t, when } from "./words.js";

let dialog;
let image; // that is shown
let among = []; // what the arrows walk through
let view = "picture";
let part; // the film or the explanation that is open

export function buildDetail() {
  dialog = h("dialog", { class: "detail", id: "detail", label: "detail", tabIndex: -1 });
  dialog.addEventListener("close", stop);
  dialog.addEventListener("click", (event) => {
    if (event.target === dialog) dialog.close(); // beside it
  });
  dialog.addEventListener("keydown", (event) => {
    const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!by || event.target.closest("input, select, [role=application], .words")) return;
    walk(by);
  });
  document.body.append(dialog);
  on("detail", (what) => open(what.image, what.among, what.view));
  on("deleted", (id) => {
    if (image?.id === id && dialog.open) dialog.close();
  });
}

function open(what, others, how = "picture") {
  among = others ?? [what];
  view = how;
  put(what);
  if (!dialog.open) dialog.showModal();
}

function walk(by) {
  const at = among.findIndex((one) => one.id === image.id) + by;
  if (among[at]) put(among[at]);
}

function stop() {
  part?.stop?.();
  part = null;
}

function put(what) {
  stop();
  image = what;
  const at = among.findIndex((one) => one.id === image.id);
  const arrow = (name, label, by) => button(name,
    { label, class: "quiet", disabled: !among[at + by] }, () => walk(by));
  const tabs = segmented("views",
    [["picture", "picture"], ["film", "film"], ["explain", "explain"]], view, (chosen) => {
      view = chosen;
      look(place);
    });
  const place = h("div", { class: "look" });
  const held = [...dialog.querySelectorAll("header button")].indexOf(document.activeElement);
  dialog.replaceChildren(
    h("header", {}, arrow("left", "previous", -1), arrow("right", "next", 1), tabs,
      button("close", { label: "close", class: "quiet" }, () => dialog.close())),
    h("div", { class: "detail-body" }, place, about()));
  look(place);
  // What had the focus is gone; without any, the next arrow key would be lost.
  const same = dialog.querySelectorAll("header button")[held];
  if (dialog.open) (same && !same.disabled ? same : dialog).focus();
  announce("open_picture", { prompt: image.prompt, seed: image.seed });
}

/** The picture itself, its film, or how it works. */
function look(place) {
  stop();
  if (view === "film" && image.film) part = filmView(image);
  else if (view === "explain" && image.explanation) part = explainView(image);
  else if (view !== "picture") part = missing(place);
  else {
    const alt = t("picture_of", { prompt: image.prompt });
    part = h("img", { class: "large", alt, style: large(image), src: image.url });
  }
  place.replaceChildren(part);
}

/** Nothing was recorded: the seed is known, so it can be now. */
function missing(place) {
  const shown = image;
  const go = button("spark", { text: `${view}_make`, class: "primary" }, () => attempt(async () => {
    go.disabled = true;
    go.lastChild.textContent = t("running");
    try {
      const made = await again(shown, { [view]: true });
      if (!made || !dialog.open || image.id !== shown.id) return;
      among = [made, ...among];
      put(made);
    } finally {
      if (place.isConnected) look(place);
    }
  }));
  return h("div", { class: "missing" }, h("img", { alt: "", src: image.url }),
    h("p", { text: `${view}_missing` }), go);
}

/** What it was made of, and what to do next. */
function about() {
  const { request } = image;
  const rows = [
    ["negative", image.negative], ["model", image.model], ["sampler", title(image.sampler)],
    ["grid", request.grid], ["steps", image.steps], ["guidance", image.guidance],
    ["rescale", request.rescale || null], ["eta", request.eta],
    ["strength", request.image ? request.strength : null], ["seed", image.seed],
    ["size", `${image.width} × ${image.height}`],
    ["boxes", request.boxes?.map(([label]) => label).join(", ")],
    ["created", when(image.created)],
  ];
  return h("aside", { class: "about" },
    h("p", { class: "about-prompt" }, image.prompt),
    h("dl", {}, ...rows.filter(([, value]) => value !== null && value !== undefined && value !== "")
      .flatMap(([name, value]) => [h("dt", { text: name }), h("dd", {}, String(value))])),
    request.image?.url ? sources(request) : null,
    h("div", { class: "actions" },
      button("reuse", { text: "reuse", class: "primary" }, () => leave(() => reuse(image))),
      button("image", { text: "start_from" }, () => leave(() => startFromImage(image))),
      button("download", { text: "download" }, download),
      button("copy", { text: "copy_seed" }, () => copy(image.seed, "seed_copied")),
      button("copy", { text: "copy_text" }, () => copy(image.infotext, "text_copied")),
      button("trash", { text: "delete", class: "danger" }, () => remove(image))));
}

const title = (name) => server.options.samplers?.find((one) => one.name === name)?.title ?? name;

function sources(request) {
  const small = (name) => request[name]?.url &&
    h("figure", {}, h("img", { alt: "", src: request[name].url }), h("figcaption", { text: name }));
  return h("div", { class: "sources" }, small("image"), small("mask"));
}

function leave(action) {
  dialog.close();
  attempt(action);
}

function download() {
  const name = image.prompt.replace(/[^\p{L}\p{N}]+/gu, "-").slice(0, 40);
  attempt(async () => save(await blob(image.url), `${name}-${image.seed}.png`));
}

function copy(what, key) {
  attempt(async () => {
    // Browsers have a clipboard for safe addresses only; elsewhere it is shown, to be marked.
    if (!navigator.clipboard) return toast(String(what), "kept");
    await navigator.clipboard.writeText(String(what));
    return toast(t(key));
  });
}

/** @param {any} what an image; asks first, for there is no way back */
export async function remove(what) {
  if (!(await confirm("delete_ask", { prompt: what.prompt }, "delete"))) return;
  await attempt(async () => {
    await call(`/api/images/${what.id}`, { method: "DELETE" });
    emit("deleted", what.id);
    announce("deleted");
  });
}
