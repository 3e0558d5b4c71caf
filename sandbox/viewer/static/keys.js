/* Keyboard shortcuts; `?` lists them. Disabled while the focus is in a text field. */
(function () {
  "use strict";
  const TABS = { r: "runs", s: "society", a: "agents", e: "exchanges", c: "calls", t: "ratings",
    b: "about" };
  let prefixUntil = 0;

  function isTextField(target) {
    return target.isContentEditable || target.matches("input:not([type=range]), textarea, select");
  }

  function follow(selector) {
    const link = document.querySelector(selector);
    link?.click();
    return Boolean(link);
  }

  function moveBy(step) {
    if (window.Society?.go) { window.Society.stop(); return window.Society.go(step); }
    return follow(step < 0 ? "a[rel=prev]" : "a[rel=next]");
  }

  function focusRow(step) {
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

  function toggleHelp() {
    const dialog = document.getElementById("keys");
    if (dialog.open) dialog.close();
    else dialog.showModal();
    return true;
  }

  const ACTIONS = {
    "/": search,
    "?": toggleHelp,
    t: () => { window.Theme.next(); return true; },
    b: () => { window.Theme.blur(); return true; },
    j: () => focusRow(1),
    k: () => focusRow(-1),
    ArrowLeft: () => moveBy(-1),
    ArrowRight: () => moveBy(1),
    p: () => follow("a[rel=prev]"),
    n: () => follow("a[rel=next]"),
    " ": () => { window.Society?.toggle?.(); return Boolean(window.Society?.toggle); },
  };

  function handleKey(event) {
    if (Date.now() < prefixUntil && TABS[event.key]) {
      prefixUntil = 0;
      return follow(`a[data-key="${TABS[event.key]}"]`);
    }
    if (event.key === "g") { prefixUntil = Date.now() + 1500; return true; }
    // native keys of the focused element take precedence (slider, button, scrolling table)
    const nativeSpace = event.target.matches("button, summary, a, input") && event.key === " ";
    const nativeArrow = event.key.startsWith("Arrow") && event.target.matches("input, .scroll");
    return nativeSpace || nativeArrow || !ACTIONS[event.key] ? false : ACTIONS[event.key]();
  }

  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || isTextField(event.target)) return;
    if (document.querySelector("dialog[open]") && event.key !== "?") return;
    if (handleKey(event)) event.preventDefault();
  });

  document.addEventListener("click", (event) => {
    if (event.target.closest("[data-help]")) toggleHelp();
  });
})();
