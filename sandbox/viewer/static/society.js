/* The map of a society with playback by round. The round, the measure, the chosen agent and the
   direction of its ratings are query parameters once the user has chosen them; frames are fetched
   from `data-frames`, or embedded in the page of a static copy. Until a round is chosen, the map
   follows the latest complete one. */
(function () {
  "use strict";
  const CANVAS = 1500; // nodes above which the map is drawn on a canvas
  const NUMBERS = 400; // nodes up to which values are printed
  const GLYPHS = 900; // nodes up to which starting labels are marked
  const STEP = 900; // milliseconds per round during playback
  const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

  const plain = (value, digits = 2) => String(Number(value.toFixed(digits))).replace("-", "\u2212");
  const count = (value) => value.toLocaleString("en");
  const ordinal = (n) => n + (n % 100 > 10 && n % 100 < 14 ? "th" : { 1: "st", 2: "nd", 3: "rd" }[n % 10] ?? "th");

  class Society {
    constructor(section) {
      this.section = section;
      for (const [name, id] of Object.entries({ plot: "map", slider: "round", number: "round-number", place: "round-place",
        newest: "newest", measure: "measure", ways: "ways", agent: "chosen", card: "card" })) {
        this[name] = section.querySelector(`#${id}`);
      }
      this.output = section.querySelector("output");
      this.play = section.querySelector("[data-do=play]");
      this.frames = new Map();
      this.hovered = null;
      this.cluster = [];
      this.timer = null;
      this.read();
      this.listen();
      this.show(this.round);
    }

    get round() { return Number(this.slider.value); }

    get last() { return Number(this.slider.max); }

    get complete() { return this.section.dataset.complete === "" ? null : Number(this.section.dataset.complete); }

    get option() { return this.measure.selectedOptions[0]; }

    get kind() { return this.option?.dataset.kind; }

    get selected() { return this.agent.value ? Number(this.agent.value) : null; }

    read() {
      const script = document.getElementById("frames");
      for (const frame of script ? JSON.parse(script.textContent) : []) this.frames.set(String(frame.round), frame);
      this.embedded = Boolean(script);
      const query = new URLSearchParams(location.search);
      this.chosen = query.has("round");
      this.coloured = query.has("by");
      if (this.chosen) this.slider.value = query.get("round");
      const by = query.get("by");
      if ([...this.measure.options].some((option) => option.value === by)) this.measure.value = by;
      if (query.has("agent")) this.agent.value = query.get("agent");
      if (this.ways && ["in", "out"].includes(query.get("ways"))) this.ways.value = query.get("ways");
    }

    listen() {
      const choose = (round) => { this.stop(); this.chosen = true; this.slider.value = round; this.show(this.round); };
      this.slider.addEventListener("input", () => choose(this.round));
      this.number.addEventListener("change", () => choose(this.number.value || this.round));
      this.measure.addEventListener("change", () => { this.coloured = true; this.show(this.round); });
      this.ways?.addEventListener("change", () => { this.updateUrl(); this.updateMarks(); });
      this.agent.addEventListener("input", () => this.select(this.selected));
      const actions = {
        play: () => this.toggle(),
        previous: () => { this.stop(); this.go(-1); },
        next: () => { this.stop(); this.go(1); },
        newest: () => { this.stop(); this.follow(); },
        close: () => this.select(null),
        closer: () => this.zoom(0.6),
        farther: () => this.zoom(1 / 0.6),
        fit: () => this.zoom(null),
      };
      this.section.addEventListener("click", (event) => actions[event.target.closest("[data-do]")?.dataset.do]?.());
      this.plot.addEventListener("charted", (event) => this.hover(event.detail));
      this.plot.addEventListener("keydown", (event) => this.key(event));
      for (const [enter, leave] of [["mouseover", "mouseout"], ["focusin", "focusout"]]) {
        this.section.addEventListener(enter, (event) => this.outline(event.target.closest("[data-agents]")));
        this.section.addEventListener(leave, (event) => event.target.closest("[data-agents]") && this.outline(null));
      }
    }

    hover(view) {
      const onPointer = (_, item) => {
        if (item?.datum?.way) return; // on a line of the agent that is under the pointer
        const agent = item?.datum?.agent ?? null;
        if (agent === this.hovered) return;
        this.hovered = agent;
        this.updateMarks();
      };
      view.addEventListener("mousemove", onPointer);
      view.addEventListener("mouseout", onPointer);
      let pressed = null;
      let touched = null; // a canvas does not tell on which agent the click of a tap is
      view.addEventListener("pointerdown", (event) => { [pressed, touched] = [[event.clientX, event.clientY], null]; });
      view.addEventListener("touchstart", (_, item) => { touched = item; });
      view.addEventListener("click", (event, item) => {
        const moved = pressed && Math.hypot(event.clientX - pressed[0], event.clientY - pressed[1]) > 4;
        const agent = (item?.datum ?? touched?.datum)?.agent;
        if (!moved && agent != null) this.select(agent);
      });
      this.plot.querySelector(".chart-wrapper")?.setAttribute("tabindex", "0");
      this.label();
    }

    key(event) {
      if (!event.target.matches(".chart-wrapper") || event.ctrlKey || event.metaKey || event.altKey) return;
      if (event.key === "Enter") this.open();
      else if (event.key === "Escape") this.select(null);
      else if (ARROWS[event.key]) this.move(...ARROWS[event.key]);
      else return;
      event.preventDefault();
      event.stopPropagation();
    }

    open() {
      const node = this.current?.nodes.find((one) => one.agent === this.selected);
      if (node) location.href = node.href;
    }

    move(right, down) { // to the nearest agent in a direction
      const nodes = this.current?.nodes ?? [];
      const here = nodes.find((one) => one.agent === this.selected);
      if (!here) { if (nodes.length) this.select(nodes[0].agent); return; }
      const reach = (one) => {
        const [x, y] = [one.x - here.x, one.y - here.y];
        const ahead = x * right + y * down;
        return ahead > 1e-9 ? ahead + 3 * Math.abs(x * down + y * right) : Infinity;
      };
      const nearest = nodes.reduce((best, one) => (reach(one) < reach(best) ? one : best), here);
      if (nearest !== here) this.select(nearest.agent);
    }

    select(agent) {
      this.agent.value = agent ?? "";
      this.updateUrl();
      this.updateMarks();
      this.updateCard();
    }

    async updateCard() {
      const [agent, round] = [this.selected, this.round];
      const known = this.current?.nodes.find((one) => one.agent === agent);
      if (agent === null || this.embedded) {
        this.card.replaceChildren(...(known ? [Object.assign(document.createElement("a"), { href: known.href, textContent: `Open ${known.name} #${agent}` })] : []));
        return;
      }
      const url = this.section.dataset.card.replace("{agent}", agent).replace("{round}", round);
      const response = await fetch(url).catch(() => null);
      if (agent !== this.selected || round !== this.round) return;
      if (response?.ok) this.card.innerHTML = await response.text();
      else this.card.replaceChildren();
      window.Theme.refresh();
    }

    outline(element) {
      const agents = element ? element.dataset.agents.split(",").map(Number) : [];
      if (agents.join() === this.cluster.join()) return;
      this.cluster = agents;
      this.updateMarks();
    }

    async frame(round) {
      const counted = this.kind === "count" ? this.measure.value : "";
      const key = counted ? `${round} ${counted}` : String(round);
      if (this.frames.has(key) || this.embedded) return this.frames.get(String(round)) ?? null;
      const url = this.section.dataset.frames.replace("{round}", round) + (counted ? `?count=${counted}` : "");
      const response = await fetch(url, { headers: { Accept: "application/json" } });
      if (!response.ok) return null;
      const frame = await response.json();
      if (frame.complete) this.frames.set(key, frame);
      return frame;
    }

    async uses() { // agents that said what is searched for, with the round of first use
      this.said ??= fetch(this.section.dataset.said).then((response) => response.json());
      return new Map(Object.entries(await this.said).map(([agent, round]) => [Number(agent), round]));
    }

    go(step) {
      const to = this.round + step;
      if (to < Number(this.slider.min) || to > this.last) return false;
      this.chosen = true;
      this.slider.value = to;
      this.show(to);
      return true;
    }

    follow() { // the newest round; once it is complete, also later ones
      this.chosen = this.complete !== this.last;
      this.slider.value = this.last;
      this.show(this.round);
    }

    toggle() { if (this.timer) this.stop(); else this.start(); }

    start() {
      if (this.round >= this.last) this.slider.value = Number(this.slider.min) - 1;
      this.setPlaying(true);
      if (this.round === Number(this.slider.min)) this.show(this.round);
      const step = async () => {
        if (!this.go(1)) { this.stop(); return; }
        await this.shown;
        if (this.timer) this.timer = setTimeout(step, STEP);
      };
      this.timer = setTimeout(step, this.round === Number(this.slider.min) ? STEP : 0);
    }

    stop() {
      clearTimeout(this.timer);
      this.timer = null;
      this.setPlaying(false);
    }

    setPlaying(playing) {
      this.play.setAttribute("aria-pressed", String(playing));
      this.play.querySelector(".word").textContent = playing ? "Pause" : "Play";
    }

    show(round) {
      this.updateUrl();
      this.updateRound();
      this.shown = this.render(round);
      return this.shown;
    }

    async render(round) {
      const frame = await this.frame(round).catch(() => null);
      const before = frame && !frame.complete && round > 0 ? await this.frame(round - 1).catch(() => null) : null;
      const uses = this.kind === "said" ? await this.uses().catch(() => new Map()) : null;
      if (round !== this.round) return;
      if (!frame) { this.output.textContent = `Round ${round} could not be loaded.`; return; }
      Object.assign(this, { current: frame, before, firsts: uses });
      this.nodes = this.values(frame);
      this.updateStatus(frame);
      await this.draw(frame);
      document.dispatchEvent(new CustomEvent("round", { detail: round }));
      if (this.selected !== null) this.updateCard();
      if (round < this.last) this.frame(round + 1).catch(() => null);
    }

    updateRound() {
      const last = this.round < this.last ? "" : document.body.dataset.pulse ? ", newest" : ", last";
      if (document.activeElement !== this.number) this.number.value = this.round;
      this.number.max = this.last;
      this.place.textContent = `(${ordinal(this.round + 1)}${last})`;
      this.newest.hidden = this.round >= this.last;
      this.newest.textContent = `Newest: round ${this.last}`;
      for (const link of this.section.querySelectorAll("[data-files] a")) {
        const path = link.closest("[data-files]").dataset.files.replace("{round}", this.round);
        const by = this.kind === "said" ? "" : `?by=${this.measure.value}`;
        link.href = `${path}.${link.dataset.kind}${by}`;
      }
    }

    values(frame) {
      const by = this.measure.value;
      const earlier = new Map((this.before?.nodes ?? []).map((node) => [node.agent, node[by] ?? null]));
      const received = new Map();
      for (const [, to, rating] of frame.edges) received.set(to, [...(received.get(to) ?? []), rating]);
      const few = frame.nodes.length <= NUMBERS;
      const nodes = frame.nodes.map((node) => {
        const own = this.kind === "said" ? this.firstUse(node.agent) : node[by] ?? null;
        const value = own ?? earlier.get(node.agent) ?? null;
        const text = few && typeof value === "number" ? (this.kind === "gain" && value > 0 ? "+" : "") + plain(value) : "";
        return { ...node, value, text, stale: own === null && value !== null, tip: this.tip(node, received.get(node.agent), frame.questions) };
      });
      const numbers = nodes.map((node) => node.value).filter((value) => typeof value === "number");
      const [low, high] = [Math.min(...numbers), Math.max(...numbers)];
      for (const node of nodes) node.share = (node.value - low) / (high - low || 1);
      return nodes;
    }

    firstUse(agent) {
      const first = this.firsts?.get(agent);
      return first !== undefined && first <= this.round ? first : null;
    }

    tip(node, ratings, questions) {
      const parts = [`${node.name} #${node.agent}`, `born ${node.label}`];
      for (const { value: name, dataset } of this.measure.options) {
        if (dataset.kind !== "score" || node[name] == null) continue;
        const gain = dataset.gain ? node[dataset.gain] : null;
        const before = gain == null ? null : node[name] - (dataset.better === "high" ? gain : -gain);
        const change = before === null ? "" : ` (${gain > 0 ? "+" : ""}${gain ? plain(gain) : "\u00b10"})`;
        parts.push(`${dataset.scale} ${before === null ? "" : `${plain(before)} \u2192 `}${plain(node[name])}${change}`);
      }
      if (ratings) parts.push(`rated ${plain(ratings.reduce((sum, one) => sum + one, 0) / ratings.length)} by ${ratings.length}`);
      const first = this.firstUse(node.agent);
      if (first !== null) parts.push(`first said it in round ${first}`);
      else if (["category", "count"].includes(this.kind) && node[this.measure.value] != null && this.measure.value !== "label") {
        parts.push(`${this.option.textContent} ${node[this.measure.value]}`);
      }
      if (node.question !== undefined) parts.push(`question: ${questions[node.question]}`);
      return parts.join(" \u00b7 ");
    }

    updateStatus(frame) {
      const text = `Round ${frame.round}: ${this.sentence(frame)}`;
      this.output.textContent = text;
      this.slider.setAttribute("aria-valuetext", text);
      this.label();
    }

    label() {
      const text = `${this.output.textContent}. Arrow keys choose an agent, Enter opens it.`;
      this.plot.dataset.label = text;
      this.plot.querySelector(".chart-wrapper")?.setAttribute("aria-label", text);
    }

    sentence(frame) {
      const own = this.nodes.filter((node) => node.value !== null && !node.stale);
      const all = count(frame.nodes.length);
      const title = this.option.textContent;
      if (this.kind === "said") return `${count(own.length)} of ${all} agents have said it`;
      if (this.kind === "category") return `${count(own.length)} agents by ${title}`;
      if (!frame.complete && this.kind !== "count") return `${count(own.length)} of ${all} scored so far`;
      if (!own.length) return "no score";
      const mean = own.reduce((sum, node) => sum + node.value, 0) / own.length;
      const note = this.option.dataset.better === "low" && this.kind === "score" ? " (lower is better)" : "";
      const number = mean.toFixed(2).replace("-", "\u2212");
      const text = `mean ${title} ${number}${note} of ${count(own.length)} agents`;
      const { middle } = this.option.dataset;
      if (middle === undefined) return text;
      const lowest = own.reduce((one, node) => (node.value < one.value ? node : one));
      const high = own.filter((node) => node.value > Number(middle)).length;
      return `${text}, ${count(high)} high, lowest #${lowest.agent} (${plain(lowest.value)})`;
    }

    edges() {
      const highlighted = this.hovered ?? this.selected;
      const ways = this.ways?.value ?? "both";
      if (highlighted === null || !this.current) return [];
      const at = new Map(this.current.nodes.map((node) => [node.agent, node]));
      const spans = ["x", "y"].map((axis) => {
        const values = this.current.nodes.map((node) => node[axis]);
        return Math.max(...values) - Math.min(...values) || 1;
      });
      const unit = this.section.dataset.shape === "grid" ? [1, 1] : spans.map((span) => span / 8);
      return this.current.edges
        .map(([from, to, rating]) => ({ from: at.get(from), to: at.get(to), rating, way: to === highlighted ? "in" : "out" }))
        .filter(({ from, to, way }) => from && to && (from.agent === highlighted || to.agent === highlighted) && (ways === "both" || ways === way))
        .map(({ from, to, rating, way }) => {
          const [x, y] = [(to.x - from.x) / unit[0], (to.y - from.y) / unit[1]];
          const length = Math.hypot(x, y) || 1;
          const [aside, down] = [(-y / length) * 0.09 * unit[0], (x / length) * 0.09 * unit[1]]; // both directions stay visible
          const [inset, fall] = [(x / length) * 0.26 * unit[0], (y / length) * 0.26 * unit[1]]; // the numbers stay readable
          const [x1, y1, x2, y2] = [from.x + aside + inset, from.y + down + fall, to.x + aside - inset, to.y + down - fall];
          const along = (one, two) => one + (two - one) * 0.62;
          return { x: x1, y: y1, x2, y2, at_x: along(x1, x2), at_y: along(y1, y2), rating, way, angle: (Math.atan2(x, -y) * 180) / Math.PI };
        });
    }

    outlines() {
      const marked = new Set([...this.cluster, this.selected]);
      return (this.nodes ?? []).filter((node) => marked.has(node.agent)).map(({ agent, x, y, tip }) => ({ agent, x, y, tip }));
    }

    datasets() {
      const glyphs = this.nodes.length <= GLYPHS ? this.nodes : [];
      return { nodes: this.nodes, glyphs, edges: this.edges(), outlines: this.outlines() };
    }

    async draw(frame) {
      const view = window.Charts.view(this.plot);
      const datasets = this.datasets();
      if (view && this.drawn === this.measure.value) {
        for (const [name, rows] of Object.entries(datasets)) view.data(name, rows);
        this.spec.datasets = datasets;
        await view.runAsync();
        return;
      }
      this.drawn = this.measure.value;
      this.spec = this.withColours(JSON.parse(window.Charts.source(this.plot)));
      this.spec.datasets = datasets;
      const large = frame.nodes.length > NUMBERS;
      this.section.querySelector(".zoom").hidden = !large;
      if (large) this.spec.layer[this.spec.usermeta.agents].params = [{ name: "zoom", bind: "scales", select: { type: "interval", zoom: "wheel![event.ctrlKey]" } }];
      await window.Charts.draw(this.plot, { spec: this.spec, renderer: frame.nodes.length > CANVAS ? "canvas" : "svg" });
    }

    withColours(spec) {
      const { fills, inks, agents } = spec.usermeta;
      spec.layer[agents].encoding.fill = fills[this.measure.value];
      spec.layer[agents + 1].encoding.color = inks[this.measure.value];
      return spec;
    }

    zoom(factor) { // null: everything
      const view = window.Charts.view(this.plot);
      const fields = this.section.dataset.shape === "grid" ? { x: "left", y: "top" } : { x: "x", y: "y" };
      for (const [axis, field] of Object.entries(fields)) {
        const domain = view.scale(axis).domain();
        const [middle, half] = [(domain[0] + domain[1]) / 2, ((domain[1] - domain[0]) / 2) * factor];
        view.signal(`zoom_${field}`, factor === null ? null : [middle - half, middle + half]);
      }
      view.runAsync();
    }

    updateMarks() {
      const view = window.Charts.view(this.plot);
      if (!view || !this.current) return;
      const marks = { edges: this.edges(), outlines: this.outlines() };
      Object.assign(this.spec.datasets, marks);
      for (const [name, rows] of Object.entries(marks)) view.data(name, rows);
      view.runAsync();
    }

    updateUrl() {
      const url = new URL(location.href);
      const set = (name, value) => { if (value === null) url.searchParams.delete(name); else url.searchParams.set(name, value); };
      set("round", this.chosen ? this.round : null);
      if (this.coloured) set("by", this.measure.value);
      set("agent", this.selected);
      set("ways", this.ways && this.ways.value !== "both" ? this.ways.value : null);
      if (url.href === location.href) return;
      try { history.replaceState(history.state, "", url); } catch { /* some browsers disallow it for file: URLs */ }
    }

    update() { // the page was updated: the map follows, unless a round was chosen
      this.said = undefined;
      if (!this.chosen && !this.timer) this.slider.value = this.complete ?? this.last;
      this.show(this.round);
    }
  }

  /* Fragments of a round are fetched once it has been shown for a moment (debounced). */
  let debounce = null;
  let request = null;
  const contents = new WeakMap();

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
        const waiting = element.hasAttribute("aria-busy"); // it has a placeholder
        element.removeAttribute("aria-busy");
        if (!response.ok) {
          if (waiting) element.textContent = "This part could not be loaded.";
          continue;
        }
        const html = await response.text();
        if (waiting || contents.get(element) !== html) replaceContent(element, html); // an equal one must not flicker
        contents.set(element, html);
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
