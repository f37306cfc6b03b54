// The form's parts: each shows one setting and changes it. `null` shows what the model does then.
import { button, h, track } from "./dom.js";
import { DEFAULTS, change, on, settings } from "./state.js";
import { known } from "./words.js";

/**
 * A label, a control, and a place for what is wrong with it.
 * @param {string} name of the setting, and key of its label
 * @param {HTMLElement} control
 * @param {...Node} beside the label
 */
export function field(name, control, ...beside) {
  control.id ||= `f-${name}`;
  control.setAttribute("aria-describedby", `e-${name}`);
  return h("div", { class: `field field-${name}` },
    h("div", { class: "field-head" },
      h("label", { htmlFor: control.id, text: name, tip: tip(name) }), ...beside),
    control,
    h("p", { class: "field-error", id: `e-${name}`, hidden: true }));
}

const tip = (name) => (known(`${name}_tip`) ? `${name}_tip` : undefined);

/** Keep a control up to date: `show` runs now, after changes of `names`, and of the models. */
export function bound(names, show) {
  on("settings", (patch) => {
    if (names.some((name) => name in patch)) show();
  });
  on("server", show);
  on("language", show);
  show();
}

/** Write what is wrong under its field; no `name` clears all. */
export function blame(name, message) {
  for (const place of document.querySelectorAll(".field-error")) {
    const mine = name !== undefined && place.id === `e-${name}`;
    place.hidden = !mine;
    place.textContent = mine ? message : "";
    const control = document.getElementById(place.id.replace("e-", "f-"));
    if (!control) continue;
    if (mine) {
      control.setAttribute("aria-invalid", "true");
      control.closest("details")?.setAttribute("open", "");
      control.focus();
    } else control.removeAttribute("aria-invalid");
  }
}

/** Text of several lines that grows with what is typed. */
export function lines(name, rows, placeholder) {
  const area = h("textarea", { rows, hint: placeholder, spellcheck: false, autocomplete: "off" });
  area.addEventListener("input", () => change({ [name]: area.value }));
  bound([name], () => {
    if (area.value !== settings[name]) area.value = settings[name];
  });
  return field(name, area);
}

/** A slider with its number. `usual()` is what null means; `range()` gives [least, most, step]. */
export function dial(name, range, usual) {
  const slider = h("input", { type: "range", label: name, tabIndex: 0 });
  const number = h("input", { type: "number", class: "number", inputMode: "decimal" });
  const set = (text) => {
    const value = text === "" ? null : Number(text);
    if (value === null || Number.isFinite(value)) change({ [name]: value ?? DEFAULTS[name] });
  };
  slider.addEventListener("input", () => set(slider.value));
  number.addEventListener("change", () => set(number.value));
  bound([name, "model"], () => {
    const [least, most, step] = range();
    Object.assign(slider, { min: least, max: most, step });
    Object.assign(number, { min: least, step });
    const value = settings[name] ?? usual();
    slider.disabled = value === null; // no worker has opened the model yet
    if (value === null) return;
    slider.value = number.value = String(value);
    track(slider);
  });
  const whole = field(name, number);
  whole.classList.add("dial");
  whole.querySelector(".field-head").append(number);
  whole.insertBefore(slider, whole.lastElementChild);
  return whole;
}

/** A number on its own. Empty = `empty()`, said as the placeholder. */
export function figure(name, range, empty) {
  const number = h("input", { type: "number" });
  number.addEventListener("change", () => {
    const value = number.value === "" ? null : Number(number.value);
    change({ [name]: value ?? DEFAULTS[name] });
  });
  bound([name, "model"], () => {
    const [least, most, step] = range();
    Object.assign(number, { min: least, max: most, step });
    number.value = settings[name] ?? "";
    number.placeholder = empty() ?? "";
  });
  return field(name, number);
}

/** A list to choose from. `options()` gives [value, words][]; "" stands for null. */
export function choice(name, options) {
  const select = h("select");
  select.addEventListener("change", () => change({ [name]: select.value || null }));
  bound([name, "model"], () => {
    select.replaceChildren(...options().map(([value, words]) => h("option", { value }, words)));
    select.value = settings[name] ?? "";
    // A reused picture may name what this server does not list: it is shown as it is.
    if (select.value !== (settings[name] ?? "")) {
      select.append(h("option", { value: settings[name] }, settings[name]));
      select.value = settings[name];
    }
  });
  return field(name, select);
}

/** Yes or no. */
export function toggle(name) {
  const box = h("input", { type: "checkbox", role: "switch", id: `f-${name}` });
  box.addEventListener("change", () => change({ [name]: box.checked }));
  bound([name], () => { box.checked = Boolean(settings[name]); });
  return h("label", { class: "toggle", tip: tip(name) }, box,
    h("span", { class: "knob" }), h("span", { text: name }));
}

/** A seed, with the ways to get one: none (another each time), or the one of `last()`. */
export function seed(last) {
  const number = h("input", { type: "text", inputMode: "numeric", hint: "random",
    autocomplete: "off" });
  number.addEventListener("change", () => {
    const value = number.value.trim();
    const right = /^\d{1,15}$/.test(value);
    change({ seed: right ? Number(value) : null });
  });
  bound(["seed"], () => { number.value = settings.seed ?? ""; });
  const keep = button("keep", { label: "keep_seed" }, () => {
    if (last() !== null) change({ seed: last() });
  });
  const random = button("dice", { label: "random_seed" }, () => change({ seed: null }));
  bound(["seed"], () => random.setAttribute("aria-pressed", String(settings.seed === null)));
  const whole = field("seed", number);
  const row = h("div", { class: "joined" });
  number.replaceWith(row);
  row.append(number, random, keep);
  return whole;
}
