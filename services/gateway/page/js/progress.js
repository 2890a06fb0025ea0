// The tracks under way, each with its stage; the failed ones with what to do.
import { h, onceAFrame } from "./dom.js";
import { capital, count, percent, trackName } from "./format.js";
import { colour, shown } from "./labels.js";
import { errorWords, FINISHED, stageWords, STEPS } from "./words.js";

/** More than these are counted, not listed. */
const MOST_LISTED = 6;

export class Progress {
  #activity;
  #sender;
  #list = h("ul", { class: "under-way" });
  #bar = h("progress", { max: "1", value: "0", "aria-label": "Finished tracks" });
  #said = h("p", { class: "counts" });
  #more = h("p", { class: "soft" });
  #clear;
  #all = false;

  constructor(place, { activity, sender }) {
    this.#activity = activity;
    this.#sender = sender;
    this.#clear = h("button", { type: "button", class: "quiet", text: "Clear the list", on: { click: () => activity.clear(true) } });
    this.#more = h("button", { type: "button", class: "quiet more", on: { click: () => { this.#all = !this.#all; this.#draw(); } } });
    this.box = h("section", { class: "progress", hidden: true, "aria-label": "Under way" },
      h("div", { class: "progress-head" }, this.#said, this.#bar, this.#clear), this.#list, this.#more);
    place.append(this.box);
    activity.addEventListener("change", onceAFrame(() => this.#draw()));
  }

  #draw() {
    const sent = this.#activity.all();
    this.box.hidden = !sent.length;
    if (!sent.length) return;
    const failed = sent.filter((one) => one.stage === "failed");
    const done = sent.filter((one) => FINISHED.has(one.stage));
    const left = sent.length - done.length;
    const parts = [left ? `${done.length} of ${count(sent.length, "track")} finished` : `${count(sent.length, "track")} finished`];
    if (failed.length) parts.push(`${failed.length} failed`);
    this.#said.textContent = parts.join(", ");
    this.#bar.value = done.length / sent.length;
    this.#bar.hidden = !left;
    this.#clear.hidden = left > 0;
    // What needs somebody comes first, then what moves, then what is done, the newest first.
    const rank = (one) => (one.stage === "failed" ? 0 : one.stage === "ok" || one.stage === "partial" ? 3 : one.stage === "held" ? 2 : 1);
    const order = [...sent].sort((one, other) => rank(one) - rank(other) || (rank(one) === 3 ? other.number - one.number : one.number - other.number));
    const listed = order.slice(0, this.#all ? 200 : MOST_LISTED);
    const focused = document.activeElement?.closest?.(".under-way li")?.dataset.number;
    this.#list.replaceChildren(...listed.map((one) => this.#item(one)));
    if (focused) this.#list.querySelector(`[data-number="${focused}"] :is(a, button)`)?.focus();
    const rest = sent.length - listed.length;
    this.#more.hidden = sent.length <= MOST_LISTED;
    this.#more.textContent = this.#all ? "Show fewer" : `Show ${rest} more`;
  }

  #item(one) {
    const name = one.row ? trackName(one.row) : trackName(one);
    const title = one.id && one.row
      ? h("a", { class: "name", href: `#/track/${encodeURIComponent(one.id)}`, text: name })
      : h("span", { class: "name", text: name });
    const item = h("li", { data: { number: String(one.number), stage: one.stage } }, title);
    if (one.stage === "failed") item.append(...this.#fault(one));
    else if (one.row) item.append(outcome(one.row));
    else item.append(steps(one));
    return item;
  }

  #fault(one) {
    const words = errorWords(one.problem?.code ?? "internal");
    return [
      h("p", { class: "fault" }, h("strong", { text: words.what }), ` ${words.todo}`),
      h("div", { class: "buttons" },
        one.problem?.detail && h("details", {}, h("summary", { text: "Details" }), h("p", { class: "soft", text: `${one.problem.code}: ${one.problem.detail}` })),
        h("button", { type: "button", text: "Try again", "aria-label": `Try again: ${trackName(one)}`, on: { click: () => this.#sender.again(one) } }),
        h("button", { type: "button", class: "quiet", text: "Dismiss", "aria-label": `Dismiss: ${trackName(one)}`, on: { click: () => this.#activity.remove(one) } })),
    ];
  }
}

/** Genre and mood in one line. */
function outcome(row) {
  const box = h("span", { class: "outcome" });
  if (row.genre) {
    box.append(h("span", { class: "dot", style: { "--genre": colour(row.genre) } }),
      `${capital(shown(row.genre))}${row.genre_uncertain ? "?" : ""}${row.genre_confidence === null ? "" : ` ${percent(row.genre_confidence)}`}`);
  }
  if (row.mood) box.append(h("span", { class: "soft", text: ` ${shown(row.mood)}` }));
  return box;
}

/** The way of a track as dots, with the present stage in words. */
export function steps(one) {
  const at = Math.max(0, STEPS.findIndex((step) => step.stage === one.stage));
  const words = one.stage === "uploading" && one.progress < 1 ? `Uploading ${Math.floor(one.progress * 100)}%` : stageWords(one.stage);
  return h("span", { class: "steps" },
    h("span", { class: "dots", "aria-hidden": "true" },
      ...STEPS.map((step, place) => h("i", { class: place < at ? "past" : place === at && one.stage !== "held" ? "now" : "" }))),
    h("span", { class: "stage", text: words }));
}
