// Exports: what is selected, or all that the filters find, as a file.
import * as api from "./api.js";

/** IDs travel in the address; servers limit its length. */
const IDS_AT_ONCE = 300;
export const FORMATS = ["csv", "jsonl", "m3u8"];
const TYPES = { csv: "text/csv", jsonl: "application/x-ndjson", m3u8: "audio/x-mpegurl" };

/** Let the browser keep these tracks as a file. */
export async function exportIds(format, ids) {
  const parts = [];
  for (let from = 0; from < ids.length; from += IDS_AT_ONCE) {
    const query = new URLSearchParams(ids.slice(from, from + IDS_AT_ONCE).map((id) => ["id", id]));
    const text = await api.exported(format, query);
    parts.push(from ? withoutHead(format, text) : text);
  }
  keep(new Blob(parts, { type: TYPES[format] }), `tonestream.${format}`);
}

/** The address of an export of all that `filters` find. */
export function exportAddress(format, filters, sort) {
  const query = new URLSearchParams(filters);
  if (format !== "jsonl" && sort) query.set("sort", sort);
  return `/v1/results.${format}?${query}`;
}

/** CSV and M3U8 begin with one line that a file has once. */
export function withoutHead(format, text) {
  return format === "jsonl" ? text : text.slice(text.indexOf("\n") + 1);
}

/** Let the browser keep `blob` under this name. */
export function keep(blob, name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}
