// What the page knows: the settings of the form, kept between visits, and what the server told.

const KEY = "suffuse.settings";

/**
 * The form. `null` means the model's own default.
 * @typedef {{model: ?string, prompt: string, negative: string, sampler: ?string, grid: ?string,
 *   steps: ?number, guidance: ?number, seed: ?number, n: number, width: ?number, height: ?number,
 *   strength: number, eta: ?number, rescale: number, film: boolean, explain: boolean,
 *   preview: number, boxes: [string, number, number, number, number][],
 *   extra: Record<string, unknown>}} Settings
 */

/** @type {Settings} */
export const DEFAULTS = {
  model: null, prompt: "", negative: "", sampler: null, grid: null, steps: null, guidance: null,
  seed: null, n: 1, width: null, height: null, strength: 0.8, eta: null, rescale: 0,
  film: false, explain: false, preview: 1, boxes: [],
  extra: {}, // fields of a reused request that the form has no place for
};

/** @type {Settings} */
export const settings = { ...structuredClone(DEFAULTS), ...stored() };

/** What `/api/models` and `/api/options` answered. */
export const server = { models: [], options: {} };

const bus = new EventTarget();

function stored() {
  try {
    const found = JSON.parse(localStorage.getItem(KEY) ?? "{}");
    return Object.fromEntries(Object.entries(found).filter(([name]) => name in DEFAULTS));
  } catch {
    return {}; // storage is switched off or holds something else: begin anew
  }
}

/** Remember a word or two beside the settings; a browser without storage forgets. */
export function remember(name, value) {
  try {
    if (value === null) localStorage.removeItem(`suffuse.${name}`);
    else localStorage.setItem(`suffuse.${name}`, value);
  } catch { /* nothing to do */ }
}

/** @returns {?string} */
export function recall(name) {
  try { return localStorage.getItem(`suffuse.${name}`); } catch { return null; }
}

/** @param {Partial<Settings>} patch */
export function change(patch) {
  Object.assign(settings, patch);
  remember("settings", JSON.stringify(settings));
  emit("settings", patch);
}

/** Kinds: settings, server, job, image, deleted, online, offline, language, open. */
export function emit(kind, detail) {
  bus.dispatchEvent(new CustomEvent(kind, { detail }));
}

/** @returns {() => void} stops listening */
export function on(kind, listener) {
  const heard = (event) => listener(event.detail);
  bus.addEventListener(kind, heard);
  return () => bus.removeEventListener(kind, heard);
}

/** The model that the form names, or the default one; `undefined` before the server answered. */
export function model() {
  return server.models.find((one) => one.name === settings.model) ?? server.models[0];
}

/** Whether the form's model takes `what`: prompt, classes, boxes, image, mask. */
export const takes = (what) => Boolean(model()?.takes?.includes(what));

/** Width and height in pixels that the form's model draws unasked. */
export function usualSize() {
  const { width, height } = model()?.defaults ?? {};
  return [width ?? 512, height ?? 512];
}

/** Width and height in pixels that a job of the form would have. */
export function size() {
  const [width, height] = usualSize();
  return [settings.width ?? width, settings.height ?? height];
}
