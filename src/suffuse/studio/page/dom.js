// Elements, words on them, messages. Text goes into the page as text only: nothing parses HTML.
import { t } from "./words.js";
import { PATHS } from "./icons.js";

/** Attributes that hold words, by the name they have in `h`. */
const SPOKEN = { text: "textContent", label: "aria-label", tip: "title", hint: "placeholder" };

/** What stands on which element, so that a change of language can say it again. */
const said = new WeakMap();

/**
 * Say `key` of words.js on an element, now and after every change of language.
 * @param {Element} element
 * @param {"text"|"label"|"tip"|"hint"} where
 * @param {string} key
 * @param {Record<string, unknown>} [values] what stands in the sentence's {braces}
 */
export function say(element, where, key, values = {}) {
  if (!said.has(element)) said.set(element, {});
  said.get(element)[where] = [key, values];
  element.toggleAttribute("data-t", true);
  put(element, where, t(key, values));
  return element;
}

function put(element, where, words) {
  if (where === "text") element.textContent = words;
  else element.setAttribute(SPOKEN[where], words);
}

/** Say everything again, in the language of now. */
export function sayAll(root = document) {
  for (const element of root.querySelectorAll("[data-t]")) {
    for (const [where, [key, values]] of Object.entries(said.get(element) ?? {})) {
      put(element, where, t(key, values));
    }
  }
}

/**
 * An element. `text`, `label`, `tip`, `hint` take a key of words.js or [key, values]; `on` takes
 * listeners; `style` an object (set through the CSSOM, which the policy allows); all else becomes
 * a property where the element has one, an attribute otherwise.
 * @param {string} tag
 * @param {Record<string, any>} [props]
 * @param {...(Node|string|null|undefined|false)} children
 * @returns {any}
 */
export function h(tag, props = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(props)) {
    if (value === undefined || value === null) continue;
    if (name in SPOKEN) say(element, name, ...[value].flat());
    else if (name === "on") listen(element, value);
    else if (name === "style") Object.assign(element.style, value);
    else if (name === "class") element.className = value;
    else if (name in element && name !== "list") element[name] = value;
    else if (typeof value === "boolean" && !name.startsWith("aria-")) {
      element.toggleAttribute(name, value);
    } else element.setAttribute(name, value);
  }
  element.append(...children.filter((child) => child || child === ""));
  return element;
}

function listen(element, listeners) {
  for (const [kind, listener] of Object.entries(listeners)) {
    element.addEventListener(kind, listener);
  }
}

/** A line drawing of icons.js; words beside it or a label say what it means. */
export function icon(name) {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.setAttribute("viewBox", "0 0 24 24");
  svg.setAttribute("aria-hidden", "true");
  svg.classList.add("icon");
  const path = document.createElementNS(svg.namespaceURI, "path");
  path.setAttribute("d", PATHS[name]);
  svg.append(path);
  return svg;
}

/** A button with a picture and words, or with a picture alone, named by `label`. */
export function button(picture, props, click) {
  const { text, label, ...rest } = props;
  const words = text && h("span", { text });
  return h(
    "button",
    { type: "button", label, tip: text ? undefined : label, ...rest, on: { click } },
    picture && icon(picture),
    words,
  );
}

/** A group of which one button is pressed. `options` is [value, key of words][]. */
export function segmented(label, options, value, change) {
  const group = h("div", { class: "segmented", role: "group", label });
  const press = (chosen) => {
    for (const one of group.children) {
      one.setAttribute("aria-pressed", String(one.value === chosen));
    }
  };
  for (const [name, key] of options) {
    group.append(h("button", {
      type: "button", value: name, text: key, on: { click: () => { press(name); change(name); } },
    }));
  }
  press(value);
  group.press = press;
  return group;
}

/** Colour a slider's track up to its thumb, which a stylesheet cannot know. */
export function track(slider) {
  const [least, most] = [Number(slider.min), Number(slider.max)];
  const part = (Number(slider.value) - least) / Math.max(1e-9, most - least);
  slider.style.setProperty("--part", `${100 * part}%`);
}

/** The style of a large picture: all of it is seen, and small ones not as nothing but pixels. */
export function large({ width, height }) {
  return { width: `min(100%, ${3.5 * width}px, ${(66 * width) / height}vh)` };
}

const live = document.querySelector("#live");
const toasts = document.querySelector("#toasts");

/** What lies outside an open dialog is dark and silent, so what is to be told goes into it. */
function bring(place) {
  const front = [...document.querySelectorAll("dialog[open]")].at(-1) ?? document.body;
  if (place.parentNode !== front) front.append(place);
}

/** Tell those who listen instead of look. */
export function announce(key, values = {}) {
  bring(live);
  live.textContent = t(key, values);
}

/** A note goes by itself; an error, or what is "kept", stays until it is closed. */
export function toast(words, kind = "note") {
  const note = h("div", { class: `toast ${kind}`, role: kind === "error" ? "alert" : "status" },
    h("p", {}, words));
  note.append(button("close", { label: "close", class: "quiet" }, () => note.remove()));
  bring(toasts);
  toasts.append(note);
  while (toasts.children.length > 4) toasts.firstElementChild.remove();
  if (kind === "note") setTimeout(() => note.remove(), 6000);
}

/** Run something a person asked for; what goes wrong is said in one sentence. */
export async function attempt(work) {
  try {
    return await work();
  } catch (error) {
    if (error?.name !== "AbortError") toast(String(error?.message ?? error), "error");
    return undefined;
  }
}

/** Ask before what cannot be undone. */
export function confirm(key, values, action) {
  return new Promise((answer) => {
    const yes = h("button", { class: "danger", value: "yes", text: action });
    const no = h("button", { value: "no", text: "keep", autofocus: true });
    const dialog = h("dialog", { class: "ask", label: [key, values], closedBy: "any" },
      h("form", { method: "dialog" }, h("p", { text: [key, values] }), h("menu", {}, no, yes)));
    dialog.addEventListener("close", () => {
      dialog.remove();
      answer(dialog.returnValue === "yes");
    });
    document.body.append(dialog);
    dialog.showModal();
  });
}

/** Save a blob as a file of the person's computer. */
export function save(blob, name) {
  const link = h("a", { href: URL.createObjectURL(blob), download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}

/** Arrow keys, Home and End walk through the buttons of a grid as they do in a file manager. */
export function walkable(grid, selector) {
  grid.addEventListener("keydown", (event) => {
    const all = [...grid.querySelectorAll(selector)];
    const at = all.indexOf(document.activeElement);
    if (at < 0) return;
    const top = all[at].getBoundingClientRect().top;
    const row = all.filter((one) => Math.abs(one.getBoundingClientRect().top - top) < 4).length;
    const by = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -row, ArrowDown: row }[event.key];
    const to = { Home: 0, End: all.length - 1 }[event.key] ?? (by === undefined ? null : at + by);
    if (to === null || !all[to]) return;
    event.preventDefault();
    all[to].focus();
  });
}
