// The tracks that this page sent: where each is, and what became of it.
import { FINISHED } from "./words.js";

const KEY = "tonestream-activity";
/** Those that a reload remembers. */
const MOST_KEPT = 1000;

/**
 * @typedef {object} Sent
 * @property {number} number in the order of sending
 * @property {string | null} id the request ID, once the server has given one
 * @property {string} source
 * @property {string} stage held, uploading, queued, fetching, listening, ok, partial, failed
 * @property {number} progress of the upload, 0 to 1
 * @property {{code: string, detail: string} | null} problem
 * @property {File | null} file what to send again
 * @property {string} path
 * @property {any} row the result as a row
 */

export class Activity extends EventTarget {
  /** @type {Map<number, Sent>} */
  #sent = new Map();
  #byId = new Map();
  #next = 1;

  /** @returns {Sent[]} in the order of sending */
  all() {
    return [...this.#sent.values()];
  }

  get size() {
    return this.#sent.size;
  }

  /** @param {Partial<Sent>} fields @returns {Sent} */
  add(fields) {
    const one = { number: this.#next++, id: null, source: "", stage: "held", progress: 0, problem: null, file: null, path: "", row: null, ...fields };
    this.#sent.set(one.number, one);
    if (one.id) this.#byId.set(one.id, one);
    this.#changed();
    return one;
  }

  /** @param {Sent} one @param {Partial<Sent>} fields */
  update(one, fields) {
    if (one.id && fields.id !== undefined && fields.id !== one.id) this.#byId.delete(one.id);
    Object.assign(one, fields);
    if (one.id) this.#byId.set(one.id, one);
    this.#changed();
  }

  /** @returns {Sent | undefined} */
  byId(id) {
    return this.#byId.get(id);
  }

  /** A stage that the server reports. Late news do not undo a finished track. */
  stage(id, stage) {
    const one = this.#byId.get(id);
    if (one && !FINISHED.has(one.stage)) this.update(one, { stage });
  }

  /** The result of a track, as a row. */
  finish(row) {
    const one = this.#byId.get(row.id);
    if (!one) return;
    const problem = row.error ? { code: row.error, detail: row.error_message ?? "" } : null;
    this.update(one, { stage: row.status, row, problem });
    this.dispatchEvent(new CustomEvent("finished", { detail: one }));
  }

  unfinished() {
    return this.all().filter((one) => !FINISHED.has(one.stage));
  }

  /** The request ID of a track that is being sent, once the server gives it one; null if it fails before. */
  accepted(one) {
    return new Promise((resolve) => {
      const look = () => {
        if (!one.id && one.stage !== "failed") return;
        this.removeEventListener("change", look);
        resolve(one.id);
      };
      this.addEventListener("change", look);
      look();
    });
  }

  /** @param {Sent} one */
  remove(one) {
    this.#sent.delete(one.number);
    if (one.id) this.#byId.delete(one.id);
    this.#changed();
  }

  /** Tracks that left the library. @param {Iterable<string>} ids */
  removed(ids) {
    for (const id of ids) {
      const one = this.#byId.get(id);
      if (one) this.remove(one);
    }
  }

  /** Forget those that are done; failed ones only if `failed`. */
  clear(failed) {
    for (const one of this.all()) {
      if (one.stage === "ok" || one.stage === "partial" || (failed && one.stage === "failed")) this.remove(one);
    }
  }

  #changed() {
    this.dispatchEvent(new Event("change"));
    const kept = this.unfinished().filter((one) => one.id).slice(0, MOST_KEPT);
    try {
      sessionStorage.setItem(KEY, JSON.stringify(kept.map(({ id, source, stage }) => ({ id, source, stage }))));
    } catch {
      // Without storage a reload forgets what is under way; the results come all the same.
    }
  }

  /** What was under way before a reload. */
  restore() {
    let kept = [];
    try {
      kept = JSON.parse(sessionStorage.getItem(KEY) ?? "[]");
    } catch {
      return;
    }
    for (const { id, source, stage } of kept) this.add({ id, source, stage });
  }
}
