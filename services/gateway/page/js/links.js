// Addresses and Spotify IDs from pasted text and playlists.

const SPOTIFY_ID = /^[0-9A-Za-z]{22}$/;
const SPOTIFY = /^(?:spotify:track:|https?:\/\/open\.spotify\.com\/(?:intl-[a-z]+\/)?track\/)/i;

/**
 * The tracks that the lines of `text` name, and the lines that name none. Comments and directives of M3U (#...) are
 * passed over, and so are repeated lines.
 * @param {string} text
 * @returns {{tracks: {audio_url?: string, track_id?: string}[], unknown: string[]}}
 */
export function tracksIn(text) {
  const tracks = [];
  const unknown = [];
  const lines = new Set(text.split(/[\r\n]+/).map((line) => line.trim()));
  for (const line of lines) {
    if (!line || line.startsWith("#")) continue;
    if (SPOTIFY_ID.test(line) || SPOTIFY.test(line)) tracks.push({ track_id: line });
    else if (/^https?:\/\/\S+$/i.test(line)) tracks.push({ audio_url: line });
    else unknown.push(line);
  }
  return { tracks, unknown };
}
