// What to type first: sentences that the bundled model was trained to draw.
import { h, icon } from "./dom.js";
import { generate } from "./form.js";
import { change, on } from "./state.js";
import { language } from "./words.js";

const SENTENCES = {
  en: [
    "a red apple on a blue background",
    "a penguin to the left of an umbrella on a pink background",
    "three sunflowers on a purple background",
    "a big rocket on a black background",
  ],
  ko: [
    "파란색 배경에 빨간 사과",
    "분홍색 배경에 우산 왼쪽에 있는 펭귄",
    "보라색 배경에 해바라기 세 송이",
    "검은색 배경에 큰 로켓",
  ],
};

/** The empty stage: an invitation, and sentences that are drawn at a click. */
export function examples() {
  const list = h("ul", { class: "examples" });
  const fill = () => list.replaceChildren(...SENTENCES[language()].map((prompt) => {
    const click = () => {
      change({ prompt });
      generate();
    };
    const one = h("button", { type: "button", on: { click } }, icon("spark"), prompt);
    return h("li", {}, one);
  }));
  on("language", fill);
  fill();
  return h("div", { class: "invitation" },
    h("h2", { text: "welcome" }), h("p", { text: "welcome_more" }), list);
}
