// Every picture that was ever made here: searched, paged through, put side by side, deleted.
import { json } from "./api.js";
import { announce, attempt, button, h, icon, say, walkable } from "./dom.js";
import { beside } from "./beside.js";
import { remove } from "./detail.js";
import { tile } from "./results.js";
import { on } from "./state.js";

const PAGE = 40;

let images = [];
let next = null;
let query = "";
let asked = 0; // the newest search; answers to older ones are dropped
let chosen = []; // up to two, to compare
let place;

/** @param {HTMLElement} parent @returns {{open: () => void}} */
export function buildGallery(parent) {
  const search = h("input", { type: "search", id: "search", hint: "search_hint", label: "search" });
  let pause;
  search.addEventListener("input", () => {
    clearTimeout(pause);
    pause = setTimeout(() => find(search.value), 250);
  });
  place = {
    grid: h("div", { class: "tiles gallery-tiles" }),
    state: h("p", { class: "note", role: "status" }),
    more: button("plus", { text: "load_more", hidden: true }, () => attempt(page)),
    compare: button("eye", { text: "compare_two", tip: "compare_hint", disabled: true },
      () => beside(...chosen)),
  };
  parent.append(h("div", { class: "gallery-head" },
    h("div", { class: "search" }, icon("search"), search), place.compare),
  place.state, place.grid, place.more);
  walkable(place.grid, ".tile");
  // The button is there for the keyboard; scrolling near it presses it.
  new IntersectionObserver(([entry]) => {
    if (entry.isIntersecting && next && !place.more.disabled) attempt(page);
  }, { rootMargin: "600px" }).observe(place.more);
  on("deleted", gone);
  return { open: () => find(query) };
}

/** @param {string} words */
export async function find(words) {
  query = words;
  images = [];
  next = null;
  chosen = [];
  place.compare.disabled = true;
  await attempt(page);
}

async function page() {
  const mine = (asked += 1);
  const first = images.length === 0;
  place.more.disabled = true;
  const terms = new URLSearchParams({ query, limit: String(PAGE) });
  if (next) terms.set("before", next);
  try {
    const found = await json(`/api/images?${terms}`);
    if (mine !== asked) return;
    if (first) place.grid.replaceChildren();
    images.push(...found.images);
    next = found.next;
    place.grid.append(...found.images.map(card));
    tell();
    if (query) announce("found", { n: images.length });
  } finally {
    place.more.disabled = false;
    place.more.hidden = !next;
  }
}

function tell() {
  say(place.state, "text", images.length ? "found" : query ? "found_none" : "gallery_empty",
    { n: next ? `${images.length}+` : images.length });
}

function card(image) {
  const pick = h("input", { type: "checkbox", label: ["pick", { prompt: image.prompt }] });
  pick.addEventListener("change", () => choose(image, pick.checked));
  return h("div", { class: "card", "data-card": image.id }, tile(image, () => images),
    h("label", { class: "pick", tip: "pick_tip" }, pick, h("span", {}, icon("eye"))),
    button("trash", { label: ["delete_this", { prompt: image.prompt }], class: "quiet bin" },
      () => remove(image)));
}

/** The two that were chosen last are compared. */
function choose(image, yes) {
  chosen = chosen.filter((one) => one.id !== image.id);
  if (yes) chosen = [...chosen, image].slice(-2);
  for (const one of place.grid.querySelectorAll(".card")) {
    const mine = chosen.some((other) => other.id === one.dataset.card);
    one.classList.toggle("chosen", mine);
    one.querySelector("input").checked = mine;
  }
  place.compare.disabled = chosen.length !== 2;
}

function gone(id) {
  images = images.filter((one) => one.id !== id);
  chosen = chosen.filter((one) => one.id !== id);
  const card = place.grid.querySelector(`[data-card="${CSS.escape(id)}"]`);
  if (card) tell();
  card?.remove();
  place.compare.disabled = chosen.length !== 2;
}
