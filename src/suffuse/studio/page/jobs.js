// Jobs: posted, followed to their end, cancelled, found again after a reload or a crash.
import { Offline, Refused, events, json, present, wait } from "./api.js";
import { announce, toast } from "./dom.js";
import { emit, on } from "./state.js";
import { t } from "./words.js";

/**
 * A job as the server tells it, and what the page saw of it.
 * @typedef {{id: string, state: string, request: any, images: any[], error: ?string,
 *   attempts: number, place: ?number, cell: boolean, share: number, secondsLeft: ?number,
 *   steps: Map<number, {step: number, steps: number}>, previews: Map<number, string>}} Job
 */

/** @type {Map<string, Job>} */
export const jobs = new Map();

/** Ids of jobs that are cells of a comparison and stand there, not on the stage. */
export const cells = new Set();

// A browser opens six connections to one host, for all of its tabs together.
const STREAMS = 2;
const following = new Map(); // id -> AbortController

export const active = (job) => job.state === "queued" || job.state === "running";

/**
 * @param {Record<string, unknown>} fields of the request, as POST /api/jobs takes them
 * @param {{image?: Blob, mask?: Blob}} [files]
 * @param {{signal?: AbortSignal, cell?: boolean}} [how]
 * @returns {Promise<Job>}
 */
export async function submit(fields, files = {}, { signal, cell } = {}) {
  // The same key on a second try gives the same job, should the first answer have been lost.
  const headers = { "Idempotency-Key": crypto.getRandomValues(new Uint32Array(4)).join("-") };
  const options = { method: "POST", headers, signal, body: JSON.stringify(fields) };
  if (files.image) {
    const form = new FormData();
    form.append("request", JSON.stringify(fields));
    for (const [name, file] of Object.entries(files)) {
      if (file) form.append(name, file, `${name}.png`);
    }
    options.body = form;
  } else headers["Content-Type"] = "application/json";
  for (;;) {
    try {
      const told = await json("/api/jobs", options);
      if (cell) cells.add(told.id);
      return learn(told);
    } catch (error) {
      if (!(error instanceof Offline)) throw error;
      await present();
    }
  }
}

/** Post, and wait as long as the server says when its queue is full. */
export async function submitPatiently(fields, files, how) {
  for (;;) {
    try {
      return await submit(fields, files, how);
    } catch (error) {
      if (!(error instanceof Refused) || error.status !== 429) throw error;
      await wait(Math.min(error.retryAfter, 30));
      how.signal?.throwIfAborted();
    }
  }
}

/** @param {string} id */
export async function cancel(id) {
  learn(await json(`/api/jobs/${id}`, { method: "DELETE" }));
}

export async function cancelAll() {
  const waiting = [...jobs.values()].filter(active).reverse(); // the running one last
  await Promise.all(waiting.map((job) => cancel(job.id)));
}

/** The jobs of before: after a reload, and whenever the server comes back. */
export async function restore() {
  const found = await json("/api/jobs?limit=100");
  for (const job of found.jobs.toReversed()) learn(job, true);
}

/** Take in what the server says of a job. */
function learn(told, old = false) {
  const job = jobs.get(told.id) ??
    { steps: new Map(), previews: new Map(), images: [], share: 0, secondsLeft: null,
      attempts: 0 };
  const before = job.state;
  if (told.attempts > job.attempts && before) toast(t("retried"));
  const known = new Set(job.images.map((image) => image.id));
  Object.assign(job, told, { cell: cells.has(told.id) });
  jobs.set(told.id, job);
  if (told.progress) step(job, told.progress);
  for (const image of told.images ?? []) {
    if (!known.has(image.id)) emit("image", { job, image, old });
  }
  if (active(job)) pump();
  else if (before !== job.state && !old) ended(job);
  emit("job", job);
  return job;
}

function ended(job) {
  job.previews.clear();
  if (job.state === "done") announce("finished", { n: job.images.length });
  else if (job.state === "cancelled") announce("cancelled");
  else toast(t("failed", { why: job.error ?? "" }), "error");
}

function step(job, told) {
  job.steps.set(told.image ?? 0, { step: told.step, steps: told.steps });
  job.share = told.share ?? 0;
  job.secondsLeft = told.seconds_left ?? null;
  if (told.preview) job.previews.set(told.image ?? 0, told.preview);
}

/** Open streams to the first jobs in the queue; the others are asked for in one request. */
function pump() {
  const waiting = [...jobs.values()].filter((job) => active(job) && !following.has(job.id));
  waiting.sort((a, b) => (a.state === "running" ? 0 : 1) - (b.state === "running" ? 0 : 1));
  for (const job of waiting.slice(0, Math.max(0, STREAMS - following.size))) follow(job);
  if ([...jobs.values()].some((job) => active(job) && !following.has(job.id))) poll();
}

async function follow(job) {
  for (let pause = 0.5; active(job); pause = Math.min(pause * 2, 8)) {
    const control = new AbortController();
    following.set(job.id, control);
    try {
      for await (const { kind, data } of events(`/api/jobs/${job.id}/events`, control)) {
        hear(job, kind, data);
        pause = 0.5;
      }
    } catch (error) {
      if (error instanceof Refused && error.status === 404) forget(job);
    }
    await present();
    if (active(job)) await wait(pause);
  }
  following.delete(job.id);
  pump();
}

function hear(job, kind, data) {
  if (kind === "step") {
    step(job, data);
    emit("job", job);
  } else if (kind === "image") {
    const { image } = data;
    if (!job.images.some((one) => one.id === image.id)) {
      job.images.push(image);
      emit("image", { job, image, old: false });
      emit("job", job);
    }
  } else learn(data.job);
}

/** A job that the server does not know any more: someone gave it another data folder. */
function forget(job) {
  job.state = "cancelled";
  emit("job", job);
}

let polling = false;

async function poll() {
  if (polling) return;
  polling = true;
  await wait(1);
  try {
    const found = await json("/api/jobs?limit=500");
    for (const told of found.jobs) {
      if (jobs.has(told.id) && !following.has(told.id) && active(jobs.get(told.id))) learn(told);
    }
  } catch {
    await present();
  }
  polling = false;
  pump();
}

on("online", () => restore().catch(() => {}));
on("deleted", (id) => {
  for (const job of jobs.values()) job.images = job.images.filter((one) => one.id !== id);
});
