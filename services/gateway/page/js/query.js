// What is looked for, as it stands in the address of the page and as the API takes it.
import { GENRES, MOODS, STATUSES } from "./labels.js";

const LISTS = { genre: GENRES, mood: MOODS, status: STATUSES };
const TEXTS = ["q", "min_confidence", "bpm", "where"];
export const FIRST_SORT = "-finished";

/** @typedef {{genre: string[], mood: string[], status: string[], q: string, min_confidence: string, bpm: string, where: string, sort: string, view: "table" | "map"}} Query */

/** @returns {Query} */
export function emptyQuery() {
  return { genre: [], mood: [], status: [], q: "", min_confidence: "", bpm: "", where: "", sort: FIRST_SORT, view: "table" };
}

/** @param {string} hash such as `#/?genre=jazz&sort=-energy` @returns {Query} */
export function fromHash(hash) {
  const given = new URLSearchParams(hash.split("?")[1] ?? "");
  const query = emptyQuery();
  for (const [name, labels] of Object.entries(LISTS)) query[name] = given.getAll(name).filter((label) => labels.includes(label));
  for (const name of TEXTS) query[name] = given.get(name) ?? "";
  query.sort = given.get("sort") ?? FIRST_SORT;
  query.view = given.get("view") === "map" ? "map" : "table";
  return query;
}

/** @param {Query} query */
export function toHash(query) {
  const written = filtersOf(query);
  if (query.sort !== FIRST_SORT) written.set("sort", query.sort);
  if (query.view !== "table") written.set("view", query.view);
  return `#/${written.size ? `?${written}` : ""}`;
}

/** The filters as the API takes them. @param {Query} query */
export function filtersOf(query) {
  const filters = new URLSearchParams();
  for (const name of Object.keys(LISTS)) for (const label of query[name]) filters.append(name, label);
  for (const name of TEXTS) if (query[name].trim()) filters.set(name, query[name].trim());
  return filters;
}

/** @param {Query} query */
export function isFiltered(query) {
  return filtersOf(query).size > 0;
}
