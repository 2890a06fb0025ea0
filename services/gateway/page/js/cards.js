// What was found out about one track, card by card. Pure: a result in, elements out.
import { h } from "./dom.js";
import { capital, clock, duration, percent } from "./format.js";
import { colour, shown } from "./labels.js";
import { errorWords, FEATURES, meaning, serviceWords } from "./words.js";

/** @param {string} title @param {string} kind the class @param {...any} children */
export function card(title, kind, ...children) {
  return h("section", { class: `card ${kind}`, "aria-label": title }, h("h2", { text: title }), ...children);
}

export function genreCard(result, outside) {
  const { genre } = result;
  if (!genre) return null;
  const second = genre.alternatives[0];
  const ranked = Object.entries(genre.probabilities).sort((one, other) => other[1] - one[1]);
  return card("Genre", "genre",
    answer(shown(genre.label), genre, colour(genre.label)),
    h("p", { text: meaning(genre.confidence, genre.uncertain) }),
    h("p", { class: "soft", text: `${percent(genre.agreement)} of the segments that were heard say ${shown(genre.label)}.${second ? ` Runner-up: ${shown(second.label)}, ${percent(second.confidence)}.` : ""}` }),
    fit(result, outside),
    h("details", {}, h("summary", { text: "All ten genres" }),
      h("ul", { class: "bars" }, ...ranked.map(([label, share]) => bar(capital(shown(label)), share, percent(share), colour(label))))));
}

function fit(result, outside) {
  const found = result.genre.fit;
  if (!found) return null;
  const tags = result.tags.slice(0, 4).map((tag) => tag.label).join(", ");
  if (outside) {
    return h("p", { class: "remark" }, h("strong", { text: "None of the ten?" }),
      ` This track is probably of another kind${tags ? `; listeners would say ${tags}` : ""}.`);
  }
  return h("p", { class: "soft", text: `Fit: ${percent(found.probability)} likely to be one of the ten genres at all.` });
}

export function moodCard(mood, plane) {
  if (!mood) return null;
  const ranked = Object.entries(mood.probabilities).sort((one, other) => other[1] - one[1]);
  return card("Mood", "mood",
    answer(mood.label, mood, "var(--accent)"),
    h("p", { text: meaning(mood.confidence, mood.uncertain) }),
    h("div", { class: "mood-body" }, h("ul", { class: "bars" }, ...ranked.map(([label, share]) => bar(capital(label), share, percent(share)))),
      h("figure", {}, plane, h("figcaption", { class: "soft", text: mood.segments.length ? "Valence to the right, energy upwards: the whole track, and its way." : "Valence to the right, energy upwards." }))));
}

function answer(label, half, css) {
  return h("p", { class: "answer", style: { "--genre": css } },
    h("span", { class: "answer-label", text: `${capital(label)}${half.uncertain ? "?" : ""}` }),
    h("span", { class: "answer-share", text: percent(half.confidence) }),
    h("span", { class: "answer-bar", "aria-hidden": "true", style: { "--share": String(half.confidence) } }));
}

function bar(label, share, value, css = "var(--accent)") {
  return h("li", {}, h("span", { class: "bar-label", text: label }),
    h("span", { class: "bar", "aria-hidden": "true", style: { "--share": String(share), "--genre": css } }), h("span", { class: "bar-value", text: value }));
}

export function featuresCard(result) {
  const features = result.audio_features;
  if (!features) return null;
  const rows = FEATURES.map(({ name, label, from, to, unit, say, digits }) => {
    const value = features[name];
    const share = Math.min(1, Math.max(0, (value - from) / (to - from)));
    let written = name === "duration_ms" ? clock(value / 1000) : value.toFixed(digits).replace("-", "−");
    if (name === "tempo" && !value) written = "no beat";
    else if (unit) written += ` ${unit}`;
    return h("li", {}, h("span", { class: "bar-label" }, label, h("small", { class: "soft", text: say })),
      h("span", { class: "bar", "aria-hidden": "true", style: { "--share": String(share) } }), h("span", { class: "bar-value", text: written }));
  });
  return card("Audio features", "features", h("ul", { class: "bars" }, ...rows),
    h("p", { class: "soft", text: features.source === "spotify" ? "As Spotify gives them." : "Measured from the audio, with Spotify's names and units." }));
}

export function keyCard(result) {
  const { key, audio_features: features } = result;
  if (!key && !features) return null;
  const tonic = key && key.tonic.replace("#", "♯");
  return card("Key and tempo", "key",
    h("div", { class: "pair" },
      key && h("div", {}, h("p", { class: "figure", text: `${tonic} ${key.mode}` }), h("p", { class: "soft", text: `${percent(key.confidence)} likely to be right` })),
      features && h("div", {}, h("p", { class: "figure" }, features.tempo ? String(Math.round(features.tempo)) : "–", h("small", { text: features.tempo ? " BPM" : "" })),
        h("p", { class: "soft", text: features.tempo ? "half or double may fit, too" : "no beat was found" }))));
}

export function tagsCard(result) {
  const { tags, content } = result;
  if (!tags.length && !content) return null;
  return card("Tags", "tags",
    h("ul", { class: "tag-list" }, ...tags.map((tag) => h("li", { class: "tag", style: { "--share": String(tag.probability) } }, h("span", { text: tag.label }), h("small", { text: percent(tag.probability) })))),
    content && h("p", { class: content.label === "music" ? "soft" : "remark", text: contentWords(content) }));
}

function contentWords({ label, confidence, probabilities }) {
  const rest = `speech ${percent(probabilities.speech)}, other sounds ${percent(probabilities.other)}`;
  if (label === "music") return `Music, ${percent(confidence)} sure (${rest}).`;
  return `No music? This sounds like ${label === "speech" ? "speech" : "other sounds"}, ${percent(confidence)} sure.`;
}

export function aboutCard(result, state) {
  const { total, ...stages } = result.timings_ms;
  const longest = Math.max(1, ...Object.values(stages));
  const facts = [
    ["Genre model", result.genre?.model], ["Mood model", result.mood?.model],
    ["Mood from", result.mood && (result.mood.source === "spotify" ? "Spotify's features" : "the audio")],
    ["Finished", state.finished_at && new Date(state.finished_at * 1000).toLocaleString()],
    ["Cached", result.cached ? "yes: the same audio was heard before" : "no"],
    ["Request ID", result.request_id],
  ].filter(([, value]) => value);
  return card("How it was made", "about",
    h("dl", { class: "facts" }, ...facts.flatMap(([name, value]) => [h("dt", { text: name }), h("dd", { text: value })])),
    Object.keys(stages).length > 0 && h("ul", { class: "bars" }, ...Object.entries(stages).map(([name, ms]) => bar(capital(serviceWords(name)), ms / longest, duration(ms), "var(--wave)"))),
    total !== undefined && h("p", { class: "soft", text: `${duration(total)} from the request to the answer; the stages work side by side.` }));
}

/** What went wrong, in plain words. */
export function errorsCard(errors, again) {
  if (!errors.length) return null;
  return card(errors.length > 1 ? "What went wrong" : "This went wrong", "errors", ...errors.map((error) => {
    const words = errorWords(error.code);
    return h("div", { class: "one-error" }, h("p", {}, h("strong", { text: words.what }), ` ${words.todo}`),
      h("p", { class: "soft", text: `${error.code} (${error.stage}): ${error.message}` }));
  }), again);
}
