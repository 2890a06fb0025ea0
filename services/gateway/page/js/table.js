// The table of tracks: only the rows in view exist. It scrolls with the page, and one row at a time takes the focus.
import { announce, h, onceAFrame } from "./dom.js";
import { capital, clock, percent, trackName } from "./format.js";
import { colour, shown } from "./labels.js";

/** Rows beyond the edges of the window that are kept ready. */
const SPARE = 8;

/** Name, heading, what the API sorts by, and the direction of the first click. */
const COLUMNS = [
  { name: "title", heading: "Title", sort: "title", first: "" },
  { name: "artist", heading: "Artist", sort: "artist", first: "" },
  { name: "genre", heading: "Genre", sort: "genre", first: "" },
  { name: "confidence", heading: "Confidence", sort: "confidence", first: "-" },
  { name: "mood", heading: "Mood", sort: "mood", first: "" },
  { name: "bpm", heading: "BPM", sort: "bpm", first: "" },
  { name: "key", heading: "Key", sort: "key", first: "" },
  { name: "energy", heading: "Energy", sort: "energy", first: "-" },
  { name: "length", heading: "Length", sort: "duration", first: "-" },
  { name: "status", heading: "Status", sort: "status", first: "" },
];

/** Events: `sort` (with `detail`: the new sort), `open` (with `detail`: an ID). */
export class Table extends EventTarget {
  #source;
  #selection;
  #rows = new Map();
  #active = 0;
  #anchor = 0;
  #height = 40;
  #body;
  #heads = new Map();
  #sort = "";

  /** @param {HTMLElement} place @param {import("./source.js").Source} source @param {import("./selection.js").Selection} selection */
  constructor(place, source, selection) {
    super();
    this.#source = source;
    this.#selection = selection;
    const cells = COLUMNS.map((column) => {
      const button = h("button", { type: "button", on: { click: () => this.#sortBy(column) } }, h("span", { text: column.heading }), h("i", { class: "arrow", "aria-hidden": "true" }));
      const cell = h("div", { role: "columnheader", class: `c-${column.name}`, "aria-sort": "none" }, button);
      this.#heads.set(column.sort, cell);
      return cell;
    });
    this.#body = h("div", { role: "rowgroup", class: "rows" });
    this.box = h("div", { class: "table", role: "grid", "aria-label": "Tracks", "aria-multiselectable": "true" },
      h("div", { role: "rowgroup", class: "heads" }, h("div", { role: "row", class: "row", "aria-rowindex": "1" },
        h("div", { role: "columnheader", class: "c-select" }, h("span", { class: "unseen", text: "Selected" })), ...cells)),
      this.#body);
    place.append(this.box);
    const draw = onceAFrame(() => this.draw());
    addEventListener("scroll", draw, { passive: true });
    addEventListener("resize", draw);
    source.addEventListener("change", draw);
    selection.addEventListener("change", draw);
    this.#body.addEventListener("click", (event) => this.#clicked(event));
    this.#body.addEventListener("keydown", (event) => this.#pressed(event));
    this.#body.addEventListener("focusin", (event) => {
      const row = event.target.closest(".row");
      if (row) this.#activate(Number(row.dataset.place), false);
    });
  }

  set sort(sort) {
    this.#sort = sort;
    const [by, down] = [sort.replace(/^-/, ""), sort.startsWith("-")];
    for (const [name, cell] of this.#heads) cell.setAttribute("aria-sort", name === by ? (down ? "descending" : "ascending") : "none");
  }

  /** The rows are others: begin at the top. */
  reset() {
    this.#active = 0;
    this.#anchor = 0;
    for (const element of this.#rows.values()) element.remove();
    this.#rows.clear();
    this.draw();
  }

  /** How many rows lie above the window. */
  get above() {
    return Math.max(0, Math.floor(-this.#body.getBoundingClientRect().top / this.#height));
  }

  draw() {
    if (!this.box.isConnected || this.box.closest("[hidden]")) return;
    this.#height = parseFloat(getComputedStyle(this.box).getPropertyValue("--row")) || 40;
    const { total, rows } = this.#source;
    this.box.setAttribute("aria-rowcount", String(total + 1));
    this.#body.style.height = `${total * this.#height}px`;
    const top = -this.#body.getBoundingClientRect().top;
    const first = Math.max(0, Math.floor(top / this.#height) - SPARE);
    const last = Math.min(total, Math.ceil((top + innerHeight) / this.#height) + SPARE);
    if (last > rows.length) this.#source.need(last + SPARE * 10);
    for (const [place, element] of this.#rows) {
      const keepsFocus = element.contains(document.activeElement);
      if ((place < first || place >= last) && !(keepsFocus && place < total)) {
        element.remove();
        this.#rows.delete(place);
      }
    }
    for (let place = first; place < last; place += 1) this.#place(place, rows[place]);
    if (!this.#rows.has(this.#active) && this.#rows.size) {
      // Whoever comes by the tab key finds a row of those in view.
      const seen = Math.min(Math.max(this.#active, Math.max(0, Math.ceil(top / this.#height))), last - 1);
      this.#rows.get(seen)?.setAttribute("tabindex", "0");
    }
  }

  #place(place, row) {
    let element = this.#rows.get(place);
    const key = row ? row.id : "";
    if (element && element.dataset.id !== key) {
      const focused = element.contains(document.activeElement);
      const fresh = this.#element(place, row);
      element.replaceWith(fresh);
      this.#rows.set(place, fresh);
      element = fresh;
      if (focused) fresh.focus({ preventScroll: true });
    } else if (!element) {
      element = this.#element(place, row);
      const after = this.#rows.get(place + 1);
      if (after) after.before(element);
      else this.#body.append(element);
      this.#rows.set(place, element);
    }
    const selected = Boolean(row) && this.#selection.has(row.id);
    element.setAttribute("aria-selected", String(selected));
    element.setAttribute("tabindex", place === this.#active ? "0" : "-1");
    element.style.transform = `translateY(${place * this.#height}px)`;
  }

  #element(place, row) {
    const element = h("div", { role: "row", class: row ? "row" : "row waiting", "aria-rowindex": String(place + 2), tabindex: "-1", data: { place: String(place), id: row ? row.id : "" } });
    if (!row) {
      element.append(h("div", { role: "gridcell", class: "c-title", text: "…" }));
      return element;
    }
    element.append(
      h("div", { role: "gridcell", class: "c-select" }, h("span", { class: "tick", "aria-hidden": "true" })),
      h("div", { role: "gridcell", class: "c-title" },
        h("a", { href: `#/track/${encodeURIComponent(row.id)}`, tabindex: "-1", text: trackName(row), title: row.source })),
      cell("artist", row.artist ?? ""),
      h("div", { role: "gridcell", class: "c-genre" },
        row.genre && h("span", { class: "dot", style: { "--genre": colour(row.genre) } }),
        h("span", { class: row.genre_uncertain ? "guess" : "", text: row.genre ? `${capital(shown(row.genre))}${row.genre_uncertain ? "?" : ""}` : "–" }),
        row.outside && h("span", { class: "aside", text: "other?", title: `None of the ten? Listeners would say ${row.tags.slice(0, 4).join(", ")}` })),
      h("div", { role: "gridcell", class: "c-confidence" },
        row.genre_confidence !== null && h("span", { class: "bar", "aria-hidden": "true", style: { "--share": String(row.genre_confidence), "--genre": colour(row.genre) } }),
        h("span", { text: row.genre_confidence === null ? "" : percent(row.genre_confidence) })),
      cell("mood", row.mood ? `${capital(row.mood)}${row.mood_uncertain ? "?" : ""}` : "–"),
      cell("bpm", row.bpm === null ? "–" : String(Math.round(row.bpm))),
      cell("key", row.key ? shortKey(row.key) : "–", row.key),
      h("div", { role: "gridcell", class: "c-energy" },
        row.energy !== null && h("span", { class: "bar", "aria-hidden": "true", style: { "--share": String(row.energy) } }),
        h("span", { text: row.energy === null ? "–" : row.energy.toFixed(2).replace(/^0/, "") })),
      cell("length", row.duration_s === null ? "–" : clock(row.duration_s)),
      h("div", { role: "gridcell", class: "c-status", data: { status: row.status }, title: row.error_message ?? "" },
        h("span", { text: row.status === "ok" ? "ok" : row.error ? row.error.replaceAll("_", " ") : row.status })),
    );
    return element;
  }

  #sortBy(column) {
    const [by, down] = [this.#sort.replace(/^-/, ""), this.#sort.startsWith("-")];
    const sort = by === column.sort ? `${down ? "" : "-"}${column.sort}` : `${column.first}${column.sort}`;
    this.dispatchEvent(new CustomEvent("sort", { detail: sort }));
    announce(`Sorted by ${column.heading}`);
  }

  #clicked(event) {
    const element = event.target.closest(".row");
    const row = element && this.#source.rows[Number(element.dataset.place)];
    if (!row) return;
    const place = Number(element.dataset.place);
    const onTick = event.target.closest(".c-select");
    if (event.shiftKey) {
      event.preventDefault();
      getSelection()?.removeAllRanges();
      this.#selectTo(place);
    } else if (onTick || event.ctrlKey || event.metaKey) {
      if (event.target.closest("a") && !onTick) return; // the browser opens a tab
      this.#selection.toggle(row.id);
      this.#anchor = place;
    } else if (!event.target.closest("a") && !getSelection()?.toString()) this.#open(row);
    this.#activate(place, true);
  }

  #pressed(event) {
    const page = Math.max(1, Math.floor(innerHeight / this.#height) - 4);
    const moves = { ArrowDown: 1, ArrowUp: -1, PageDown: page, PageUp: -page, Home: -Infinity, End: Infinity };
    const row = this.#source.rows[this.#active];
    if (event.key in moves) {
      event.preventDefault();
      const place = Math.min(Math.max(0, this.#active + moves[event.key]), this.#source.total - 1);
      if (event.shiftKey) this.#selectTo(place);
      this.#activate(place, true);
      if (!event.shiftKey) this.#anchor = place;
    } else if (event.key === "Enter" && row) {
      event.preventDefault();
      this.#open(row);
    } else if (event.key === " " && row) {
      event.preventDefault();
      this.#selection.toggle(row.id);
      this.#anchor = this.#active;
      announce(this.#selection.has(row.id) ? "selected" : "not selected");
    } else if (event.key === "a" && (event.ctrlKey || event.metaKey)) {
      event.preventDefault();
      this.selectAll();
    } else if (event.key === "Delete" && row) {
      event.preventDefault();
      if (!this.#selection.size) this.#selection.toggle(row.id);
      this.dispatchEvent(new Event("remove"));
    } else if (event.key === "Escape" && this.#selection.size) {
      this.#selection.clear();
    }
  }

  /** Give the focus to the row that had it, or to the one in its place. */
  focus() {
    this.#activate(Math.max(0, Math.min(this.#active, this.#source.total - 1)), true);
  }

  /** Select every row of the query, and load it first. */
  async selectAll() {
    await this.#source.need(this.#source.total);
    this.#selection.add(this.#source.rows.map((row) => row.id));
    announce(`${this.#selection.size} tracks selected`);
  }

  async #selectTo(place) {
    const [from, to] = [Math.min(this.#anchor, place), Math.max(this.#anchor, place)];
    if (to >= this.#source.rows.length) await this.#source.need(to + 1);
    this.#selection.add(this.#source.rows.slice(from, to + 1).map((row) => row.id));
  }

  #activate(place, focus) {
    this.#rows.get(this.#active)?.setAttribute("tabindex", "-1");
    this.#active = place;
    if (!focus) {
      this.#rows.get(place)?.setAttribute("tabindex", "0");
      return;
    }
    // Under the headings that stick, and above what floats at the bottom of the window.
    const top = this.#body.getBoundingClientRect().top + place * this.#height;
    const [least, most] = [this.#height * 2.5, innerHeight - this.#height * 2.5];
    if (top < least) scrollBy(0, top - least);
    else if (top > most) scrollBy(0, top - most);
    this.draw();
    this.#rows.get(place)?.focus({ preventScroll: true });
  }

  #open(row) {
    this.dispatchEvent(new CustomEvent("open", { detail: row.id }));
  }
}

function cell(name, text, title = null) {
  return h("div", { role: "gridcell", class: `c-${name}`, text, title });
}

/** "F# minor" -> "F♯ min". */
function shortKey(key) {
  return key.replace("#", "♯").replace(" minor", " min").replace(" major", " maj");
}
