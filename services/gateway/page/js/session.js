// The dialogue for the API key.
import * as api from "./api.js";
import { h } from "./dom.js";

let open = null;

/** Ask for the key and sign in. Resolves to whether that succeeded. Several askers share one dialogue. */
export function askForKey() {
  open ??= dialogue().finally(() => {
    open = null;
  });
  return open;
}

function dialogue() {
  return new Promise((resolve) => {
    const fault = h("p", { class: "fault", role: "alert" });
    const field = h("input", { id: "api-key", type: "password", autocomplete: "current-password", required: true, spellcheck: "false" });
    const box = h("dialog", { class: "dialogue", "aria-labelledby": "key-title" },
      h("form", { method: "dialog", on: { submit: (event) => { event.preventDefault(); send(); } } },
        h("h2", { id: "key-title", text: "An API key, please" }),
        h("p", { class: "soft", text: "This server answers those who have a key. It stays in a cookie of this browser that scripts cannot read." }),
        h("label", { for: "api-key", text: "API key" }), field, fault,
        h("div", { class: "buttons" },
          h("button", { type: "button", class: "quiet", text: "Not now", on: { click: () => box.close() } }),
          h("button", { type: "submit", class: "primary", text: "Sign in" }))));
    let signedIn = false;
    async function send() {
      fault.textContent = "";
      try {
        await api.signIn(field.value);
        signedIn = true;
        box.close();
      } catch (error) {
        fault.textContent = error.status === 401 || error.status === 403 ? "The server does not know this key." : error.detail;
        field.select();
      }
    }
    box.addEventListener("close", () => {
      box.remove();
      resolve(signedIn);
    });
    document.body.append(box);
    box.showModal();
    field.focus();
  });
}
