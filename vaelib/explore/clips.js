// Clips in a list and, where there are any, in linked maps that Bokeh draws.

const REST = 300; // ms on a clip before its sound is asked for
const GREY = "#9a9a9a";
const SYMBOLS = { circle: "●", square: "■", triangle: "▲", diamond: "◆", inverted_triangle: "▼", hex: "⬢" };
const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] };

async function clips(root, setup, ask) {
  if (setup.library && !globalThis.Bokeh) { // from gzip in base64, once for all views of a page
    const packed = new Blob([Uint8Array.from(atob(setup.library), (c) => c.charCodeAt(0))]);
    const textContent = await new Response(packed.stream().pipeThrough(new DecompressionStream("gzip"))).text();
    add(document.head, "script", { textContent });
  }
  return new Clips(root, setup, ask);
}

class Clips {
  constructor(root, setup, ask) { // ask("picture", clip), ask("sound", clip), ask("select", clips)
    const every = setup.names.map((_, i) => i);
    Object.assign(this, setup, { root, ask, every, setup, panel: 0, lasso: null, colour: setup.fields[0] });
    for (const f of this.fields) f.keep = new Set(); // classes that the legend keeps; none: all
    this.lines = every.map((i) => (ask.knows("sound", i) ? "♪ " : "") + this.names[i]);
    const named = this.fields.filter((f) => f.values.length === 1 && !f.texts);
    this.searched = every.map((i) => [this.names[i], ...named.map((f) => this.words(f, i))].join(" ").toLowerCase());
    this.build();
    this.legend(this.fields[0].name);
    this.choose(Math.max(0, every.findIndex((i) => ask.knows("sound", i))), true, false);
  }
  value(f, i, k = this.panel) { return (f.values[k] ?? f.values[0])[i]; } // place in the classes of a field
  words(f, i, k = this.panel) { return (f.texts ? (f.texts[k] ?? f.texts[0])[i] : f.classes[this.value(f, i, k)]) ?? "–"; }

  build() {
    const { root, maps } = this;
    root.classList.add("vaelib-clips");
    root.onkeydown = (e) => {
      if (e.key === "Escape") this.clear();
      if (e.key === "Enter" && e.target.matches(".list, .map")) this.hear(true);
      e.stopPropagation();
    };
    part(root, "title", this.title);
    const bar = part(root, "row");
    this.search = add(bar, "input", { type: "search", placeholder: "search", ariaLabel: "search", oninput: () => this.refresh() });
    choice(bar, "filter and colour by ", this.fields.map((f) => f.name), (name) => this.legend(name));
    button(bar, "Clear", () => this.clear(), "clear search, legend and lasso (Esc)");
    this.summary = add(bar, "strong", { role: "status" });
    [this.key, this.hint] = [part(root, "legend"), part(root, "hint")];
    const body = part(root, "body"), left = part(body, maps.length ? "maps" : "side"), side = part(body, "side");
    this.name = part(side, "title");
    this.figure = figure(side, { ...this.setup, title: "" });
    this.facts = part(side, "facts");
    this.list = this.listing(maps.length ? side : left, "clips: arrows choose, Enter plays", maps.length ? 10 : 24);
    if (maps.length) this.link(left);
    if (this.rejected?.length) part(root, "rejected", `rejected files:\n${this.rejected.join("\n")}`);
  }
  listing(parent, ariaLabel, size, asks = true) { // the browser's own: keys, type-ahead, screen readers
    const onchange = (e) => this.choose(Number(e.target.value), asks);
    return add(parent, "select", { size, ariaLabel, className: "list", onchange });
  }
  show(list, clips) { list.replaceChildren(...clips.map((i) => new Option(this.lines[i], i))); }

  // what is kept
  legend(name) {
    const field = this.colour = this.fields.find((f) => f.name === name);
    this.hint.textContent = field.hint ?? "";
    this.key.replaceChildren();
    field.classes.forEach((text, k) => {
      const chip = button(this.key, "", () => {
        if (!field.keep.delete(k)) field.keep.add(k);
        this.refresh();
      });
      add(chip, "span", { textContent: SYMBOLS[field.symbols[k]] }).style.color = field.colours[k];
      chip.append(` ${text} `);
      add(chip, "small");
    });
    this.paint();
    this.refresh();
  }
  refresh() {
    const asked = this.fields.filter((f) => f.keep.size), parts = this.search.value.toLowerCase().split(/\s+/);
    const holds = (i) => asked.every((f) => f.keep.has(this.value(f, i))) && parts.every((w) => this.searched[i].includes(w));
    this.kept = this.every.filter((i) => holds(i) && (!this.lasso || this.lasso.has(i)));
    this.summary.textContent = `${this.kept.length} of ${this.every.length} clips`;
    [...this.key.children].forEach((chip, k) => {
      chip.lastChild.textContent = this.kept.filter((i) => this.value(this.colour, i) === k).length;
      chip.ariaPressed = this.colour.keep.has(k);
    });
    this.show(this.list, this.kept);
    this.list.value = this.chosen;
    if (this.source) this.source.selected.indices = this.kept.length ? this.kept : [-1]; // without any all would be bright
    this.ask("select", this.kept).catch(() => {}); // a saved page has no kernel to tell
  }
  clear() {
    this.search.value = "";
    this.lasso = null;
    for (const f of this.fields) f.keep.clear();
    this.refresh();
  }

  // what is chosen
  choose(clip, asks = true, aloud = true) { // a neighbour is looked at without asking for its own
    this.chosen = this.list.value = clip;
    if (asks) this.more();
    this.figure.silence();
    this.figure.note("");
    this.name.textContent = this.names[clip];
    this.describe();
    this.ring("chosen", [clip]);
    this.answer("picture", async (frame) => this.figure.draw(await decoded(frame)));
    clearTimeout(this.timer);
    this.timer = setTimeout(() => { if (this.root.isConnected) this.hear(aloud); }, REST);
  }
  hear(aloud) { this.answer("sound", (src) => this.figure.play(src, aloud)); }
  answer(what, act) { // unless another clip is chosen by then
    const clip = this.chosen, still = (act) => (got) => (clip === this.chosen ? act(got) : null);
    this.ask(what, clip).then(still(act)).catch(still((e) => this.figure.note(e.message)));
  }
  describe() {
    const where = (f) => (f.values.length > 1 ? ` in ${this.maps[this.panel]}` : "");
    this.facts.textContent = this.fields.map((f) => `${f.name}${where(f)}: ${this.words(f, this.chosen)}`).join("\n");
  }
  more() { // the clips nearest to the chosen one in each model's own space
    if (!this.source) return;
    const { chosen: clip, groups } = this, others = this.every.filter((i) => groups[i] !== groups[clip]);
    const labels = this.fields.filter((f) => ["genre", "language"].includes(f.name));
    this.like.textContent = `More like ${this.names[clip]}`;
    this.cards.forEach((list, k) => {
      const near = this.near[k][clip], alike = (f, among) => among.filter((i) => this.value(f, i) === this.value(f, clip)).length;
      const chance = (f) => (near.length * alike(f, others) / others.length).toFixed(1);
      const found = labels.map((f) => `same ${f.name} ${alike(f, near)}, by chance ${chance(f)}`);
      list.previousSibling.textContent = `${this.maps[k]}: of ${near.length} ${found.join("; ")}`;
      this.show(list, near);
      this.ring(`near ${k}`, near);
    });
  }

  // the maps
  link(parent) {
    const doc = Bokeh.require("document").Document.from_json(this.plots), methods = Object.keys(this.methods);
    this.find = (name) => doc.get_model_by_name(name);
    this.source = this.find("clips");
    this.places = this.methods[methods[0]]; // of each map: x and y of the clips
    const tools = part(parent, "row"), toolbar = part(tools, "toolbar"), grid = part(parent, "grid");
    this.find("toolbar").location = "above";
    choice(tools, "map by ", methods, (method) => {
      this.places = this.methods[method];
      this.paint();
      for (const k of this.maps.keys()) this.find(`map ${k}`).reset.emit();
    });
    const cells = this.maps.map((text, k) => this.map(grid, text, k));
    this.shows = this.maps.map((text, k) => tick(tools, text, true, (e) => { cells[k].hidden = !e.target.checked; }));
    part(parent, "hint", "Click: see, hear, and what is like it. Drag: lasso. Double-click: that map alone. Keys: arrows, Enter, Esc.");
    this.paint();
    Bokeh.embed.add_document_standalone(doc, this.root, [...cells, toolbar]);
    const head = part(this.root, "row"), cards = part(this.root, "cards");
    this.like = add(head, "strong");
    button(head, "More like the chosen clip", () => this.more());
    part(head, "hint", "nearest first in each model's own space, ringed in the maps; none of the same artist or track");
    this.cards = this.maps.map((model) => {
      const card = part(cards, "");
      part(card, "name");
      return this.listing(card, `nearest clips in ${model}`, 8, false);
    });
  }
  map(grid, text, k) {
    const cell = add(grid, "div", { className: "map", tabIndex: 0, ariaLabel: `map of ${text}` }), plot = this.find(`map ${k}`);
    part(cell, "name", text);
    cell.onkeydown = (e) => this.step(e, k);
    plot.on_event("tap", ({ x, y }) => {
      this.enter(k);
      this.choose(this.closest(k, x, y));
    });
    plot.on_event("doubletap", () => { // this map alone, or all again
      const all = this.shows.every((box, i) => box.checked === (i === k));
      this.shows.forEach((box, i) => { if (box.checked !== (all || i === k)) box.click(); });
    });
    plot.on_event("selectiongeometry", (e) => {
      const { indices } = this.source.selected;
      if (!e.final) return;
      this.lasso = indices.length ? new Set(indices) : null;
      this.enter(k);
    });
    return cell;
  }
  ring(filter, indices) { if (this.source) this.find(filter).indices = indices; }
  enter(k) { // a model's own classes hold other clips
    this.panel = k;
    this.describe();
    this.refresh();
  }
  closest(k, x, y, fits = () => true) {
    const [xs, ys] = this.places[k], far = (i) => (xs[i] - x) ** 2 + (ys[i] - y) ** 2;
    const [first = this.chosen, ...others] = this.kept.filter((i) => fits(xs[i] - x, ys[i] - y));
    return others.reduce((best, i) => (far(i) < far(best) ? i : best), first);
  }
  step(e, k) { // to the nearest clip in the direction of an arrow
    if (!ARROWS[e.key]) return;
    e.preventDefault();
    this.enter(k);
    const [right, up] = ARROWS[e.key], [x, y] = this.places[k].map((axis) => axis[this.chosen]);
    this.choose(this.closest(k, x, y, (dx, dy) => dx * right + dy * up > Math.abs(dx * up + dy * right)));
  }
  paint() {
    if (!this.source) return;
    const columns = { text: this.lines };
    this.maps.forEach((_, k) => {
      const values = this.every.map((i) => this.value(this.colour, i, k));
      [columns[`x${k}`], columns[`y${k}`]] = this.places[k];
      columns[`colour${k}`] = values.map((v) => this.colour.colours[v] ?? GREY);
      columns[`symbol${k}`] = values.map((v) => this.colour.symbols[v] ?? "circle");
      columns[`words${k}`] = this.every.map((i) => `· ${this.colour.name} ${this.words(this.colour, i, k)}`);
    });
    this.source.data = columns;
  }
}
