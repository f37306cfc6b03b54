// Boxes with words: what should stand where, for models that take a layout.
import { announce, button, h } from "./dom.js";
import { bound } from "./fields.js";
import { change, model, on, settings, size, takes } from "./state.js";

const STEP = 0.02; // of the picture, for an arrow key
const LEAST = 0.03; // a box is at least so wide and high

let field;
let list;

/** @returns {HTMLElement} */
export function boxesSection() {
  field = h("div", { class: "box-field", id: "f-boxes", role: "group", label: "boxes_label" });
  list = h("ol", { class: "box-list" });
  const hint = h("p", { class: "note", text: "boxes_unused" });
  const add = button("plus", { text: "box_add" }, () => {
    put([...settings.boxes, ["", 0.3, 0.3, 0.7, 0.7]]);
    list.querySelector("li:last-child input").focus();
  });
  field.addEventListener("pointerdown", draw);
  bound(["boxes", "width", "height"], show);
  bound(["model"], () => { hint.hidden = takes("boxes") || !model()?.known; });
  const section = h("details", { class: "boxes" }, h("summary", { text: "boxes" }),
    h("p", { class: "note", text: "boxes_hint" }), hint, field, list, add,
    h("p", { class: "field-error", id: "e-boxes", hidden: true }));
  on("settings", (patch) => {
    if (patch.boxes?.length) section.open = true;
  });
  return section;
}

const put = (boxes) => change({ boxes });
const limit = (x) => Math.min(1, Math.max(0, x));
const neat = (x) => Number(limit(x).toFixed(3));

function place(event) {
  const box = field.getBoundingClientRect();
  return [limit((event.clientX - box.left) / box.width),
    limit((event.clientY - box.top) / box.height)];
}

/** Drag over the field: a new box, or one that stands there moved. */
function draw(event) {
  if (event.button !== 0) return;
  event.preventDefault();
  const start = place(event);
  const grabbed = event.target.closest(".box");
  const at = grabbed ? Number(grabbed.dataset.at) : settings.boxes.length;
  const old = settings.boxes[at];
  const corner = event.target.closest(".corner");
  grabbed?.focus();
  field.setPointerCapture(event.pointerId);
  const move = (now) => {
    const [x, y] = place(now);
    put(settings.boxes.toSpliced(at, 1, dragged(old, corner, start, [x, y])));
  };
  const end = () => {
    field.removeEventListener("pointermove", move);
    field.removeEventListener("pointerup", end);
    field.removeEventListener("pointercancel", end);
    if (!old && settings.boxes[at]) finish(at);
  };
  field.addEventListener("pointermove", move);
  field.addEventListener("pointerup", end);
  field.addEventListener("pointercancel", end);
}

/** A click is no box; a drawn one asks for its word. */
function finish(at) {
  const [, x0, y0, x1, y1] = settings.boxes[at];
  if (x1 - x0 < LEAST || y1 - y0 < LEAST) put(settings.boxes.toSpliced(at, 1));
  else list.children[at].querySelector("input").focus();
}

function dragged(old, corner, [ax, ay], [x, y]) {
  if (!old) {
    const corners = [Math.min(ax, x), Math.min(ay, y), Math.max(ax, x), Math.max(ay, y)];
    return ["", ...corners.map(neat)];
  }
  if (corner) return grown(old, x - old[3], y - old[4]);
  return moved(old, x - ax, y - ay);
}

function moved([label, x0, y0, x1, y1], dx, dy) {
  const x = Math.min(1 - x1, Math.max(-x0, dx));
  const y = Math.min(1 - y1, Math.max(-y0, dy));
  return [label, ...[x0 + x, y0 + y, x1 + x, y1 + y].map(neat)];
}

function grown([label, x0, y0, x1, y1], dx, dy) {
  return [label, x0, y0, neat(Math.max(x0 + LEAST, x1 + dx)), neat(Math.max(y0 + LEAST, y1 + dy))];
}

function key(event, at) {
  const way = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
  const by = way[event.key]?.map((x) => x * STEP);
  if (event.key === "Delete" || event.key === "Backspace") {
    put(settings.boxes.toSpliced(at, 1));
    announce("box_gone");
  } else if (by) {
    const change = event.shiftKey ? grown : moved;
    put(settings.boxes.toSpliced(at, 1, change(settings.boxes[at], ...by)));
  } else return;
  event.preventDefault();
  field.querySelectorAll(".box")[at]?.focus();
}

/** The boxes on the field, and the list of their words. Elements stay, so that focus does. */
function show() {
  const [width, height] = size();
  field.style.aspectRatio = `${width} / ${height}`;
  const { boxes } = settings;
  while (list.children.length > boxes.length) {
    list.lastElementChild.remove();
    field.lastElementChild.remove();
  }
  while (list.children.length < boxes.length) grow(list.children.length);
  boxes.forEach(([label, x0, y0, x1, y1], at) => {
    const box = field.children[at];
    Object.assign(box.style, { left: `${100 * x0}%`, top: `${100 * y0}%`,
      width: `${100 * (x1 - x0)}%`, height: `${100 * (y1 - y0)}%` });
    box.firstElementChild.textContent = label || String(at + 1);
    box.setAttribute("aria-label", `${at + 1}: ${label}`);
    const input = list.children[at].querySelector("input");
    if (input.value !== label) input.value = label;
  });
}

function grow(at) {
  field.append(h("div", { class: `box tone-${at % 6}`, tabIndex: 0, role: "button",
    "data-at": String(at), tip: "box_keys", on: { keydown: (event) => key(event, at) } },
  h("span", {}), h("i", { class: "corner" })));
  const input = h("input", { type: "text", label: ["box_word", { n: at + 1 }], hint: "box_hint" });
  input.addEventListener("input", () => {
    const [, ...place] = settings.boxes[at];
    put(settings.boxes.toSpliced(at, 1, [input.value, ...place]));
  });
  list.append(h("li", { class: `tone-${at % 6}` }, input,
    button("close", { label: "box_remove", class: "quiet" },
      () => put(settings.boxes.toSpliced(at, 1)))));
}
