// A brush that paints what is to be repainted over a picture, with the mouse, a pen or the keys.
import { announce, button, h, say, track } from "./dom.js";
import { t } from "./words.js";

const KEYS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

/** The mask is a list of strokes, replayed on a canvas of the picture's size: undo is exact. */
export class MaskBrush {
  /**
   * @param {HTMLCanvasElement} picture of the size that the mask will have
   * @param {?ImageBitmap} first a mask to begin with, white = repaint
   */
  constructor(picture, first = null) {
    this.picture = picture;
    this.first = first;
    this.strokes = [];
    this.undone = [];
    this.erasing = false;
    this.size = Math.round(Math.min(picture.width, picture.height) / 5); // pixels across
    this.at = [picture.width / 2, picture.height / 2]; // where the keys paint
    this.layer = h("canvas", { width: picture.width, height: picture.height });
    this.build();
    this.replay();
  }

  build() {
    this.view = h("canvas", { class: "mask-canvas", tabIndex: 0, role: "application",
      width: this.picture.width, height: this.picture.height, label: "mask_label" });
    this.view.addEventListener("contextmenu", (event) => event.preventDefault()); // it erases
    this.view.addEventListener("pointerdown", (event) => this.begin(event));
    this.view.addEventListener("pointermove", (event) => this.go(event));
    for (const kind of ["pointerup", "pointercancel"]) {
      this.view.addEventListener(kind, () => this.end());
    }
    this.view.addEventListener("pointerleave", () => this.draw());
    this.view.addEventListener("keydown", (event) => this.key(event));
    this.view.addEventListener("focus", () => this.draw(true));
    this.view.addEventListener("blur", () => this.draw());
    const least = Math.max(2, Math.round(this.layer.width / 64));
    this.slider = h("input", { type: "range", label: "brush_size", tip: "brush_size", min: least,
      max: Math.round(Math.min(this.layer.width, this.layer.height)), value: this.size });
    this.slider.addEventListener("input", () => this.resize(Number(this.slider.value)));
    this.tools = h("div", { class: "tools", role: "toolbar", label: "mask_tools" },
      this.brushButton = button("brush", { label: "brush" }, () => this.erase(false)),
      this.eraser = button("eraser", { label: "eraser" }, () => this.erase(true)),
      this.slider,
      this.undoButton = button("undo", { label: "undo" }, () => this.undo()),
      this.redoButton = button("redo", { label: "redo" }, () => this.redo()),
      button("invert", { label: "invert" }, () => this.add({ kind: "invert" })),
      button("trash", { label: "clear" }, () => this.add({ kind: "clear" })));
    this.note = h("p", { class: "note" });
    this.element = h("div", { class: "mask" }, this.tools, this.view, this.note);
    track(this.slider);
    this.erase(false);
  }

  /** Where a pointer is, in pixels of the picture. */
  place(event) {
    const box = this.view.getBoundingClientRect();
    return [((event.clientX - box.left) * this.layer.width) / box.width,
      ((event.clientY - box.top) * this.layer.height) / box.height];
  }

  begin(event) {
    event.preventDefault();
    this.view.focus({ preventScroll: true });
    this.view.setPointerCapture(event.pointerId);
    // A pen's other end and the right button erase, as in any paint program.
    const erasing = this.erasing || event.button === 5 || event.button === 2;
    this.at = this.place(event);
    this.stroke = { kind: "line", erasing, size: this.size, points: [this.at] };
    this.undone = [];
    this.strokes.push(this.stroke);
    this.replay(true);
  }

  go(event) {
    this.at = this.place(event);
    if (this.stroke) {
      this.stroke.points.push(this.at);
      stamp(this.layer.getContext("2d"), { ...this.stroke, points: this.stroke.points.slice(-2) });
    }
    this.draw(true);
  }

  end() {
    this.stroke = null;
    this.tell();
  }

  key(event) {
    const control = event.ctrlKey || event.metaKey;
    const move = KEYS[event.key];
    const action = {
      " ": () => this.dab(), Enter: () => this.dab(), e: () => this.erase(!this.erasing),
      "[": () => this.resize(this.size * 0.8), "]": () => this.resize(this.size * 1.25),
      i: () => this.add({ kind: "invert" }), Delete: () => this.add({ kind: "clear" }),
    }[event.key];
    if (control && event.key.toLowerCase() === "z") event.shiftKey ? this.redo() : this.undo();
    else if (control && event.key.toLowerCase() === "y") this.redo();
    else if (control) return;
    else if (move) this.step(move, event.shiftKey);
    else if (action) action();
    else return;
    event.preventDefault();
  }

  /** Half a brush further; with Shift it paints on its way. */
  step([x, y], painting) {
    const by = Math.max(1, this.size / 2);
    const from = this.at;
    this.at = [Math.min(this.layer.width, Math.max(0, from[0] + x * by)),
      Math.min(this.layer.height, Math.max(0, from[1] + y * by))];
    if (painting) this.add({ kind: "line", erasing: this.erasing, size: this.size,
      points: [from, this.at] });
    this.draw(true);
  }

  dab() {
    this.add({ kind: "line", erasing: this.erasing, size: this.size, points: [this.at] });
    this.draw(true);
  }

  add(stroke) {
    this.strokes.push(stroke);
    this.undone = [];
    this.replay();
  }

  undo() {
    if (this.strokes.length) this.undone.push(this.strokes.pop());
    this.replay();
  }

  redo() {
    if (this.undone.length) this.strokes.push(this.undone.pop());
    this.replay();
  }

  erase(on) {
    this.erasing = on;
    this.brushButton.setAttribute("aria-pressed", String(!on));
    this.eraser.setAttribute("aria-pressed", String(on));
  }

  resize(to) {
    this.size = Math.min(Number(this.slider.max), Math.max(Number(this.slider.min), to));
    this.slider.value = String(this.size);
    track(this.slider);
    this.draw(true);
  }

  /** Paint every stroke anew: white on nothing. */
  replay(quiet = false) {
    const pen = this.layer.getContext("2d", { willReadFrequently: true });
    pen.globalCompositeOperation = "source-over";
    pen.clearRect(0, 0, this.layer.width, this.layer.height);
    if (this.first) whiteness(pen, this.first, this.layer);
    for (const stroke of this.strokes) stamp(pen, stroke);
    this.undoButton.disabled = !this.strokes.length;
    this.redoButton.disabled = !this.undone.length;
    this.draw();
    if (!quiet) this.tell();
  }

  /** The picture, the mask as a veil over it, and the brush where it would paint. */
  draw(cursor = false) {
    const pen = this.view.getContext("2d");
    const { width, height } = this.view;
    pen.clearRect(0, 0, width, height);
    pen.drawImage(this.picture, 0, 0);
    const veil = this.veil ??= h("canvas", { width, height });
    const tint = veil.getContext("2d");
    tint.globalCompositeOperation = "copy";
    tint.drawImage(this.layer, 0, 0);
    tint.globalCompositeOperation = "source-in";
    tint.fillStyle = getComputedStyle(this.view).color;
    tint.fillRect(0, 0, width, height);
    pen.globalAlpha = 0.62;
    pen.drawImage(veil, 0, 0);
    pen.globalAlpha = 1;
    if (!cursor) return;
    const line = width / (this.view.clientWidth || width); // one pixel of the screen
    for (const [colour, wide] of [["#000", 3], ["#fff", 1.5]]) {
      pen.beginPath();
      pen.arc(...this.at, this.size / 2, 0, 2 * Math.PI);
      Object.assign(pen, { strokeStyle: colour, lineWidth: wide * line });
      pen.stroke();
    }
  }

  /** Share of the picture that is painted over, in [0, 1]. */
  share() {
    const small = h("canvas", { width: 64, height: 64 });
    const pen = small.getContext("2d", { willReadFrequently: true });
    pen.drawImage(this.layer, 0, 0, 64, 64);
    const { data } = pen.getImageData(0, 0, 64, 64);
    let sum = 0;
    for (let i = 3; i < data.length; i += 4) sum += data[i];
    return sum / (255 * 64 * 64);
  }

  tell() {
    const share = this.share();
    const percent = Math.max(share > 0 ? 1 : 0, Math.round(100 * share));
    say(this.note, "text", share > 0 ? "masked" : "mask_hint", { percent });
    if (share > 0) announce("masked", { percent });
    this.note.title = t("mask_keys");
  }

  /** The mask as a PNG of the picture's size, white = repaint; null if nothing is painted. */
  async mask() {
    if (this.share() === 0) return null;
    const { width, height } = this.layer;
    const canvas = h("canvas", { width, height });
    const pen = canvas.getContext("2d");
    pen.fillStyle = "#000";
    pen.fillRect(0, 0, width, height);
    pen.drawImage(this.layer, 0, 0);
    return new Promise((done) => canvas.toBlob(done, "image/png"));
  }
}

function stamp(pen, stroke) {
  const { width, height } = pen.canvas;
  pen.globalCompositeOperation = stroke.erasing ? "destination-out" : "source-over";
  if (stroke.kind === "clear") return pen.clearRect(0, 0, width, height);
  if (stroke.kind === "invert") {
    // White where nothing was, nothing where white was.
    pen.globalCompositeOperation = "source-out";
    pen.fillStyle = "#fff";
    return pen.fillRect(0, 0, width, height);
  }
  Object.assign(pen, { lineCap: "round", lineJoin: "round", lineWidth: stroke.size });
  pen.strokeStyle = "#fff";
  pen.beginPath();
  pen.moveTo(...stroke.points[0]);
  for (const point of stroke.points) pen.lineTo(...point);
  return pen.stroke();
}

/** A mask's brightness as opacity of white. */
function whiteness(pen, bitmap, { width, height }) {
  pen.drawImage(bitmap, 0, 0, width, height);
  const pixels = pen.getImageData(0, 0, width, height);
  for (let i = 0; i < pixels.data.length; i += 4) {
    pixels.data[i + 3] = pixels.data[i];
    pixels.data.fill(255, i, i + 3);
  }
  pen.putImageData(pixels, 0, 0);
}
