// Sliders and lists beside a figure: the live widget and the saved page. After figure.js.

const PAUSE = 100; // ms without a move before a sound is asked for
const FEW = 60; // choices that a drop-down list holds; among more one searches
const same = (a, b) => JSON.stringify(a) === JSON.stringify(b);

// ask("scene", values) → {start, values of each control}, ask("frames", [values, …]), ask("sound", values, tile): promises;
// saved: the frames are those of one control moved from the start
function view(root, setup, ask, saved = false) {
  root.classList.add("vaelib-view");
  root.dataset.lmSuppressShortcuts = "true"; // JupyterLab: the keys of controls are not the notebook's
  const shown = figure(root, setup, hear), frames = new Map(), pins = {};
  let scene = null, now = setup.start, going = Promise.resolve(), drawing = false, leading = null, pinned = "A", timer = 0;

  const failed = (error) => shown.note(error.message);
  const moved = (name, value) => ({ ...(saved ? scene.start : now), [name]: value });
  const framesOf = (settings) => { // each is asked for once
    const fresh = settings.filter((values) => !frames.has(JSON.stringify(values))), answer = fresh.length ? ask("frames", fresh) : null;
    fresh.forEach((values, k) => frames.set(JSON.stringify(values), answer.then(async (f) => ({ ...f[k], ...await decoded(f[k].picture), values }))));
    return Promise.all(settings.map((values) => frames.get(JSON.stringify(values))));
  };
  const frameOf = async (values) => (await framesOf([values]))[0];
  async function draw() { // one picture at a time: of moves that come too fast some are left out
    if (drawing) return;
    drawing = true;
    for (let values = null; values !== now;) {
      values = now;
      await frameOf(values).then(shown.draw).catch(failed);
    }
    drawing = false;
  }
  async function enter(values) { // a scene has a start of its own, and no difference is shown
    scene = await ask("scene", values);
    frames.clear();
    difference.options[1].textContent = PINNED;
    shown.compare(difference.value = NOTHING, await frameOf(scene.start));
  }
  async function go(values, toStart) {
    if (toStart || setup.controls.some((c) => c.scene && values[c.name] !== scene.start[c.name])) await enter(values);
    now = toStart ? scene.start : values;
    for (const stand of controls) stand();
    draw();
  }
  const move = (values, toStart = false) => { going = going.then(() => go(values, toStart)).catch(failed); };
  async function ahead(i) { // ask for all that a slider leads to, the nearest first, until another slider is near
    const mine = leading = {}, { name } = setup.controls[i], from = now[name];
    const values = [...scene.values[i]].sort((a, b) => Math.abs(a - from) - Math.abs(b - from));
    while (leading === mine && values.length) await framesOf(values.splice(0, 16).map((v) => moved(name, v))).catch(failed);
  }
  async function hear(tile) {
    await going;
    const values = now;
    await ask("sound", values, tile).then((src) => { if (values === now) shown.play(src, true); }, (error) => {
      shown.silence();
      failed(error);
    });
  }

  const tools = add(shown.root, "div", { className: "tools" }), panel = add(root, "div", { className: "panel" });
  const button = (textContent, title, onclick) => add(tools, "button", { type: "button", textContent, title, onclick });
  button("Reset", "all controls back to the start", () => move(now, true));
  const difference = add(add(tools, "label", { textContent: "difference from ", title: "red: louder, blue: softer" }), "select");
  difference.append(...[NOTHING, PINNED, MARKED].map((text) => new Option(text, text)));
  difference.onchange = () => shown.compare(difference.value);
  const pin = (name) => {
    pins[pinned = name] = now;
    swap.disabled = !(pins.A && pins.B);
  };
  button("Pin A", "keep this setting, and take differences from its picture, not from the start", () => {
    pin("A");
    difference.options[1].textContent = "A";
    shown.compare(difference.value, shown.frame);
  });
  button("Pin B", "keep this setting", () => pin("B"));
  const swap = button("A ⇄ B", "see and hear the other pinned setting", () => {
    pinned = pinned === "A" ? "B" : "A";
    swap.textContent = `A ⇄ B: ${pinned}`;
    move(pins[pinned]);
    hear(shown.tile);
  });
  swap.disabled = true;

  const controls = setup.controls.map((c, i) => { // → a function that shows what a control is set to
    const row = add(panel, "label", { textContent: c.label }), digits = c.values.every(Number.isInteger) ? 0 : 2;
    const searched = !saved && !c.slider && c.values.length > FEW;
    const input = c.slider || searched ? add(row, "input", { type: c.slider ? "range" : "search" }) : add(row, "select");
    const output = add(row, "output"), list = add(row, "datalist", { id: `vaelib-${Math.random()}` });
    let filled = null;
    input.oninput = () => {
      const value = searched ? input.value : scene.values[i][input.value];
      if (scene.values[i].includes(value)) move(c.scene ? { ...now, [c.name]: value } : moved(c.name, value), c.scene);
    };
    if (searched) { // an empty field offers all
      input.setAttribute("list", list.id);
      list.replaceChildren(...c.values.map((value) => new Option("", value)));
      input.onfocus = () => { input.value = ""; };
      input.onblur = () => { input.value = now[c.name]; };
    }
    input.onchange = () => {
      clearTimeout(timer);
      if (aloud.checked) timer = setTimeout(() => hear(shown.tile), PAUSE);
    };
    if (c.slider) {
      row.title = "double-click: back to its start";
      row.ondblclick = () => move(moved(c.name, scene.start[c.name]));
      row.onpointerenter = input.onfocus = () => ahead(i);
    }
    return () => {
      const values = scene.values[i], place = values.indexOf(now[c.name]);
      if (searched) {
        input.placeholder = `${now[c.name]} (type to search)`;
        if (document.activeElement !== input) input.value = now[c.name];
        return;
      }
      if (!c.slider && filled !== scene) input.replaceChildren(...values.map((text, k) => new Option(text, k)));
      filled = scene;
      input.max = values.length - 1;
      input.value = place;
      if (c.slider) output.textContent = values[place].toFixed(digits);
    };
  });
  const aloud = add(add(panel, "label", { textContent: "play when released" }), "input", { type: "checkbox", checked: true });
  if (saved) add(panel, "div", { className: "hint", textContent: "Saved page: one control moves at a time, the others return to their start; sounds are kept of the start and of the ends of sliders." });
  move(now, true);
}

export default {
  render({ model, el, experimental }) {
    const setup = model.get("setup"), ask = kernel(experimental), { start, ready } = setup; // at once, however busy the kernel is
    view(el, setup, async (what, values, ...more) => (same(values, what === "frames" ? [start] : start) && ready[what]) || ask(what, values, ...more));
  },
};

function page(root) {
  delete root.dataset.saved;
  const { setup, scenes, frames, pictures } = JSON.parse(root.querySelector("script").textContent);
  const frameOf = (values) => frames.find((f) => same(f.values, values));
  const answers = {
    scene: (values) => scenes.find(({ start }) => setup.controls.every((c) => !c.scene || values[c.name] === start[c.name])),
    frames: (all) => all.map(frameOf).map((frame) => ({ ...frame, picture: pictures[frame.picture] })),
    sound(values, tile) {
      const kept = frameOf(values).sounds[tile];
      if (!kept) throw Error("no sound of this is kept in the saved page: it has those of the start and of the ends of sliders");
      return kept;
    },
  };
  root.querySelector("img").remove();
  view(root, setup, async (what, ...given) => answers[what](...given), true);
}

document.querySelectorAll(".vaelib-view[data-saved]").forEach(page);
