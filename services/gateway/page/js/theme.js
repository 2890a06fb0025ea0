// Light, dark, or as the system has it.
import { announce } from "./dom.js";

const KEY = "tonestream-theme";
const ORDER = ["auto", "light", "dark"];
const SIGNS = { auto: "◐", light: "☀", dark: "☾" };

function stored() {
  const chosen = document.documentElement.dataset.theme;
  return chosen === "light" || chosen === "dark" ? chosen : "auto";
}

/** Make `button` the switch. It also tells listeners of `tonestream:theme`: canvases do not follow CSS by themselves. */
export function themeSwitch(button) {
  const show = (theme) => {
    button.textContent = SIGNS[theme];
    button.setAttribute("aria-label", `Theme: ${theme}. Change`);
    button.title = `Theme: ${theme}`;
  };
  const changed = () => document.dispatchEvent(new Event("tonestream:theme"));
  show(stored());
  button.addEventListener("click", () => {
    const theme = ORDER[(ORDER.indexOf(stored()) + 1) % ORDER.length];
    if (theme === "auto") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = theme;
    try {
      localStorage.setItem(KEY, theme);
    } catch {
      // Storage may be forbidden; the choice lasts until the page is closed.
    }
    show(theme);
    announce(`Theme: ${theme}`);
    changed();
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", changed);
}

/** The value of a CSS colour as canvases take it. */
export function resolved(css) {
  const probe = document.createElement("span");
  probe.style.color = css;
  document.body.append(probe);
  const value = getComputedStyle(probe).color;
  probe.remove();
  return value;
}
