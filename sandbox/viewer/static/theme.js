/* Light, dark or as the system says; and texts of models blurred until one looks at them.
   Loaded before the page is painted, so that nothing flashes. */
(function () {
  "use strict";
  const root = document.documentElement;
  const themes = ["auto", "light", "dark"];

  function kept(key) {
    try { return localStorage.getItem(key); } catch { return null; }
  }

  function keep(key, value) {
    try { localStorage.setItem(key, value); } catch { /* private windows forget */ }
  }

  function show() {
    const blur = root.classList.contains("blurred");
    for (const button of document.querySelectorAll("[data-switch]")) {
      button.hidden = false;
      if (button.dataset.switch === "blur") button.setAttribute("aria-pressed", String(blur));
      else button.querySelector("output").textContent = root.dataset.theme || "auto";
    }
  }

  function theme(value) {
    if (value === "light" || value === "dark") root.dataset.theme = value;
    else delete root.dataset.theme;
    keep("theme", value);
    show();
    document.dispatchEvent(new Event("themed"));
  }

  function blur(on) {
    root.classList.toggle("blurred", on);
    keep("blur", on ? "yes" : "no");
    for (const said of document.querySelectorAll(".said")) {
      if (on) said.tabIndex = 0;
      else said.removeAttribute("tabindex");
    }
    show();
  }

  window.Theme = {
    next() {
      const now = themes.indexOf(root.dataset.theme || "auto");
      theme(themes[(now + 1) % themes.length]);
    },
    blur() { blur(!root.classList.contains("blurred")); },
    refresh() { blur(root.classList.contains("blurred")); },
  };

  const first = kept("theme");
  if (first === "light" || first === "dark") root.dataset.theme = first;
  root.classList.toggle("blurred", kept("blur") === "yes");
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
