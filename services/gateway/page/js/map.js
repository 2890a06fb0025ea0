// The library as points: energy by valence, coloured by genre. A line drawn around points selects them.
import * as api from "./api.js";
import { announce, h, onceAFrame } from "./dom.js";
import { capital, count, percent } from "./format.js";
import { colour, GENRES, shown } from "./labels.js";
import { resolved } from "./theme.js";

const MARGIN = { left: 34, right: 14, top: 14, bottom: 30 };
const NEAR = 14;
/** Cells of the index that finds the point under the pointer, along each side. */
const CELLS = 48;

/** Events: `open` (with `detail`: an ID). */
export class LibraryMap extends EventTarget {
  #selection;
  #points = { id: [], energy: [], valence: [], genre: [], confidence: [], title: [] };
  #index = [];
  #canvas;
  #tip = h("div", { class: "map-tip", hidden: true });
  #said = h("p", { class: "soft" });
  #near = -1;
  #line = [];
  #abort = new AbortController();
  #draw = onceAFrame(() => this.#paint());

  constructor(place, selection) {
    super();
    this.#selection = selection;
    this.#canvas = h("canvas", { tabindex: "0", role: "application", "aria-roledescription": "map", "aria-label": "Map of the tracks: valence from left to right, energy upwards. Arrow keys go from track to track, the space bar selects, Enter opens." });
    this.box = h("div", { class: "map" },
      h("div", { class: "map-head" }, this.#said, h("p", { class: "soft hint", text: "Draw a line around tracks to select them." })),
      h("div", { class: "map-place" }, this.#canvas, this.#tip));
    place.append(this.box);
    new ResizeObserver(this.#draw).observe(this.#canvas);
    document.addEventListener("tonestream:theme", this.#draw);
    selection.addEventListener("change", this.#draw);
    this.#canvas.addEventListener("pointerdown", (event) => this.#down(event));
    this.#canvas.addEventListener("pointermove", (event) => this.#move(event));
    this.#canvas.addEventListener("pointerup", (event) => this.#up(event));
    this.#canvas.addEventListener("pointercancel", () => this.#cancel());
    this.#canvas.addEventListener("pointerleave", () => this.#hover(-1));
    this.#canvas.addEventListener("keydown", (event) => this.#pressed(event));
    this.#canvas.addEventListener("blur", () => this.#hover(-1));
  }

  /** @param {URLSearchParams} filters */
  async ask(filters) {
    this.#abort.abort();
    this.#abort = new AbortController();
    const { signal } = this.#abort;
    try {
      const points = await api.map(filters, signal);
      if (signal.aborted) return;
      this.#points = points;
    } catch (error) {
      if (error.name !== "AbortError") this.#said.textContent = error.detail;
      return;
    }
    this.#index = Array.from({ length: CELLS * CELLS }, () => []);
    this.#points.id.forEach((_, place) => this.#index[this.#cellOf(place)].push(place));
    this.#near = -1;
    this.#said.textContent = `${count(this.#points.id.length, "track")} with energy and valence.`;
    this.#draw();
  }

  #cellOf(place) {
    const at = (value) => Math.min(CELLS - 1, Math.max(0, Math.floor(value * CELLS)));
    return at(this.#points.energy[place]) * CELLS + at(this.#points.valence[place]);
  }

  get #size() {
    return { width: this.#canvas.clientWidth, height: this.#canvas.clientHeight };
  }

  #at(place) {
    const { width, height } = this.#size;
    return [
      MARGIN.left + this.#points.valence[place] * (width - MARGIN.left - MARGIN.right),
      height - MARGIN.bottom - this.#points.energy[place] * (height - MARGIN.top - MARGIN.bottom),
    ];
  }

  #paint() {
    const { width, height } = this.#size;
    if (!width) return;
    const ratio = devicePixelRatio || 1;
    this.#canvas.width = Math.round(width * ratio);
    this.#canvas.height = Math.round(height * ratio);
    const pen = this.#canvas.getContext("2d");
    pen.scale(ratio, ratio);
    this.#paintAxes(pen, width, height);
    const colours = Object.fromEntries(GENRES.map((genre) => [genre, resolved(colour(genre))]));
    const grey = resolved("var(--none)");
    const many = this.#points.id.length;
    const radius = many > 20_000 ? 1.6 : many > 3000 ? 2.2 : many > 300 ? 3.2 : 5;
    const picked = [];
    pen.globalAlpha = many > 3000 ? 0.6 : 0.85;
    const fades = this.#selection.size > 0;
    for (let place = 0; place < many; place += 1) {
      if (fades && this.#selection.has(this.#points.id[place])) {
        picked.push(place);
        continue;
      }
      pen.fillStyle = colours[this.#points.genre[place]] ?? grey;
      if (fades) pen.globalAlpha = 0.22;
      this.#dot(pen, place, radius);
    }
    pen.globalAlpha = 1;
    for (const place of picked) {
      pen.fillStyle = colours[this.#points.genre[place]] ?? grey;
      this.#dot(pen, place, radius + 0.8);
    }
    if (this.#near >= 0) this.#ring(pen, this.#near, radius + 4);
    if (this.#line.length > 1) this.#paintLine(pen);
  }

  #dot(pen, place, radius) {
    const [x, y] = this.#at(place);
    pen.beginPath();
    pen.arc(x, y, radius, 0, 7);
    pen.fill();
  }

  #ring(pen, place, radius) {
    const [x, y] = this.#at(place);
    pen.strokeStyle = resolved("var(--ink)");
    pen.lineWidth = 2;
    pen.beginPath();
    pen.arc(x, y, radius, 0, 7);
    pen.stroke();
  }

  #paintAxes(pen, width, height) {
    const line = resolved("var(--line)");
    const soft = resolved("var(--soft)");
    pen.font = "12px system-ui, sans-serif";
    pen.lineWidth = 1;
    for (const value of [0, 0.25, 0.5, 0.75, 1]) {
      const x = Math.round(MARGIN.left + value * (width - MARGIN.left - MARGIN.right)) + 0.5;
      const y = Math.round(height - MARGIN.bottom - value * (height - MARGIN.top - MARGIN.bottom)) + 0.5;
      pen.strokeStyle = line;
      pen.beginPath();
      pen.moveTo(x, MARGIN.top);
      pen.lineTo(x, height - MARGIN.bottom);
      pen.moveTo(MARGIN.left, y);
      pen.lineTo(width - MARGIN.right, y);
      pen.stroke();
    }
    pen.fillStyle = soft;
    pen.textAlign = "left";
    pen.fillText("darker", MARGIN.left, height - 10);
    pen.textAlign = "center";
    pen.fillText("valence", (MARGIN.left + width - MARGIN.right) / 2, height - 10);
    pen.textAlign = "right";
    pen.fillText("brighter", width - MARGIN.right, height - 10);
    pen.save();
    pen.translate(20, 0);
    pen.rotate(-Math.PI / 2);
    pen.textAlign = "left";
    pen.fillText("softer", -(height - MARGIN.bottom), 0);
    pen.textAlign = "center";
    pen.fillText("energy", -(MARGIN.top + height - MARGIN.bottom) / 2, 0);
    pen.textAlign = "right";
    pen.fillText("stronger", -MARGIN.top, 0);
    pen.restore();
  }

  #paintLine(pen) {
    pen.beginPath();
    pen.moveTo(...this.#line[0]);
    for (const point of this.#line) pen.lineTo(...point);
    pen.closePath();
    pen.strokeStyle = resolved("var(--accent)");
    pen.lineWidth = 1.5;
    pen.setLineDash([5, 4]);
    pen.stroke();
    pen.setLineDash([]);
    pen.globalAlpha = 0.1;
    pen.fillStyle = resolved("var(--accent)");
    pen.fill();
    pen.globalAlpha = 1;
  }

  #down(event) {
    if (event.button !== 0) return;
    this.#canvas.setPointerCapture(event.pointerId);
    this.#line = [[event.offsetX, event.offsetY]];
  }

  #move(event) {
    const point = [event.offsetX, event.offsetY];
    if (!this.#line.length) {
      this.#hover(this.#nearest(...point));
      return;
    }
    const [x, y] = this.#line[this.#line.length - 1];
    if (Math.hypot(point[0] - x, point[1] - y) > 3) this.#line.push(point);
    this.#draw();
  }

  #up(event) {
    const line = this.#line;
    this.#line = [];
    if (line.length > 4) {
      const inside = this.#inside(line);
      if (event.shiftKey) this.#selection.add(inside);
      else this.#selection.set(inside);
      announce(`${count(inside.length, "track")} selected`);
    } else if (line.length) {
      const near = this.#nearest(event.offsetX, event.offsetY);
      if (near >= 0) this.#open(near);
      else if (this.#selection.size) this.#selection.clear();
    }
    this.#draw();
  }

  #cancel() {
    this.#line = [];
    this.#draw();
  }

  #inside(line) {
    return this.#points.id.filter((_, place) => {
      const [x, y] = this.#at(place);
      let within = false;
      for (let one = 0, other = line.length - 1; one < line.length; other = one, one += 1) {
        const [[x1, y1], [x2, y2]] = [line[one], line[other]];
        if (y1 > y !== y2 > y && x < ((x2 - x1) * (y - y1)) / (y2 - y1) + x1) within = !within;
      }
      return within;
    });
  }

  #nearest(x, y) {
    const { width, height } = this.#size;
    const valence = (x - MARGIN.left) / (width - MARGIN.left - MARGIN.right);
    const energy = (height - MARGIN.bottom - y) / (height - MARGIN.top - MARGIN.bottom);
    const [column, line] = [Math.floor(valence * CELLS), Math.floor(energy * CELLS)];
    let [best, distance] = [-1, NEAR];
    for (let a = line - 2; a <= line + 2; a += 1) {
      for (let b = column - 2; b <= column + 2; b += 1) {
        if (a < 0 || b < 0 || a >= CELLS || b >= CELLS || !this.#index.length) continue;
        for (const place of this.#index[a * CELLS + b]) {
          const [px, py] = this.#at(place);
          const away = Math.hypot(px - x, py - y);
          if (away < distance) [best, distance] = [place, away];
        }
      }
    }
    return best;
  }

  #hover(place) {
    if (place === this.#near) return;
    this.#near = place;
    this.#tip.hidden = place < 0;
    this.#canvas.style.cursor = place < 0 ? "crosshair" : "pointer";
    if (place >= 0) {
      const [x, y] = this.#at(place);
      const { title, genre, confidence } = this.#points;
      this.#tip.replaceChildren(h("strong", { text: title[place] }),
        h("span", { text: genre[place] ? `${capital(shown(genre[place]))} ${percent(confidence[place])}` : "no genre" }));
      this.#tip.classList.toggle("left", x > this.#size.width / 2);
      this.#tip.style.transform = `translate(${x}px, ${y}px)`;
    }
    this.#draw();
  }

  #pressed(event) {
    const ways = { ArrowRight: [1, 0], ArrowLeft: [-1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
    if (event.key in ways) {
      event.preventDefault();
      this.#hover(this.#near < 0 ? this.#middle() : this.#next(...ways[event.key]));
      if (this.#near >= 0) announce(this.#tip.textContent);
    } else if (event.key === " " && this.#near >= 0) {
      event.preventDefault();
      this.#selection.toggle(this.#points.id[this.#near]);
      announce(`${count(this.#selection.size, "track")} selected`);
    } else if (event.key === "Delete" && (this.#near >= 0 || this.#selection.size)) {
      event.preventDefault();
      if (!this.#selection.size) this.#selection.toggle(this.#points.id[this.#near]);
      this.dispatchEvent(new Event("remove"));
    } else if (event.key === "Enter" && this.#near >= 0) this.#open(this.#near);
    else if (event.key === "Escape") this.#selection.clear();
  }

  #middle() {
    const { width, height } = this.#size;
    return this.#closest((x, y) => Math.hypot(x - width / 2, y - height / 2));
  }

  /** The next point in that direction: a near one that is not far to the side. */
  #next(dx, dy) {
    const [fromX, fromY] = this.#at(this.#near);
    const found = this.#closest((x, y, place) => {
      const [along, aside] = [(x - fromX) * dx + (y - fromY) * dy, Math.abs((x - fromX) * dy + (y - fromY) * dx)];
      return place === this.#near || along <= 0 || aside > along * 2 ? Infinity : along + aside * 2;
    });
    return found < 0 ? this.#near : found;
  }

  #closest(cost) {
    let [best, least] = [-1, Infinity];
    this.#points.id.forEach((_, place) => {
      const one = cost(...this.#at(place), place);
      if (one < least) [best, least] = [place, one];
    });
    return best;
  }

  #open(place) {
    this.dispatchEvent(new CustomEvent("open", { detail: this.#points.id[place] }));
  }
}
