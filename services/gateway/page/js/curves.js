// Energy and valence over the track, as uPlot draws them, as wide as the waveform above.
import { h } from "./dom.js";
import { resolved } from "./theme.js";

const HEIGHT = 92;
let uPlot = null;

/** uPlot comes as a classic script that sets a global name. */
function loaded() {
  uPlot ??= new Promise((resolve, reject) => {
    document.head.append(
      h("link", { rel: "stylesheet", href: "/static/vendor/uPlot.min.css" }),
      h("script", { src: "/static/vendor/uPlot.iife.min.js", on: { load: () => resolve(window.uPlot), error: reject } }),
    );
  });
  return uPlot;
}

export class Curves {
  #plot = null;
  #sizes = null;

  /** @param {any[]} segments of the mood @param {number} duration in seconds */
  constructor(segments, duration) {
    this.segments = segments;
    this.duration = duration;
    this.place = h("div", { class: "curves", role: "img", "aria-label": this.#words() });
  }

  async draw() {
    const Plot = await loaded();
    if (!this.place.isConnected) return;
    this.#plot?.destroy();
    const line = (css, dash) => ({ stroke: resolved(css), width: 2, dash, points: { show: this.segments.length < 40, size: 5, fill: resolved(css) } });
    const grid = resolved("var(--line)");
    const middles = this.segments.map((segment) => (segment.start_s + segment.end_s) / 2);
    this.#plot = new Plot({
      width: Math.max(40, this.place.clientWidth),
      height: HEIGHT,
      padding: [6, 0, 6, 0],
      legend: { show: false },
      cursor: { show: false },
      select: { show: false },
      scales: { x: { time: false, range: [0, this.duration] }, y: { range: [0, 1] } },
      axes: [{ show: false }, { show: false }],
      series: [{}, line("var(--energy)"), line("var(--valence)", [6, 4])],
      hooks: { drawClear: [(plot) => gridLines(plot, grid)] },
    }, [middles, this.segments.map((one) => one.energy), this.segments.map((one) => one.valence)], this.place);
    if (!this.#sizes) {
      this.#sizes = new ResizeObserver(() => this.#plot?.setSize({ width: Math.max(40, this.place.clientWidth), height: HEIGHT }));
      this.#sizes.observe(this.place);
    }
  }

  close() {
    this.#sizes?.disconnect();
    this.#plot?.destroy();
    this.#plot = null;
  }

  #words() {
    const span = (name) => {
      const values = this.segments.map((one) => one[name]);
      return `${name} from ${Math.min(...values).toFixed(2)} to ${Math.max(...values).toFixed(2)}`;
    };
    return `Over the track: ${span("energy")}, ${span("valence")}.`;
  }
}

function gridLines(plot, colour) {
  const { ctx, bbox } = plot;
  ctx.save();
  ctx.strokeStyle = colour;
  ctx.lineWidth = devicePixelRatio || 1;
  for (const part of [0, 0.5, 1]) {
    const y = Math.round(bbox.top + bbox.height * part) + 0.5;
    ctx.beginPath();
    ctx.moveTo(bbox.left, y);
    ctx.lineTo(bbox.left + bbox.width, y);
    ctx.stroke();
  }
  ctx.restore();
}
