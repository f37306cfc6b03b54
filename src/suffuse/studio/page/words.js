// The page's words: one table a language, of which only the one that is spoken is loaded.

const TABLES = { en: () => import("./words_en.js"), ko: () => import("./words_ko.js") };

export const LANGUAGES = [["en", "English"], ["ko", "한국어"]];

export const language = () => (document.documentElement.lang === "ko" ? "ko" : "en");

/** @type {Record<string, string>} */
let { words } = await TABLES[language()]();

/** Speak another language from now on; what stands on the page is said again by `sayAll`. */
export async function speak(code) {
  ({ words } = await TABLES[code]());
  document.documentElement.lang = code;
}

/** Whether there is a sentence of this name. */
export const known = (key) => key in words;

/**
 * A sentence in the language of now.
 * @param {string} key
 * @param {Record<string, unknown>} [values] for its {braces}; `n` also chooses `key_one` for 1
 */
export function t(key, values = {}) {
  const sentence = (values.n === 1 ? words[`${key}_one`] : undefined) ?? words[key] ?? key;
  return sentence.replace(/\{(\w+)\}/g, (_, name) => String(values[name] ?? ""));
}

/** Numbers of seconds as people say them. */
export function seconds(value) {
  if (value >= 90) return t("minutes", { n: Math.round(value / 60) });
  return t("seconds", { n: value < 9.5 ? Number(value.toFixed(1)) : Math.round(value) });
}

/** A time of ISO 8601 as people say it here. */
export function when(iso) {
  const form = new Intl.DateTimeFormat(language(), { dateStyle: "medium", timeStyle: "short" });
  return form.format(new Date(iso));
}
