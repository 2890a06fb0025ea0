// The rows of a query, loaded page by page as they are needed. Pages follow each other: each begins where one ended.
import * as api from "./api.js";

const FIRST_PAGE = 100;
const NEXT_PAGE = 1000;

/** Events: `change` when there are more rows or another total; `fault` (with `detail`: the error). */
export class Source extends EventTarget {
  /** @type {any[]} */
  rows = [];
  total = 0;
  loaded = false;
  #filters = new URLSearchParams();
  #sort = "";
  #next = null;
  #wanted = 0;
  #loading = null;
  #abort = new AbortController();

  /** Begin anew. The old rows stay until the first new ones are there. */
  async ask(filters, sort) {
    this.#abort.abort();
    this.#abort = new AbortController();
    this.#filters = filters;
    this.#sort = sort;
    this.#next = null;
    this.#wanted = FIRST_PAGE;
    this.#loading = null;
    await this.#load(true);
  }

  /** Load until there are rows up to `count`. */
  async need(count) {
    this.#wanted = Math.max(this.#wanted, Math.min(count, this.total));
    while (this.loaded && this.#next !== null && this.rows.length < this.#wanted) await (this.#loading ?? this.#load(false));
  }

  #load(first) {
    const loading = this.#page(first).finally(() => {
      if (this.#loading === loading) this.#loading = null;
    });
    this.#loading = loading;
    return loading;
  }

  async #page(first) {
    const query = new URLSearchParams(this.#filters);
    query.set("sort", this.#sort);
    query.set("limit", String(first ? FIRST_PAGE : NEXT_PAGE));
    if (!first) query.set("after", this.#next);
    const { signal } = this.#abort;
    let page;
    try {
      page = await api.results(query, signal);
    } catch (error) {
      if (error.name === "AbortError") return;
      if (!first) this.#next = null;
      this.dispatchEvent(new CustomEvent("fault", { detail: error }));
      return;
    }
    if (signal.aborted) return;
    if (first) this.rows = page.results;
    else for (const row of page.results) this.rows.push(row);
    this.total = Math.max(page.total, this.rows.length);
    this.#next = page.next;
    if (this.#next === null) this.total = this.rows.length;
    this.loaded = true;
    this.dispatchEvent(new Event("change"));
  }
}
