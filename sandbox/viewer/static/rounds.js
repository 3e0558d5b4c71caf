/* Charts by round (`usermeta.rounds` in the spec): a crosshair with the values of all series, by
   pointer or arrow keys; a click on the legend hides a series; dragging selects rounds. Choices that
   apply to all charts of a page (axis, smooth, rounds) are in the URL. */
(function () {
  "use strict";
  const MANY = 30; // rounds from which on smoothing and a range are offered
  const WINDOW = 5; // rounds of a rolling mean
  const hidden = new WeakMap(); // plot -> set of names
  const attached = new WeakMap(); // plot -> {view, rounds, rows, at}

  function choices() {
    const query = new URLSearchParams(location.search);
    const range = /^(\d+)-(\d+)$/.exec(query.get("rounds") ?? "");
    return {
      axis: query.get("axis") === "fitted" ? "fitted" : "whole",
      smooth: query.get("smooth") === String(WINDOW),
      from: range ? Number(range[1]) : -Infinity,
      to: range ? Number(range[2]) : Infinity,
    };
  }

  function choose(name, value) {
    const url = new URL(location.href);
    if (value === null) url.searchParams.delete(name);
    else url.searchParams.set(name, value);
    history.replaceState(history.state, "", url);
    window.Charts.redrawAll();
    addToolbar();
  }

  // The spec, with the choices applied

  function rolled(rows, { series, detail, value }) {
    const groups = groupBy(rows, (row) => JSON.stringify([row[series], row[detail]]));
    return [...groups.values()].flatMap((group) => {
      const sorted = group.toSorted((one, two) => one.round - two.round);
      const half = (WINDOW - 1) / 2;
      return sorted.map((row, place) => {
        const some = sorted.slice(Math.max(0, place - half), place + half + 1);
        return { ...row, [value]: some.reduce((sum, one) => sum + one[value], 0) / some.length };
      });
    });
  }

  function groupBy(rows, key) {
    const groups = new Map();
    for (const row of rows) groups.set(key(row), [...(groups.get(key(row)) ?? []), row]);
    return groups;
  }

  function roundsOf(rows) {
    return [...new Set(rows.map((row) => row.round))].sort((one, two) => one - two);
  }

  function prepare(spec, plot) {
    const used = spec.usermeta?.rounds;
    if (!used) return spec;
    const { axis, smooth, from, to } = choices();
    const gone = hidden.get(plot) ?? new Set();
    const all = spec.data.values;
    const many = roundsOf(all).length >= MANY;
    const rows = many && smooth ? rolled(all, used) : all;
    const isShown = (row) => !gone.has(row[used.series]) && row.round >= from && row.round <= to;
    const shown = rows.filter(isShown);
    for (const layer of spec.layer) {
      layer.encoding.y.scale.domain = used[axis];
      if (layer.data) layer.data.values = layer.data.values.filter(isShown);
    }
    const axisX = spec.encoding.x.axis;
    if (axisX.values) axisX.values = axisX.values.filter((round) => round >= from && round <= to);
    spec.data = { values: shown };
    return spec;
  }

  // The crosshair

  function add(parent, name, className, text = "") {
    const element = document.createElement(name);
    element.className = className;
    element.textContent = text;
    parent.append(element);
    return element;
  }

  function attach(plot, view) {
    const spec = window.Charts.spec(plot);
    const used = spec?.usermeta?.rounds;
    if (!used) return;
    const drawing = plot.querySelector(".drawing");
    const rows = prepare(structuredClone(spec), plot).data.values;
    const state = { plot, view, used, drawing, rows, rounds: roundsOf(rows), at: null };
    attached.set(plot, state);
    drawing.querySelectorAll(".overlay, .series").forEach((old) => old.remove());
    const overlay = add(drawing, "div", "overlay");
    drawing.prepend(overlay);
    state.line = add(overlay, "div", "crosshair");
    state.values = add(overlay, "output", "values");
    state.line.hidden = state.values.hidden = true;
    addSeries(state);
    fadeLegend(state);
    listen(state);
  }

  function pixels({ view }, round) {
    return view.origin()[0] + view.scale("x")(round);
  }

  function roundAt(state, clientX) {
    const x = clientX - state.drawing.getBoundingClientRect().left - state.view.origin()[0];
    const wanted = state.view.scale("x").invert(x);
    return state.rounds.reduce((best, round) =>
      Math.abs(round - wanted) < Math.abs(best - wanted) ? round : best, state.rounds[0]);
  }

  function format(value, digits = 2) {
    return value.toFixed(digits).replace("-", "\u2212");
  }

  function show(state, round) {
    if (round === undefined) return;
    state.at = round;
    const { line, values, used, view } = state;
    const digits = Number(/\.(\d+)f/.exec(used.form)?.[1] ?? 2);
    const left = pixels(state, round);
    line.style.left = `${left}px`;
    line.style.top = `${view.origin()[1]}px`;
    line.style.height = `${view.signal("height")}px`;
    values.textContent = "";
    add(values, "strong", "", `Round ${round}`);
    for (const row of state.rows.filter((one) => one.round === round)) {
      const entry = add(values, "span", "entry");
      const swatch = add(entry, "i", "swatch");
      swatch.style.background = `var(${used.colours[row[used.series]]})`;
      const name = used.detail ? `${row[used.series]}, ${row[used.detail]}` : row[used.series];
      add(entry, "b", "", `${name} ${format(row[used.value], digits)}`);
      const interval = Number.isFinite(row.low) ? `${format(row.low, digits)} to ${format(row.high, digits)}, ` : "";
      add(entry, "small", "", ` ${interval}n ${Number(row.n).toLocaleString("en")}`);
    }
    line.hidden = values.hidden = false;
    const room = state.drawing.clientWidth - values.offsetWidth;
    values.style.left = `${Math.max(0, left + 12 > room ? Math.min(room, left - values.offsetWidth - 12) : left + 12)}px`;
  }

  function hide(state) {
    state.line.hidden = state.values.hidden = true;
    state.at = null;
  }

  function listen(state) {
    const picture = state.drawing.querySelector(".chart-wrapper");
    const many = roundsOf(window.Charts.spec(state.plot).data.values).length >= MANY;
    let start = null;
    picture.tabIndex = 0;
    picture.setAttribute("aria-label", `${state.plot.dataset.label} Arrow keys read the values of each round.`);
    picture.onpointermove = (event) => {
      if (event.pointerType === "touch" && start !== null) return;
      picture.classList.toggle("over-legend", legendEntryAt(state, event) !== null);
      show(state, roundAt(state, event.clientX));
    };
    picture.onpointerleave = () => hide(state);
    picture.onpointerdown = (event) => { start = event.clientX; };
    picture.onpointerup = (event) => {
      if (many && start !== null && Math.abs(event.clientX - start) > 12) {
        const ends = [start, event.clientX].map((x) => roundAt(state, x)).sort((one, two) => one - two);
        if (ends[1] > ends[0]) choose("rounds", ends.join("-"));
      }
      start = null;
    };
    picture.ondblclick = () => choose("rounds", null);
    picture.onblur = () => hide(state);
    picture.onkeydown = (event) => step(state, event);
    picture.onclick = (event) => {
      const name = legendEntryAt(state, event);
      if (name !== null) toggle(state, name, event.shiftKey);
    };
  }

  function legendEntries({ drawing, used }) {
    const labels = [...drawing.querySelectorAll(".role-legend-label text")];
    return Object.keys(used.colours).map((name, place) => [name, labels[place]]).filter(([, label]) => label);
  }

  function legendEntryAt(state, { clientX, clientY }) {
    for (const [name, label] of legendEntries(state)) { // Vega's legends get no pointer events
      const { left, right, top, bottom } = label.getBoundingClientRect();
      if (clientX > left - 22 && clientX < right + 4 && clientY > top - 4 && clientY < bottom + 4) return name;
    }
    return null;
  }

  function step(state, event) {
    const last = state.rounds.length - 1;
    const place = state.rounds.indexOf(state.at);
    const places = { ArrowLeft: Math.max(0, place < 0 ? last : place - 1), ArrowRight: Math.min(last, place + 1), Home: 0, End: last };
    if (event.key === "Escape") { hide(state); return; }
    if (!(event.key in places)) return;
    event.preventDefault();
    event.stopPropagation(); // arrow keys also change pages and rounds
    show(state, state.rounds[places[event.key]]);
  }

  // Series

  function toggle({ plot, used }, name, only) {
    const names = Object.keys(used.colours);
    const gone = hidden.get(plot) ?? new Set();
    const alone = names.every((other) => gone.has(other) === (other !== name));
    let next = new Set(gone);
    if (only) next = new Set(alone ? [] : names.filter((other) => other !== name));
    else if (!next.delete(name)) next.add(name);
    if (next.size === names.length) next = new Set();
    hidden.set(plot, next);
    return window.Charts.redraw(plot);
  }

  function addSeries(state) {
    const group = add(state.drawing, "div", "series");
    const gone = hidden.get(state.plot) ?? new Set();
    for (const name of Object.keys(state.used.colours)) {
      const button = add(group, "button", "", name);
      button.type = "button";
      button.setAttribute("aria-pressed", String(!gone.has(name)));
      button.onclick = async (event) => {
        await toggle(state, name, event.shiftKey);
        [...state.drawing.querySelectorAll(".series button")].find((one) => one.textContent === name)?.focus();
      };
    }
  }

  function fadeLegend(state) {
    const gone = hidden.get(state.plot) ?? new Set();
    for (const [name, label] of legendEntries(state)) label.classList.toggle("gone", gone.has(name));
  }

  // Choices for all charts of a page

  function field(parent, text, control) {
    const label = add(parent, "label", "", text);
    label.append(control);
    return control;
  }

  function addAxis(bar, { axis }) {
    const select = field(bar, "Axis ", document.createElement("select"));
    for (const [value, text] of [["whole", "whole scale"], ["fitted", "fitted"]]) {
      select.append(new Option(text, value, false, value === axis));
    }
    select.onchange = () => choose("axis", select.value === "fitted" ? "fitted" : null);
    if (axis === "fitted") add(bar, "span", "soft", "Fitted axes do not show the whole scale.");
  }

  function addRange(bar, { smooth, from, to }, rounds) {
    const box = field(bar, `Rolling mean of ${WINDOW} rounds `, document.createElement("input"));
    box.type = "checkbox";
    box.checked = smooth;
    box.onchange = () => choose("smooth", box.checked ? String(WINDOW) : null);
    const [low, high] = [rounds[0], rounds.at(-1)];
    const ends = [Math.max(low, from), Math.min(high, to)].map((value, place) => {
      const input = field(bar, place ? "to " : "Rounds ", document.createElement("input"));
      Object.assign(input, { type: "number", min: low, max: high, value });
      return input;
    });
    for (const input of ends) {
      input.onchange = () => {
        const [one, two] = ends.map((end) => Number(end.value));
        choose("rounds", one < two && (one > low || two < high) ? `${one}-${two}` : null);
      };
    }
    if (from > low || to < high) {
      const all = add(bar, "button", "", "All rounds");
      all.type = "button";
      all.onclick = () => choose("rounds", null);
    }
  }

  function addToolbar() {
    const plots = [...document.querySelectorAll(".plot")].filter((plot) => window.Charts.spec(plot)?.usermeta?.rounds);
    const old = document.querySelector(".chart-options");
    if (!plots.length) { old?.remove(); return; }
    const bar = document.createElement("div");
    bar.className = "chart-options";
    bar.setAttribute("role", "group");
    bar.setAttribute("aria-label", "Charts by round");
    addAxis(bar, choices());
    const rounds = roundsOf(plots.flatMap((plot) => window.Charts.spec(plot).data.values));
    if (rounds.length >= MANY) addRange(bar, choices(), rounds);
    const focus = old?.contains(document.activeElement) ? [...old.querySelectorAll("select, input, button")].indexOf(document.activeElement) : -1;
    old?.remove();
    (plots[0].closest(".columns") ?? plots[0].closest(".chart")).before(bar);
    if (focus >= 0) bar.querySelectorAll("select, input, button")[focus]?.focus();
  }

  window.Rounds = { prepare, addToolbar };
  document.addEventListener("charted", (event) => {
    attach(event.target, event.detail);
    if (attached.has(event.target) && !document.querySelector(".chart-options")) addToolbar();
  });
})();
