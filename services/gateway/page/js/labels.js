// The labels of the models, in their order; tests compare them with shared/contracts/labels.py.

export const GENRES = ["blues", "classical", "country", "disco", "hiphop", "jazz", "metal", "pop", "reggae", "rock"];
export const MOODS = ["calm", "energetic", "happy", "sad"];
export const STATUSES = ["ok", "partial", "failed"];

const SHOWN = { hiphop: "hip-hop" };

/** A label as people write it. */
export function shown(label) {
  return SHOWN[label] ?? label;
}

/** If one of so many tags names the genre, the track is of it, however far from the usual: death metal. */
const TAGS_THAT_NAME_IT = 2;

/**
 * Whether a track is probably of none of the ten genres.
 * @param {boolean | null} outside what the fit says
 * @param {string} genre
 * @param {string[]} tags the likeliest first
 */
export function isOther(outside, genre, tags) {
  return Boolean(outside) && !tags.slice(0, TAGS_THAT_NAME_IT).some((tag) => tag.replaceAll("-", "").includes(genre));
}

/** The colour of a genre, as a CSS value; grey for what is none. */
export function colour(genre) {
  return GENRES.includes(genre) ? `var(--genre-${genre})` : "var(--none)";
}
