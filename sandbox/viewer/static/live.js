/* Live updates while a run is in progress: polls the change marker and, when it changes, fetches the
   page and merges it. Focus, open details, scroll position, round and form input are preserved. */
(function () {
  "use strict";
  const INTERVAL = 2000; // milliseconds; ten times that while the page is hidden
  let failures = 0;
  let timer = null;

  function showStatus(state, text) {
    const status = document.getElementById("live");
    if (!status) return;
    status.hidden = false;
    status.dataset.state = state;
    const word = status.querySelector(".word");
    if (word.textContent !== text) word.textContent = text;
  }

  function beforeAttributeUpdated(attribute, node) {
    if (attribute === "open" && node instanceof HTMLDetailsElement) return false;
    if (attribute === "value" && node.id === "round") return false;
    return !(attribute === "tabindex" && node.classList.contains("model-text"));
  }

  function updateSpec(old, updated) {
    const before = old.querySelector('script[type="application/json"]');
    const after = updated.querySelector('script[type="application/json"]');
    if (before && after && before.textContent !== after.textContent) before.textContent = after.textContent;
    return false; // keeps the rendered chart; Charts.drawNew renders it again if the spec has changed
  }

  function beforeNodeMorphed(old, updated) {
    if (!(old instanceof Element)) return true;
    if (old.classList.contains("plot") && updated instanceof Element) return updateSpec(old, updated);
    if (old.matches("input:not(#round), select")) return false; // user input
    if (old.dataset?.load && !old.hasAttribute("aria-busy")) return false; // lazy.js updates it
    return !(old.matches("[data-do=play], [data-keep], #society output") || (old.dataset?.shown && old.dataset.fragment));
  }

  async function refresh() {
    const response = await fetch(location.href, { headers: { Accept: "text/html" } });
    if (!response.ok) return null;
    const page = new DOMParser().parseFromString(await response.text(), "text/html");
    const slider = document.getElementById("round");
    const round = slider?.value;
    window.Idiomorph.morph(document.querySelector("main"), page.querySelector("main"), {
      ignoreActiveValue: true,
      callbacks: { beforeAttributeUpdated, beforeNodeMorphed },
    });
    if (slider) slider.value = round;
    for (const element of document.querySelectorAll("[data-shown]")) delete element.dataset.shown;
    window.Charts?.drawNew();
    window.Lazy?.loadAll();
    window.Theme.refresh();
    if (window.Society) window.Society.update();
    else window.initSociety();
    return page.body.dataset.mark ?? null;
  }

  function showProgress(percent) { // in the title of the tab
    const title = document.title.replace(/^\(\d+ %\) /, "");
    document.title = percent === undefined ? title : `(${percent} %) ${title}`;
  }

  async function poll() {
    const body = document.body;
    try {
      const response = await fetch(body.dataset.pulse, { cache: "no-store" });
      if (response.status === 404) { showStatus("gone", "This run no longer exists."); schedule(); return; }
      const pulse = await response.json();
      if (pulse.mark !== body.dataset.mark) { await refresh(); body.dataset.mark = pulse.mark; }
      failures = 0;
      showProgress(pulse.percent);
      if (pulse.over) { showStatus("done", "finished"); return; }
      const state = pulse.status === "running" ? "live" : "waiting";
      showStatus(state, state);
    } catch {
      failures += 1;
      if (failures > 1) showStatus("gone", "The viewer does not answer; this page may be out of date.");
    }
    schedule();
  }

  function schedule() {
    clearTimeout(timer);
    const factor = document.hidden ? 10 : Math.min(8, 2 ** Math.max(0, failures - 1));
    timer = setTimeout(poll, INTERVAL * factor);
  }

  document.addEventListener("DOMContentLoaded", () => {
    if (!document.body.dataset.pulse) return;
    poll();
    document.addEventListener("visibilitychange", () => {
      if (!document.hidden && document.getElementById("live").dataset.state !== "done") schedule();
    });
  });
})();
