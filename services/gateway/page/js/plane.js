// The mood on the plane of valence and energy: the whole track, and its way through it.
import { svg } from "./dom.js";

const SIZE = 240;
const EDGE = 22;

/** @param {any} mood of a result */
export function plane(mood) {
  const at = ({ energy, valence }) => [EDGE + valence * (SIZE - 2 * EDGE), SIZE - EDGE - energy * (SIZE - 2 * EDGE)];
  const whole = at(mood.features);
  const way = mood.segments.map(at);
  const moment = svg("circle", { class: "plane-moment", r: 7, visibility: "hidden" });
  const middle = SIZE / 2;
  const drawing = svg("svg", {
    class: "plane", viewBox: `0 0 ${SIZE} ${SIZE}`, role: "img",
    "aria-label": `Valence ${mood.features.valence.toFixed(2)}, energy ${mood.features.energy.toFixed(2)}`,
  },
    svg("rect", { class: "plane-field", x: EDGE, y: EDGE, width: SIZE - 2 * EDGE, height: SIZE - 2 * EDGE, rx: 6 }),
    svg("path", { class: "plane-cross", d: `M${middle} ${EDGE}V${SIZE - EDGE}M${EDGE} ${middle}H${SIZE - EDGE}` }),
    svg("polyline", { class: "plane-way", points: way.map((point) => point.join(",")).join(" ") }),
    ...way.map(([cx, cy]) => svg("circle", { class: "plane-step", cx, cy, r: 2.2 })),
    moment,
    svg("circle", { class: "plane-whole", cx: whole[0], cy: whole[1], r: 6.5 }),
    text("softer · darker", EDGE, SIZE - 7, "start"), text("brighter", SIZE - EDGE, SIZE - 7, "end"),
    text("stronger", EDGE, 14, "start"));
  return {
    drawing,
    /** Where the moment is; nowhere for null. */
    mark(segment) {
      moment.setAttribute("visibility", segment ? "visible" : "hidden");
      if (!segment) return;
      const [cx, cy] = at(segment);
      moment.setAttribute("cx", cx);
      moment.setAttribute("cy", cy);
    },
  };
}

function text(words, x, y, anchor) {
  const element = svg("text", { x, y, "text-anchor": anchor });
  element.textContent = words;
  return element;
}
