/* Theme (light, dark, or system) and blurring of model texts.
   Loaded synchronously before the first paint, to avoid a flash of the wrong theme. */
(function () {
  "use strict";
  const root = document.documentElement;
  const themes = ["auto", "light", "dark"];

  function load(key) {
    try { return localStorage.getItem(key); } catch { return null; }
  }

  function store(key, value) {
    try { localStorage.setItem(key, value); } catch { /* storage may be unavailable in private windows */ }
  }

  function updateButtons() {
    const blur = root.classList.contains("blurred");
    for (const button of document.querySelectorAll("[data-switch]")) {
      button.hidden = false;
      if (button.dataset.switch === "blur") button.setAttribute("aria-pressed", String(blur));
      else button.querySelector("output").textContent = root.dataset.theme || "auto";
    }
  }

  function setTheme(value) {
    if (value === "light" || value === "dark") root.dataset.theme = value;
    else delete root.dataset.theme;
    store("theme", value);
    updateButtons();
    document.dispatchEvent(new Event("themed"));
  }

  function setBlur(on) {
    root.classList.toggle("blurred", on);
    store("blur", on ? "yes" : "no");
    for (const element of document.querySelectorAll(".model-text:not(.wire)")) {
      if (on) element.tabIndex = 0;
      else element.removeAttribute("tabindex");
    }
    updateButtons();
  }

  window.Theme = {
    next() {
      const now = themes.indexOf(root.dataset.theme || "auto");
      setTheme(themes[(now + 1) % themes.length]);
    },
    blur() { setBlur(!root.classList.contains("blurred")); },
    refresh() { setBlur(root.classList.contains("blurred")); },
  };

  const first = load("theme");
  if (first === "light" || first === "dark") root.dataset.theme = first;
  root.classList.toggle("blurred", load("blur") === "yes");
  root.classList.add("scripted");

  document.addEventListener("DOMContentLoaded", () => {
    window.Theme.refresh();
    for (const button of document.querySelectorAll("[data-switch]")) {
      button.addEventListener("click", () => window.Theme[button.dataset.switch]());
    }
  });
  const system = matchMedia("(prefers-color-scheme: dark)");
  system.addEventListener("change", () => document.dispatchEvent(new Event("themed")));
})();
