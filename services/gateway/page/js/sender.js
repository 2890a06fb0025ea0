// Sends files and links to the server, a few at a time, and follows what becomes of them.
import * as api from "./api.js";

const AT_ONCE = 3;
const LINKS_AT_ONCE = 500;
const MOST_TRIES = 5;

export class Sender {
  #activity;
  #queue = [];
  #running = 0;

  /** @param {import("./activity.js").Activity} activity */
  constructor(activity) {
    this.#activity = activity;
  }

  /** @param {{file: File, path: string}[]} found */
  files(found) {
    const sent = found.map(({ file, path }) => this.#activity.add({ source: path, path, file, stage: "held" }));
    this.#queue.push(...sent);
    this.#pump();
    return sent;
  }

  /** The samples that the server has. Raises ApiError. */
  async samples() {
    const { tracks } = await api.submitSamples();
    return tracks.filter((one) => !one.problem).map((one) => this.#activity.add({ id: one.request_id, source: one.source, stage: one.stage }));
  }

  /** @param {{audio_url?: string, track_id?: string}[]} tracks */
  async links(tracks) {
    const sent = tracks.map((track) => this.#activity.add({ source: track.audio_url ?? track.track_id ?? "", stage: "held" }));
    for (let from = 0; from < tracks.length; from += LINKS_AT_ONCE) {
      const some = sent.slice(from, from + LINKS_AT_ONCE);
      try {
        const answer = await api.submit(tracks.slice(from, from + LINKS_AT_ONCE));
        answer.tracks.forEach((one, place) => {
          const fields = one.problem
            ? { stage: "failed", problem: one.problem }
            : { id: one.request_id, stage: one.stage, source: one.source };
          this.#activity.update(some[place], fields);
        });
      } catch (error) {
        for (const one of some) this.#failed(one, error);
      }
    }
    return sent;
  }

  /** Send a failed track again: the file, if this page still has it, else the server's copy or the link. */
  async again(one) {
    this.#activity.update(one, { stage: "held", problem: null, progress: 0, row: null, id: one.file ? null : one.id });
    if (one.id) return this.#retry(one);
    if (one.file) {
      this.#queue.push(one);
      this.#pump();
      return undefined;
    }
    this.#activity.remove(one);
    const track = /^https?:/i.test(one.source) && !/open\.spotify\.com/i.test(one.source) ? { audio_url: one.source } : { track_id: one.source };
    return this.links([track]);
  }

  async #retry(one) {
    try {
      const accepted = await api.retry(one.id);
      this.#activity.update(one, { id: accepted.request_id, stage: accepted.stage });
    } catch (error) {
      this.#failed(one, error);
    }
  }

  #pump() {
    while (this.#running < AT_ONCE && this.#queue.length) {
      this.#running += 1;
      this.#upload(this.#queue.shift()).finally(() => {
        this.#running -= 1;
        this.#pump();
      });
    }
  }

  async #upload(one) {
    for (let tries = 1; ; tries += 1) {
      this.#activity.update(one, { stage: "uploading", progress: 0 });
      try {
        const accepted = await uploaded(one.file, one.path, (progress) => this.#activity.update(one, { progress }));
        this.#activity.update(one, { id: accepted.request_id, stage: accepted.stage, progress: 1 });
        return;
      } catch (error) {
        if (error.status === 401 && tries < MOST_TRIES && (await api.askForKey())) continue;
        const waits = error.status === 429 || error.status === 503;
        if (!waits || tries >= MOST_TRIES) {
          this.#failed(one, error);
          return;
        }
        this.#activity.update(one, { stage: "held" });
        await new Promise((resolve) => setTimeout(resolve, 1000 * Math.max(1, error.retryAfterS)));
      }
    }
  }

  #failed(one, error) {
    const problem = { code: error.code ?? "internal", detail: error.detail ?? String(error) };
    this.#activity.update(one, { stage: "failed", problem });
  }
}

/** One upload. XMLHttpRequest, because fetch reports no progress of what it sends. */
function uploaded(file, path, onProgress) {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    request.open("POST", "/v1/tracks");
    request.setRequestHeader("Content-Type", "application/octet-stream");
    request.setRequestHeader("X-Filename", encodeURIComponent(path));
    request.upload.addEventListener("progress", (event) => {
      if (event.lengthComputable && event.total) onProgress(event.loaded / event.total);
    });
    request.addEventListener("load", () => {
      if (request.status >= 200 && request.status < 300) resolve(JSON.parse(request.responseText));
      else reject(api.problemOf(request.status, request.responseText, request.getResponseHeader("Retry-After")));
    });
    const broken = () => reject(new api.ApiError("offline", `the upload of ${file.name} was cut off`, 0));
    request.addEventListener("error", broken);
    request.addEventListener("abort", broken);
    request.send(file);
  });
}
