/* Loads slow fragments after the page, and again when a live update has changed it. */
(function () {
  "use strict";

  async function load(element) {
    const response = await fetch(element.dataset.load).catch(() => null);
    if (!response?.ok) { element.textContent = "This part could not be loaded."; return; }
    const text = await response.text();
    if (element.innerHTML !== text) element.innerHTML = text;
    element.removeAttribute("aria-busy");
    window.Charts.drawNew();
    window.Theme.refresh();
  }

  function loadAll() {
    document.querySelectorAll("[data-load]").forEach(load);
  }

  window.Lazy = { loadAll };
  document.addEventListener("DOMContentLoaded", loadAll);
})();
