// Pictures as tiles: those of this page under the stage, and the same tiles in the gallery.
import { h, say, walkable } from "./dom.js";
import { emit, on } from "./state.js";

/** @param {any} image @param {() => any[]} among what the detail view walks through */
export function tile(image, among) {
  const picture = h("img", { alt: "", loading: "lazy", decoding: "async",
    width: image.width, height: image.height, src: image.url });
  const open = h("button", { type: "button", class: "tile", "data-image": image.id,
    label: ["open_picture", { prompt: image.prompt, seed: image.seed }] }, picture,
  h("span", { class: "caption", "aria-hidden": "true" }, image.prompt));
  open.addEventListener("click", () => emit("detail", { image, among: among() }));
  return open;
}

/** @param {HTMLElement} parent */
export function buildResults(parent) {
  const images = [];
  const grid = h("div", { class: "tiles" });
  const count = h("h2", { id: "results-title" });
  const section = h("section",
    { class: "results", hidden: true, "aria-labelledby": "results-title" }, count, grid);
  const tell = () => {
    section.hidden = !images.length;
    say(count, "text", "results", { n: images.length });
  };
  on("image", ({ job, image }) => {
    if (job.cell || images.some((one) => one.id === image.id)) return;
    // Newest first, also when jobs of before come back in another order.
    const at = images.findIndex((one) => one.id < image.id);
    images.splice(at < 0 ? images.length : at, 0, image);
    grid.insertBefore(tile(image, () => images), at < 0 ? null : grid.children[at]);
    tell();
  });
  on("deleted", (id) => {
    const at = images.findIndex((one) => one.id === id);
    if (at < 0) return;
    images.splice(at, 1);
    grid.children[at].remove();
    tell();
  });
  walkable(grid, ".tile");
  parent.append(section);
}
