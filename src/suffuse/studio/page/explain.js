// How a picture came about: where each word looked, what every step guessed, and the latents.
import { json } from "./api.js";
import { h, say, segmented, track } from "./dom.js";
import { t } from "./words.js";

/** @param {{explanation: string, prompt: string}} image */
export function explainView(image) {
  const place = h("div", { class: "works" }, h("p", { class: "note", text: "preparing" }));
  json(image.explanation).then((found) => place.replaceChildren(...parts(found)),
    (error) => place.replaceChildren(h("p", {}, error.message)));
  return place;
}

function parts(found) {
  const time = timeline(found.steps);
  return [
    found.words?.length && found.attention ? attention(found, time) : null,
    time.element,
    found.latent?.channels?.length ? latent(found.latent.channels) : null,
  ].filter(Boolean);
}

// What is no word of the prompt and takes attention all the same.
const TOKENS = { "(start)": "token_start", "(end)": "token_end", "(padding)": "token_padding" };
const TIPS = { "(start)": "token_start_tip", "(padding)": "token_padding_tip" };

/** Words to hover over, focus or press, and the picture under a map of where they attended. */
function attention({ words, attention: maps, picture }, time) {
  const canvas = h("canvas", { role: "img", label: "heat_label" });
  const note = h("p", { class: "note", role: "status", text: "heat_hint" });
  let pinned = -1;
  let word = -1;
  let resolution = "";
  let when = "all";

  const map = () => (when === "step" ? stepMap(maps, time.at(), word)
    : maps.by_resolution[resolution || maps.resolutions.at(-1)].mean[word]);
  const draw = () => {
    buttons.forEach((one, i) => one.classList.toggle("lit", i === word));
    canvas.style.opacity = word < 0 ? "0" : "1";
    if (word < 0) return say(note, "text", "heat_hint");
    const found = map();
    paint(canvas, found);
    canvas.dataset.word = words[word].text;
    const share = words[word].share ?? 0;
    return say(note, "text", "heat_of",
      { word: buttons[word].textContent, percent: (100 * share).toFixed(share < 0.095 ? 1 : 0) });
  };
  const light = (i) => { word = i; draw(); };
  const buttons = words.map(({ text }, i) => h("button", { type: "button", "aria-pressed": "false",
    class: text in TOKENS ? "quiet" : "", text: TOKENS[text], tip: TIPS[text], on: {
      pointerenter: () => light(i), focus: () => light(i),
      pointerleave: () => light(pinned), blur: () => light(pinned),
      click: () => {
        pinned = pinned === i ? -1 : i;
        buttons.forEach((one, j) => one.setAttribute("aria-pressed", String(j === pinned)));
        light(i);
      },
    } }, text in TOKENS ? "" : text));
  const sizes = h("select", { label: "heat_resolution", id: "heat-resolution" },
    ...maps.resolutions.map((side) => {
      const { width, height } = maps.by_resolution[side].mean[0];
      return h("option", { value: String(side) }, `${width} × ${height}`);
    }));
  sizes.value = String(maps.resolutions.at(-1));
  sizes.addEventListener("change", () => { resolution = sizes.value; draw(); });
  const times = segmented("heat_when", [["all", "heat_all"], ["step", "heat_step"]], when,
    (chosen) => { when = chosen; sizes.disabled = chosen === "step"; draw(); });
  time.listen(() => when === "step" && draw());
  return h("section", {}, h("h3", { text: "heat" }), note,
    h("div", { class: "words", role: "group", label: "heat" }, ...buttons),
    h("div", { class: "heat-line" },
      h("div", { class: "heat" }, h("img", { src: picture, alt: "" }), canvas),
      h("div", { class: "heat-side" },
        h("div", {}, h("label", { htmlFor: sizes.id, text: "heat_resolution" }), sizes),
        times)));
}

/** The recorded step that is nearest to the one looked at. */
function stepMap(maps, step, word) {
  const near = maps.by_step.reduce((best, one) =>
    (Math.abs(one.i - step) < Math.abs(best.i - step) ? one : best));
  return near.maps[word];
}

/** A map of bytes in colours from nothing over violet and orange to yellow. */
function paint(canvas, { width, height, data }) {
  const bytes = Uint8Array.from(atob(data), (letter) => letter.charCodeAt(0));
  Object.assign(canvas, { width, height });
  const pen = canvas.getContext("2d");
  const pixels = pen.createImageData(width, height);
  bytes.forEach((value, i) => {
    const x = value / 255;
    pixels.data.set([Math.min(255, 70 + 340 * x), Math.max(0, 330 * x - 110) * 0.95,
      Math.max(40, 190 - 190 * x), 215 * Math.sqrt(x)], 4 * i);
  });
  pen.putImageData(pixels, 0, 0);
}

/** Level of noise, guess and guidance of each step, on one slider. */
function timeline(steps) {
  const last = steps.length - 1;
  const heard = [];
  const slider = h("input", { type: "range", min: 0, max: last, value: last, label: "film_step",
    class: "explain-slider" });
  const words = h("output");
  const picture = () => h("img", { alt: "" });
  const [guess, push] = [picture(), picture()];
  const chart = h("canvas", { width: 300, height: 300, role: "img", label: "level" });
  const notes = [h("figcaption"), h("figcaption"), h("figcaption")];
  const draw = () => {
    const at = Number(slider.value);
    const step = steps[at];
    guess.src = step.x0;
    push.hidden = !step.guidance;
    if (step.guidance) push.src = step.guidance;
    say(words, "text", "step", { step: at + 1, steps: steps.length });
    slider.setAttribute("aria-valuetext", t("step", { step: at + 1, steps: steps.length }));
    track(slider);
    say(notes[0], "text", "guess");
    const norm = (step.guidance_norm ?? 0).toPrecision(3);
    say(notes[1], "text", step.guidance ? "push" : "push_none", { norm });
    say(notes[2], "text", "level_at", { sigma: round(step.sigma), alpha: round(step.alpha) });
    graph(chart, steps, at);
    for (const listener of heard) listener();
  };
  slider.addEventListener("input", draw);
  const element = h("section", {}, h("h3", { text: "timeline" }),
    h("div", { class: "scrub" }, slider, words),
    h("div", { class: "trio" }, h("figure", {}, guess, notes[0]), h("figure", {}, push, notes[1]),
      h("figure", {}, chart, notes[2])));
  requestAnimationFrame(draw); // the chart's colours are known once it stands in the page
  return { element, at: () => Number(slider.value), listen: (one) => heard.push(one) };
}

const round = (value) => (value == null ? "–" : Number(value.toPrecision(3)));

/** The logarithm of the signal-to-noise ratio over the steps, and where we are. */
function graph(canvas, steps, at) {
  const pen = canvas.getContext("2d");
  const style = getComputedStyle(canvas);
  const { width, height } = canvas;
  const levels = steps.map((step) => Math.max(-20, Math.min(20, step.log_snr ?? 20)));
  const [low, high] = [Math.min(...levels), Math.max(...levels)];
  const x = (i) => 24 + ((width - 48) * i) / Math.max(1, steps.length - 1);
  const y = (level) => height - 24 - ((height - 48) * (level - low)) / Math.max(1e-6, high - low);
  pen.clearRect(0, 0, width, height);
  Object.assign(pen, { lineWidth: 4, lineJoin: "round", strokeStyle: style.color,
    fillStyle: style.borderTopColor });
  pen.beginPath();
  levels.forEach((level, i) => pen.lineTo(x(i), y(level)));
  pen.stroke();
  pen.beginPath();
  pen.arc(x(at), y(levels[at]), 10, 0, 2 * Math.PI);
  pen.fill();
}

/** What the autoencoder decodes: one small picture a channel. */
function latent(channels) {
  return h("section", {}, h("h3", { text: "latent" }),
    h("p", { class: "note", text: "latent_hint" }),
    h("div", { class: "latent" }, ...channels.map((src, i) => h("figure", {},
      h("img", { src, alt: "" }), h("figcaption", { text: ["channel", { n: i + 1 }] })))));
}
