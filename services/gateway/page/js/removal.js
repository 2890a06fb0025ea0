// Removing tracks from the library, after a question.
import * as api from "./api.js";
import { announce, h } from "./dom.js";
import { count } from "./format.js";
import { errorWords } from "./words.js";

/** IDs travel in the address; servers limit its length. */
const AT_ONCE = 300;

/**
 * Ask, and remove the tracks. Resolves to whether they are gone; the focus goes back to where it was.
 * @param {string[]} ids @param {string | null} name of the track, if it is one
 */
export function removeTracks(ids, name = null) {
  return new Promise((resolve) => {
    const before = document.activeElement;
    const fault = h("p", { class: "fault", role: "alert" });
    const yes = h("button", { type: "submit", class: "danger", text: "Remove" });
    const no = h("button", { type: "button", text: "Keep", on: { click: () => box.close() } });
    const what = name === null ? `${count(ids.length, "track")}` : `\u201c${name}\u201d`;
    const box = h("dialog", { class: "dialogue", "aria-labelledby": "removal-title", "aria-describedby": "removal-about" },
      h("form", { method: "dialog", on: { submit: (event) => { event.preventDefault(); remove(); } } },
        h("h2", { id: "removal-title", text: `Remove ${what} from the library?` }),
        h("p", { class: "soft", id: "removal-about", text: "The answer and its evidence go, and so does the sound that was kept to be played. This cannot be undone. Your own files stay as they are: to have a track back, send it again." }),
        fault, h("div", { class: "buttons" }, no, yes)));
    let gone = false;
    async function remove() {
      yes.disabled = true;
      try {
        if (ids.length === 1) await api.removeTrack(ids[0]);
        else for (let from = 0; from < ids.length; from += AT_ONCE) await api.removeTracks(ids.slice(from, from + AT_ONCE));
        gone = true;
        box.close();
        announce(`${count(ids.length, "track")} removed`);
      } catch (error) {
        yes.disabled = false;
        const words = errorWords(error.code);
        fault.textContent = `${words.what} ${words.todo}`;
      }
    }
    box.addEventListener("close", () => {
      box.remove();
      if (!gone) before?.focus?.();
      resolve(gone);
    });
    document.body.append(box);
    box.showModal();
    no.focus();
  });
}
