// Clips in a list and, where there are any, in linked maps: the live widget and the saved page. After figure.js and near.js.

const ROW = 26; // height of a line of the list, pixels
const NEAR = 14; // a pointer this near to a point means it, pixels
const REST = 250; // ms on a clip before its sound is asked for
const GREY = "#9a9a9a";
// Markers as in fields.py: circle, square, triangle, diamond, triangle down, cross; corners on a circle of radius 1
const MARKERS = [null, [-.85, -.85, .85, -.85, .85, .85, -.85, .85], [0, -1.15, 1.05, .75, -1.05, .75], [0, -1.25, 1.1, 0, 0, 1.25, -1.1, 0], [0, 1.15, 1.05, -.75, -1.05, -.75],
  [-.5, -1.1, 0, -.6, .5, -1.1, 1.1, -.5, .6, 0, 1.1, .5, .5, 1.1, 0, .6, -.5, 1.1, -1.1, .5, -.6, 0, -1.1, -.5]];

const unpack = (text, Kind) => (text === null ? null : new Kind(Uint8Array.from(atob(text), (c) => c.charCodeAt(0)).buffer));
const grouped = (n) => n.toLocaleString("en");
const brief = (v) => (Number.isFinite(v) ? String(Number(v.toPrecision(3))).replace("-", "−") : "–");

function trace(ctx, marker, x, y, r) {
  ctx.beginPath();
  const corners = MARKERS[marker];
  if (!corners) return ctx.arc(x, y, r, 0, 7);
  for (let k = 0; k < corners.length; k += 2) ctx.lineTo(x + r * corners[k], y + r * corners[k + 1]);
  ctx.closePath();
}

// --- the list: only the lines in sight are in the page ---

function listing(parent, about, choose, play, label = "clips: arrow keys choose, Enter plays", point = null) { // about(clip): {name, labels, sound, alike?}
  const box = add(parent, "div", { className: "list", tabIndex: 0 }), inner = add(box, "div");
  const id = `clip-${Math.random().toString(36).slice(2)}`;
  let order = [], at = -1;
  box.setAttribute("role", "listbox");
  box.setAttribute("aria-label", label);

  function draw() {
    inner.style.height = `${order.length * ROW}px`;
    const first = Math.max(0, Math.floor(box.scrollTop / ROW) - 5), last = Math.min(order.length, first + Math.ceil(box.clientHeight / ROW) + 10);
    const lines = document.createDocumentFragment();
    for (let k = first; k < last; k++) {
      const { name, labels, sound, alike } = about(order[k]), line = add(lines, "div", { id: `${id}-${k}`, className: alike ? "clip alike" : "clip" });
      line.style.top = `${k * ROW}px`;
      for (const [key, value] of [["role", "option"], ["aria-selected", k === at], ["aria-posinset", k + 1], ["aria-setsize", order.length]]) line.setAttribute(key, value);
      add(line, "span", { className: "sound", textContent: sound, title: sound ? "play" : "" }).setAttribute("aria-hidden", true);
      add(line, "span", { className: "name", textContent: name, title: name });
      add(line, "span", { className: "labels", textContent: labels, title: labels });
    }
    inner.replaceChildren(lines);
    if (at >= 0) box.setAttribute("aria-activedescendant", `${id}-${at}`);
    else box.removeAttribute("aria-activedescendant");
  }

  function go(k) {
    if (order.length) choose(order[Math.max(0, Math.min(order.length - 1, k))]);
  }

  const line = (e) => Math.floor((e.clientY - inner.getBoundingClientRect().top) / ROW);
  if (point) {
    box.addEventListener("pointermove", (e) => point(order[line(e)] ?? -1));
    box.addEventListener("pointerleave", () => point(-1));
  }
  box.addEventListener("scroll", draw);
  box.addEventListener("click", (e) => {
    const k = line(e);
    if (k < 0 || k >= order.length) return;
    go(k);
    if (e.target.className === "sound") play();
  });
  box.addEventListener("dblclick", play);
  box.addEventListener("keydown", (e) => {
    const page = Math.max(1, Math.floor(box.clientHeight / ROW) - 1);
    const to = { ArrowDown: at + 1, ArrowUp: Math.max(0, at - 1), PageDown: at + page, PageUp: at - page, Home: 0, End: order.length - 1 }[e.key];
    if (to !== undefined) go(to);
    else if ((e.key === "Enter" || e.key === " ") && at >= 0) play();
    else return;
    e.preventDefault();
  });
  const watch = new ResizeObserver(draw);
  watch.observe(box);

  return {
    show(clips, clip) {
      order = clips;
      box.scrollTop = 0;
      this.mark(clip);
    },
    mark(clip) {
      at = order.indexOf(clip);
      const top = at * ROW;
      if (at >= 0 && (top < box.scrollTop || top + ROW > box.scrollTop + box.clientHeight)) box.scrollTop = top - box.clientHeight / 2;
      draw();
    },
    end: () => watch.disconnect(),
  };
}

// --- one map: points on a canvas, rings and a lasso over them ---

function map(parent, name, count, on) { // on: what the whole does, for this map
  const root = add(parent, "div", { className: "panel" });
  const title = add(root, "div", { className: "name", textContent: name, title: name }), none = add(title, "span", { className: "none" });
  const canvas = add(root, "canvas", { className: "map", tabIndex: 0 });
  canvas.setAttribute("role", "application");
  canvas.setAttribute("aria-label", `map of ${name}, ${count} clips: arrow keys walk to the next clip, Enter plays it, Escape clears`);
  const ctx = canvas.getContext("2d"), points = document.createElement("canvas"), pen = points.getContext("2d");
  const mixed = Array.from({ length: count }, (_, i) => i).sort((a, b) => (Math.imul(a, 2654435761) >>> 0) - (Math.imul(b, 2654435761) >>> 0)); // no class on top of the others
  const x = new Float32Array(count), y = new Float32Array(count), radius = Math.max(1.8, Math.min(3.6, 70 / Math.sqrt(count)));
  let xy = null, width = 0, height = 0, path = null, ink = "";

  function fit() {
    ({ clientWidth: width, clientHeight: height } = canvas);
    if (!xy || !width) return;
    const scale = devicePixelRatio || 1, pad = 10;
    for (const c of [canvas, points]) Object.assign(c, { width: Math.round(width * scale), height: Math.round(height * scale) });
    for (const [axis, out, size, flip] of [[0, x, width, false], [1, y, height, true]]) {
      let low = Infinity, high = -Infinity;
      for (let i = axis; i < xy.length; i += 2) { low = Math.min(low, xy[i]); high = Math.max(high, xy[i]); }
      for (let i = 0; i < count; i++) {
        const share = high > low ? (xy[2 * i + axis] - low) / (high - low) : 0.5;
        out[i] = pad + (flip ? 1 - share : share) * (size - 2 * pad);
      }
    }
    for (const c of [ctx, pen]) c.setTransform(scale, 0, 0, scale, 0, 0);
    paint();
  }

  function paint() { // the points; slower, only when their look changes
    if (!width) return;
    ink = getComputedStyle(root).color;
    pen.clearRect(0, 0, width, height);
    pen.strokeStyle = ink;
    pen.lineWidth = 0.5;
    for (const bright of [false, true]) for (const i of mixed) {
      if (on.shown(i) !== bright) continue;
      const [colour, marker] = on.look(i);
      trace(pen, marker, x[i], y[i], bright ? radius : radius * 0.7);
      pen.fillStyle = bright ? colour : GREY;
      pen.globalAlpha = bright ? 0.95 : 0.22;
      pen.fill();
      if (bright) { pen.globalAlpha = 0.4; pen.stroke(); }
    }
    pen.globalAlpha = 1;
    draw();
  }

  function ring(clip, r, dash, line = 2) {
    const [colour, marker] = on.look(clip);
    trace(ctx, marker, x[clip], y[clip], radius * 1.5);
    ctx.fillStyle = colour;
    ctx.fill();
    ctx.beginPath();
    ctx.arc(x[clip], y[clip], r, 0, 7);
    ctx.setLineDash(dash);
    ctx.strokeStyle = ink;
    ctx.lineWidth = line;
    ctx.stroke();
    ctx.setLineDash([]);
  }

  function ties() { // the query and its nearest clips, wherever the map has put them
    const { query } = on.state, near = on.near();
    if (query < 0 || !near.length) return;
    ctx.strokeStyle = ink;
    ctx.lineWidth = 1;
    ctx.globalAlpha = 0.55;
    ctx.beginPath();
    for (const i of near) { ctx.moveTo(x[query], y[query]); ctx.lineTo(x[i], y[i]); }
    ctx.stroke();
    ctx.globalAlpha = 1;
    for (const i of near) ring(i, 5, [], 1.2);
    ring(query, 8, [], 1.2);
  }

  function draw() { // points and rings; fast, at every move
    if (!width) return;
    ctx.clearRect(0, 0, width, height);
    ctx.drawImage(points, 0, 0, width, height);
    ties();
    if (on.state.chosen >= 0) ring(on.state.chosen, 8, []);
    if (on.state.hover >= 0 && on.state.hover !== on.state.chosen) ring(on.state.hover, 7, [3, 2]);
    if (!path) return;
    ctx.beginPath();
    for (const [u, v] of path) ctx.lineTo(u, v);
    ctx.closePath();
    ctx.fillStyle = ctx.strokeStyle = ink;
    ctx.globalAlpha = 0.12; ctx.fill();
    ctx.globalAlpha = 1; ctx.lineWidth = 1.5; ctx.setLineDash([4, 3]); ctx.stroke(); ctx.setLineDash([]);
  }

  const place = (e) => { const box = canvas.getBoundingClientRect(); return [e.clientX - box.left, e.clientY - box.top]; };

  function nearest(u, v) {
    let best = -1, least = NEAR * NEAR;
    for (let i = 0; i < count; i++) {
      const d = (x[i] - u) ** 2 + (y[i] - v) ** 2;
      if (d < least && on.shown(i)) { best = i; least = d; }
    }
    return best;
  }

  function step(from, right, down) { // the nearest point within 45° of a direction
    let best = -1, least = Infinity;
    for (let i = 0; i < count; i++) {
      const u = x[i] - x[from], v = y[i] - y[from], along = u * right + v * down, aside = Math.abs(u * down) + Math.abs(v * right);
      if (along > 0.01 && aside <= along && u * u + v * v < least && on.shown(i)) { best = i; least = u * u + v * v; }
    }
    return best;
  }

  canvas.addEventListener("pointerdown", (e) => {
    if (e.button) return;
    canvas.focus({ preventScroll: true });
    canvas.setPointerCapture(e.pointerId);
    path = [place(e)];
  });
  canvas.addEventListener("pointermove", (e) => {
    const [u, v] = place(e);
    if (!path) return on.hover(nearest(u, v));
    const [a, b] = path.at(-1);
    if (Math.hypot(u - a, v - b) < 3) return;
    path.push([u, v]);
    on.hover(-1);
    draw();
  });
  canvas.addEventListener("pointerup", (e) => {
    if (!path) return;
    const drawn = path;
    path = null;
    if (drawn.length < 4) {
      const clip = nearest(...place(e));
      if (clip >= 0) on.choose(clip, true);
      return draw();
    }
    ctx.save();
    ctx.setTransform(1, 0, 0, 1, 0, 0);
    const shape = new Path2D();
    for (const [u, v] of drawn) shape.lineTo(u, v);
    on.lasso(mixed.filter((i) => on.open(i) && ctx.isPointInPath(shape, x[i], y[i])));
    ctx.restore();
    draw();
  });
  canvas.addEventListener("pointercancel", () => { path = null; draw(); });
  canvas.addEventListener("pointerleave", () => { if (!path) on.hover(-1); });
  canvas.addEventListener("dblclick", (e) => { const clip = nearest(...place(e)); if (clip >= 0) on.alike(clip); });
  canvas.addEventListener("focus", () => on.enter());
  canvas.addEventListener("keydown", (e) => {
    const way = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[e.key], { chosen } = on.state;
    if (way) {
      const clip = chosen >= 0 && on.shown(chosen) ? step(chosen, ...way) : mixed.find(on.shown) ?? -1;
      if (clip >= 0) on.choose(clip, false);
    } else if (e.key === "Enter") { if (chosen >= 0) on.play(); }
    else return;
    e.preventDefault();
  });
  const watch = new ResizeObserver(fit);
  watch.observe(canvas);

  return {
    root, paint, draw,
    at: (clip) => [canvas.offsetLeft + x[clip], canvas.offsetTop + y[clip]],
    move(coordinates) { xy = coordinates; fit(); },
    say(text) { none.textContent = text; },
    end: () => watch.disconnect(),
  };
}

// --- the whole: list, filters, maps, legend, figure ---

function clips(root, data, ask) { // ask: {picture(clip), sound(clip)}; answers come through what is returned
  const count = data.names.length, hasMaps = data.maps.length > 0, { saved } = data;
  const fields = data.fields.map((f) => ({ ...f, values: f.values.map((v) => unpack(v, f.classes.length ? Int16Array : Float32Array)) }));
  const methods = Object.entries(data.methods).map(([name, xy]) => [name, xy.map((t) => unpack(t, Float32Array))]);
  const state = { chosen: -1, query: -1, hover: -1, panel: 0, isolated: -1, peek: -1, lasso: null, aloud: -1 };
  const wanted = new Map(); // field → class that its drop-down asks for
  let colour = fields[0], open = new Uint8Array(count).fill(1), timer = 0, panels = [], more = null;
  root.setAttribute("role", "group");
  root.setAttribute("aria-label", data.title);
  root.dataset.lmSuppressShortcuts = "true"; // else keys typed here are commands of JupyterLab

  const own = (f) => f.values.length > 1;
  const value = (f, clip, panel = state.panel) => (own(f) ? f.values[panel]?.[clip] : f.values[0][clip]) ?? NaN;
  const said = (f, clip, panel = state.panel) => { const v = value(f, clip, panel); return f.classes.length ? f.classes[v] ?? f.none : brief(v); };
  const offered = (clip, panel = state.panel) => open[clip] && (state.isolated < 0 || value(colour, clip, panel) === state.isolated);
  const shown = (clip, panel = state.panel) => offered(clip, panel) && (!state.lasso || state.lasso.has(clip));
  const texts = data.names.map((_, i) => [data.paths[i], ...fields.filter((f) => f.classes.length && !own(f)).map((f) => said(f, i))].join(" ").toLowerCase());
  const labels = fields.filter((f) => ["genre", "language"].includes(f.name)).sort((a, b) => a.name.localeCompare(b.name));
  const about = (i) => ({ name: data.names[i], labels: labels.map((f) => said(f, i)).join(" · "), sound: saved ? (saved.sounds[i] ? "♪" : "") : "▶" });

  add(root, "div", { className: "heading", textContent: data.title });
  const bar = add(root, "div", { className: "bar" });
  const body = add(root, "div", { className: "body" });
  const left = hasMaps ? add(body, "div", { className: "maps" }) : null;
  const side = add(body, "div", { className: hasMaps ? "side" : "both" });
  const shelf = add(side, "div", { className: "shelf" }), detail = add(side, "div", { className: "detail" });
  if (hasMaps) side.append(shelf); // the list below the figure

  // what narrows the list
  function choice(parent, label, options, change) {
    const line = add(parent, "label");
    add(line, "span", { textContent: label });
    const select = add(line, "select");
    options.forEach((text, k) => add(select, "option", { value: k, textContent: text }));
    select.addEventListener("change", () => change(Number(select.value)));
    return select;
  }
  const search = add(add(bar, "label"), "input", { type: "search", placeholder: "search names and labels" });
  search.setAttribute("aria-label", "search names and labels");
  search.addEventListener("input", narrow);
  const clear = add(bar, "button", { type: "button", textContent: "Clear", title: "clear search, filters and selection (Esc)" });
  clear.addEventListener("click", () => reset(true));
  const filters = fields.filter((f) => f.filter).map((f) => {
    const held = f.classes.map((c, k) => [k, f.values[0].reduce((n, v) => n + (v === k), 0), c]).filter(([, n]) => n);
    return choice(bar, f.name, ["all", ...held.map(([, n, c]) => `${c} (${n})`)], (k) => {
      if (k) wanted.set(f, held[k - 1][0]); else wanted.delete(f);
      narrow();
    });
  });

  const heard = saved && add(add(bar, "label"), "input", { type: "checkbox" }); // a saved page keeps few sounds: find them
  heard?.after("only with sound ♪");
  heard?.addEventListener("change", narrow);

  function narrow() {
    const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    for (let i = 0; i < count; i++) {
      open[i] = [...wanted].every(([f, v]) => f.values[0][i] === v) && words.every((w) => texts[i].includes(w)) && !(heard?.checked && !saved.sounds[i]) ? 1 : 0;
    }
    refresh();
  }

  function refresh() {
    const order = [];
    for (let i = 0; i < count; i++) if (shown(i)) order.push(i);
    clear.disabled = order.length === count && !state.lasso && state.isolated < 0 && !wanted.size && !search.value && !heard?.checked;
    list.show(order, state.chosen);
    summary.textContent = counted(order);
    for (const p of panels) p.paint();
  }

  function counted(order) {
    const all = count < data.total ? `saved copy: ${grouped(count)} of ${grouped(data.total)} clips` : `${grouped(count)} clips`;
    if (order.length === count) return all;
    const start = `${grouped(order.length)} of ${count < data.total ? `the ${all.replace(": ", "'s ")}` : all}`;
    if (!hasMaps || !order.length) return order.length ? start : `${start}: nothing passes, clear a filter`;
    const where = own(colour) ? ` in ${data.maps[state.panel]}` : "";
    if (!colour.classes.length) {
      const known = order.map((i) => value(colour, i)).filter(Number.isFinite);
      return known.length ? `${start} · ${colour.name}${where}: ${brief(Math.min(...known))} to ${brief(Math.max(...known))}, mean ${brief(known.reduce((a, b) => a + b) / known.length)}` : start;
    }
    const counts = new Map();
    for (const i of order) counts.set(said(colour, i), (counts.get(said(colour, i)) ?? 0) + 1);
    const most = [...counts].sort((a, b) => b[1] - a[1]), rest = most.length > 8 ? `, ${most.length - 8} more` : "";
    return `${start} · ${colour.name}${where}: ${most.slice(0, 8).map(([c, n]) => `${c} ${n}`).join(", ")}${rest}`;
  }

  function reset(all) {
    if (all) {
      search.value = "";
      for (const f of filters) f.value = 0;
      if (heard) heard.checked = false;
      wanted.clear();
    }
    Object.assign(state, { lasso: null, isolated: -1, peek: -1 });
    if (hasMaps) legend();
    narrow();
  }

  // what is chosen
  const summary = add(shelf, "div", { className: "summary" });
  summary.setAttribute("role", "status");
  const list = listing(shelf, about, (clip) => choose(clip, auto.checked), play);
  const now = add(detail, "div", { className: "now" });
  const button = add(now, "button", { type: "button", className: "play", textContent: "▶ Play", disabled: true });
  const name = add(now, "strong", { textContent: "choose a clip" });
  name.setAttribute("aria-live", "polite");
  const auto = add(add(now, "label", { className: "auto" }), "input", { type: "checkbox", checked: data.aloud });
  auto.after("play what I choose");
  const shownFigure = figure(detail, data.figure), audio = detail.querySelector("audio");
  const facts = add(detail, "dl", { className: "facts" });
  button.addEventListener("click", play);

  function liken(clip) { // what is like it, in every model
    state.query = clip;
    more?.show(clip);
    more?.mark(state.chosen);
    for (const p of panels) p.draw();
  }

  function choose(clip, aloud, wait = REST, neighbour = false) { // a neighbour is looked at, and the question stays
    if (!neighbour && clip !== state.query) liken(clip);
    if (clip === state.chosen) return aloud && play();
    Object.assign(state, { chosen: clip, aloud: -1 });
    clearTimeout(timer);
    audio.pause();
    audio.removeAttribute("src");
    audio.load();
    name.textContent = name.title = data.names[clip];
    button.disabled = Boolean(saved && !saved.sounds[clip]);
    shownFigure.note("");
    describe();
    list.mark(clip);
    more?.mark(clip);
    for (const p of panels) p.draw();
    ask.picture(clip);
    timer = setTimeout(() => hear(clip, aloud), wait);
  }

  function play() {
    if (state.chosen >= 0) hear(state.chosen, true);
  }

  function hear(clip, aloud) {
    clearTimeout(timer);
    if (aloud) {
      state.aloud = clip;
      shownFigure.note("fetching the sound …");
    }
    ask.sound(clip);
  }

  function describe() {
    facts.replaceChildren();
    if (state.chosen < 0) return;
    const rows = [["file", data.paths[state.chosen], "wide"], ...fields.filter((f) => !own(f)).map((f) => [f.name, said(f, state.chosen), ""])];
    for (const f of fields) if (own(f) && f.values[state.panel]) rows.push([`${f.name} in ${data.maps[state.panel]}`, said(f, state.chosen), "wide"]);
    for (const [term, text, className] of rows) {
      const line = add(facts, "div", { className });
      add(line, "dt", { textContent: term });
      add(line, "dd", { textContent: text, title: text });
    }
  }

  // maps
  let legend = () => {};
  if (hasMaps) {
    const tools = add(left, "div", { className: "bar" });
    choice(tools, "colour by", fields.map((f) => f.name), (k) => { colour = fields[k]; Object.assign(state, { isolated: -1, peek: -1 }); legend(); refresh(); });
    if (methods.length > 1) choice(tools, "map by", methods.map(([m]) => m), (k) => panels.forEach((p, i) => p.move(methods[k][1][i])));
    else add(tools, "span", { textContent: methods[0][0] });
    const hint = add(left, "div", { className: "hint" }), key = add(left, "div", { className: "legend" }), grid = add(left, "div", { className: "grid" });
    const tip = add(grid, "div", { className: "tip", hidden: true });
    add(left, "div", { className: "hint", textContent: "Point: the same clip in every map. Click: see and hear it, and find what is like it. Drag: lasso. Double-click: all with its label. In a map: arrow keys, Enter, Esc." });

    const ramp = (v) => `rgb(${data.ramp[Math.max(0, Math.min(255, Math.round(255 * (v - colour.low) / (colour.high - colour.low || 1))))].join(" ")})`;
    const look = (clip, panel) => {
      const v = value(colour, clip, panel);
      if (!colour.classes.length) return [Number.isFinite(v) ? ramp(v) : GREY, 0];
      return v >= 0 ? [colour.colours[v], colour.markers[v]] : [GREY, 0];
    };

    legend = () => {
      key.replaceChildren();
      if (!colour.classes.length) {
        const line = add(key, "span", { className: "scale" });
        add(line, "span", { textContent: brief(colour.low) });
        add(line, "i").style.background = `linear-gradient(to right, ${data.ramp.filter((_, i) => i % 15 === 0).map((c) => `rgb(${c.join(" ")})`).join(", ")})`;
        add(line, "span", { textContent: brief(colour.high) });
      }
      const present = new Set(panels.flatMap((_, p) => Array.from({ length: count }, (_, i) => value(colour, i, p))));
      colour.classes.forEach((text, k) => {
        if (!present.has(k)) return;
        const entry = add(key, "button", { type: "button", title: `only ${text}` }), swatch = add(entry, "canvas", { width: 28, height: 28 });
        const ctx = swatch.getContext("2d");
        trace(ctx, colour.markers[k], 14, 14, 9);
        ctx.fillStyle = colour.colours[k];
        ctx.fill();
        ctx.globalAlpha = 0.5;
        ctx.strokeStyle = getComputedStyle(root).color;
        ctx.stroke();
        add(entry, "span", { textContent: text });
        entry.setAttribute("aria-pressed", state.isolated === k);
        entry.addEventListener("click", () => {
          state.isolated = state.isolated === k ? -1 : k;
          for (const b of key.querySelectorAll("button")) b.setAttribute("aria-pressed", b === entry && state.isolated === k);
          refresh();
        });
        for (const [type, at] of [["pointerenter", k], ["pointerleave", -1], ["focus", k], ["blur", -1]]) {
          entry.addEventListener(type, () => { state.peek = at; for (const p of panels) p.paint(); });
        }
      });
      hint.textContent = colour.hint;
      panels.forEach((p, i) => p.say(own(colour) && !colour.values[i] ? " · none" : ""));
    };

    function hover(clip, panel) {
      if (clip !== state.hover) {
        state.hover = clip;
        for (const p of panels) p.draw();
      }
      tip.hidden = clip < 0;
      if (clip < 0) return;
      tip.textContent = [...labels.map((f) => said(f, clip)), data.names[clip], ...(labels.includes(colour) ? [] : [`${colour.name} ${said(colour, clip, panel)}`])].join(" · ");
      const [x, y] = panels[panel].at(clip);
      tip.style.left = `${Math.max(0, Math.min(grid.clientWidth - tip.offsetWidth, x - tip.offsetWidth / 2))}px`;
      tip.style.top = `${y > tip.offsetHeight + 16 ? y - tip.offsetHeight - 12 : y + 14}px`;
    }

    function select(found) {
      state.lasso = found.length ? new Set(found) : null;
      narrow();
    }

    panels = data.maps.map((title, p) => map(grid, title, count, {
      state,
      look: (clip) => look(clip, p),
      shown: (clip) => Boolean(shown(clip, p) && (state.peek < 0 || value(colour, clip, p) === state.peek)),
      open: (clip) => Boolean(offered(clip, p)),
      near: () => more?.of(p) ?? [],
      hover: (clip) => hover(clip, p),
      choose: (clip, clicked) => { enter(p); choose(clip, clicked || auto.checked, clicked ? 0 : REST); },
      enter: () => enter(p),
      play,
      lasso: (found) => { enter(p); select(found); },
      alike: (clip) => { const v = value(colour, clip, p); if (colour.classes.length) select(data.names.map((_, i) => i).filter((i) => shown(i, p) && value(colour, i, p) === v)); },
    }));
    grid.append(tip);
    if (data.near) more = nearby(root, data.maps, data.near, {
      names: data.names, labels, about, play,
      code: (f, clip) => f.values[0][clip],
      choose: (clip) => choose(clip, auto.checked, REST, true),
      hover: (clip) => { if (clip !== state.hover) { state.hover = clip; for (const p of panels) p.draw(); } },
      ask: liken,
      change: () => { for (const p of panels) p.draw(); },
    });
    panels.forEach((p, i) => p.move(methods[0][1][i]));
    legend();

    function enter(p) {
      if (p === state.panel) return;
      state.panel = p;
      describe();
      if (own(colour) && state.isolated >= 0) refresh(); // a model's own classes hold other clips
    }
  }

  // files that could not be used
  if (data.rejected) {
    const box = add(root, "details", { className: "rejected" });
    add(box, "summary", { textContent: `rejected files (${grouped(data.rejected.length)})` });
    if (!data.rejected.length) add(box, "div", { textContent: "none: every file found could be used" });
    else {
      const frame = add(box, "div", { className: "scroll", tabIndex: 0 }), table = add(frame, "table");
      for (const [path, reason] of [["path", "reason"], ...data.rejected]) {
        const row = add(table, "tr"), tag = row === table.firstChild ? "th" : "td";
        add(row, tag, { textContent: path });
        add(row, tag, { textContent: reason });
      }
    }
  }
  if (saved) add(root, "div", { className: "hint", textContent: `Saved copy: ♪ marks the ${grouped(Object.keys(saved.sounds).length)} clips of which the first ${saved.seconds} s of sound are kept.` });

  root.addEventListener("keydown", (e) => {
    if (e.key === "Escape") { reset(!state.lasso && state.isolated < 0); audio.pause(); e.preventDefault(); }
    e.stopPropagation();
  });
  const theme = new MutationObserver(() => { for (const p of panels) p.paint(); });
  theme.observe(document.body, { attributes: true });
  refresh();

  return {
    choose: (clip) => choose(clip, false),
    picture(clip, frame) { if (clip === state.chosen) shownFigure.draw(frame); },
    sound(clip, src) {
      if (clip !== state.chosen) return;
      shownFigure.note("");
      shownFigure.play(src, state.aloud === clip);
      state.aloud = -1;
    },
    note(clip, text) { if (clip === state.chosen) shownFigure.note(text); },
    end() { clearTimeout(timer); theme.disconnect(); list.end(); more?.end(); for (const p of panels) p.end(); audio.pause(); },
  };
}

// --- live: fed by the kernel ---

function render({ model, el }) {
  const urls = new Map(); // clip → its sound, once it has come
  let waiting = -1, turn = Date.now();
  const view = clips(add(el, "div", { className: "vaelib-clips" }), model.get("setup"), {
    picture(clip) { model.set("clip", clip); model.save_changes(); },
    sound(clip) {
      if (urls.has(clip)) return view.sound(clip, urls.get(clip));
      if (waiting === clip) return;
      waiting = clip;
      model.set("heard", { clip, turn: ++turn });
      model.save_changes();
    },
  });
  const picture = () => {
    const f = model.get("frame");
    if (f.shades) view.picture(f.clip, unpacked(f));
  };
  const sound = () => {
    const { clip, data } = model.get("sound");
    if (!data?.byteLength) return;
    if (!urls.has(clip)) urls.set(clip, URL.createObjectURL(new Blob([data], { type: "audio/mpeg" })));
    if (waiting === clip) { waiting = -1; view.sound(clip, urls.get(clip)); }
  };
  const note = () => { const { clip, text } = model.get("note"); if (waiting === clip) waiting = -1; view.note(clip, text); };
  const heard = [["change:frame", picture], ["change:sound", sound], ["change:note", note]];
  for (const [name, act] of heard) model.on(name, act);
  if (model.get("clip") >= 0) view.choose(model.get("clip"));
  picture();
  return () => {
    for (const [name, act] of heard) model.off(name, act);
    for (const url of urls.values()) URL.revokeObjectURL(url);
    view.end();
  };
}

export default { render };

// --- saved: everything inside the page ---

function page(root) {
  delete root.dataset.saved;
  const data = JSON.parse(root.querySelector("script").textContent), { pictures, sounds, lengths } = data.saved;
  root.querySelector("img").remove();
  const view = clips(root, data, {
    async picture(clip) {
      if (!pictures[clip]) return view.note(clip, "no picture of this clip in the saved copy");
      view.picture(clip, { ...await decoded(pictures[clip]), tiles: [1, 1], seconds: lengths[clip], caption: "" });
    },
    sound(clip) {
      if (sounds[clip]) view.sound(clip, sounds[clip]);
      else view.note(clip, "no sound of this clip in the saved copy");
    },
  });
  if (data.names.length) view.choose(Number(Object.keys(sounds)[0] ?? 0));
}

document.querySelectorAll(".vaelib-clips[data-saved]").forEach(page);
