/* Loads slow fragments after the page. */
(function () {
  "use strict";

  async function load(element) {
    const response = await fetch(element.dataset.load).catch(() => null);
    if (!response?.ok) { element.textContent = "This part could not be loaded."; return; }
    element.innerHTML = await response.text();
    element.removeAttribute("aria-busy");
    window.Charts.drawNew();
    window.Theme.refresh();
  }

  document.addEventListener("DOMContentLoaded", () => {
    document.querySelectorAll("[data-load]").forEach(load);
  });
})();
