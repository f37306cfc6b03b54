// The film scrubber: all steps of the denoising in one row of pictures, walked through by a slider.
import { bitmap } from "./api.js";
import { button, h, icon, large, say, track } from "./dom.js";
import { t } from "./words.js";

const CALM = matchMedia("(prefers-reduced-motion: reduce)");

/**
 * @param {{film: {url: string, frames: number}, width: number, height: number}} image
 * @returns {HTMLElement} with `stop()`
 */
export function filmView(image) {
  const { frames } = image.film;
  const canvas = h("canvas", { class: "film-canvas", width: image.width, height: image.height,
    role: "img", label: "film_label" });
  const slider = h("input", { type: "range", min: 0, max: frames - 1, step: 1, value: frames - 1,
    label: "film_step", class: "film-slider" });
  const words = h("output", { class: "film-words" });
  let row = null;
  let timer = null;

  const draw = () => {
    const at = Number(slider.value);
    say(words, "text", "step", { step: at + 1, steps: frames });
    slider.setAttribute("aria-valuetext", t("step", { step: at + 1, steps: frames }));
    track(slider);
    if (!row) return;
    const wide = row.width / frames;
    canvas.getContext("2d").drawImage(row, at * wide, 0, wide, row.height,
      0, 0, canvas.width, canvas.height);
    canvas.dataset.frame = String(at);
  };
  const stop = () => {
    clearInterval(timer);
    timer = null;
    play.replaceChildren(icon("play"));
    say(play, "label", "play");
    play.setAttribute("aria-pressed", "false");
  };
  const start = () => {
    if (Number(slider.value) >= frames - 1) slider.value = "0";
    draw();
    // Two and a half seconds for the whole film, whatever its length.
    timer = setInterval(() => {
      slider.value = String(Number(slider.value) + 1);
      draw();
      if (Number(slider.value) >= frames - 1) stop();
    }, Math.min(400, Math.max(40, 2500 / frames)));
    play.replaceChildren(icon("pause"));
    say(play, "label", "pause");
    play.setAttribute("aria-pressed", "true");
  };
  const play = button("play", { label: "play", class: "play", "aria-pressed": "false" },
    () => (timer ? stop() : start()));
  slider.addEventListener("input", () => {
    if (timer) stop();
    draw();
  });
  draw();
  bitmap(image.film.url).then((found) => {
    row = found;
    draw();
    if (!CALM.matches) start();
  }, () => say(words, "text", "film_gone"));
  return Object.assign(h("div", { class: "film", style: large(image) }, canvas,
    h("div", { class: "scrub" }, play, slider, words)), { stop });
}
