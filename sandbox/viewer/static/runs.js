/* Forms of runs: the number of chosen runs on the button, and choices that apply at once. */
(function () {
  "use strict";

  function count() {
    const button = document.querySelector("[data-count]");
    if (!button) return;
    const chosen = document.querySelectorAll('input[name="run"]:checked').length;
    button.querySelector("output").textContent = chosen ? ` (${chosen})` : "";
    button.disabled = chosen < 2;
  }

  document.addEventListener("change", (event) => {
    if (event.target.matches('input[name="run"]')) count();
    if (event.target.matches("form[data-auto] select")) event.target.form.requestSubmit();
  });
  document.addEventListener("DOMContentLoaded", count);
})();
