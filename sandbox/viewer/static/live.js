/* While a run goes on, the page asks for its mark and, when that changes, takes over what is new:
   focus, open details, scroll, the chosen round and what was typed stay as they are. */
(function () {
  "use strict";
  const EVERY = 2000; // milliseconds; a hidden page asks a tenth as often
  let failures = 0;
  let timer = null;

  function say(state, text) {
    const sign = document.getElementById("live");
    if (!sign) return;
    sign.hidden = false;
    sign.dataset.state = state;
    const word = sign.querySelector(".word");
    if (word.textContent !== text) word.textContent = text;
  }

  function kept(attribute, node) {
    if (attribute === "open" && node instanceof HTMLDetailsElement) return false;
    if (attribute === "value" && node.id === "round") return false;
    return !(attribute === "tabindex" && node.classList.contains("said"));
  }

  function plot(old, fresh) {
    const before = old.querySelector('script[type="application/json"]');
    const after = fresh.querySelector('script[type="application/json"]');
    if (before && after && before.textContent !== after.textContent) before.textContent = after.textContent;
    return false; // what is drawn stays; Charts.all draws anew what has changed
  }

  function morphed(old, fresh) {
    if (!(old instanceof Element)) return true;
    if (old.classList.contains("plot") && fresh instanceof Element) return plot(old, fresh);
    if (old.matches("input:not(#round), select")) return false; // what someone chose or typed
    return !(old.matches("[data-do=play], #society output") || (old.dataset?.shown && old.dataset.fragment));
  }

  async function take() {
    const answer = await fetch(location.href, { headers: { Accept: "text/html" } });
    if (!answer.ok) return null;
    const page = new DOMParser().parseFromString(await answer.text(), "text/html");
    const slider = document.getElementById("round");
    const [round, newest] = slider ? [slider.value, slider.value === slider.max] : [null, false];
    window.Idiomorph.morph(document.querySelector("main"), page.querySelector("main"), {
      ignoreActiveValue: true,
      callbacks: { beforeAttributeUpdated: kept, beforeNodeMorphed: morphed },
    });
    if (slider) slider.value = round;
    for (const part of document.querySelectorAll("[data-shown]")) delete part.dataset.shown;
    window.Charts?.all();
    window.Theme.refresh();
    if (window.Society) window.Society.grown(newest);
    else window.beginSociety();
    return page.body.dataset.mark ?? null;
  }

  async function beat() {
    const body = document.body;
    try {
      const answer = await fetch(body.dataset.pulse, { cache: "no-store" });
      if (answer.status === 404) { say("gone", "This run is no longer here."); next(); return; }
      const pulse = await answer.json();
      if (pulse.mark !== body.dataset.mark) { await take(); body.dataset.mark = pulse.mark; }
      failures = 0;
      if (pulse.over) { say("done", "finished"); return; }
      const state = pulse.status === "running" ? "live" : "waiting";
      say(state, state);
    } catch {
      failures += 1;
      if (failures > 1) say("gone", "The viewer does not answer; this is what it showed last.");
    }
    next();
  }

  function next() {
    clearTimeout(timer);
    const patience = document.hidden ? 10 : Math.min(8, 2 ** Math.max(0, failures - 1));
    timer = setTimeout(beat, EVERY * patience);
  }

  document.addEventListener("DOMContentLoaded", () => {
    if (!document.body.dataset.pulse) return;
    beat();
    document.addEventListener("visibilitychange", () => {
      if (!document.hidden && document.getElementById("live").dataset.state !== "done") next();
    });
  });
})();
