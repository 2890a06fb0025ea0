// One track: its sound, the evidence along it, and what was found out.
import * as api from "./api.js";
import { aboutCard, card, errorsCard, featuresCard, genreCard, keyCard, moodCard, tagsCard } from "./cards.js";
import { Curves } from "./curves.js";
import { announce, h } from "./dom.js";
import { capital, clock, percent, trackName } from "./format.js";
import { colour, shown } from "./labels.js";
import { plane } from "./plane.js";
import { Player } from "./player.js";
import { steps } from "./progress.js";
import { removeTracks } from "./removal.js";
import { moodAt, notHeard, Ribbon, within } from "./ribbon.js";
import { errorWords, FINISHED } from "./words.js";

/** The rest of the track behind its last whole segment is no gap. */
const SHORTEST_GAP_S = 3;

export class TrackView {
  #place;
  #around;
  #id = null;
  #abort = new AbortController();
  #player = null;
  #curves = null;
  #stage = null;
  #soundNote = null;

  constructor(place, around) {
    this.#place = place;
    this.#around = around;
    const { activity, live } = around;
    live.addEventListener("track", (event) => this.#moved(event.detail));
    live.addEventListener("result", (event) => event.detail.request_id === this.#id && !this.#player && this.#load());
    live.addEventListener("resumed", () => this.#stage && this.#load());
    live.addEventListener("removed", (event) => {
      if (event.detail.request_ids.includes(this.#id)) this.#fault({ code: "not_found", detail: "It was removed from the library." });
    });
    activity.addEventListener("change", () => {
      const one = this.#stage && activity.byId(this.#id);
      if (one) this.#showStage(one);
    });
    document.addEventListener("tonestream:theme", () => { this.#player?.repaint(); this.#curves?.draw(); });
    addEventListener("keydown", (event) => {
      const idle = event.target === document.body || event.target.id === "main";
      if (this.#player && idle) this.#player.pressed(event);
      if (event.key === "Escape" && this.#id && idle) around.open(null);
    });
  }

  show(id) {
    if (id === this.#id) return;
    this.leave();
    this.#id = id;
    this.#place.replaceChildren(this.#head({ title: "…" }));
    this.#load();
  }

  leave() {
    this.#abort.abort();
    this.#player?.close();
    this.#curves?.close();
    this.#player = this.#curves = this.#stage = this.#id = null;
    this.#place.replaceChildren();
  }

  async #load() {
    this.#abort.abort();
    this.#abort = new AbortController();
    const { signal } = this.#abort;
    let state;
    try {
      state = await api.track(this.#id, signal);
    } catch (error) {
      if (error.name !== "AbortError") this.#fault(error);
      return;
    }
    if (signal.aborted) return;
    if (state.result) this.#draw(state);
    else this.#wait(state);
  }

  #fault(error) {
    const words = errorWords(error.code);
    this.#place.replaceChildren(this.#head({ title: "This track cannot be shown" }),
      h("div", { class: "trouble", role: "alert" }, h("p", {}, h("strong", { text: words.what }), ` ${words.todo}`),
        h("p", { class: "soft", text: error.detail ?? String(error) }),
        h("button", { type: "button", text: "Try again", on: { click: () => this.#load() } })));
  }

  #head(track, side = null) {
    document.title = `${trackName(track)} – Tonestream`;
    const line = [track.artist, track.duration_s && clock(track.duration_s)].filter(Boolean).join(" · ");
    return h("header", { class: "track-head" },
      h("a", { class: "back", href: "#/", text: "← All tracks", on: { click: (event) => { event.preventDefault(); this.#around.open(null); } } }),
      h("h1", { text: trackName(track) }),
      line && h("p", { class: "by", text: line }),
      track.source && h("p", { class: "soft source", text: track.source, title: track.source }), side);
  }

  /** A track under way. */
  #wait(state) {
    this.#stage = h("div", { class: "stage-now", role: "status" });
    this.#place.replaceChildren(this.#head({ source: state.source, title: null }),
      h("section", { class: "card waiting-card", "aria-label": "Progress" }, this.#stage,
        h("p", { class: "soft", text: "The evidence appears here by itself." })));
    this.#showStage({ stage: state.stage, progress: 1 });
  }

  #showStage(one) {
    this.#stage?.replaceChildren(steps(one));
  }

  #moved({ request_id: id, stage }) {
    if (id !== this.#id || !this.#stage) return;
    if (FINISHED.has(stage)) this.#load();
    else this.#showStage({ stage, progress: 1 });
  }

  #draw(state) {
    const { result } = state;
    this.#stage = null;
    this.#player?.close();
    this.#curves?.close();
    const seconds = result.track.duration_s ?? 0;
    const heard = result.genre?.segments ?? [];
    const moods = result.mood?.segments ?? [];
    const drawnPlane = result.mood ? plane(result.mood) : null;
    const again = h("button", { type: "button", text: result.status === "failed" ? "Try again" : "Listen again", on: { click: () => this.#again(state, again) } });
    const download = h("a", { class: "button", href: `/v1/results.jsonl?id=${encodeURIComponent(this.#id)}`, download: "", text: "JSON" });
    const remove = h("button", { type: "button", class: "quiet", text: "Remove", on: { click: () => this.#remove(result.track) } });
    const failed = result.status === "failed";
    this.#place.replaceChildren(
      this.#head(result.track, h("div", { class: "buttons actions" }, !failed && again, download, remove)),
      ...[
        errorsCard(result.errors, failed && h("div", { class: "buttons" }, again)),
        seconds > 0 && !failed && this.#timeline(result, heard, moods, seconds, drawnPlane),
        !failed && h("div", { class: "cards" }, ...[
          [genreCard(result, state.outside), keyCard(result), tagsCard(result), this.#similar()],
          [moodCard(result.mood, drawnPlane?.drawing)],
          [featuresCard(result), aboutCard(result, state)],
        ].map((cards) => h("div", { class: "column" }, ...cards))),
        failed && aboutCard(result, state),
      ].filter(Boolean));
    if (result.genre) announce(`${trackName(result.track)}: ${shown(result.genre.label)}, ${percent(result.genre.confidence)}`);
    this.#curves?.draw();
    if (!failed) this.#sound();
  }

  #timeline(result, heard, moods, seconds, drawnPlane) {
    const player = new Player(this.#id, seconds);
    const { silences } = result.track;
    const ribbon = new Ribbon(heard, moods, seconds, silences);
    const curves = moods.length > 1 ? new Curves(moods, seconds) : null;
    this.#player = player;
    this.#curves = curves;
    const play = h("button", { type: "button", class: "play", disabled: true, "aria-label": "Play", on: { click: () => player.toggle() } });
    const time = h("span", { class: "time", text: `0:00 / ${clock(seconds)}` });
    const moment = h("p", { class: "moment" });
    const note = h("p", { class: "soft sound-note", role: "status" });
    this.#soundNote = note;
    const head = h("div", { class: "playhead", "aria-hidden": "true" });
    const lanes = h("div", { class: "lanes" }, player.place, ribbon.names, ribbon.box, curves?.place, head);
    const follow = () => {
      head.style.left = `${(player.time / player.duration) * 100}%`;
      time.textContent = `${clock(player.time)} / ${clock(player.duration)}`;
      const segment = ribbon.mark(player.time);
      const mood = moodAt(moods, player.time);
      drawnPlane?.mark(mood);
      const said = momentWords(result, segment, mood, player.time);
      if (moment.dataset.said !== said.key) {
        moment.dataset.said = said.key;
        moment.replaceChildren(...said.parts);
      }
    };
    player.addEventListener("time", follow);
    player.addEventListener("state", () => {
      play.disabled = !player.hasSound;
      play.classList.toggle("playing", player.playing);
      play.setAttribute("aria-label", player.playing ? "Pause" : "Play");
    });
    ribbon.addEventListener("part", (event) => {
      const { start_s: start, end_s: end } = heard[event.detail];
      if (player.hasSound) player.part(start, end);
      else player.seek(start);
    });
    ribbon.addEventListener("look", (event) => !player.playing && player.seek(heard[event.detail].start_s));
    curves?.place.addEventListener("click", (event) => player.seek((event.offsetX / curves.place.clientWidth) * player.duration));
    follow();
    return h("section", { class: "card timeline", "aria-label": "Along the track" },
      h("div", { class: "transport" }, play, time, moment), note, lanes,
      h("p", { class: "legend" },
        h("span", {}, h("i", { class: "key-bar" }), "genre of a segment; the taller, the surer"),
        ...gapKeys(heard, silences, seconds),
        curves && h("span", {}, h("i", { class: "key-energy" }), "energy"), curves && h("span", {}, h("i", { class: "key-valence" }), "valence")));
  }

  async #sound() {
    const player = this.#player;
    try {
      await player?.load();
    } catch (error) {
      if (player !== this.#player || !player) return;
      const words = errorWords(error.code);
      player.place.classList.add("silent");
      this.#soundNote.textContent = `${words.what} ${error.code === "audio_gone" || error.code === "not_found" ? "The evidence stays: choose a segment to see why." : words.todo}`;
    }
  }

  async #again(state, button) {
    button.disabled = true;
    const { activity, sender, open } = this.#around;
    const here = activity.byId(state.request_id);
    if (here?.file && state.stage === "failed") {
      sender.again(here);
      const id = await activity.accepted(here);
      open(id);
      return;
    }
    try {
      const accepted = await api.retry(state.request_id);
      if (here) activity.update(here, { id: accepted.request_id, stage: accepted.stage, problem: null, row: null });
      else activity.add({ id: accepted.request_id, source: accepted.source, stage: accepted.stage });
      open(accepted.request_id);
    } catch (error) {
      button.disabled = false;
      const words = errorWords(error.code);
      button.after(h("p", { class: "fault", role: "alert", text: `${words.what} ${words.todo}` }));
    }
  }

  async #remove(track) {
    if (await removeTracks([this.#id], trackName(track))) this.#around.open(null);
  }

  #similar() {
    const list = h("ul", { class: "similar-list" });
    const box = card("Similar tracks", "similar", list);
    box.hidden = true;
    const id = this.#id;
    api.similar(id, 8).then(({ results }) => {
      if (id !== this.#id || !results.length) return;
      list.replaceChildren(...results.map((row) => h("li", {},
        h("a", { href: `#/track/${encodeURIComponent(row.id)}` }, h("span", { class: "dot", style: { "--genre": colour(row.genre) } }), h("span", { class: "name", text: trackName(row) })),
        h("span", { class: "soft", text: row.genre ? capital(shown(row.genre)) : "" }), h("span", { class: "number", text: percent(row.similarity) }))));
      box.hidden = false;
    }, () => {}); // without an embedding there is nothing to compare
    return box;
  }
}

/** The legend of what is no bar: as hatching what was not heard, grey what is silent. */
function gapKeys(heard, silences, seconds) {
  if (!silences) return [h("span", {}, h("i", { class: "key-hatched" }), "silent or not heard")];
  const spoken = silences.map((one) => `${clock(one.start_s)}\u2013${clock(Math.min(one.end_s, seconds))}`).join(", ");
  return [
    notHeard(heard, silences, seconds) > SHORTEST_GAP_S && h("span", {}, h("i", { class: "key-hatched" }), `not heard: ${heard.length} segments stand for the track`),
    silences.length > 0 && h("span", {}, h("i", { class: "key-silent" }), "silent", h("span", { class: "unseen", text: `: ${spoken}` })),
  ];
}

function gapWords(result, time) {
  const { silences } = result.track;
  if (!silences) return "This part is silent or was not heard.";
  return within(silences, time) ? "This part is silent." : "This part was not heard.";
}

/** Why the moment is what it is. */
function momentWords(result, segment, mood, time) {
  if (!segment) return { key: time ? gapWords(result, time) : "none", parts: [h("span", { class: "soft", text: time ? gapWords(result, time) : "Choose a segment to hear it and to see why." })] };
  const { genre } = result;
  const same = segment.label === genre.label;
  const key = `${segment.start_s}${mood?.label ?? ""}`;
  return { key, parts: [
    h("span", { class: "soft", text: `${clock(segment.start_s)}–${clock(segment.end_s)} ` }),
    h("span", { class: "dot", style: { "--genre": colour(segment.label) } }),
    h("strong", { text: `${capital(shown(segment.label))} ${percent(segment.confidence)}` }),
    h("span", { class: "soft", text: same ? " as the whole track" : ` unlike the whole track (${shown(genre.label)})` }),
    segment.runner_up && h("span", { class: "soft", text: `, runner-up ${shown(segment.runner_up.label)} ${percent(segment.runner_up.confidence)}` }),
    mood && h("span", { text: ` · ${mood.label} ${percent(mood.confidence)}` }),
    mood && h("span", { class: "soft", text: ` (energy ${mood.energy.toFixed(2)}, valence ${mood.valence.toFixed(2)})` }),
  ].filter(Boolean) };
}
