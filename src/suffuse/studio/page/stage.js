// The stage: the job of now, its pictures coming out of the noise, and those that wait behind it.
import { attempt, button, h, say } from "./dom.js";
import { active, cancel, cancelAll, jobs } from "./jobs.js";
import { emit, on, usualSize } from "./state.js";
import { t, seconds } from "./words.js";
import { examples } from "./examples.js";

let place;
let shown = null; // id of the job whose cells stand on the stage

/** @param {HTMLElement} parent */
export function buildStage(parent) {
  place = {
    mosaic: h("div", { class: "mosaic" }),
    words: h("p", { class: "stage-words" }),
    bar: h("progress", { max: 1, value: 0, label: "progress" }),
    state: h("p", { class: "stage-state" }),
    cancel: button("close", { text: "cancel", class: "quiet cancel" }, () => {
      if (shown) attempt(() => cancel(shown));
    }),
    all: button("close", { text: "cancel_all", class: "quiet" }, () => attempt(cancelAll)),
    queue: h("ol", { class: "queue", label: "queue" }),
  };
  place.root = h("section", { class: "stage", label: "stage" },
    h("div", { class: "frame" }, place.mosaic, examples()),
    h("div", { class: "stage-line" },
      h("div", { class: "stage-text" }, place.words, place.state), place.cancel, place.all),
    place.bar, place.queue);
  parent.append(place.root);
  on("job", draw);
  on("deleted", draw);
  on("language", draw);
  draw();
}

/** The job to look at: the one that runs, else the first that waits, else the last that ended. */
function current() {
  const all = [...jobs.values()].filter((job) => !job.cell);
  return all.find((job) => job.state === "running") ??
    all.find((job) => job.state === "queued") ??
    all.findLast((job) => job.images.length || job.error) ?? null;
}

function draw() {
  const job = current();
  place.root.classList.toggle("empty", !job);
  place.root.classList.toggle("busy", Boolean(job) && active(job));
  if (!job) return;
  cells(job);
  const busy = active(job);
  place.words.textContent = job.request.prompt ?? "";
  place.cancel.hidden = !busy;
  place.bar.hidden = !busy;
  place.bar.value = job.share;
  place.state.textContent = told(job);
  const waiting = [...jobs.values()].filter((one) => active(one) && one !== job);
  place.all.hidden = !waiting.length;
  line(waiting.filter((one) => !one.cell));
}

/** One sentence on how far a job is. */
export function told(job) {
  if (job.state === "queued") return job.place ? t("waiting", { n: job.place }) : t("waiting_next");
  if (job.state !== "running") return job.state === "failed" ? job.error ?? "" : t(job.state);
  const last = [...job.steps.values()].at(-1);
  if (!last) return t("preparing");
  const time = job.secondsLeft;
  const left = time === null ? "" : ` · ${t("left", { time: seconds(time) })}`;
  return t("step", { step: last.step, steps: last.steps }) + left;
}

/** A cell for each picture: noise, then a preview that clears up, then the picture. */
function cells(job) {
  const n = job.request.best_of ?? job.request.n ?? 1;
  if (shown !== job.id) {
    shown = job.id;
    place.mosaic.replaceChildren(...Array.from({ length: n }, (_, i) => cell(job, i)));
  }
  shape(job, n);
  for (let i = 0; i < n; i += 1) {
    const one = place.mosaic.children[i];
    const image = job.images.find((found) => found.index === i);
    const preview = job.previews.get(i);
    if (image && one.dataset.image !== image.id) finished(one, image);
    else if (!image && preview && active(job)) one.querySelector("img").src = preview;
    one.classList.toggle("seen", Boolean(image || preview));
    one.classList.toggle("done", Boolean(image));
    one.disabled = !image;
  }
}

/** As large as the window allows; small pictures not until their pixels are all one sees. */
function shape(job, n) {
  const known = job.images[0] ?? job.request;
  const usual = usualSize();
  const [width, height] = [known.width ?? usual[0], known.height ?? usual[1]];
  const columns = Math.ceil(Math.sqrt(n));
  const { style } = place.mosaic;
  style.setProperty("--columns", String(columns));
  style.setProperty("--shape", String(width / height));
  style.setProperty("--whole", String((columns * width) / (Math.ceil(n / columns) * height)));
  style.maxWidth = `${3 * width * columns}px`;
}

function cell(job, i) {
  const one = h("button", { type: "button", class: "cell", disabled: true,
    label: ["picture_coming", { n: i + 1 }] }, noise(), h("img", { alt: "" }));
  one.addEventListener("click", () => {
    const image = job.images.find((found) => found.index === i);
    if (image) emit("detail", { image, among: job.images });
  });
  return one;
}

function finished(one, image) {
  one.dataset.image = image.id;
  say(one, "label", "open_picture", { prompt: image.prompt, seed: image.seed });
  one.querySelector("img").src = image.url;
}

/** What every picture here begins with. */
function noise() {
  const side = 48;
  const canvas = h("canvas", { width: side, height: side, class: "noise", "aria-hidden": "true" });
  const pen = canvas.getContext("2d");
  const grain = pen.createImageData(side, side);
  for (let i = 0; i < grain.data.length; i += 1) {
    // The mean of three uniform numbers is close enough to a Gaussian for the eye.
    const draw = (Math.random() + Math.random() + Math.random()) / 3;
    grain.data[i] = i % 4 === 3 ? 255 : 255 * draw;
  }
  pen.putImageData(grain, 0, 0);
  return canvas;
}

function line(waiting) {
  place.queue.hidden = !waiting.length;
  place.queue.replaceChildren(...waiting.slice(0, 12).map((job) => h("li", {},
    h("span", {}, job.request.prompt || "…"), h("small", {}, told(job)),
    button("close", { label: ["cancel_this", { prompt: job.request.prompt }], class: "quiet" },
      () => attempt(() => cancel(job.id))))));
}
