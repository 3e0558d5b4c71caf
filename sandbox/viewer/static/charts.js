/* Renders the Vega-Lite specs in `.plot` elements. A string like "--ink" in a spec is a CSS custom
   property; charts are rendered again when the theme changes. Vega is loaded on demand. */
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
      script.onerror = () => reject(new Error("vega.js could not be loaded"));
      document.head.append(script);
    });
    return loading;
  }

  function colourResolver() {
    const probe = document.body.appendChild(document.createElement("i"));
    const cache = new Map();
    return {
      of(name) {
        if (!cache.has(name)) {
          probe.style.color = `var(${name})`;
          cache.set(name, getComputedStyle(probe).color);
        }
        return cache.get(name);
      },
      dispose() { probe.remove(); },
    };
  }

  function resolveColours(value, colour) {
    if (typeof value === "string") return /^--[a-z]/.test(value) ? colour.of(value) : value;
    if (Array.isArray(value)) return value.map((item) => resolveColours(item, colour));
    if (value === null || typeof value !== "object") return value;
    const parts = Object.entries(value).map(([key, part]) =>
      [key, key === "values" || key === "datasets" ? part : resolveColours(part, colour)]);
    return Object.fromEntries(parts);
  }

  function adaptToWidth(spec, width) {
    if (width > 520) return spec;
    spec.config.axis.labelLimit = Math.round(width / 3);
    spec.config.legend.columns = width > 400 ? 3 : 2;
    spec.config.legend.labelLimit = Math.round(width / 3);
    return spec;
  }

  function source(plot) {
    return plot.querySelector('script[type="application/json"]')?.textContent ?? "null";
  }

  function drawingElement(plot) {
    const found = plot.querySelector(".drawing");
    if (found) return found;
    const element = document.createElement("div");
    element.className = "drawing";
    plot.dataset.label ??= plot.getAttribute("aria-label") ?? "chart";
    plot.removeAttribute("role"); // it must not apply to the export menu
    plot.removeAttribute("aria-label");
    return plot.appendChild(element);
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

  function setAriaLabels(plot) {
    const picture = plot.querySelector(".chart-wrapper");
    picture.setAttribute("role", "img");
    picture.setAttribute("aria-label", plot.dataset.label);
    picture.removeAttribute("aria-roledescription");
    picture.querySelector("svg, canvas")?.setAttribute("aria-hidden", "true");
    plot.querySelector("details > summary")?.setAttribute("aria-label", "Save this chart");
  }

  async function render(plot, state) {
    const version = (state.version = (state.version ?? 0) + 1);
    await load();
    if (version !== state.version) return state.result?.view; // a later call supersedes this one
    const colour = colourResolver();
    const chosen = window.Rounds?.prepare(structuredClone(state.spec), plot) ?? state.spec;
    const spec = adaptToWidth(resolveColours(chosen, colour), plot.clientWidth);
    colour.dispose();
    const element = drawingElement(plot);
    element.style.minHeight = `${element.offsetHeight}px`; // keeps the scroll position
    state.result?.finalize();
    state.result = await window.vegaEmbed(element, spec, {
      ...options,
      downloadFileName: plot.id || "chart",
      renderer: state.renderer,
    });
    element.style.minHeight = "";
    setAriaLabels(plot);
    plot.dispatchEvent(new CustomEvent("charted", { bubbles: true, detail: state.result.view }));
    return state.result.view;
  }

  async function draw(plot, { spec = null, renderer = "svg" } = {}) {
    const state = drawn.get(plot) ?? {};
    Object.assign(state, { text: source(plot), renderer });
    state.spec = spec ?? JSON.parse(state.text);
    drawn.set(plot, state);
    if (!state.spec) return null;
    try {
      return await render(plot, state);
    } catch (error) {
      plot.dataset.failed = "This chart could not be rendered.";
      console.warn(error);
      return null;
    }
  }

  function drawNew() {
    for (const plot of drawn.keys()) if (!plot.isConnected) dispose(plot);
    for (const plot of document.querySelectorAll(".plot:not(#map)")) {
      if (drawn.get(plot)?.text !== source(plot)) draw(plot);
    }
  }

  function dispose(plot) {
    drawn.get(plot)?.result?.finalize();
    drawn.delete(plot);
  }

  function redraw(plot) {
    return render(plot, drawn.get(plot));
  }

  function redrawAll() {
    for (const [plot, state] of drawn) if (plot.isConnected && state.spec) render(plot, state);
  }

  const view = (plot) => drawn.get(plot)?.result?.view ?? null;
  const spec = (plot) => drawn.get(plot)?.spec ?? null;
  window.Charts = { draw, drawNew, redraw, redrawAll, source, spec, view };
  document.addEventListener("DOMContentLoaded", drawNew);
  document.addEventListener("themed", redrawAll);
})();
