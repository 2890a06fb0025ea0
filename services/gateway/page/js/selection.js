// The selected tracks, by ID. It outlives sorts and filters.

export class Selection extends EventTarget {
  #ids = new Set();

  get size() {
    return this.#ids.size;
  }

  has(id) {
    return this.#ids.has(id);
  }

  ids() {
    return [...this.#ids];
  }

  toggle(id) {
    if (!this.#ids.delete(id)) this.#ids.add(id);
    this.#changed();
  }

  /** @param {Iterable<string>} ids */
  add(ids) {
    for (const id of ids) this.#ids.add(id);
    this.#changed();
  }

  /** @param {Iterable<string>} ids */
  set(ids) {
    this.#ids = new Set(ids);
    this.#changed();
  }

  /** @param {Iterable<string>} ids */
  remove(ids) {
    for (const id of ids) this.#ids.delete(id);
    this.#changed();
  }

  clear() {
    this.set([]);
  }

  #changed() {
    this.dispatchEvent(new Event("change"));
  }
}
