// The sound of a track, and the time that everything on its page follows. Works without sound: then only time moves.
import * as api from "./api.js";
import { h } from "./dom.js";
import { clock } from "./format.js";
import { resolved } from "./theme.js";

const POINTS = 1200;
const HEIGHT = 84;
const STEP_S = 3;
// How long after an error the time may stand still before the sound counts as gone.
const STILL_MS = 1000;

/** Events: `time` (the position is another), `state` (playing or not, with sound or without). */
export class Player extends EventTarget {
  #id;
  #audio = null;
  #wave = null;
  #until = Infinity;
  #time = 0;
  #frame = 0;

  /** @param {string} id @param {number} duration in seconds */
  constructor(id, duration) {
    super();
    this.#id = id;
    this.duration = duration;
    this.place = h("div", { class: "wave", tabindex: "0", role: "slider", "aria-label": "Position in the track", "aria-valuemin": "0" });
    this.place.addEventListener("keydown", (event) => this.pressed(event));
    this.#describe();
  }

  get time() {
    return this.#time;
  }

  get playing() {
    return Boolean(this.#audio && !this.#audio.paused);
  }

  get hasSound() {
    return Boolean(this.#audio);
  }

  /** Draw the outline and make it play. Throws ApiError where the audio is gone. */
  async load() {
    const [{ default: WaveSurfer }, outline] = await Promise.all([import("../vendor/wavesurfer.esm.js"), api.waveform(this.#id, POINTS)]);
    const audio = new Audio();
    audio.preload = "metadata";
    this.place.after(audio);
    audio.src = api.trackPath(this.#id, "/audio");
    this.#audio = audio;
    this.duration = outline.duration_s || this.duration;
    this.#wave = WaveSurfer.create({
      container: this.place,
      media: audio,
      peaks: [outline.peaks.map(([, most]) => most), outline.peaks.map(([least]) => least)],
      duration: this.duration,
      height: HEIGHT,
      barWidth: 2,
      barGap: 1,
      barRadius: 2,
      normalize: true,
      cursorWidth: 0,
      dragToSeek: true,
      hideScrollbar: true,
      ...this.#colours(),
    });
    this.#wave.on("interaction", () => { this.#until = Infinity; });
    for (const event of ["play", "pause", "ended"]) audio.addEventListener(event, () => this.#state());
    for (const event of ["timeupdate", "seeking", "seeked"]) audio.addEventListener(event, () => this.#follow());
    audio.addEventListener("error", () => this.#failed(audio));
    this.#state();
  }

  repaint() {
    this.#wave?.setOptions(this.#colours());
  }

  /** Go to `time`, in seconds. */
  seek(time) {
    this.#until = Infinity;
    this.#time = Math.min(Math.max(0, time), this.duration);
    if (this.#audio) this.#audio.currentTime = this.#time;
    this.#say();
  }

  /** Play from `start` to `end`, in seconds. */
  async part(start, end) {
    this.seek(start);
    this.#until = end;
    await this.#play();
  }

  async toggle() {
    if (!this.#audio) return;
    this.#until = Infinity;
    if (this.#audio.paused) await this.#play();
    else this.#audio.pause();
  }

  /** The keys of a player: space, arrows, home, end. */
  pressed(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const goes = { ArrowRight: this.#time + STEP_S, ArrowLeft: this.#time - STEP_S, Home: 0, End: this.duration };
    if (event.key === " ") this.toggle();
    else if (event.key in goes) this.seek(goes[event.key]);
    else return;
    event.preventDefault();
    event.stopPropagation();
  }

  close() {
    cancelAnimationFrame(this.#frame);
    this.#audio?.pause();
    this.#wave?.destroy();
    this.#audio?.removeAttribute("src"); // the browser stops to fetch it
    this.#audio = null;
  }

  async #play() {
    try {
      await this.#audio?.play();
    } catch {
      // Another click may have stopped it before it began.
    }
  }

  /** Firefox reports an error, too, where there is no loudspeaker, and plays on. */
  #failed(audio) {
    const lost = () => {
      if (this.#audio !== audio) return;
      audio.pause();
      this.#audio = null;
      this.#state();
    };
    if (audio.paused) return lost();
    const before = audio.currentTime;
    setTimeout(() => audio.currentTime === before && lost(), STILL_MS);
  }

  #colours() {
    return { waveColor: resolved("var(--wave)"), progressColor: resolved("var(--accent)") };
  }

  #follow() {
    if (!this.#audio) return;
    this.#time = this.#audio.currentTime;
    if (this.#time >= this.#until) {
      this.#audio.pause();
      this.#until = Infinity;
    }
    this.#say();
  }

  #state() {
    cancelAnimationFrame(this.#frame);
    const run = () => {
      this.#follow();
      if (this.playing) this.#frame = requestAnimationFrame(run);
    };
    if (this.playing) run();
    this.dispatchEvent(new Event("state"));
  }

  #say() {
    this.#describe();
    this.dispatchEvent(new Event("time"));
  }

  #describe() {
    this.place.setAttribute("aria-valuemax", String(Math.round(this.duration)));
    this.place.setAttribute("aria-valuenow", String(Math.round(this.#time)));
    this.place.setAttribute("aria-valuetext", `${clock(this.#time)} of ${clock(this.duration)}`);
  }
}
