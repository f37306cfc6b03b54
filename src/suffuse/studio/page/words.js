// The page's words: one table a language, and a way to say them.
import { en } from "./words_en.js";
import { ko } from "./words_ko.js";

const TABLES = { en, ko };

export const LANGUAGES = [["en", "English"], ["ko", "한국어"]];

export const language = () => (document.documentElement.lang === "ko" ? "ko" : "en");

/** Whether there is a sentence of this name. */
export const known = (key) => key in en;

/**
 * A sentence in the language of now.
 * @param {string} key
 * @param {Record<string, unknown>} [values] for its {braces}; `n` also chooses `key_one` for 1
 */
export function t(key, values = {}) {
  const table = TABLES[language()];
  const words = (values.n === 1 ? table[`${key}_one`] : undefined) ?? table[key] ?? key;
  return words.replace(/\{(\w+)\}/g, (_, name) => String(values[name] ?? ""));
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
