/* The map of a society, played round by round. The round, the measure and the chosen agent live in
   the address; frames come from `data-frames`, or from the page itself in a static copy. */
(function () {
  "use strict";
  const MANY_EDGES = 2000;
  const MANY_NODES = 1500;
  const STEP = 900; // milliseconds a round, while playing

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
      const own = document.getElementById("frames");
      for (const frame of own ? JSON.parse(own.textContent) : []) this.frames.set(frame.round, frame);
      this.whole = Boolean(own);
      const asked = new URLSearchParams(location.search);
      if (asked.has("round")) this.slider.value = asked.get("round");
      const by = asked.get("by");
      if ([...this.measure.options].some((option) => option.value === by)) this.measure.value = by;
      if (this.agent && asked.has("agent")) this.agent.value = asked.get("agent");
    }

    listen() {
      this.slider.addEventListener("input", () => { this.stop(); this.show(this.round); });
      this.measure.addEventListener("change", () => this.show(this.round));
      this.agent?.addEventListener("input", () => this.show(this.round));
      this.section.addEventListener("click", (event) => {
        const wish = event.target.closest("[data-do]")?.dataset.do;
        if (wish === "play") this.toggle();
        if (wish === "previous") { this.stop(); this.go(-1); }
        if (wish === "next") { this.stop(); this.go(1); }
      });
      this.plot.addEventListener("charted", (event) => this.hover(event.detail));
    }

    hover(view) {
      const point = (_, item) => {
        const agent = item?.datum?.agent ?? null;
        if (agent === this.hovered) return;
        this.hovered = agent;
        this.link();
      };
      view.addEventListener("mousemove", point);
      view.addEventListener("mouseout", point);
    }

    async frame(round) {
      if (this.frames.has(round) || this.whole) return this.frames.get(round) ?? null;
      const url = this.section.dataset.frames.replace(/\{round\}|%7Bround%7D/i, round);
      const answer = await fetch(url, { headers: { Accept: "application/json" } });
      if (!answer.ok) return null;
      const frame = await answer.json();
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
      this.mark(true);
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
      this.mark(false);
    }

    mark(playing) {
      if (!this.play) return;
      this.play.setAttribute("aria-pressed", String(playing));
      this.play.querySelector(".word").textContent = playing ? "Pause" : "Play";
    }

    show(round) {
      this.remember();
      this.shown = this.render(round);
      return this.shown;
    }

    async render(round) {
      const frame = await this.frame(round).catch(() => null);
      if (round !== this.round) return;
      this.current = frame;
      this.tell(frame);
      if (!frame) return;
      await this.paint(frame);
      document.dispatchEvent(new CustomEvent("round", { detail: round }));
      this.frame(Math.min(round + 1, Number(this.slider.max))).catch(() => null);
    }

    tell(frame) {
      const scored = frame?.nodes.filter((node) => node[this.measure.value] != null) ?? [];
      const mean = scored.reduce((sum, node) => sum + node[this.measure.value], 0) / scored.length;
      const chosen = this.measure.selectedOptions[0];
      const note = chosen?.dataset.note ? ` (${chosen.dataset.note})` : "";
      const number = mean.toFixed(2).replace("-", "\u2212");
      const what = scored.length
        ? `${chosen.textContent} ${number}${note}, the mean of ${scored.length} agents`
        : "no score";
      this.output.textContent = frame ? `Round ${this.round}: ${what}` : `Round ${this.round} cannot be had.`;
      this.slider.setAttribute("aria-valuetext", this.output.textContent);
    }

    values(frame) {
      return frame.nodes.map((node) => ({ ...node, value: node[this.measure.value] ?? null }));
    }

    edges(frame) {
      const one = this.hovered ?? this.pinned;
      if (one === null && frame.edges.length > MANY_EDGES) return [];
      const at = new Map(frame.nodes.map((node) => [node.agent, node]));
      return frame.edges
        .filter(([from, to]) => (one === null || from === one || to === one) && at.has(from) && at.has(to))
        .map(([from, to, rating]) => ({
          x: at.get(from).x, y: at.get(from).y, x2: at.get(to).x, y2: at.get(to).y, rating,
        }));
    }

    async paint(frame) {
      const view = window.Charts.view(this.plot);
      if (view && this.drawn === this.measure.value) {
        view.data("nodes", this.values(frame)).data("edges", this.edges(frame));
        this.spec.datasets = { nodes: this.values(frame), edges: this.edges(frame) };
        await view.runAsync();
        return;
      }
      this.drawn = this.measure.value;
      this.spec = this.coloured(JSON.parse(window.Charts.source(this.plot)));
      this.spec.datasets = { nodes: this.values(frame), edges: this.edges(frame) };
      const renderer = frame.nodes.length > MANY_NODES ? "canvas" : "svg";
      await window.Charts.draw(this.plot, { spec: this.spec, renderer });
    }

    coloured(spec) {
      const { scales, legends, agents } = spec.usermeta;
      const fill = spec.layer[agents].encoding.fill;
      Object.assign(fill, { scale: scales[this.measure.value], legend: legends[this.measure.value] });
      return spec;
    }

    link() {
      const view = window.Charts.view(this.plot);
      if (!view || !this.current) return;
      view.data("edges", this.edges(this.current)).runAsync();
    }

    remember() {
      const url = new URL(location.href);
      url.searchParams.set("round", this.round);
      url.searchParams.set("by", this.measure.value);
      if (this.pinned === null) url.searchParams.delete("agent");
      else url.searchParams.set("agent", this.pinned);
      try { history.replaceState(history.state, "", url); } catch { /* some browsers refuse for files */ }
    }

    grown(wasNewest) {
      if (!this.whole) this.frames.clear();
      if (wasNewest && !this.timer) this.slider.value = this.slider.max;
      this.show(this.round);
    }
  }

  /* Parts of the page that belong to a round are fetched when it has stood for a moment. */
  let waiting = null;
  let asking = null;

  function put(part, html) { // open details and the focus stay where they are
    const places = () => [...part.querySelectorAll("a, summary, [tabindex]")];
    const open = [...part.querySelectorAll("details")].map((one) => one.open);
    const focused = places().indexOf(document.activeElement);
    part.innerHTML = html;
    part.querySelectorAll("details").forEach((one, place) => { one.open = open[place] ?? false; });
    places()[focused]?.focus({ preventScroll: true });
  }

  async function fill(round) {
    if (window.Society?.whole) return; // a static copy has nobody to ask
    asking?.abort();
    asking = new AbortController();
    const { signal } = asking;
    for (const part of document.querySelectorAll("[data-fragment]")) {
      const url = part.dataset.fragment.replace(/\{round\}|%7Bround%7D/i, round);
      if (part.dataset.shown === url) continue;
      try {
        const answer = await fetch(url, { signal });
        if (!answer.ok) continue;
        put(part, await answer.text());
        part.dataset.shown = url;
        window.Charts.all();
        window.Theme.refresh();
      } catch { return; }
    }
  }

  document.addEventListener("round", (event) => {
    clearTimeout(waiting);
    waiting = setTimeout(() => fill(event.detail), 250);
  });

  function begin() { // also when a run that is watched has its first round
    const section = document.getElementById("society");
    if (section && !window.Society) window.Society = new Society(section);
  }

  window.beginSociety = begin;
  document.addEventListener("DOMContentLoaded", begin);
})();
