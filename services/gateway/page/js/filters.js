// The filters: genre and mood with their counts, words, confidence, tempo, status, and an expression.
import { h, throttled } from "./dom.js";
import { capital } from "./format.js";
import { colour, GENRES, MOODS, shown, STATUSES } from "./labels.js";
import { emptyQuery, isFiltered } from "./query.js";

const TYPED_MS = 250;
/** The words of a status, where the API's are not plain. */
const STATUS_WORDS = { ok: "complete", partial: "half", failed: "failed" };

/** Events: `change` when the query is another. */
export class Filters extends EventTarget {
  /** @type {import("./query.js").Query} */
  #query = emptyQuery();
  #chips = new Map();
  #fields = {};
  #clear;
  /** Whether something was typed that the query does not have yet. */
  #typing = false;
  #fault = h("p", { class: "fault", id: "where-fault", role: "alert" });

  constructor(place) {
    super();
    const typed = throttled(() => this.#typed(), TYPED_MS);
    const field = (name, properties) => {
      this.#fields[name] = h("input", { name, autocomplete: "off", spellcheck: "false", on: { input: () => { this.#typing = true; typed(); } }, ...properties });
      return this.#fields[name];
    };
    const group = (label, name, labels) =>
      h("div", { class: "chips", role: "group", "aria-label": label }, ...labels.map((one) => this.#chip(name, one)));
    this.#clear = h("button", { type: "button", class: "quiet", text: "Clear filters", on: { click: () => this.clear() } });
    const confidence = h("select", { name: "min_confidence", on: { change: () => this.#typed() } },
      h("option", { value: "", text: "any" }), ...[0.5, 0.7, 0.9].map((least) => h("option", { value: String(least), text: `${least * 100}% or more` })));
    this.#fields.min_confidence = confidence;
    const expression = h("details", { class: "expression" }, h("summary", { text: "Expression" }),
      h("div", { class: "expression-box" },
        h("label", { for: "where", text: "Show tracks where" }),
        field("where", { id: "where", type: "text", placeholder: "mood == calm and energy < 0.4", "aria-describedby": "where-help where-fault" }),
        h("p", { class: "soft", id: "where-help", text: "Compare any column with ==, !=, <, <=, >, >= and combine with and, or, not; for example: tags has \"guitar\" and bpm between 90 and 120." }),
        this.#fault));
    this.#fields.expression = expression;
    // It lies above the chips and the rows: a click elsewhere, or the escape key, puts it away.
    document.addEventListener("click", (event) => {
      if (!expression.contains(event.target)) expression.open = false;
    });
    expression.addEventListener("keydown", (event) => {
      if (event.key !== "Escape") return;
      expression.open = false;
      expression.firstElementChild.focus();
    });
    this.box = h("form", { class: "filters", role: "search", "aria-label": "Filter tracks", on: { submit: (event) => event.preventDefault() } },
      h("div", { class: "filter-row" },
        field("q", { type: "search", class: "words", placeholder: "Title, artist, tag …", "aria-label": "Search titles, artists, files and tags" }),
        h("label", {}, "Confidence ", confidence),
        h("fieldset", { class: "range" }, h("legend", { text: "BPM" }),
          field("from", { type: "number", min: "0", max: "400", placeholder: "60", "aria-label": "BPM from" }), "–",
          field("to", { type: "number", min: "0", max: "400", placeholder: "200", "aria-label": "BPM to" })),
        expression, this.#clear),
      group("Genre", "genre", GENRES),
      h("div", { class: "chip-row" }, group("Mood", "mood", MOODS), group("Status", "status", STATUSES)));
    place.append(this.box);
  }

  get query() {
    return this.#query;
  }

  /** Show `query` without a change event. */
  set query(query) {
    this.#query = query;
    const [from = "", to = ""] = query.bpm.split("-");
    for (const [name, value] of Object.entries({ q: query.q, min_confidence: query.min_confidence, where: query.where, from, to })) {
      const field = this.#fields[name];
      // Whoever is typing keeps what is there; a space at the end is no other query.
      const typedHere = field === document.activeElement && (this.#typing || field.value.trim() === value);
      if (!typedHere) field.value = value;
    }
    this.#fields.expression.classList.toggle("used", Boolean(query.where));
    this.#draw();
  }

  /** @param {{genres: Record<string, number>, moods: Record<string, number>, statuses: Record<string, number>}} summary */
  set counts(summary) {
    for (const [name, counts] of [["genre", summary.genres], ["mood", summary.moods], ["status", summary.statuses]]) {
      for (const [label, { box, number }] of this.#chips.get(name)) {
        number.textContent = (counts[label] ?? 0).toLocaleString("en");
        box.classList.toggle("none", !counts[label]);
      }
    }
  }

  /** The fault of the expression, if the server found one. */
  set fault(text) {
    this.#fault.textContent = text;
    this.#fields.where.setAttribute("aria-invalid", String(Boolean(text)));
  }

  clear() {
    this.#change({ ...emptyQuery(), sort: this.#query.sort, view: this.#query.view });
    this.#fields.expression.open = false;
  }

  #chip(name, label) {
    const number = h("span", { class: "number" });
    const box = h("button", { type: "button", class: "chip none", "aria-pressed": "false", on: { click: () => this.#toggle(name, label) } },
      name === "genre" && h("span", { class: "dot", style: { "--genre": colour(label) } }),
      h("span", { text: capital(name === "status" ? STATUS_WORDS[label] : shown(label)) }), number);
    if (!this.#chips.has(name)) this.#chips.set(name, new Map());
    this.#chips.get(name).set(label, { box, number });
    return box;
  }

  #toggle(name, label) {
    const chosen = new Set(this.#query[name]);
    if (!chosen.delete(label)) chosen.add(label);
    this.#change({ ...this.#query, [name]: [...chosen] });
  }

  #typed() {
    this.#typing = false;
    const value = (name) => this.#fields[name].value.trim();
    const bpm = value("from") || value("to") ? `${value("from")}-${value("to")}` : "";
    const next = { ...this.#query, q: value("q"), min_confidence: value("min_confidence"), where: value("where"), bpm };
    if (JSON.stringify(next) !== JSON.stringify(this.#query)) this.#change(next);
  }

  #change(query) {
    this.query = query;
    this.dispatchEvent(new Event("change"));
  }

  #draw() {
    for (const [name, chips] of this.#chips) {
      for (const [label, { box }] of chips) box.setAttribute("aria-pressed", String(this.#query[name].includes(label)));
    }
    this.#clear.hidden = !isFiltered(this.#query);
  }
}
