// The server: requests with the key, errors as sentences, events as a stream, pictures as URLs.
import { emit, recall, remember } from "./state.js";
import { t } from "./words.js";

/** What the server refused, in its own sentence. */
export class Refused extends Error {
  constructor(message, status, field, retryAfter) {
    super(message);
    Object.assign(this, { status, field, retryAfter });
  }
}

/** The server did not answer at all. */
export class Offline extends Error {}

export const wait = (seconds) => new Promise((done) => setTimeout(done, seconds * 1000));

// Whose jobs these are, where no key says it: a number drawn once for this browser.
const client = recall("client") ?? crypto.getRandomValues(new Uint32Array(4)).join("-");
remember("client", client);

let key = sessionStorage.getItem("suffuse.key");
let asking = null; // one question, however many requests wait for its answer
let back = null; // pending while the server is away
let ask = async () => null;

/** @param {(wrong: boolean) => Promise<?string>} question asks the person for the key */
export function askForKey(question) {
  ask = question;
}

/**
 * @param {string} path
 * @param {RequestInit} [options]
 * @returns {Promise<Response>} of a status below 400
 * @throws {Refused | Offline}
 */
export async function call(path, options = {}) {
  for (;;) {
    const sent = key;
    const headers = { "X-Client": client, ...options.headers };
    if (sent) headers.Authorization = `Bearer ${sent}`;
    let response;
    try {
      response = await fetch(path, { ...options, headers });
    } catch (error) {
      if (error.name === "AbortError") throw error;
      lost();
      throw new Offline(t("offline"));
    }
    if (response.status === 401) {
      if (sent === key && !(await newKey(Boolean(sent)))) throw await refusal(response);
    } else if (response.ok) return response;
    else throw await refusal(response);
  }
}

async function newKey(wrong) {
  asking ??= ask(wrong).then((given) => {
    if (given) {
      key = given;
      sessionStorage.setItem("suffuse.key", given);
    }
    asking = null;
    return given;
  });
  return asking;
}

async function refusal(response) {
  let told = {};
  try {
    told = (await response.json()).error ?? {};
  } catch { /* a proxy's own page */ }
  const after = Number(response.headers.get("Retry-After")) || 1;
  const message = told.message ?? t("refused", { status: response.status });
  return new Refused(message, response.status, told.field ?? null, after);
}

/** @returns {Promise<any>} */
export async function json(path, options) {
  return (await call(path, options)).json();
}

/** @returns {Promise<Blob>} */
export async function blob(path) {
  return (await call(path)).blob();
}

/** Ask for the server until it answers, ever more slowly; then tell everyone. */
function lost() {
  back ??= (async () => {
    for (let pause = 0.5; ; pause = Math.min(pause * 1.7, 10)) {
      emit("offline", pause);
      await wait(pause);
      try {
        if ((await fetch("/health")).ok) break;
      } catch { /* still away */ }
    }
    back = null;
    emit("online");
  })();
}

/** Resolves when the server answers. */
export async function present() {
  await back;
}

const SILENCE = 45_000; // three of the comments that a living stream sends

/**
 * Server-sent events, read by `fetch` because `EventSource` cannot send a key.
 * @param {string} path
 * @param {AbortController} control
 * @returns {AsyncGenerator<{kind: string, data: any}>} until the server ends the stream
 */
export async function* events(path, control) {
  const headers = { Accept: "text/event-stream" };
  const response = await call(path, { signal: control.signal, headers });
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  for (;;) {
    const silent = setTimeout(() => control.abort(), SILENCE);
    const { value, done } = await reader.read();
    clearTimeout(silent);
    if (done) return;
    const blocks = (text + value).replaceAll("\r\n", "\n").split("\n\n");
    text = blocks.pop();
    for (const block of blocks) {
      const event = parse(block);
      if (event) yield event;
    }
  }
}

function parse(block) {
  let kind = "message";
  const data = [];
  for (const line of block.split("\n")) {
    if (line.startsWith("event:")) kind = line.slice(6).trim();
    else if (line.startsWith("data:")) data.push(line.slice(5));
  }
  return data.length ? { kind, data: JSON.parse(data.join("\n")) } : null;
}

const pictures = new Map(); // path -> promise of an object URL

/**
 * What an <img> can show. Without a key that is the path itself; with one the picture is fetched,
 * because an <img> cannot send it. The newest 300 are kept.
 * @param {string} path
 * @returns {Promise<string>}
 */
export async function pictureUrl(path) {
  if (!key || !path.startsWith("/")) return path;
  if (!pictures.has(path)) {
    pictures.set(path, blob(path).then((found) => URL.createObjectURL(found)));
    if (pictures.size > 300) {
      const [oldest, url] = pictures.entries().next().value;
      pictures.delete(oldest);
      url.then(URL.revokeObjectURL, () => {});
    }
  }
  return pictures.get(path);
}

/** Put a picture of the server into an <img>. */
export function show(img, path) {
  img.dataset.path = path;
  pictureUrl(path).then((url) => {
    if (img.dataset.path === path) img.src = url;
  }, () => {});
  return img;
}

/** A picture of the server that a canvas can draw. */
export async function bitmap(path) {
  return createImageBitmap(await blob(path));
}
