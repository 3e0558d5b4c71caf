/* What the keyboard can do; `?` lists it. Never while someone types. */
(function () {
  "use strict";
  const PLACES = { r: "runs", s: "society", a: "agents", e: "exchanges", c: "calls" };
  let going = 0;

  function typing(target) {
    return target.isContentEditable || target.matches("input:not([type=range]), textarea, select");
  }

  function follow(selector) {
    const link = document.querySelector(selector);
    link?.click();
    return Boolean(link);
  }

  function turn(step) {
    if (window.Society?.go) { window.Society.stop(); return window.Society.go(step); }
    return follow(step < 0 ? "a[rel=prev]" : "a[rel=next]");
  }

  function row(step) {
    const links = [...document.querySelectorAll("[data-rows] [data-row]")];
    const here = links.indexOf(document.activeElement);
    const to = here < 0 ? 0 : here + step;
    links[to]?.focus();
    return Boolean(links[to]);
  }

  function search() {
    const field = document.querySelector("input[type=search][name=q]");
    field?.focus();
    field?.select();
    return Boolean(field);
  }

  function help() {
    const dialog = document.getElementById("keys");
    if (dialog.open) dialog.close();
    else dialog.showModal();
    return true;
  }

  const DOES = {
    "/": search,
    "?": help,
    t: () => { window.Theme.next(); return true; },
    b: () => { window.Theme.blur(); return true; },
    j: () => row(1),
    k: () => row(-1),
    ArrowLeft: () => turn(-1),
    ArrowRight: () => turn(1),
    " ": () => { window.Society?.toggle?.(); return Boolean(window.Society?.toggle); },
  };

  function wished(event) {
    if (Date.now() < going && PLACES[event.key]) {
      going = 0;
      return follow(`a[data-key="${PLACES[event.key]}"]`);
    }
    if (event.key === "g") { going = Date.now() + 1500; return true; }
    // own keys of what has the focus go first: a slider moves, a button is pressed, a table scrolls
    const own = event.target.matches("button, summary, a, input") && event.key === " ";
    const moves = event.key.startsWith("Arrow") && event.target.matches("input, .scroll");
    return own || moves || !DOES[event.key] ? false : DOES[event.key]();
  }

  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || typing(event.target)) return;
    if (document.querySelector("dialog[open]") && event.key !== "?") return;
    if (wished(event)) event.preventDefault();
  });

  document.addEventListener("click", (event) => {
    if (event.target.closest("[data-help]")) help();
  });
})();
