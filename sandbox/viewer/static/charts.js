/* Draws the specs that stand in `.plot` elements. A string like "--ink" in a spec is a colour of
   the style sheet; charts are drawn again when the theme changes. Vega is loaded when there is
   something to draw. */
(function () {
  "use strict";
  const vega = document.currentScript.src.replace("charts.js", "vega.js");
  const drawn = new Map(); // plot -> {spec, result, renderer}
  let loading = null;

  function load() {
    loading ??= new Promise((resolve, reject) => {
      const script = document.createElement("script");
      script.src = vega;
      script.onload = resolve;
      script.onerror = () => reject(new Error("no vega.js"));
      document.head.append(script);
    });
    return loading;
  }

  function colours() {
    const probe = document.body.appendChild(document.createElement("i"));
    const known = new Map();
    return {
      of(name) {
        if (!known.has(name)) {
          probe.style.color = `var(${name})`;
          known.set(name, getComputedStyle(probe).color);
        }
        return known.get(name);
      },
      done() { probe.remove(); },
    };
  }

  function themed(value, colour) {
    if (typeof value === "string") return /^--[a-z]/.test(value) ? colour.of(value) : value;
    if (Array.isArray(value)) return value.map((item) => themed(item, colour));
    if (value === null || typeof value !== "object") return value;
    const parts = Object.entries(value).map(([key, part]) =>
      [key, key === "values" || key === "datasets" ? part : themed(part, colour)]);
    return Object.fromEntries(parts);
  }

  function narrowed(spec, width) {
    if (width > 520) return spec;
    spec.config.axis.labelLimit = Math.round(width / 3);
    spec.config.legend.columns = width > 400 ? 3 : 2;
    spec.config.legend.labelLimit = Math.round(width / 3);
    return spec;
  }

  function source(plot) {
    return plot.querySelector('script[type="application/json"]')?.textContent ?? "null";
  }

  function stage(plot) {
    const found = plot.querySelector(".drawing");
    if (found) return found;
    const made = document.createElement("div");
    made.className = "drawing";
    plot.dataset.label ??= plot.getAttribute("aria-label") ?? "chart";
    plot.removeAttribute("role"); // the menu beside the picture is no part of it
    plot.removeAttribute("aria-label");
    return plot.appendChild(made);
  }

  const options = {
    ast: true,
    mode: "vega-lite",
    defaultStyle: false,
    forceActionsMenu: true,
    tooltip: { disableDefaultStyle: true },
    actions: { export: true, source: false, compiled: false, editor: false },
    i18n: { SVG_ACTION: "Save as SVG", PNG_ACTION: "Save as PNG" },
    logLevel: 1, // errors
  };

  function labelled(plot) {
    const picture = plot.querySelector(".chart-wrapper");
    picture.setAttribute("role", "img");
    picture.setAttribute("aria-label", plot.dataset.label);
    picture.removeAttribute("aria-roledescription");
    picture.querySelector("svg, canvas")?.setAttribute("aria-hidden", "true");
    plot.querySelector("details > summary")?.setAttribute("aria-label", "Save this chart");
  }

  async function paint(plot, kept) {
    const turn = (kept.turn = (kept.turn ?? 0) + 1);
    await load();
    if (turn !== kept.turn) return kept.result?.view; // a later wish came in between
    const colour = colours();
    const spec = narrowed(themed(kept.spec, colour), plot.clientWidth);
    colour.done();
    const into = stage(plot);
    into.style.minHeight = `${into.offsetHeight}px`; // the page stays where it is
    kept.result?.finalize();
    kept.result = await window.vegaEmbed(into, spec, {
      ...options,
      downloadFileName: plot.id || "chart",
      renderer: kept.renderer,
    });
    into.style.minHeight = "";
    labelled(plot);
    plot.dispatchEvent(new CustomEvent("charted", { bubbles: true, detail: kept.result.view }));
    return kept.result.view;
  }

  async function draw(plot, { spec = null, renderer = "svg" } = {}) {
    const kept = drawn.get(plot) ?? {};
    Object.assign(kept, { text: source(plot), renderer });
    kept.spec = spec ?? JSON.parse(kept.text);
    drawn.set(plot, kept);
    if (!kept.spec) return null;
    try {
      return await paint(plot, kept);
    } catch (error) {
      plot.dataset.failed = "This chart could not be drawn; its data is linked below.";
      console.warn(error);
      return null;
    }
  }

  function all() {
    for (const plot of drawn.keys()) if (!plot.isConnected) forget(plot);
    for (const plot of document.querySelectorAll(".plot:not(#society .plot)")) {
      if (drawn.get(plot)?.text !== source(plot)) draw(plot);
    }
  }

  function forget(plot) {
    drawn.get(plot)?.result?.finalize();
    drawn.delete(plot);
  }

  function again() {
    for (const [plot, kept] of drawn) if (plot.isConnected && kept.spec) paint(plot, kept);
  }

  window.Charts = { draw, all, source, view: (plot) => drawn.get(plot)?.result?.view ?? null };
  document.addEventListener("DOMContentLoaded", all);
  document.addEventListener("themed", again);
})();
