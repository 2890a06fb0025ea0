// Numbers for people.

/** 0.52 -> "52%". Never "100%" or "0%" for what is not certain. */
export function percent(share) {
  if (share > 0.995 && share < 1) return ">99%";
  if (share > 0 && share < 0.005) return "<1%";
  return `${Math.round(share * 100)}%`;
}

/** Seconds -> "3:07", "1:02:45". */
export function clock(seconds) {
  const whole = Math.max(0, Math.floor(seconds + 1e-6));
  const [hours, minutes, rest] = [Math.floor(whole / 3600), Math.floor((whole % 3600) / 60), whole % 60];
  const tail = String(rest).padStart(2, "0");
  return hours ? `${hours}:${String(minutes).padStart(2, "0")}:${tail}` : `${minutes}:${tail}`;
}

/** Milliseconds -> "380 ms", "1.7 s". */
export function duration(ms) {
  if (ms < 1000) return `${Math.round(ms)} ms`;
  return ms < 100_000 ? `${(ms / 1000).toFixed(1)} s` : clock(ms / 1000);
}

export function megabytes(bytes) {
  const size = bytes / 2 ** 20;
  return size >= 10 ? `${Math.round(size)} MB` : `${size.toFixed(1)} MB`;
}

export function count(number, one, many = `${one}s`) {
  return `${number.toLocaleString("en")} ${number === 1 ? one : many}`;
}

/** "electronica" -> "Electronica". */
export function capital(word) {
  return word.charAt(0).toUpperCase() + word.slice(1);
}

/** The last part of a path or URL, decoded. */
export function baseName(source) {
  const path = /^[a-z][a-z0-9+.-]*:\/\//i.test(source) ? source.replace(/[?#].*$/, "") : source;
  const last = path.replace(/[\\/]+$/, "").split(/[\\/]/).pop() || source;
  try {
    return decodeURIComponent(last);
  } catch {
    return last;
  }
}

/** What a track is called: its title, else its file's name. */
export function trackName(track) {
  return track.title || baseName(track.source || track.id || "");
}
