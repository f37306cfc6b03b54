// The page: builds its parts, switches between them, and keeps the connection in sight.
import { Offline, json, present, wait } from "./api.js";
import { buildCompare } from "./compare.js";
import { buildDetail } from "./detail.js";
import { attempt, announce, h, say, sayAll, segmented, toast } from "./dom.js";
import { buildForm, generate } from "./form.js";
import { buildGallery } from "./gallery.js";
import { buildResults } from "./results.js";
import { restore } from "./jobs.js";
import { emit, model, on, remember, server } from "./state.js";
import { buildStage } from "./stage.js";
import { LANGUAGES, language, speak, t } from "./words.js";

const VIEWS = ["create", "gallery", "compare"];
const find = (selector) => document.querySelector(selector);
let gallery;

/** One of three views; the address remembers which, so that Back goes back. */
function open(name) {
  const view = VIEWS.includes(name) ? name : "create";
  for (const one of VIEWS) {
    const tab = find(`nav [href="#${one}"]`);
    if (one === view) tab.setAttribute("aria-current", "page");
    else tab.removeAttribute("aria-current");
  }
  // The comparison varies what the form says, so the form stays beside it.
  find("#bench").hidden = view === "gallery";
  find("#make").hidden = view !== "create";
  find("#grid-view").hidden = view !== "compare";
  find("#gallery-view").hidden = view !== "gallery";
  document.body.dataset.view = view;
  if (view === "gallery") gallery.open();
}

function routes() {
  const go = () => open(location.hash.slice(1));
  // #main is where the link past the head leads: the view stays.
  addEventListener("hashchange", () => location.hash === "#main" || go());
  on("open", (name) => {
    if (location.hash !== `#${name}`) location.hash = name;
  });
  go();
}

function head() {
  const languages = segmented("language", [], language(), () => {});
  for (const [code, name] of LANGUAGES) {
    languages.append(h("button", { type: "button", value: code, lang: code,
      "aria-pressed": String(code === language()),
      on: { click: () => attempt(() => change(code, languages)) } }, name));
  }
  find("#switches").prepend(languages);
  find("#theme").addEventListener("click", theme);
  find("#help").addEventListener("click", help);
  for (const one of document.querySelectorAll("[data-say]")) say(one, "text", one.dataset.say);
  for (const one of document.querySelectorAll("[data-label]")) {
    say(one, "label", one.dataset.label);
    if (one.matches("button")) say(one, "tip", one.dataset.label);
  }
}

async function change(code, languages) {
  await speak(code);
  remember("language", code);
  languages.press(code);
  emit("language");
  sayAll();
  document.title = t("title");
}

function theme() {
  const dark = matchMedia("(prefers-color-scheme: dark)").matches;
  const now = document.documentElement.dataset.theme ?? (dark ? "dark" : "light");
  const next = now === "dark" ? "light" : "dark";
  document.documentElement.dataset.theme = next;
  remember("theme", next);
  announce(`theme_${next}`);
}

const KEYS = [["Ctrl ⏎", "key_generate"], ["/", "key_search"], ["1 2 3", "key_views"],
  ["← →", "key_walk"], ["Esc", "key_close"], ["[ ]", "key_brush"], ["E", "key_erase"],
  ["I", "key_invert"], ["Ctrl Z", "key_undo"], ["?", "key_help"]];

function help() {
  const dialog = h("dialog", { class: "help", label: "keys" }, h("h2", { text: "keys" }),
    h("dl", {}, ...KEYS.flatMap(([keys, what]) => [h("dt", {}, h("kbd", {}, keys)),
      h("dd", { text: what })])),
    h("form", { method: "dialog" }, h("button", { text: "close", class: "primary" }),
      h("a", { href: "/api/docs", text: "api" })));
  dialog.addEventListener("close", () => dialog.remove());
  document.body.append(dialog);
  dialog.showModal();
}

function shortcuts() {
  addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
      event.preventDefault();
      if (!event.repeat) generate();
      return;
    }
    const typing = event.target.closest?.(
      "input:not([type=range], [type=checkbox]), textarea, select, dialog");
    if (typing || event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === "/") {
      emit("open", "gallery");
      setTimeout(() => find("#search").focus());
    } else if (event.key === "?") help();
    else if ("123".includes(event.key)) emit("open", VIEWS[Number(event.key) - 1]);
    else return;
    event.preventDefault();
  });
}

/** What happened to the service is said, and that the jobs go on. */
function connection() {
  const banner = find("#offline");
  on("offline", () => {
    banner.hidden = false;
    say(banner, "text", "offline");
  });
  on("online", () => {
    banner.hidden = true;
    toast(t("online"));
    attempt(ask);
  });
}

let asking = false;

/** The server's models and options; a model tells more once a worker has opened it. */
async function ask() {
  if (asking) return;
  asking = true;
  try {
    server.options = await json("/api/options");
    for (let pause = 0.5; ; pause = Math.min(pause * 1.5, 10)) {
      server.models = (await json("/api/models")).models;
      emit("server");
      if (model().known) return;
      await wait(pause);
    }
  } finally {
    asking = false;
  }
}

function learn() {
  const unknown = () => !server.models.every((one) => one.known);
  on("settings", (patch) => "model" in patch && unknown() && attempt(ask));
  on("job", (job) => job.state === "done" && unknown() && attempt(ask));
}

async function begin() {
  for (;;) {
    try {
      await restore();
      return await ask();
    } catch (error) {
      if (!(error instanceof Offline)) throw error;
      await present();
    }
  }
}

head();
document.title = t("title");
connection();
buildForm(find("#panel"));
buildStage(find("#make"));
buildResults(find("#make"));
buildCompare(find("#grid-view"));
gallery = buildGallery(find("#gallery-view"));
buildDetail();
routes();
shortcuts();
learn();
attempt(begin);
