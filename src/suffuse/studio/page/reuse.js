// Settings of a picture of before: into the form, or made again with something more.
import { attempt, toast } from "./dom.js";
import { jobs, submit } from "./jobs.js";
import { DEFAULTS, change, emit, on, server } from "./state.js";
import { clearStart, filesOf, startFrom } from "./start.js";
import { t } from "./words.js";

// Of a request, what the form has a place for …
const FORM = ["prompt", "negative", "sampler", "grid", "steps", "guidance", "seed", "n", "width",
  "height", "strength", "eta", "rescale"];
// … and what goes with it in another way.
const ELSEWHERE = ["image", "mask", "boxes", "model", "film", "explain", "preview"];
// What a field of a request is when nobody said anything.
const SILENT = { clip_skip: 0, classifier_scale: 1 };

const spoken = (name, value) => value !== null && value !== undefined && value !== SILENT[name] &&
  !(Array.isArray(value) && !value.length);

/** Fields of a request as they are sent again: files by name, nothing that says nothing. */
function extraOf(request) {
  const extra = {};
  for (const [name, value] of Object.entries(request)) {
    const mine = FORM.includes(name) || ELSEWHERE.includes(name);
    if (!mine && spoken(name, value)) extra[name] = value;
  }
  return extra;
}

/** Put every setting of a picture into the form. */
export async function reuse(image) {
  await attempt(async () => {
    const { request } = image;
    const files = await filesOf(request);
    if (files.image) await startFrom(files.image, files.mask);
    else clearStart();
    const known = FORM.map((name) => [name, request[name] ?? DEFAULTS[name]]);
    change({
      ...Object.fromEntries(known),
      n: 1,
      seed: image.seed,
      boxes: request.boxes ?? [],
      extra: extraOf(request),
      // null is the first, which the form lists as that
      model: server.models.findIndex((one) => one.name === image.model) > 0 ? image.model : null,
    });
    emit("open", "create");
    toast(t("reused"));
    document.querySelector("#f-prompt").focus();
  });
}

/**
 * The same picture again, this time with its film or its explanation.
 * @param {{film?: boolean, explain?: boolean}} more
 * @returns {Promise<any>} the new image, once it is there; undefined if the job ends without,
 *   which is told elsewhere
 */
export async function again(image, more) {
  const { request } = image;
  const fields = Object.fromEntries([...FORM, "boxes"]
    .filter((name) => spoken(name, request[name])).map((name) => [name, request[name]]));
  if (!request.image) delete fields.strength;
  const wish = { ...extraOf(request), ...fields, prompt: request.prompt, seed: image.seed, n: 1 };
  const job = await submit({ ...wish, model: image.model, preview: 1, ...more },
    await filesOf(request));
  return new Promise((found) => {
    const stop = on("job", (one) => {
      if (one.id !== job.id || ["queued", "running"].includes(one.state)) return;
      stop();
      found(jobs.get(job.id).images[0]);
    });
  });
}
