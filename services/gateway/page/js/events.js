// The server-sent events of /v1/events. A connection that breaks comes back, and listeners hear of it to catch up.

const FIRST_WAIT_MS = 1000;
const LONGEST_WAIT_MS = 30_000;
/** A page that was hidden for longer may have slept: its connection may be dead without knowing. */
const SLEPT_MS = 20_000;

/**
 * Events: `track` and `result` (with `detail`, as the API describes them), `resumed` (something may have been missed),
 * `state` (with `detail`: "live", "connecting").
 */
export class Live extends EventTarget {
  #source = null;
  #wait = FIRST_WAIT_MS;
  #timer = 0;
  #opened = false;
  #hiddenAt = 0;

  start() {
    this.#connect();
    addEventListener("online", () => this.#again());
    document.addEventListener("visibilitychange", () => {
      if (document.hidden) this.#hiddenAt = Date.now();
      else if (Date.now() - this.#hiddenAt > SLEPT_MS) this.#again();
    });
  }

  /** Connect afresh, such as after signing in. */
  restart() {
    this.#again();
  }

  #again() {
    this.#source?.close();
    clearTimeout(this.#timer);
    this.#connect();
  }

  #connect() {
    this.#say("state", "connecting");
    const source = new EventSource("/v1/events");
    this.#source = source;
    source.addEventListener("open", () => {
      this.#wait = FIRST_WAIT_MS;
      this.#say("state", "live");
      // The browser sends Last-Event-ID only on connections that it renews itself; looking is right in both cases.
      if (this.#opened) this.#say("resumed", null);
      this.#opened = true;
    });
    source.addEventListener("error", () => {
      this.#say("state", "connecting");
      if (source.readyState !== EventSource.CLOSED) return; // the browser tries again by itself
      this.#timer = setTimeout(() => this.#connect(), this.#wait);
      this.#wait = Math.min(this.#wait * 2, LONGEST_WAIT_MS);
    });
    for (const name of ["track", "result", "removed"]) {
      source.addEventListener(name, (event) => this.#say(name, JSON.parse(event.data)));
    }
    source.addEventListener("reset", () => this.#say("resumed", null));
  }

  #say(name, detail) {
    this.dispatchEvent(new CustomEvent(name, { detail }));
  }
}
