// Where music comes in: dropped or chosen files and folders, pasted links.
import { announce, h } from "./dom.js";
import { fromDrop, fromInput } from "./files.js";
import { count, megabytes } from "./format.js";
import { tracksIn } from "./links.js";

export class Intake {
  #sender;
  #open;
  #activity;
  #note = h("p", { class: "note", role: "status" });
  #links;
  #limit = Infinity;

  /** @param {HTMLElement} place @param {{sender: import("./sender.js").Sender, open: (id: string) => void, activity: any}} around */
  constructor(place, { sender, open, activity }) {
    this.#sender = sender;
    this.#open = open;
    this.#activity = activity;
    const files = h("input", { type: "file", multiple: true, class: "unseen", tabindex: "-1", "aria-hidden": "true", on: { change: () => this.#chosen(files) } });
    const folder = h("input", { type: "file", webkitdirectory: true, class: "unseen", tabindex: "-1", "aria-hidden": "true", on: { change: () => this.#chosen(folder) } });
    this.#links = h("textarea", {
      id: "links", rows: "1", spellcheck: "false", "aria-label": "Links, one a line",
      placeholder: "https://example.org/song.mp3, or a Spotify link",
      on: {
        input: () => this.#grow(),
        keydown: (event) => {
          if (event.key === "Enter" && (event.metaKey || event.ctrlKey || !this.#links.value.includes("\n")) && !event.shiftKey) {
            event.preventDefault();
            this.#sendLinks();
          }
        },
      },
    });
    const box = h("section", { class: "intake", "aria-label": "Add music" },
      h("div", { class: "drop" },
        h("p", { class: "drop-title" }, h("strong", { text: "Drop music here" }), h("span", { text: " files, folders or playlists" })),
        h("div", { class: "buttons" },
          h("button", { type: "button", class: "primary", text: "Choose files", on: { click: () => files.click() } }),
          h("button", { type: "button", text: "Choose a folder", on: { click: () => folder.click() } })),
        files, folder),
      h("form", { class: "links", on: { submit: (event) => { event.preventDefault(); this.#sendLinks(); } } },
        h("label", { for: "links", text: "Or paste links" }),
        h("div", { class: "links-row" }, this.#links, h("button", { type: "submit", text: "Listen" }))),
      this.#note);
    place.append(box);
    this.#takeDrops();
    addEventListener("paste", (event) => this.#pasted(event));
  }

  /** The largest file that the server takes, in bytes. */
  set limit(bytes) {
    this.#limit = bytes;
  }

  #takeDrops() {
    let depth = 0;
    const carriesMusic = (event) => [...(event.dataTransfer?.types ?? [])].some((type) => type === "Files" || type === "text/uri-list" || type === "text/plain");
    addEventListener("dragenter", (event) => {
      if (!carriesMusic(event)) return;
      depth += 1;
      document.body.classList.add("dragging");
    });
    addEventListener("dragleave", () => {
      depth = Math.max(0, depth - 1);
      if (!depth) document.body.classList.remove("dragging");
    });
    addEventListener("dragover", (event) => {
      if (carriesMusic(event)) event.preventDefault();
    });
    addEventListener("drop", async (event) => {
      if (!carriesMusic(event)) return;
      event.preventDefault();
      depth = 0;
      document.body.classList.remove("dragging");
      if (event.dataTransfer.types.includes("Files")) await this.#take(await fromDrop(event.dataTransfer));
      else await this.#takeText(event.dataTransfer.getData("text/uri-list") || event.dataTransfer.getData("text/plain"));
    });
  }

  async #chosen(input) {
    const intake = fromInput(input.files);
    input.value = "";
    await this.#take(intake);
  }

  async #take({ music, playlists, leftOut }) {
    const said = [];
    const small = music.filter(({ file }) => file.size <= this.#limit);
    for (const { file, path } of music) {
      if (file.size > this.#limit) {
        const detail = `${path} has ${megabytes(file.size)}; this server takes ${megabytes(this.#limit)}`;
        this.#activity.add({ source: path, stage: "failed", problem: { code: "too_large", detail } });
      }
    }
    if (leftOut) said.push(`${count(leftOut, "file")} left out that ${leftOut === 1 ? "is" : "are"} not music.`);
    const sent = this.#sender.files(small);
    for (const playlist of playlists) await this.#takeText(await playlist.text(), said);
    if (!music.length && !playlists.length) said.push("There is no music in what you dropped.");
    this.#say(said);
    if (sent.length === 1 && music.length === 1 && !playlists.length) this.#openWhenAccepted(sent[0]);
  }

  async #takeText(text, said = []) {
    const { tracks, unknown } = tracksIn(text);
    if (unknown.length) {
      const first = unknown[0].length > 60 ? `${unknown[0].slice(0, 60)}…` : unknown[0];
      said.push(`${count(unknown.length, "line")} left out: “${first}” is neither a web address nor a Spotify ID.`);
    }
    if (!tracks.length && !unknown.length) said.push("There is no link in this.");
    this.#say(said);
    const sent = await this.#sender.links(tracks);
    if (sent.length === 1) this.#openWhenAccepted(sent[0]);
  }

  async #sendLinks() {
    const text = this.#links.value;
    this.#links.value = "";
    this.#grow();
    await this.#takeText(text);
  }

  /** Text that is pasted anywhere but into a field. */
  async #pasted(event) {
    if (event.target.closest?.("input, textarea, dialog")) return;
    const { clipboardData } = event;
    if (clipboardData.files.length) await this.#take(fromInput(clipboardData.files));
    else if (tracksIn(clipboardData.getData("text/plain")).tracks.length) await this.#takeText(clipboardData.getData("text/plain"));
  }

  /** One track alone: its page opens as soon as it has an address. */
  async #openWhenAccepted(one) {
    const id = await this.#activity.accepted(one);
    if (id) this.#open(id);
  }

  #grow() {
    this.#links.rows = Math.min(8, Math.max(1, this.#links.value.split("\n").length));
  }

  #say(said) {
    this.#note.textContent = said.join(" ");
    if (said.length) announce(said.join(" "));
  }
}
