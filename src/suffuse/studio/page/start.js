// The picture to start from: dropped, pasted, chosen or handed over, with a mask to paint on it.
import { blob } from "./api.js";
import { announce, attempt, button, h, say, toast } from "./dom.js";
import { dial } from "./fields.js";
import { MaskBrush } from "./mask.js";
import { change, emit, model, server, settings, usualSize } from "./state.js";
import { t } from "./words.js";

const LARGEST = 2048; // pixels a side: larger pictures are made smaller here, not by the server

let picture = null; // {blob, width, height}
let section;
let work; // the brush, then what goes with it
let note;
/** @type {MaskBrush} */
let brush;

/** @returns {HTMLElement} */
export function startSection() {
  const file = h("input", { type: "file", accept: "image/*", id: "f-image", class: "unseen" });
  file.addEventListener("change", () => {
    if (file.files[0]) attempt(() => startFrom(file.files[0]));
    file.value = "";
  });
  const drop = h("label", { class: "drop", htmlFor: "f-image" }, file,
    h("span", { text: "drop" }), h("small", { text: "drop_tip" }));
  note = h("p", { class: "note" });
  work = h("div", { class: "start-work", hidden: true }, h("div"), note,
    dial("strength", () => [0.05, 1, 0.05], () => 0.8),
    button("close", { text: "start_remove", class: "quiet" }, clearStart));
  section = h("details", { class: "start" }, h("summary", { text: "start" }), drop, work,
    h("p", { class: "field-error", id: "e-image", hidden: true }));
  receive();
  return section;
}

/** Drops and pastes anywhere on the page, unless something else is being typed into. */
function receive() {
  const files = (event) => [...(event.dataTransfer ?? event.clipboardData)?.files ?? []];
  addEventListener("dragover", (event) => {
    if ([...event.dataTransfer.types].includes("Files")) {
      event.preventDefault();
      document.body.classList.add("dropping");
    }
  });
  addEventListener("dragleave", (event) => {
    if (!event.relatedTarget) document.body.classList.remove("dropping");
  });
  for (const kind of ["drop", "paste"]) {
    addEventListener(kind, (event) => {
      document.body.classList.remove("dropping");
      const all = files(event);
      const found = all.find((one) => one.type.startsWith("image/"));
      // A dropped file that is none must not be opened by the browser in the page's place.
      if (!found && (kind === "paste" || !all.length)) return;
      event.preventDefault();
      emit("open", "create");
      attempt(() => startFrom(found ?? all[0]));
    });
  }
}

/**
 * @param {Blob} given a picture's file
 * @param {?Blob} mask of the same size, white = repaint
 */
export async function startFrom(given, mask = null) {
  let bitmap;
  try {
    bitmap = await createImageBitmap(given);
  } catch {
    throw new Error(t("no_picture"));
  }
  const scale = Math.min(1, LARGEST / Math.max(bitmap.width, bitmap.height));
  const [width, height] = [bitmap.width, bitmap.height].map((x) => Math.round(x * scale));
  picture = { blob: given, width, height };
  const canvas = h("canvas", { width, height });
  canvas.getContext("2d").drawImage(bitmap, 0, 0, width, height);
  const limit = server.options.limits?.body ?? 32 << 20;
  if (scale < 1 || given.size > limit / 4) {
    picture.blob = await new Promise((done) => canvas.toBlob(done, "image/png"));
  }
  change(fitting(width, height));
  brush = new MaskBrush(canvas, mask && await createImageBitmap(mask));
  fill(width, height);
  section.open = true;
  announce("started", { width, height });
}

/** The size of what will be made: the picture's shape with about the model's number of pixels. */
function fitting(width, height) {
  const step = model()?.factor ?? 8;
  const usual = usualSize();
  const scale = Math.sqrt((usual[0] * usual[1]) / (width * height));
  const near = (x) => Math.max(step, Math.round((x * scale) / step) * step);
  const size = [near(width), near(height)];
  if (size.join() === usual.join()) return { width: null, height: null };
  return { width: size[0], height: size[1] };
}

function fill(width, height) {
  work.firstElementChild.replaceWith(brush.element);
  say(note, "text", "start_size", { width, height });
  work.hidden = false;
  section.classList.add("filled");
}

export function clearStart() {
  picture = brush = null;
  work.firstElementChild.replaceWith(h("div"));
  work.hidden = true;
  section.classList.remove("filled");
  change({ width: null, height: null });
}

/** What a job sends beside its fields. @returns {Promise<{image?: Blob, mask?: Blob}>} */
export async function startFiles() {
  if (!picture) return {};
  const mask = await brush.mask();
  return mask ? { image: picture.blob, mask } : { image: picture.blob };
}

/** Whether there is a picture to start from. */
export const started = () => picture !== null;

/**
 * The pictures that a job of before was given, fetched again.
 * @param {any} request as the server tells it
 */
export async function filesOf(request) {
  const files = {};
  for (const name of ["image", "mask"]) {
    if (request[name]?.url) files[name] = await blob(request[name].url);
  }
  return files;
}

/** Start from a picture of the gallery. */
export async function startFromImage(image) {
  await startFrom(await blob(image.url));
  change({ prompt: settings.prompt || image.prompt });
  toast(t("started_short"));
  section.scrollIntoView({ block: "nearest", behavior: "smooth" });
}
