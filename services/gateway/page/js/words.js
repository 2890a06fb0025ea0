// What the page says in words: errors and what to do, stages, and what a percentage means.

/**
 * One sentence on what happened and one on what to do, by error code. `again`: trying again may help.
 * The codes are those of shared/contracts/errors.py and of the gateway; a test compares them.
 * @type {Record<string, {what: string, todo: string, again: boolean}>}
 */
export const ERRORS = {
  invalid_request: { what: "This is not something Tonestream can classify.", todo: "Check the address or the file; the details name the fault.", again: false },
  unsupported_media: { what: "This file is not audio that can be read.", todo: "Use MP3, FLAC, WAV, OGG, M4A or another common audio format.", again: false },
  corrupt_audio: { what: "The file looks like audio, but nothing in it can be decoded.", todo: "Try to play it elsewhere, and get a fresh copy if that fails too.", again: false },
  silent_audio: { what: "The whole track is silent.", todo: "Check that this is the right file.", again: false },
  too_short: { what: "The track is shorter than 3 seconds.", todo: "Tonestream needs at least one segment of 3 seconds.", again: false },
  too_long: { what: "The track is longer than this server accepts.", todo: "Cut it, or ask the operator to raise the limit that the details name.", again: false },
  too_large: { what: "The file is larger than this server accepts.", todo: "Send a smaller encoding, or ask the operator to raise the limit.", again: false },
  fetch_forbidden: { what: "This address may not be fetched.", todo: "Use a public http or https address, or upload the file itself.", again: false },
  fetch_failed: { what: "The other server did not hand out the audio.", todo: "Open the address in a browser to see whether it still exists, then try again.", again: true },
  fetch_timeout: { what: "The other server took too long.", todo: "Try again later, or download the file and drop it here.", again: true },
  no_audio: { what: "Spotify offers no preview of this track.", todo: "Drop the file itself, or paste an address of its audio.", again: false },
  spotify_unavailable: { what: "Spotify could not be asked.", todo: "Drop the file itself, or ask the operator to check the Spotify credentials.", again: true },
  internal: { what: "Something broke on our side.", todo: "Try again; if it happens twice, give the request ID to the operator.", again: true },
  not_found: { what: "There is no such track here.", todo: "It may have been removed; go back to all tracks.", again: false },
  method_not_allowed: { what: "The server does not offer this.", todo: "Reload the page: it may be older than the server.", again: false },
  unauthorized: { what: "This server asks for an API key.", todo: "Enter a key to go on.", again: true },
  forbidden: { what: "The server refuses this.", todo: "Open the page under the server's own address.", again: false },
  rate_limited: { what: "Too many requests at once.", todo: "Wait a moment, then try again.", again: true },
  conflict: { what: "The server is in another state than this page expected.", todo: "Reload the page.", again: true },
  audio_gone: { what: "The audio is not kept any more.", todo: "Drop the file again to hear it or to classify it anew.", again: false },
  upload_incomplete: { what: "The upload was cut off.", todo: "Try again.", again: true },
  disk_full: { what: "The server's disk is full.", todo: "Ask the operator to make room, then try again.", again: true },
  unavailable: { what: "A part of the server is away at the moment.", todo: "Wait a little, then try again.", again: true },
  offline: { what: "The server does not answer.", todo: "Check that it runs and that you are connected, then try again.", again: true },
};

const UNKNOWN = { what: "This did not work.", todo: "The details say more.", again: true };

/** @param {string} code */
export function errorWords(code) {
  return ERRORS[code] ?? UNKNOWN;
}

/** The way of a track, in order, as the page shows it. */
export const STEPS = [
  { stage: "uploading", label: "Uploading" },
  { stage: "queued", label: "Waiting" },
  { stage: "fetching", label: "Fetching" },
  { stage: "listening", label: "Listening" },
];

export const FINISHED = new Set(["ok", "partial", "failed"]);

const STAGE_WORDS = {
  held: "Waiting for a free slot",
  uploading: "Uploading",
  queued: "Waiting for a worker",
  fetching: "Fetching and decoding",
  listening: "Listening",
  ok: "Done",
  partial: "Half done",
  failed: "Failed",
};

export function stageWords(stage) {
  return STAGE_WORDS[stage] ?? stage;
}

/** What a calibrated probability means. */
export function meaning(confidence, uncertain) {
  const right = confidence > 0.985 ? "99 or more" : `about ${Math.max(1, Math.round(confidence * 100))}`;
  const said = `Of 100 answers given with this confidence, ${right} are right.`;
  return uncertain ? `${said} So this is a guess, the best of several.` : said;
}

const SERVICES = {
  ingestion: "fetch and decode",
  "feature-extraction": "cut and measure",
  "genre-worker": "hear the genre",
  "mood-worker": "hear the mood",
  aggregator: "put together",
};

export function serviceWords(name) {
  return SERVICES[name] ?? name;
}

/**
 * The ten audio features: where their scale begins and ends, and how a value is written.
 * The names are those of shared/contracts/audio_features.py; a test compares them.
 */
export const FEATURES = [
  { name: "tempo", label: "Tempo", from: 40, to: 220, unit: "BPM", say: "beats per minute", digits: 0 },
  { name: "loudness", label: "Loudness", from: -60, to: 0, unit: "dB", say: "relative to full scale", digits: 1 },
  { name: "energy", label: "Energy", from: 0, to: 1, unit: "", say: "how intense", digits: 2 },
  { name: "valence", label: "Valence", from: 0, to: 1, unit: "", say: "how positive", digits: 2 },
  { name: "danceability", label: "Danceability", from: 0, to: 1, unit: "", say: "how fit for dancing", digits: 2 },
  { name: "acousticness", label: "Acousticness", from: 0, to: 1, unit: "", say: "whether the instruments are acoustic", digits: 2 },
  { name: "instrumentalness", label: "Instrumentalness", from: 0, to: 1, unit: "", say: "whether nobody sings", digits: 2 },
  { name: "liveness", label: "Liveness", from: 0, to: 1, unit: "", say: "whether there is an audience", digits: 2 },
  { name: "speechiness", label: "Speechiness", from: 0, to: 1, unit: "", say: "share of spoken words", digits: 2 },
  { name: "duration_ms", label: "Length", from: 0, to: 600_000, unit: "", say: "minutes and seconds", digits: 0 },
];
