// The two parameters of a comparison: what can vary, and how lists of values are written.
import { model, server, settings } from "./state.js";
import { known, t } from "./words.js";

/** What can vary, and what kind of value it has. */
export const AXES = {
  none: null, steps: "whole", guidance: "number", sampler: "name", grid: "name", seed: "whole",
  words: "text", negative: "text", model: "name", strength: "number", rescale: "number",
  eta: "number", width: "whole", height: "whole",
};

/** The key of its name in words.js: most are called as in the form. */
export const nameOf = (axis) => (known(`axis_${axis}`) ? `axis_${axis}` : axis);

/** What a comparison may begin with. */
export function proposal(axis) {
  const samplers = (server.options.samplers ?? []).map((one) => one.name);
  return {
    none: "", steps: "4, 8, 16", guidance: "1, 3, 5", seed: "1..3",
    sampler: samplers.filter((name) => ["ddim", "euler_a", "dpm++_2m"].includes(name)).join(", "),
    grid: (server.options.grids ?? []).slice(0, 3).join(", "),
    words: settings.prompt.split(/\s+/).find((word) => word.length > 3) ?? "",
    negative: "", model: server.models.map((one) => one.name).join(", "),
    strength: "0.4, 0.6, 0.8", rescale: "0, 0.5, 1", eta: "0, 0.5, 1",
    width: String(model()?.defaults?.width ?? ""), height: String(model()?.defaults?.height ?? ""),
  }[axis];
}

/**
 * The values in a list: commas between them, `4..12:4` for 4, 8, 12, "quotes" around commas.
 * @returns {(string|number)[]}
 * @throws {Error} that names what is no value
 */
export function values(axis, text) {
  const kind = AXES[axis];
  if (!kind) return [null];
  const parts = [...text.matchAll(/\s*(?:"([^"]*)"|([^,]+))\s*(?:,|$)/g)]
    .map(([, quoted, plain]) => quoted ?? plain.trim()).filter(Boolean);
  const said = kind === "text" || kind === "name";
  const found = said ? parts : parts.flatMap((part) => numbers(part, kind));
  if (!found.length) throw new Error(t("axis_empty", { axis: t(nameOf(axis)) }));
  return [...new Set(found)];
}

function numbers(part, kind) {
  const range = /^(-?[\d.]+)\s*\.\.\s*(-?[\d.]+)(?:\s*:\s*([\d.]+))?$/.exec(part);
  const [least, most, by] = [range?.[1] ?? part, range?.[2] ?? part, range?.[3] ?? 1].map(Number);
  const right = [least, most, by].every(Number.isFinite) && by > 0 &&
    (kind === "number" || [least, most, by].every(Number.isInteger));
  if (!right || most < least || (most - least) / by > 100) {
    throw new Error(t("axis_wrong", { value: part }));
  }
  const count = Math.floor((most - least) / by + 1e-9) + 1;
  return Array.from({ length: count }, (_, i) => Number((least + i * by).toFixed(6)));
}

/** What a value is called in the grid's head. */
export function title(axis, value) {
  if (value === null) return "";
  if (axis === "sampler") {
    return server.options.samplers?.find((one) => one.name === value)?.title ?? value;
  }
  return axis === "words" ? `“${value}”` : String(value);
}

/** The settings with this value. Of words, the first of the list is the one that others replace. */
export function vary(wish, axis, value, all) {
  if (!AXES[axis]) return wish;
  if (axis !== "words") return { ...wish, [axis]: value };
  if (!wish.prompt.includes(all[0])) throw new Error(t("axis_word", { word: all[0] }));
  return { ...wish, prompt: wish.prompt.replaceAll(all[0], value) };
}
