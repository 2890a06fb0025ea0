// A classic script in the head: the chosen theme is there before anything is painted.
(() => {
  try {
    const chosen = localStorage.getItem("tonestream-theme");
    if (chosen === "light" || chosen === "dark") document.documentElement.dataset.theme = chosen;
  } catch {
    // Storage may be forbidden; the system's theme serves.
  }
})();
