// The evidence for the genre: one bar for each segment that was heard. Its colour is the genre, its height how sure.
import { h } from "./dom.js";
import { capital, clock, percent } from "./format.js";
import { colour, shown } from "./labels.js";

/** Segments of one genre in a row get one name; a name needs this share of the width to be readable. */
const NAMED_FROM = 0.045;

/** Events: `part` (hear a segment) and `look` (it has the focus), with `detail`: its place. */
export class Ribbon extends EventTarget {
  #segments;
  #buttons;
  #now = -1;

  /** @param {any[]} segments @param {any[]} moods the mood of segments, some at the same time @param {number} duration in seconds @param {any[] | null} silences null if unknown */
  constructor(segments, moods, duration, silences = null) {
    super();
    this.#segments = segments;
    this.#buttons = segments.map((segment, place) => {
      const mood = moodAt(moods, segment.start_s);
      const bar = h("i", { style: { height: `${Math.max(8, segment.confidence * 100)}%` } });
      return h("button", {
        type: "button", class: "segment", tabindex: place ? "-1" : "0", data: { place: String(place), genre: segment.label },
        "aria-label": `${clock(segment.start_s)} to ${clock(segment.end_s)}: ${shown(segment.label)} ${percent(segment.confidence)}${mood ? `, ${mood.label}` : ""}. Hear it`,
        style: { left: share(segment.start_s, duration), width: share(Math.min(segment.end_s, duration) - segment.start_s, duration), "--genre": colour(segment.label) },
      }, bar);
    });
    this.names = h("div", { class: "run-names", "aria-hidden": "true" }, ...runs(segments, duration).map(({ label, from, width }) =>
      h("span", { text: capital(shown(label)), style: { left: percentOf(from), width: percentOf(width) } })));
    this.box = h("div", { class: "ribbon", role: "toolbar", "aria-label": "Segments: the genre of each three seconds. Arrow keys go from one to the next" },
      ...(silences ?? []).map((one) => h("i", { class: "silence", "aria-hidden": "true", style: { left: share(one.start_s, duration), width: share(Math.min(one.end_s, duration) - one.start_s, duration) } })),
      ...this.#buttons);
    this.box.addEventListener("click", (event) => {
      const button = event.target.closest(".segment");
      if (button) this.#say("part", Number(button.dataset.place));
    });
    this.box.addEventListener("focusin", (event) => {
      const place = Number(event.target.dataset.place);
      this.#rove(place);
      if (event.target.matches(":focus-visible")) this.#say("look", place);
    });
    this.box.addEventListener("keydown", (event) => this.#pressed(event));
  }

  /** Mark the segment that sounds at `time`. Returns it, or null between segments. */
  mark(time) {
    const place = this.#segments.findIndex((segment) => time >= segment.start_s - 1e-3 && time < segment.end_s - 1e-3);
    if (place !== this.#now) {
      this.#buttons[this.#now]?.classList.remove("now");
      this.#buttons[place]?.classList.add("now");
      this.#now = place;
    }
    return place < 0 ? null : this.#segments[place];
  }

  #pressed(event) {
    const at = this.#buttons.indexOf(document.activeElement);
    const goes = { ArrowRight: at + 1, ArrowLeft: at - 1, Home: 0, End: this.#buttons.length - 1 };
    if (at < 0 || !(event.key in goes)) {
      if (event.key === " ") event.stopPropagation(); // it hears the segment, as every button
      return;
    }
    event.preventDefault();
    event.stopPropagation();
    this.#buttons[Math.min(Math.max(0, goes[event.key]), this.#buttons.length - 1)].focus();
  }

  #rove(place) {
    for (const button of this.#buttons) button.tabIndex = Number(button.dataset.place) === place ? 0 : -1;
  }

  #say(name, detail) {
    this.dispatchEvent(new CustomEvent(name, { detail }));
  }
}

/** Whether the part at `time` is one of them. */
export function within(parts, time) {
  return parts.some((part) => time >= part.start_s && time < part.end_s);
}

/** Seconds of the track that are neither heard nor silent. */
export function notHeard(segments, silences, duration) {
  let [left, end] = [0, 0];
  const parts = [...segments, ...silences].sort((one, other) => one.start_s - other.start_s);
  for (const part of [...parts, { start_s: duration, end_s: duration }]) {
    left += Math.max(0, part.start_s - end);
    end = Math.max(end, part.end_s);
  }
  return left;
}

/** The mood of the segment at `time`, if that one was judged. */
export function moodAt(moods, time) {
  return moods.find((mood) => time >= mood.start_s - 1e-3 && time < mood.end_s - 1e-3) ?? null;
}

function runs(segments, duration) {
  const found = [];
  segments.forEach((segment, place) => {
    const last = found[found.length - 1];
    const next = segments[place + 1];
    const end = next ? next.start_s : segment.end_s;
    if (last && last.label === segment.label) last.end = end;
    else found.push({ label: segment.label, start: segment.start_s, end });
  });
  return found
    .map(({ label, start, end }) => ({ label, from: start / duration, width: (end - start) / duration }))
    .filter(({ width }) => width >= NAMED_FROM);
}

const percentOf = (part) => `${(part * 100).toFixed(3)}%`;
const share = (seconds, duration) => percentOf(seconds / duration);
