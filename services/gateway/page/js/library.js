// All tracks: what comes in, what is under way, and what was found, as a table or a map.
import * as api from "./api.js";
import { h, throttled } from "./dom.js";
import { exportAddress, exportIds, FORMATS } from "./exports.js";
import { Filters } from "./filters.js";
import { count, trackName } from "./format.js";
import { Intake } from "./intake.js";
import { LibraryMap } from "./map.js";
import { Progress } from "./progress.js";
import { filtersOf, fromHash, isFiltered, toHash } from "./query.js";
import { removeTracks } from "./removal.js";
import { Selection } from "./selection.js";
import { Source } from "./source.js";
import { Table } from "./table.js";
import { errorWords } from "./words.js";

/** New results are shown at most this often. */
const FRESH_MS = 1500;
/** Somebody who reads further down is not disturbed by new rows. */
const READING_FROM = 3;

const SORTS = [
  ["-finished", "newest first"], ["title", "title"], ["artist", "artist"], ["genre", "genre"], ["-confidence", "surest first"],
  ["mood", "mood"], ["bpm", "BPM, slow first"], ["-energy", "energy, high first"], ["-duration", "longest first"],
];

export class Library {
  #place;
  #filters;
  #source = new Source();
  #selection = new Selection();
  #table;
  #map;
  #intake;
  #asked = "";
  #waiting = 0;
  #parts = {};
  #samples;
  #hasSamples = false;

  /** @param {HTMLElement} place */
  constructor(place, { activity, sender, live, open }) {
    this.#place = place;
    place.append(h("h1", { class: "unseen", text: "Tracks" }));
    this.#samples = h("button", { type: "button", class: "samples", text: "Try the samples", on: { click: () => this.#trySamples(sender, open) } });
    this.#intake = new Intake(place, { sender, open, activity });
    new Progress(place, { activity, sender });
    const found = h("section", { class: "found", "aria-label": "Tracks" });
    place.append(found);
    this.#filters = new Filters(found);
    this.#parts = this.#build(found);
    this.#table = new Table(this.#parts.table, this.#source, this.#selection);
    this.#map = new LibraryMap(this.#parts.map, this.#selection);
    for (const view of [this.#table, this.#map]) view.addEventListener("open", (event) => open(event.detail));
    for (const view of [this.#table, this.#map]) view.addEventListener("remove", () => this.#remove());
    this.#table.addEventListener("sort", (event) => this.#go({ ...this.#filters.query, sort: event.detail }));
    this.#filters.addEventListener("change", () => this.#go(this.#filters.query));
    this.#source.addEventListener("change", () => this.#arrived());
    this.#source.addEventListener("fault", (event) => this.#fault(event.detail));
    this.#selection.addEventListener("change", () => this.#selected());
    const fresh = throttled(() => this.#fresh(), FRESH_MS);
    live.addEventListener("result", () => { this.#waiting += 1; fresh(); });
    live.addEventListener("resumed", fresh);
    live.addEventListener("removed", (event) => {
      this.#selection.remove(event.detail.request_ids);
      if (this.#place.hidden) this.#asked = ""; // to be loaded when it is shown
      else fresh();
    });
  }

  /** Where this view stands, as the fragment of an address. */
  get address() {
    return toHash(this.#filters.query);
  }

  /** @param {string} hash */
  show(hash) {
    const query = fromHash(hash);
    this.#filters.query = query;
    const map = query.view === "map";
    this.#parts.map.hidden = !map;
    this.#parts.table.hidden = map;
    for (const [view, tab] of Object.entries(this.#parts.tabs)) tab.setAttribute("aria-pressed", String(view === query.view));
    this.#parts.sort.value = query.sort;
    this.#parts.sorting.hidden = map;
    this.#table.sort = query.sort;
    const asked = JSON.stringify(query);
    if (asked !== this.#asked) {
      this.#asked = asked;
      this.#ask();
    } else if (!map) this.#table.draw();
    if (this.#waiting) this.#fresh();
  }

  /** What the server says about itself. */
  introduce(info) {
    this.#hasSamples = info.samples > 0;
    this.#arrived();
    this.#intake.limit = info.limits?.upload_bytes ?? Infinity;
    this.#parts.version.textContent = `Tonestream ${info.version}`;
    this.#parts.where.textContent = ["localhost", "127.0.0.1", "[::1]"].includes(location.hostname) && info.mode === "embedded"
      ? "Everything is heard on this machine; no sound leaves it." : "";
  }

  /** The server does not answer. */
  trouble(error) {
    this.#fault(error);
  }

  #build(found) {
    const tab = (view, text) => h("button", { type: "button", text, on: { click: () => this.#go({ ...this.#filters.query, view }) } });
    const tabs = { table: tab("table", "Table"), map: tab("map", "Map") };
    const total = h("p", { class: "total", role: "status" });
    const fresh = h("button", { type: "button", class: "fresh", hidden: true, on: { click: () => { scrollTo({ top: 0 }); this.#reload(); } } });
    const sort = h("select", { id: "sort", on: { change: () => this.#go({ ...this.#filters.query, sort: sort.value }) } },
      ...SORTS.map(([value, text]) => h("option", { value, text })));
    const sorting = h("label", { class: "sorting", for: "sort" }, "Sort by ", sort);
    const exports = h("div", { class: "exports", role: "group", "aria-label": "Export" }, h("span", { class: "soft", text: "Export" }),
      ...FORMATS.map((format) => h("a", { text: format.toUpperCase(), download: "", data: { format } })));
    const table = h("div", { class: "table-place" });
    const map = h("div", { class: "map-box", hidden: true });
    const empty = h("div", { class: "empty", hidden: true });
    const fault = h("div", { class: "trouble", role: "alert", hidden: true });
    const bar = h("div", { class: "selection", role: "region", "aria-label": "Selected tracks", hidden: true });
    const version = h("span");
    const where = h("span");
    found.append(h("div", { class: "found-head" }, h("div", { class: "tabs", role: "group", "aria-label": "View" }, tabs.table, tabs.map), total, fresh, sorting, exports), fault, empty, table, map);
    this.#place.append(bar, h("footer", { class: "foot" }, where, version, h("a", { href: "/openapi.json", text: "API" })));
    return { tabs, total, fresh, sort, sorting, exports, table, map, empty, fault, bar, version, where };
  }

  /** Another query: into the address, whence it is shown. */
  #go(query) {
    const hash = toHash(query);
    if (location.hash === hash || (hash === "#/" && !location.hash)) this.show(hash);
    else {
      history.replaceState(null, "", hash);
      this.show(hash);
    }
  }

  #ask() {
    const query = this.#filters.query;
    const filters = filtersOf(query);
    this.#filters.fault = "";
    for (const link of this.#parts.exports.querySelectorAll("a")) link.href = exportAddress(link.dataset.format, filters, query.sort);
    this.#count();
    if (query.view === "map") this.#map.ask(filters);
    this.#source.ask(filters, query.sort).then(() => this.#table.reset());
  }

  #count = throttled(async () => {
    try {
      this.#filters.counts = await api.summary();
    } catch {
      // The rows say what is wrong.
    }
  }, FRESH_MS);

  /** There are new results. */
  #fresh() {
    if (this.#place.hidden) return;
    if (this.#filters.query.view === "table" && this.#table.above > READING_FROM) {
      this.#parts.fresh.hidden = !this.#waiting;
      this.#parts.fresh.textContent = `${count(this.#waiting, "new track")} – show`;
      this.#count();
      return;
    }
    this.#reload();
  }

  #reload() {
    this.#waiting = 0;
    this.#parts.fresh.hidden = true;
    const query = this.#filters.query;
    this.#count();
    if (query.view === "map") this.#map.ask(filtersOf(query));
    return this.#source.ask(filtersOf(query), query.sort);
  }

  #arrived() {
    const { total } = this.#source;
    const filtered = isFiltered(this.#filters.query);
    this.#parts.fault.hidden = true;
    this.#parts.total.textContent = total ? `${count(total, "track")}${filtered ? " found" : ""}` : "";
    this.#place.classList.toggle("first-run", !total && !filtered);
    this.#parts.empty.hidden = total > 0;
    this.#parts.empty.replaceChildren(...(filtered ? this.#nothingFound() : [
      h("p", { class: "empty-title", text: "Nothing here yet" }),
      h("p", { class: "soft", text: "Drop a song above. Seconds later its genre, mood, key and tempo stand here, with the evidence for every three seconds." }),
      this.#hasSamples && this.#samples,
    ].filter(Boolean)));
    this.#parts.exports.hidden = !total;
    this.#table.box.hidden = !total;
    this.#map.box.hidden = !total;
  }

  /** One click from an empty page to a track that plays: the first of the samples opens. */
  async #trySamples(sender, open) {
    this.#samples.disabled = true;
    try {
      const [first] = await sender.samples();
      if (first) open(first.id);
    } catch (error) {
      this.#fault(error);
    } finally {
      this.#samples.disabled = false;
    }
  }

  #nothingFound() {
    return [
      h("p", { class: "empty-title", text: "No track is like that" }),
      h("button", { type: "button", text: "Clear the filters", on: { click: () => this.#filters.clear() } }),
    ];
  }

  #fault(error) {
    if (error.code === "invalid_request" && this.#filters.query.where) {
      this.#filters.fault = error.detail.replace(/^where: /, "");
      return;
    }
    const words = errorWords(error.code);
    this.#parts.fault.hidden = false;
    this.#parts.fault.replaceChildren(h("p", {}, h("strong", { text: words.what }), ` ${words.todo}`), h("p", { class: "soft", text: error.detail ?? String(error) }),
      h("button", { type: "button", text: "Try again", on: { click: () => this.#ask() } }));
  }

  #selected() {
    const { bar } = this.#parts;
    const { size } = this.#selection;
    bar.hidden = !size;
    document.body.classList.toggle("selecting", size > 0);
    if (!size) return;
    const focused = bar.contains(document.activeElement) ? document.activeElement.textContent : null;
    const said = h("span", { class: "selection-said", text: `${count(size, "track")} selected` });
    const save = (format) => h("button", { type: "button", text: format.toUpperCase(), "aria-label": `Export the selection as ${format.toUpperCase()}`, on: { click: () => this.#save(format, said) } });
    bar.replaceChildren(said, ...FORMATS.map(save),
      h("button", { type: "button", class: "quiet", text: "Select all", on: { click: () => this.#table.selectAll() } }),
      h("button", { type: "button", class: "quiet", text: "Remove", "aria-label": "Remove the selection from the library", on: { click: () => this.#remove() } }),
      h("button", { type: "button", class: "quiet", text: "Clear", on: { click: () => this.#selection.clear() } }));
    if (focused) [...bar.querySelectorAll("button")].find((button) => button.textContent === focused)?.focus();
  }

  async #remove() {
    const ids = this.#selection.ids();
    const [only] = ids.length === 1 ? this.#source.rows.filter((row) => row.id === ids[0]) : [];
    if (!ids.length || !(await removeTracks(ids, only ? trackName(only) : null))) return;
    this.#selection.remove(ids);
    await this.#reload();
    if (this.#filters.query.view === "table" && this.#source.total) this.#table.focus();
  }

  async #save(format, said) {
    try {
      await exportIds(format, this.#selection.ids());
    } catch (error) {
      said.textContent = `${errorWords(error.code).what} ${error.detail ?? ""}`;
    }
  }
}
