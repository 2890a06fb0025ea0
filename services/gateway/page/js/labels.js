// The labels of the models, in their order; tests compare them with shared/contracts/labels.py.

export const GENRES = ["blues", "classical", "country", "disco", "hiphop", "jazz", "metal", "pop", "reggae", "rock"];
export const MOODS = ["calm", "energetic", "happy", "sad"];
export const STATUSES = ["ok", "partial", "failed"];

const SHOWN = { hiphop: "hip-hop" };

/** A label as people write it. */
export function shown(label) {
  return SHOWN[label] ?? label;
}

/** The colour of a genre, as a CSS value; grey for what is none. */
export function colour(genre) {
  return GENRES.includes(genre) ? `var(--genre-${genre})` : "var(--none)";
}
