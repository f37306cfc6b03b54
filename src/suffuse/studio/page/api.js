// The server: requests, errors as sentences, events as a stream. Where it wants an API key the
// browser itself asks for it and sends it with everything, so nothing here knows of one.
import { emit, recall, remember } from "./state.js";
import { t } from "./words.js";

/** What the server refused, in its own sentence. */
export class Refused extends Error {
  constructor(message, status, field, retryAfter) {
    super(message.charAt(0).toUpperCase() + message.slice(1));
    Object.assign(this, { status, field, retryAfter });
  }
}

/** The server did not answer at all. */
export class Offline extends Error {}

export const wait = (seconds) => new Promise((done) => setTimeout(done, seconds * 1000));

// Whose jobs these are: a number drawn once for this browser.
const client = recall("client") ?? crypto.getRandomValues(new Uint32Array(4)).join("-");
remember("client", client);

let back = null; // pending while the server is away

/**
 * @param {string} path
 * @param {RequestInit} [options]
 * @returns {Promise<Response>} of a status below 400
 * @throws {Refused | Offline}
 */
export async function call(path, options = {}) {
  const headers = { "X-Client": client, ...options.headers };
  let response;
  try {
    response = await fetch(path, { ...options, headers });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    lost();
    throw new Offline(t("offline"));
  }
  if (response.ok) return response;
  throw await refusal(response);
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
        await fetch("/health"); // any answer will do: what is wrong then, it says itself
        break;
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
 * Server-sent events, read by `fetch` because `EventSource` cannot say whose they are.
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

/** A picture of the server that a canvas can draw. */
export async function bitmap(path) {
  return createImageBitmap(await blob(path));
}
