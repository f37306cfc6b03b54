// Runs before the first paint, so that a chosen theme or language never flashes as another one.
// The page's security policy allows no inline script, hence a file of its own.
"use strict";
(() => {
  const read = (name) => {
    try { return localStorage.getItem(`suffuse.${name}`); } catch { return null; }
  };
  const theme = read("theme");
  if (theme) document.documentElement.dataset.theme = theme;
  const korean = /^ko\b/i.test(read("language") ?? navigator.language);
  document.documentElement.lang = korean ? "ko" : "en";
})();
