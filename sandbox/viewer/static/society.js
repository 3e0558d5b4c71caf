/* The map of a society with playback by round. The round, the measure and the highlighted agent are
   query parameters; frames are fetched from `data-frames`, or embedded in the page of a static copy. */
(function () {
  "use strict";
  const MANY_EDGES = 2000;
  const MANY_NODES = 1500;
  const STEP = 900; // milliseconds per round during playback

  class Society {
    constructor(section) {
      this.section = section;
      this.plot = section.querySelector(".plot");
      this.slider = section.querySelector("#round");
      this.measure = section.querySelector("#measure");
      this.agent = section.querySelector("#chosen");
      this.output = section.querySelector("output");
      this.play = section.querySelector("[data-do=play]");
      this.frames = new Map();
      this.hovered = null;
      this.timer = null;
      this.read();
      this.listen();
      this.show(this.round);
    }

    get round() { return Number(this.slider.value); }

    get pinned() { return this.agent?.value ? Number(this.agent.value) : null; }

    read() {
      const script = document.getElementById("frames");
      for (const frame of script ? JSON.parse(script.textContent) : []) this.frames.set(frame.round, frame);
      this.embedded = Boolean(script);
      const query = new URLSearchParams(location.search);
      if (query.has("round")) this.slider.value = query.get("round");
      const by = query.get("by");
      if ([...this.measure.options].some((option) => option.value === by)) this.measure.value = by;
      if (this.agent && query.has("agent")) this.agent.value = query.get("agent");
    }

    listen() {
      this.slider.addEventListener("input", () => { this.stop(); this.show(this.round); });
      this.measure.addEventListener("change", () => this.show(this.round));
      this.agent?.addEventListener("input", () => this.show(this.round));
      this.section.addEventListener("click", (event) => {
        const action = event.target.closest("[data-do]")?.dataset.do;
        if (action === "play") this.toggle();
        if (action === "previous") { this.stop(); this.go(-1); }
        if (action === "next") { this.stop(); this.go(1); }
      });
      this.plot.addEventListener("charted", (event) => this.hover(event.detail));
    }

    hover(view) {
      const onPointer = (_, item) => {
        const agent = item?.datum?.agent ?? null;
        if (agent === this.hovered) return;
        this.hovered = agent;
        this.updateEdges();
      };
      view.addEventListener("mousemove", onPointer);
      view.addEventListener("mouseout", onPointer);
    }

    async frame(round) {
      if (this.frames.has(round) || this.embedded) return this.frames.get(round) ?? null;
      const url = this.section.dataset.frames.replace(/\{round\}|%7Bround%7D/i, round);
      const response = await fetch(url, { headers: { Accept: "application/json" } });
      if (!response.ok) return null;
      const frame = await response.json();
      this.frames.set(round, frame);
      return frame;
    }

    go(step) {
      const to = this.round + step;
      if (to < Number(this.slider.min) || to > Number(this.slider.max)) return false;
      this.slider.value = to;
      this.show(to);
      return true;
    }

    toggle() { if (this.timer) this.stop(); else this.start(); }

    start() {
      if (this.round >= Number(this.slider.max)) this.slider.value = Number(this.slider.min) - 1;
      this.setPlaying(true);
      const step = async () => {
        if (!this.go(1)) { this.stop(); return; }
        await this.shown;
        if (this.timer) this.timer = setTimeout(step, STEP);
      };
      this.timer = setTimeout(step, 0);
    }

    stop() {
      clearTimeout(this.timer);
      this.timer = null;
      this.setPlaying(false);
    }

    setPlaying(playing) {
      if (!this.play) return;
      this.play.setAttribute("aria-pressed", String(playing));
      this.play.querySelector(".word").textContent = playing ? "Pause" : "Play";
    }

    show(round) {
      this.updateUrl();
      this.shown = this.render(round);
      return this.shown;
    }

    async render(round) {
      const frame = await this.frame(round).catch(() => null);
      if (round !== this.round) return;
      this.current = frame;
      this.updateStatus(frame);
      if (!frame) return;
      await this.draw(frame);
      document.dispatchEvent(new CustomEvent("round", { detail: round }));
      this.frame(Math.min(round + 1, Number(this.slider.max))).catch(() => null);
    }

    updateStatus(frame) {
      const scored = frame?.nodes.filter((node) => node[this.measure.value] != null) ?? [];
      const mean = scored.reduce((sum, node) => sum + node[this.measure.value], 0) / scored.length;
      const chosen = this.measure.selectedOptions[0];
      const note = chosen?.dataset.note ? ` (${chosen.dataset.note})` : "";
      const number = mean.toFixed(2).replace("-", "\u2212");
      const text = scored.length
        ? `${chosen.textContent} ${number}${note}, the mean of ${scored.length} agents`
        : "no score";
      this.output.textContent = frame ? `Round ${this.round}: ${text}` : `Round ${this.round} could not be loaded.`;
      this.slider.setAttribute("aria-valuetext", this.output.textContent);
    }

    values(frame) {
      return frame.nodes.map((node) => ({ ...node, value: node[this.measure.value] ?? null }));
    }

    edges(frame) {
      const highlighted = this.hovered ?? this.pinned;
      if (highlighted === null && frame.edges.length > MANY_EDGES) return [];
      const at = new Map(frame.nodes.map((node) => [node.agent, node]));
      return frame.edges
        .filter(([from, to]) => (highlighted === null || from === highlighted || to === highlighted) && at.has(from) && at.has(to))
        .map(([from, to, rating]) => ({
          x: at.get(from).x, y: at.get(from).y, x2: at.get(to).x, y2: at.get(to).y, rating,
        }));
    }

    async draw(frame) {
      const view = window.Charts.view(this.plot);
      if (view && this.drawn === this.measure.value) {
        view.data("nodes", this.values(frame)).data("edges", this.edges(frame));
        this.spec.datasets = { nodes: this.values(frame), edges: this.edges(frame) };
        await view.runAsync();
        return;
      }
      this.drawn = this.measure.value;
      this.spec = this.withColours(JSON.parse(window.Charts.source(this.plot)));
      this.spec.datasets = { nodes: this.values(frame), edges: this.edges(frame) };
      const renderer = frame.nodes.length > MANY_NODES ? "canvas" : "svg";
      await window.Charts.draw(this.plot, { spec: this.spec, renderer });
    }

    withColours(spec) {
      const { scales, legends, agents } = spec.usermeta;
      const fill = spec.layer[agents].encoding.fill;
      Object.assign(fill, { scale: scales[this.measure.value], legend: legends[this.measure.value] });
      return spec;
    }

    updateEdges() {
      const view = window.Charts.view(this.plot);
      if (!view || !this.current) return;
      view.data("edges", this.edges(this.current)).runAsync();
    }

    updateUrl() {
      const url = new URL(location.href);
      url.searchParams.set("round", this.round);
      url.searchParams.set("by", this.measure.value);
      if (this.pinned === null) url.searchParams.delete("agent");
      else url.searchParams.set("agent", this.pinned);
      try { history.replaceState(history.state, "", url); } catch { /* some browsers disallow it for file: URLs */ }
    }

    update(wasNewest) {
      if (!this.embedded) this.frames.clear();
      if (wasNewest && !this.timer) this.slider.value = this.slider.max;
      this.show(this.round);
    }
  }

  /* Fragments of a round are fetched once it has been shown for a moment (debounced). */
  let debounce = null;
  let request = null;

  function replaceContent(element, html) { // keeps open details and focus
    const focusable = () => [...element.querySelectorAll("a, summary, [tabindex]")];
    const open = [...element.querySelectorAll("details")].map((details) => details.open);
    const focused = focusable().indexOf(document.activeElement);
    element.innerHTML = html;
    element.querySelectorAll("details").forEach((details, index) => { details.open = open[index] ?? false; });
    focusable()[focused]?.focus({ preventScroll: true });
  }

  async function loadFragments(round) {
    if (window.Society?.embedded) return; // a static copy has no server
    request?.abort();
    request = new AbortController();
    const { signal } = request;
    for (const element of document.querySelectorAll("[data-fragment]")) {
      const url = element.dataset.fragment.replace(/\{round\}|%7Bround%7D/i, round);
      if (element.dataset.shown === url) continue;
      try {
        const response = await fetch(url, { signal });
        if (!response.ok) continue;
        replaceContent(element, await response.text());
        element.dataset.shown = url;
        window.Charts.drawNew();
        window.Theme.refresh();
      } catch { return; }
    }
  }

  document.addEventListener("round", (event) => {
    clearTimeout(debounce);
    debounce = setTimeout(() => loadFragments(event.detail), 250);
  });

  function init() { // also called by live.js, when the first round appears
    const section = document.getElementById("society");
    if (section && !window.Society) window.Society = new Society(section);
  }

  window.initSociety = init;
  document.addEventListener("DOMContentLoaded", init);
})();
