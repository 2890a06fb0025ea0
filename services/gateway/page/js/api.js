// The HTTP API. Every fault becomes an ApiError with a code of words.js.

export class ApiError extends Error {
  /**
   * @param {string} code
   * @param {string} detail a sentence for a person
   * @param {number} status 0 if there was no answer
   * @param {number} retryAfterS the wait that the server asks for, in seconds
   */
  constructor(code, detail, status, retryAfterS = 0) {
    super(detail);
    this.code = code;
    this.detail = detail;
    this.status = status;
    this.retryAfterS = retryAfterS;
  }
}

/** Asks for the API key; resolves to true once signed in. */
export let askForKey = async () => false;

/** `ask` opens the dialogue for the API key. */
export function setKeyDialogue(ask) {
  askForKey = ask;
}

/** The error of an answer that is none of 2xx. */
export function problemOf(status, text, retryAfter) {
  try {
    const problem = JSON.parse(text);
    return new ApiError(problem.code ?? "internal", problem.detail ?? problem.title ?? "", status, Number(retryAfter) || 0);
  } catch {
    return new ApiError(status >= 500 ? "unavailable" : "internal", `the server answered with status ${status}`, status);
  }
}

async function answer(method, path, { body, signal, signedIn = false } = {}) {
  let response;
  try {
    response = await fetch(path, {
      method,
      signal,
      headers: body === undefined ? {} : { "Content-Type": "application/json" },
      body: body === undefined ? undefined : JSON.stringify(body),
    });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError("offline", "no connection to the server", 0);
  }
  if (response.ok) return response;
  const problem = problemOf(response.status, await response.text(), response.headers.get("Retry-After"));
  if (problem.status === 401 && !signedIn && (await askForKey())) return answer(method, path, { body, signal, signedIn: true });
  throw problem;
}

async function json(method, path, options) {
  return (await answer(method, path, options)).json();
}

/** The path of a track. IDs may hold slashes. */
export function trackPath(id, rest = "") {
  return `/v1/tracks/${encodeURIComponent(id)}${rest}`;
}

export const info = () => json("GET", "/v1/info");
export const summary = () => json("GET", "/v1/summary");
export const track = (id, signal) => json("GET", trackPath(id), { signal });
export const retry = (id) => json("POST", trackPath(id, "/retry"));
export const removeTrack = (id) => answer("DELETE", trackPath(id));
export const removeTracks = (ids) => json("DELETE", `/v1/results?${new URLSearchParams(ids.map((id) => ["id", id]))}`);
export const waveform = (id, points) => json("GET", trackPath(id, `/waveform?points=${points}`));
export const similar = (id, limit = 12) => json("GET", `/v1/similar/${encodeURIComponent(id)}?limit=${limit}`);
export const submitSamples = () => json("POST", "/v1/samples");
export const submit = (tracks) => json("POST", "/v1/tracks", { body: { tracks } });

/** A page of results. @param {URLSearchParams} query */
export const results = (query, signal) => json("GET", `/v1/results?${query}`, { signal });
export const map = (query, signal) => json("GET", `/v1/map?${query}`, { signal });

/** An export as text. */
export const exported = async (format, query) => (await answer("GET", `/v1/results.${format}?${query}`)).text();

export async function signIn(key) {
  const response = await fetch("/v1/session", { method: "POST", headers: { Authorization: `Bearer ${key}` } });
  if (!response.ok) throw problemOf(response.status, await response.text(), null);
}
