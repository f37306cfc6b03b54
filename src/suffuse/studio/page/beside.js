// Two pictures compared: one over the other with a slider between them, or side by side.
import { button, h, large, segmented, track } from "./dom.js";
import { t } from "./words.js";

const FIELDS = ["prompt", "negative", "model", "sampler", "steps", "guidance", "seed"];

/** Open the comparison of two images. */
export function beside(left, right) {
  const slider = h("input", { type: "range", min: 0, max: 100, value: 50, class: "divide",
    label: "divide" });
  const picture = ({ prompt, url }) => h("img", { alt: t("picture_of", { prompt }), src: url });
  const top = picture(left);
  const both = h("div", { class: "both" }, picture(right), top, h("i", { class: "edge" }));
  const pair = h("div", { class: "over", style: large(right) }, both, slider);
  const divide = () => {
    track(slider);
    top.style.clipPath = `inset(0 ${100 - Number(slider.value)}% 0 0)`;
    pair.style.setProperty("--at", `${slider.value}%`);
  };
  slider.addEventListener("input", divide);
  divide();
  const mode = segmented("views", [["over", "over"], ["apart", "side_by_side"]], "over",
    (chosen) => {
      pair.className = chosen;
      pair.style.width = chosen === "over" ? large(right).width : "";
    });
  const rows = FIELDS.filter((name) => left[name] || right[name]).map((name) => h("tr",
    { class: left[name] === right[name] ? "" : "differs" },
    h("th", { text: name, scope: "row" }),
    h("td", {}, String(left[name] ?? "")), h("td", {}, String(right[name] ?? ""))));
  const dialog = h("dialog", { class: "detail compare-two", label: "compare_two" },
    h("header", {}, mode,
      button("close", { label: "close", class: "quiet" }, () => dialog.close())),
    h("div", { class: "beside-body" }, pair,
      h("table", {}, h("caption", { text: "differences" }), h("tbody", {}, ...rows))));
  dialog.addEventListener("close", () => dialog.remove());
  document.body.append(dialog);
  dialog.showModal();
}
