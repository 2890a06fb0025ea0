// Starts the page and shows what the address names: all tracks, or one.
import * as api from "./api.js";
import { Activity } from "./activity.js";
import { announce, throttled } from "./dom.js";
import { Live } from "./events.js";
import { trackName } from "./format.js";
import { Library } from "./library.js";
import { Sender } from "./sender.js";
import { askForKey } from "./session.js";
import { themeSwitch } from "./theme.js";
import { TrackView } from "./track.js";

const library = document.getElementById("library");
const trackPlace = document.getElementById("track");
const live = new Live();
const activity = new Activity();
const sender = new Sender(activity);
const libraryView = new Library(library, { activity, sender, live, open });
const trackView = new TrackView(trackPlace, { activity, sender, live, open });
let scrolled = 0;

/** Show a track, or all of them if `id` is null. */
function open(id) {
  location.hash = id === null ? libraryView.address : `#/track/${encodeURIComponent(id)}`;
}

function route(first) {
  const found = location.hash.match(/^#\/track\/(.+)$/);
  const wasLibrary = !library.hidden;
  if (found) {
    if (wasLibrary) scrolled = scrollY;
    library.hidden = true;
    trackPlace.hidden = false;
    trackView.show(decodeURIComponent(found[1]));
    if (wasLibrary || first) scrollTo(0, 0);
  } else if (/^#?(\/|$)/.test(location.hash)) {
    trackView.leave();
    trackPlace.hidden = true;
    library.hidden = false;
    document.title = "Tonestream";
    libraryView.show(location.hash);
    if (!wasLibrary) scrollTo(0, scrolled);
  }
}

/** Ask for what may have been missed. */
async function catchUp() {
  for (const one of activity.unfinished()) {
    if (!one.id) continue;
    try {
      const state = await api.track(one.id);
      if (!state.result) activity.stage(one.id, state.stage);
      else {
        const [error] = state.result.errors;
        const { title, artist } = state.result.track;
        activity.finish({
          id: one.id, status: state.stage, source: state.source, title, artist,
          genre: state.result.genre?.label ?? null, genre_confidence: state.result.genre?.confidence ?? null,
          genre_uncertain: state.result.genre?.uncertain ?? null, mood: state.result.mood?.label ?? null,
          error: error?.code ?? null, error_message: error?.message ?? null,
        });
      }
    } catch (error) {
      if (error.code === "not_found") activity.remove(one);
      else return; // the next time that the connection comes back
    }
  }
}

async function start() {
  themeSwitch(document.getElementById("theme"));
  api.setKeyDialogue(async () => {
    const signedIn = await askForKey();
    if (signedIn) live.restart();
    return signedIn;
  });
  live.addEventListener("track", (event) => activity.stage(event.detail.request_id, event.detail.stage));
  live.addEventListener("result", (event) => activity.finish(event.detail.row));
  live.addEventListener("removed", (event) => activity.removed(event.detail.request_ids));
  live.addEventListener("resumed", catchUp);
  live.addEventListener("state", (event) => {
    const place = document.getElementById("connection");
    place.dataset.state = event.detail;
    place.textContent = event.detail === "live" ? "live" : "connecting …";
  });
  const say = throttled(() => {
    const left = activity.unfinished().length;
    const failed = activity.all().filter((one) => one.stage === "failed").length;
    announce(left ? `${left} tracks under way` : `All tracks are finished${failed ? `, ${failed} failed` : ""}.`);
  }, 3000);
  activity.addEventListener("finished", (event) => {
    if (activity.size > 1) say();
    else announce(`${trackName(event.detail.row)}: ${event.detail.row.genre ?? "failed"}`);
  });
  document.querySelector(".skip").addEventListener("click", (event) => {
    event.preventDefault(); // the address names what is shown
    document.getElementById("main").focus();
  });
  addEventListener("hashchange", () => route(false));
  route(true);
  try {
    // Asks for the key, where one is needed, before anything else does.
    libraryView.introduce(await api.info());
  } catch (error) {
    libraryView.trouble(error);
  }
  live.start();
  activity.restore();
  await catchUp();
  performance.mark("ready");
  document.documentElement.dataset.ready = "true";
}

start();
