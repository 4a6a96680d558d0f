// Clips in a list and, where there are any, in linked maps (Bokeh): the live widget and the saved page. After figure.js.

const REST = 300; // ms on a clip before its sound is asked for
const REACH = 12; // a pointer this near to a point means it, pixels
const GREY = "#9a9a9a";
const SYMBOLS = { circle: "●", square: "■", triangle: "▲", diamond: "◆", inverted_triangle: "▼", hex: "⬢" };
const brief = (v) => (Number.isFinite(v) ? String(Number(v.toPrecision(3))) : "–");

async function bokeh(library) { // from gzip in base64, once for all views of a page
  if (globalThis.Bokeh) return globalThis.Bokeh;
  const packed = new Blob([Uint8Array.from(atob(library), (c) => c.charCodeAt(0))]);
  const textContent = await new Response(packed.stream().pipeThrough(new DecompressionStream("gzip"))).text();
  add(document.head, "script", { textContent });
  return globalThis.Bokeh;
}

// A list of clips: the browser's own, so that keys, type-ahead and screen readers work in it.
function listing(parent, ariaLabel, size, text, on) { // text(clip); on: choose(clip), play(), hover(clip)
  const box = add(parent, "select", { size, ariaLabel, className: "list" });
  let order = [];
  box.addEventListener("change", () => on.choose(order[box.selectedIndex]));
  box.addEventListener("dblclick", on.play);
  box.addEventListener("keydown", (e) => { if (e.key === "Enter") on.play(); });
  box.addEventListener("pointerover", (e) => on.hover(e.target.index === undefined ? -1 : order[e.target.index]));
  box.addEventListener("pointerleave", () => on.hover(-1));
  return {
    show(clips) {
      order = clips;
      box.replaceChildren(...clips.map((i) => Object.assign(document.createElement("option"), { textContent: text(i), title: text(i) })));
    },
    mark(clip) { box.selectedIndex = order.indexOf(clip); },
  };
}

function clips(root, data, library, ask) { // ask: picture(clip), sound(clip), select(clips); answers come through what is returned
  const { names, saved, fields } = data, count = names.length, every = names.map((_, i) => i);
  const state = { chosen: -1, query: -1, hover: -1, panel: 0, peek: -1, lasso: null, aloud: -1, low: -Infinity, high: Infinity };
  const only = new Set(), wanted = new Map(); // classes that the legend keeps; field → class that its drop-down asks for
  let colour = fields[0], open = every.map(() => true), timer = 0, maps = null;
  root.setAttribute("role", "group");
  root.setAttribute("aria-label", data.title);
  root.dataset.lmSuppressShortcuts = "true"; // else keys typed here are commands of JupyterLab

  const perMap = (f) => f.values.length > 1;
  const value = (f, clip, panel = state.panel) => (perMap(f) ? f.values[panel]?.[clip] : f.values[0][clip]) ?? NaN;
  const words = (f, clip, panel) => (f.classes.length ? f.classes[value(f, clip, panel)] ?? f.none : brief(value(f, clip, panel)));
  const labels = fields.filter((f) => ["genre", "language"].includes(f.name));
  const texts = every.map((i) => [data.paths[i], ...fields.filter((f) => f.classes.length && !perMap(f)).map((f) => words(f, i))].join(" ").toLowerCase());
  const line = (i) => [saved?.sounds[i] ? "♪ " + names[i] : names[i], ...labels.map((f) => words(f, i)).filter((l) => !names[i].includes(l))].join(" · ");

  function choice(parent, label, options, change) {
    const select = add(add(parent, "label", { textContent: `${label} ` }), "select");
    options.forEach((textContent, value) => add(select, "option", { textContent, value }));
    select.addEventListener("change", () => change(select.selectedIndex));
    return select;
  }
  const button = (parent, textContent, act, title = "") => {
    const made = add(parent, "button", { type: "button", textContent, title });
    made.addEventListener("click", act);
    return made;
  };
  const tick = (parent, label, checked, change) => {
    const box = add(add(parent, "label"), "input", { type: "checkbox", checked });
    box.after(` ${label}`);
    box.addEventListener("change", change);
    return box;
  };

  // what narrows the list
  add(root, "div", { className: "title", textContent: data.title });
  const bar = add(root, "div", { className: "row" }), body = add(root, "div", { className: "body" });
  const left = add(body, "div", { className: data.maps.length ? "maps" : "side" }), side = add(body, "div", { className: "side" });
  const search = add(bar, "input", { type: "search", placeholder: "search names and labels", ariaLabel: "search names and labels" });
  search.addEventListener("input", narrow);
  const filters = fields.filter((f) => f.classes.length && !perMap(f)).map((f) => {
    const held = f.classes.map((c, k) => [k, f.values[0].filter((v) => v === k).length]).filter(([, n]) => n);
    return choice(bar, f.name, ["all", ...held.map(([k, n]) => `${f.classes[k]} (${n})`)], (k) => {
      if (k) wanted.set(f, held[k - 1][0]); else wanted.delete(f);
      narrow();
    });
  });
  const heard = saved ? tick(bar, "with sound ♪", false, narrow) : null;
  button(bar, "Clear", clear, "clear search, filters, legend and lasso (Esc)");
  const summary = add(root, "div", { className: "summary", role: "status" });
  body.before(summary);

  const allowed = (i, panel) => {
    const v = value(colour, i, panel);
    return colour.classes.length ? !only.size || only.has(v) : (state.low === -Infinity && state.high === Infinity) || (v >= state.low && v <= state.high);
  };
  const passes = (i, panel = state.panel) => open[i] && allowed(i, panel) && (!state.lasso || state.lasso.has(i));

  function narrow() {
    const parts = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    open = every.map((i) => [...wanted].every(([f, v]) => f.values[0][i] === v) && parts.every((w) => texts[i].includes(w)) && (!heard?.checked || i in saved.sounds));
    refresh();
  }

  function refresh() {
    const kept = every.filter((i) => passes(i));
    list.show(kept);
    list.mark(state.chosen);
    summary.textContent = counted(kept);
    maps?.paint();
    ask.select(kept);
  }

  function counted(kept) {
    const all = count < data.total ? `${count} clips of ${data.total} kept in the saved page` : `${count} clips`;
    if (kept.length === count) return all;
    if (!kept.length) return `no clip passes, of ${all}: press Clear`;
    const start = `${kept.length} of ${all}`, where = perMap(colour) ? ` in ${data.maps[state.panel]}` : "";
    if (!colour.classes.length) {
      const known = kept.map((i) => value(colour, i)).filter(Number.isFinite);
      return known.length ? `${start} · ${colour.name}${where}: ${brief(Math.min(...known))} to ${brief(Math.max(...known))}, mean ${brief(known.reduce((a, b) => a + b) / known.length)}` : start;
    }
    const counts = new Map();
    for (const i of kept) counts.set(words(colour, i), (counts.get(words(colour, i)) ?? 0) + 1);
    const most = [...counts].sort((a, b) => b[1] - a[1]), rest = most.length > 8 ? `, ${most.length - 8} more` : "";
    return `${start} · ${colour.name}${where}: ${most.slice(0, 8).map(([c, n]) => `${c} ${n}`).join(", ")}${rest}`;
  }

  function clear() {
    search.value = "";
    for (const f of filters) f.selectedIndex = 0;
    if (heard) heard.checked = false;
    wanted.clear();
    forget();
    maps?.legend();
    narrow();
  }
  function forget() { // what the legend and the lasso keep
    only.clear();
    Object.assign(state, { lasso: null, peek: -1, low: -Infinity, high: Infinity });
  }

  // what is chosen
  const now = add(side, "div", { className: "row" });
  const playing = button(now, "▶ Play", play), name = add(now, "strong", { textContent: "choose a clip", ariaLive: "polite" });
  const auto = tick(now, "play what I choose", data.maps.length > 0, () => {});
  const shown = figure(side, data.figure), facts = add(side, "dl");
  const list = listing(data.maps.length ? side : left, "clips: arrow keys choose, Enter plays", data.maps.length ? 10 : 24, line, { choose, play, hover });

  function choose(clip, keeps = false, aloud = auto.checked) { // `keeps` the question: a neighbour is looked at
    if (!keeps) similar?.ask(clip);
    Object.assign(state, { chosen: clip, aloud: -1 });
    clearTimeout(timer);
    shown.silence();
    shown.note("");
    name.textContent = name.title = names[clip];
    playing.disabled = Boolean(saved && !saved.sounds[clip]);
    describe();
    list.mark(clip);
    similar?.mark(clip);
    maps?.mark();
    ask.picture(clip);
    timer = setTimeout(() => hear(aloud), REST);
  }
  function hover(clip) {
    if (clip === state.hover) return;
    state.hover = clip;
    maps?.mark();
  }
  function play() { if (state.chosen >= 0) hear(true); }
  function hear(aloud) {
    clearTimeout(timer);
    if (aloud) state.aloud = state.chosen;
    ask.sound(state.chosen);
  }
  function describe() {
    facts.replaceChildren();
    const rows = [["file", data.paths[state.chosen]], ...fields.filter((f) => !perMap(f)).map((f) => [f.name, words(f, state.chosen)])];
    for (const f of fields.filter(perMap)) rows.push([`${f.name} in ${data.maps[state.panel]}`, words(f, state.chosen)]);
    for (const [term, text] of rows) {
      const entry = add(facts, "div");
      add(entry, "dt", { textContent: term });
      add(entry, "dd", { textContent: text });
    }
  }

  const similar = data.neighbours ? neighbours() : null;
  if (data.maps.length) maps = linked();

  // the clips nearest to one in each model's own space
  function neighbours() {
    const { every: all, others, related, groups } = data.neighbours, part = add(root, "section", { className: "similar" });
    const top = add(part, "div", { className: "row" }), title = add(top, "strong", { textContent: "More like this" });
    button(top, "More like the chosen clip", () => asking(state.chosen));
    const apart = related ? tick(top, `other ${related}s only`, true, () => asking(state.query)) : null;
    add(part, "div", { className: "hint", textContent: "Nearest first, by Euclidean distance in each model's own space, not in the map; lines lead to them. Choosing one keeps the lists." });
    const grid = add(part, "div", { className: "cards" }), of = (p) => (apart?.checked ? others : all)[p][state.query] ?? [];
    const shared = (f, i) => value(f, i) >= 0 && value(f, i) === value(f, state.query);
    const alike = (i) => groups[i] === groups[state.query];
    const cards = data.maps.map((model) => {
      const card = add(grid, "div"), head = add(card, "div", { className: "name" });
      const size = Math.max(2, ...all.flatMap((lists) => lists.map((l) => l.length)));
      const text = (i) => (alike(i) ? `(same ${related}) ` : "") + line(i);
      return { model, head, list: listing(card, `nearest clips in ${model}`, size, text, { choose: (i) => choose(i, true), play, hover }) };
    });
    function asking(clip) {
      if (clip < 0) return;
      state.query = clip;
      title.textContent = `More like ${names[clip]}`;
      const rest = every.filter((i) => i !== clip && !(apart?.checked && alike(i)));
      cards.forEach(({ model, head, list: found }, p) => {
        const near = of(p), known = labels.filter((f) => value(f, clip) >= 0);
        const share = known.map((f) => `same ${f.name} ${near.filter((i) => shared(f, i)).length}, by chance ${brief(near.length * rest.filter((i) => shared(f, i)).length / Math.max(1, rest.length))}`);
        head.textContent = near.length ? `${model}: of ${near.length} ${share.join("; ")}` : `${model}: no other clip`;
        found.show(near);
        found.mark(state.chosen);
      });
      maps?.mark();
    }
    return { of, ask: asking, mark: (clip) => cards.forEach((c) => c.list.mark(clip)) };
  }

  // the maps
  function linked() {
    const tools = add(left, "div", { className: "row" }), methods = Object.keys(data.methods);
    const hint = add(left, "div", { className: "hint" }), key = add(left, "div", { className: "legend" }), grid = add(left, "div", { className: "grid" });
    const tip = add(root, "div", { className: "tip", hidden: true });
    const doc = library.require("document").Document.from_json(data.document), plots = doc.roots();
    const source = Object.fromEntries(["clips", "rings", "ties"].map((n) => [n, doc.get_model_by_name(n)]));
    let method = methods[0], size = Math.max(5, Math.min(9, 130 / Math.sqrt(count)));

    choice(tools, "colour by", fields.map((f) => f.name), (k) => { colour = fields[k]; forget(); legend(); refresh(); });
    if (methods.length > 1) choice(tools, "map by", methods, (k) => { method = methods[k]; home(); paint(); });
    choice(tools, "drag", ["lasso", "pan"], (k) => { for (const p of plots) tool(p, k ? "PanTool" : "LassoSelectTool").active = true; });
    for (const [text, by] of [["+", 0.7], ["−", 1 / 0.7]]) button(tools, text, () => zoom(by), `zoom ${text}`);
    button(tools, "Whole map", home, "back to all clips (0)");
    const dots = add(add(tools, "label", { textContent: "dots " }), "input", { type: "range", min: 3, max: 16, value: size });
    dots.addEventListener("input", () => { size = Number(dots.value); paint(); });
    const pick = data.maps.length > 1 ? add(tools, "span", { className: "row", role: "group", ariaLabel: "models" }) : null;
    const first = matchMedia("(max-width: 640px)").matches;
    const picks = pick ? data.maps.map((text, p) => tick(pick, text, !first || !p, arrange)) : [];
    add(left, "div", { className: "hint", textContent: "Click: see, hear, and what is like it. Drag: lasso (or pan). Wheel in the map last clicked: zoom. Double-click: that map alone. Keys in a map: arrows, Enter, + − 0, Esc." });

    const cells = plots.map((p, k) => {
      const cell = add(grid, "div", { className: "cell" });
      add(cell, "div", { className: "name", textContent: data.maps[k], title: data.maps[k] });
      const place = add(cell, "div", { tabIndex: 0 });
      place.setAttribute("role", "application");
      place.setAttribute("aria-label", `map of ${data.maps[k]}, ${count} clips`);
      place.addEventListener("keydown", (e) => keys(e, k));
      place.addEventListener("dblclick", () => alone(k));
      p.on_event("mousemove", (e) => { const clip = nearest(k, e.x, e.y); hover(clip); point(clip, k, place, e); });
      p.on_event("mouseleave", () => { hover(-1); tip.hidden = true; });
      p.on_event("tap", (e) => { enter(k); const clip = nearest(k, e.x, e.y); if (clip >= 0) choose(clip); });
      p.on_event("selectiongeometry", (e) => { tip.hidden = true; if (e.final) lasso(k); });
      return { cell, place };
    });
    home();
    paint();
    library.embed.add_document_standalone(doc, grid, cells.map((c) => c.place));
    arrange();
    legend();

    function tool(p, type) { return p.toolbar.tools.find((t) => t.type === type); }
    function xy(k) { return data.methods[method][k]; }
    function ranges(p) { return [p.x_range, p.y_range]; }

    function home() {
      plots.forEach((p, k) => ranges(p).forEach((range, axis) => {
        const low = Math.min(...xy(k)[axis]), high = Math.max(...xy(k)[axis]), pad = 0.06 * (high - low || 1);
        range.setv({ start: low - pad, end: high + pad });
      }));
    }
    function zoom(by) {
      for (const range of ranges(plots[state.panel])) {
        const middle = (range.start + range.end) / 2, half = by * (range.end - range.start) / 2;
        range.setv({ start: middle - half, end: middle + half });
      }
    }
    function alone(k) { // one map enlarged, or all again
      const others = picks.some((box, i) => box.checked !== (i === k));
      picks.forEach((box, i) => { box.checked = others ? i === k : true; });
      arrange();
    }
    function arrange() {
      const on = cells.map((_, k) => !picks.length || picks[k].checked), many = on.filter(Boolean).length;
      grid.style.setProperty("--least", many === 1 ? "100%" : "13em");
      cells.forEach(({ cell }, k) => { cell.hidden = !on[k]; plots[k].height = many === 1 ? 460 : many < 3 ? 320 : 230; });
      if (!on[state.panel] && many) enter(on.indexOf(true));
    }
    function enter(k) {
      plots.forEach((p, i) => { tool(p, "WheelZoomTool").active = i === k; });
      cells.forEach(({ cell }, i) => cell.classList.toggle("on", i === k));
      if (k === state.panel) return;
      state.panel = k;
      if (state.chosen >= 0) describe();
      if (perMap(colour)) refresh(); // a model's own classes hold other clips
    }
    function scales(k) { // pixels for a step of the map
      return ranges(plots[k]).map((range, axis) => (axis ? plots[k].inner_height : plots[k].inner_width) / (range.end - range.start));
    }
    function nearest(k, x, y, fits = () => true) {
      const [u, v] = scales(k), [xs, ys] = xy(k);
      let best = -1, least = REACH * REACH;
      for (const i of every) {
        const d = ((xs[i] - x) * u) ** 2 + ((ys[i] - y) * v) ** 2;
        if (d < least && passes(i, k)) { best = i; least = d; }
      }
      return best;
    }
    function step(k, right, up) { // the nearest point within 45° of a direction
      const [u, v] = scales(k), [xs, ys] = xy(k), from = state.chosen;
      let best = -1, least = Infinity;
      for (const i of every) {
        const dx = (xs[i] - xs[from]) * u, dy = (ys[i] - ys[from]) * v, along = dx * right + dy * up;
        if (along > 0 && Math.abs(dx * up) + Math.abs(dy * right) <= along && dx * dx + dy * dy < least && passes(i, k)) { best = i; least = dx * dx + dy * dy; }
      }
      return best;
    }
    function keys(e, k) {
      const way = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] }[e.key];
      const act = { "+": () => zoom(0.7), "-": () => zoom(1 / 0.7), 0: home, Enter: play }[e.key];
      if (!way && !act) return;
      enter(k);
      act?.();
      if (way) {
        const clip = state.chosen >= 0 && passes(state.chosen, k) ? step(k, ...way) : every.find((i) => passes(i, k)) ?? -1;
        if (clip >= 0) choose(clip);
      }
      e.preventDefault();
    }
    function lasso(k) {
      const inside = source.clips.selected.indices;
      enter(k);
      state.lasso = null;
      const found = inside.filter((i) => passes(i, k));
      state.lasso = found.length ? new Set(found) : null;
      source.clips.selected.indices = []; // clips outside are dimmed by `paint`
      refresh();
    }

    function style(i, k) { // colour and symbol of a clip in a map
      const v = value(colour, i, k);
      if (colour.classes.length) return v >= 0 ? [colour.colours[v], colour.symbols[v]] : [GREY, "circle"];
      const [low, high] = bounds();
      return [Number.isFinite(v) ? `rgb(${data.ramp[Math.round(255 * (v - low) / (high - low || 1))].join(" ")})` : GREY, "circle"];
    }
    function bounds() {
      const known = colour.values.flat().filter(Number.isFinite);
      return [Math.min(...known), Math.max(...known)];
    }
    function paint() {
      const columns = {};
      plots.forEach((_, k) => {
        const bright = every.map((i) => passes(i, k) && (state.peek < 0 || value(colour, i, k) === state.peek)), styles = every.map((i) => style(i, k));
        [columns[`x${k}`], columns[`y${k}`]] = xy(k);
        columns[`colour${k}`] = styles.map(([c], i) => (bright[i] ? c : GREY));
        columns[`symbol${k}`] = styles.map(([, s]) => s);
        columns[`size${k}`] = bright.map((b) => (b ? size : 0.6 * size));
        columns[`alpha${k}`] = bright.map((b) => (b ? 0.9 : 0.2));
      });
      source.clips.data = columns;
      mark();
    }
    function mark() { // rings and lines
      const near = plots.map((_, k) => similar?.of(k) ?? []), rings = [[state.chosen, 17, 2.5], [state.hover, 15, 1.5], [state.query, 20, 1]].filter(([i]) => i >= 0);
      const drawn = { size: [], width: [] }, ties = {}, longest = Math.max(0, ...near.map((l) => l.length));
      const slots = [...rings, ...Array.from({ length: longest }, (_, n) => [n, 11, 1])];
      slots.forEach(([, s, w]) => { drawn.size.push(s); drawn.width.push(w); });
      plots.forEach((_, k) => {
        const [xs, ys] = xy(k), at = slots.map(([i], n) => (n < rings.length ? i : near[k][i])), ends = Array.from({ length: longest }, (_, n) => near[k][n]);
        [drawn[`x${k}`], drawn[`y${k}`]] = [xs, ys].map((a) => at.map((i) => a[i] ?? NaN));
        [ties[`x0${k}`], ties[`y0${k}`]] = [xs, ys].map((a) => ends.map(() => a[state.query] ?? NaN));
        [ties[`x1${k}`], ties[`y1${k}`]] = [xs, ys].map((a) => ends.map((i) => a[i] ?? NaN));
      });
      source.rings.data = drawn;
      source.ties.data = ties;
    }
    function point(clip, k, place, e) { // the tip at the pointer
      tip.hidden = clip < 0;
      if (clip < 0) return;
      tip.textContent = [line(clip), ...(labels.includes(colour) ? [] : [`${colour.name} ${words(colour, clip, k)}`])].join(" · ");
      const box = place.getBoundingClientRect(), all = root.getBoundingClientRect();
      tip.style.left = `${Math.max(0, Math.min(all.width - tip.offsetWidth, box.left - all.left + e.sx - tip.offsetWidth / 2))}px`;
      tip.style.top = `${box.top - all.top + e.sy - tip.offsetHeight - 12}px`;
    }

    function legend() {
      key.replaceChildren();
      hint.textContent = colour.hint;
      if (!colour.classes.length) {
        const limit = (at, value) => {
          const box = add(key, "input", { type: "number", step: "any", value: brief(value), ariaLabel: `${colour.name} ${at}` });
          box.addEventListener("change", () => { state[at] = box.value === "" ? (at === "low" ? -Infinity : Infinity) : Number(box.value); refresh(); });
        };
        const [low, high] = bounds();
        limit("low", low);
        add(key, "i").style.background = `linear-gradient(to right, ${data.ramp.filter((_, i) => i % 15 === 0).map((c) => `rgb(${c.join(" ")})`).join(", ")})`;
        limit("high", high);
      }
      const present = new Set(colour.values.flat());
      colour.classes.forEach((text, k) => {
        if (!present.has(k)) return;
        const entry = button(key, text, () => {
          if (!only.delete(k)) only.add(k);
          entry.setAttribute("aria-pressed", only.has(k));
          state.peek = -1;
          refresh();
        }, `only ${text}; click more to add them`);
        entry.prepend(Object.assign(document.createElement("span"), { textContent: `${SYMBOLS[colour.symbols[k]]} `, style: `color: ${colour.colours[k]}` }));
        const peek = (at) => () => { if (!only.size) { state.peek = at; paint(); } };
        entry.addEventListener("pointerenter", peek(k));
        entry.addEventListener("pointerleave", peek(-1));
      });
    }
    return { paint, mark, legend };
  }

  // files that could not be used
  if (data.rejected) {
    const box = add(root, "details");
    add(box, "summary", { textContent: `rejected files (${data.rejected.length})` });
    const table = add(add(box, "div", { className: "scroll", tabIndex: 0 }), "table");
    for (const cells of [["path", "reason"], ...data.rejected]) {
      const row = add(table, "tr");
      for (const textContent of cells) add(row, "td", { textContent });
    }
  }
  if (saved) add(root, "div", { className: "hint", textContent: `Saved page: ♪ marks the ${Object.keys(saved.sounds).length} clips of which the first ${saved.seconds} s of sound are kept.` });
  root.addEventListener("keydown", (e) => {
    if (e.key === "Escape") { clear(); shown.audio.pause(); }
    e.stopPropagation();
  });
  refresh();

  return {
    begin: (clip) => choose(clip, false, false),
    picture(clip, frame) { if (clip === state.chosen) shown.draw(frame); },
    sound(clip, src) {
      if (clip !== state.chosen) return;
      shown.note("");
      shown.play(src, state.aloud === clip);
      state.aloud = -1;
    },
    note(clip, text) { if (clip === state.chosen) shown.note(text); },
    end() { clearTimeout(timer); shown.silence(); },
  };
}

// --- live: fed by the kernel ---

async function render({ model, el }) {
  const setup = model.get("setup"), urls = new Map(); // clip → its sound, once it has come
  let turn = Date.now();
  const send = (name, value) => { model.set(name, value); model.save_changes(); };
  const view = clips(add(el, "div", { className: "vaelib-clips" }), setup, setup.library && await bokeh(setup.library), {
    picture: (clip) => send("clip", clip),
    sound(clip) { if (urls.has(clip)) view.sound(clip, urls.get(clip)); else send("heard", { clip, turn: ++turn }); },
    select: (kept) => send("selected", kept),
  });
  const picture = () => { const f = model.get("frame"); if (f.shades) view.picture(f.clip, unpacked(f)); };
  const sound = () => {
    const { clip, data } = model.get("sound");
    if (!urls.has(clip)) urls.set(clip, URL.createObjectURL(new Blob([data], { type: "audio/mpeg" })));
    view.sound(clip, urls.get(clip));
  };
  const note = () => view.note(model.get("note").clip, model.get("note").text);
  const heard = [["change:frame", picture], ["change:sound", sound], ["change:note", note]];
  for (const [name, act] of heard) model.on(name, act);
  if (setup.names.length) view.begin(0);
  picture();
  return () => {
    for (const [name, act] of heard) model.off(name, act);
    for (const url of urls.values()) URL.revokeObjectURL(url);
    view.end();
  };
}

export default { render };

// --- saved: everything inside the page ---

async function page(root) {
  delete root.dataset.saved;
  const data = JSON.parse(root.querySelector("script").textContent), { pictures, sounds, lengths } = data.saved;
  const library = data.library && await bokeh(data.library);
  root.querySelector("img").remove();
  const view = clips(root, data, library, {
    async picture(clip) {
      if (!pictures[clip]) return view.note(clip, "no picture of this clip in the saved page");
      view.picture(clip, { ...await decoded(pictures[clip]), tiles: [1, 1], count: 1, seconds: lengths[clip], caption: "", labels: [] });
    },
    sound(clip) {
      if (sounds[clip]) view.sound(clip, sounds[clip]);
      else view.note(clip, "no sound of this clip in the saved page");
    },
    select() {},
  });
  if (data.names.length) view.begin(Number(Object.keys(sounds)[0] ?? 0));
}

document.querySelectorAll(".vaelib-clips[data-saved]").forEach(page);
