/* Parts that take a while are fetched once the page stands. */
(function () {
  "use strict";

  async function fill(part) {
    const answer = await fetch(part.dataset.load).catch(() => null);
    if (!answer?.ok) { part.textContent = "This part could not be had."; return; }
    part.innerHTML = await answer.text();
    part.removeAttribute("aria-busy");
    window.Charts.all();
    window.Theme.refresh();
  }

  document.addEventListener("DOMContentLoaded", () => {
    document.querySelectorAll("[data-load]").forEach(fill);
  });
})();
