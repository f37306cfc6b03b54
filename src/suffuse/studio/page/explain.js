import { h } from "./dom.js";
export function explainView(image) { return h("p", {}, "soon"); }
