// Sliders and lists beside a figure that follows them.

const PAUSE = 100; // ms without a move before a sound is asked for
const AHEAD = 16; // frames that are asked for together
const MANY = 60; // names: among more one searches
const NOTHING = "nothing", START = "the start", OTHER = "the other setting", MARKED = "the marked tile"; // differences from

// ask("scene", values of lists that all else depends on) → {start, values: what each control can be set to};
// ask("frame", values), ask("sound", values, tile). A saved page has the frames of one control moved from the start.
async function view(root, setup, ask, saved) {
  root.classList.add("vaelib-view");
  const shown = figure(root, setup, hear), frames = new Map(), scenes = Object.keys(setup.choice);
  let scene = await ask("scene", setup.choice), now = scene.start, other = now, letter = "A";
  let going = Promise.resolve(), drawing = false, leading = null, timer = 0;

  const failed = (error) => shown.note(error.message);
  const moved = (name, value) => ({ ...(saved ? scene.start : now), [name]: value });
  function frameOf(values) { // each is asked for once
    const key = JSON.stringify(values);
    if (!frames.has(key)) frames.set(key, ask("frame", values).then(async (frame) => ({ ...await decoded(frame), values })));
    return frames.get(key);
  }
  async function draw() { // one picture at a time: of moves that come too fast some are left out
    if (drawing) return;
    drawing = true;
    for (let values = null; values !== now;) {
      values = now;
      await frameOf(values).then(shown.draw).catch(failed);
    }
    drawing = false;
  }
  async function compare(what) {
    const from = { [START]: scene.start, [OTHER]: other }[what];
    difference.value = what;
    shown.compare(what !== NOTHING, from && await frameOf(from));
  }
  async function go(values, toStart) {
    if (scenes.some((name) => values[name] !== scene.start[name])) {
      scene = await ask("scene", Object.fromEntries(scenes.map((name) => [name, values[name]])));
      frames.clear();
      compare(NOTHING);
    }
    now = toStart ? scene.start : values;
    for (const stand of controls) stand();
    draw();
  }
  const move = (values, toStart = false) => { going = going.then(() => go(values, toStart)).catch(failed); };
  async function ahead(name) { // ask for all that a slider leads to, the nearest first, until another slider is near
    const mine = leading = {}, from = now[name];
    const values = [...scene.values[name]].sort((a, b) => Math.abs(a - from) - Math.abs(b - from));
    while (leading === mine && values.length) {
      await Promise.all(values.splice(0, AHEAD).map((v) => frameOf(moved(name, v)))).catch(failed);
    }
  }
  async function hear(tile) {
    await going;
    const values = now;
    await ask("sound", values, tile).then((src) => { if (values === now) shown.play(src, true); }, (error) => {
      shown.silence();
      failed(error);
    });
  }
  function settled() {
    clearTimeout(timer);
    timer = setTimeout(() => hear(shown.tile), PAUSE);
  }

  function slider(name) {
    const row = add(panel, "label", { className: "control", textContent: name, title: "double-click: back to its start" });
    const input = add(row, "input", { type: "range", onchange: settled }), output = add(row, "output");
    input.oninput = () => move(moved(name, scene.values[name][input.value]));
    row.ondblclick = () => move(moved(name, scene.start[name]));
    row.onpointerenter = input.onfocus = () => ahead(name);
    return () => {
      const values = scene.values[name];
      input.max = values.length - 1;
      input.value = values.indexOf(now[name]);
      output.textContent = now[name].toFixed(values.every(Number.isInteger) ? 0 : 2);
    };
  }
  function list(name) { // one searches by typing: of all names are offered those that hold what is typed
    const row = add(panel, "label", { className: "control", textContent: name }), toStart = scenes.includes(name);
    const names = scene.values[name], many = names.length > MANY, input = add(row, many ? "input" : "select", { onchange: settled });
    const options = many ? add(row, "datalist", { id: `vaelib-${Math.random()}` }) : input;
    options.append(...names.map((text) => new Option(text)));
    if (many) input.setAttribute("list", options.id);
    input.onfocus = () => { if (many) input.value = ""; };
    input.oninput = () => {
      if (names.includes(input.value)) move(toStart ? { ...now, [name]: input.value } : moved(name, input.value), toStart);
    };
    return input.onblur = () => { input.value = now[name]; };
  }

  const tools = part(shown.root, "row tools"), panel = part(root, "panel");
  button(tools, "Reset", () => move(now, true), "all controls back to the start");
  const difference = choice(tools, "difference from ", [NOTHING, START, OTHER, MARKED], compare);
  difference.title = "red: louder, blue: softer";
  const swap = button(tools, "A ⇄ B", () => {
    const left = now;
    move(other);
    [other, letter] = [left, letter === "A" ? "B" : "A"];
    swap.textContent = `A ⇄ B: ${letter}`;
    going.then(() => compare(difference.value));
    hear(shown.tile);
  }, "see and hear the other of two settings, which begins at the start; moves are kept in the one that is shown");
  const controls = Object.keys(now).map((name) => (typeof now[name] === "number" ? slider(name) : list(name))); // show what is set
  if (saved) part(panel, "hint", "Saved page: one control moves at a time, the others return to their start; sounds are kept of the start and of the ends of sliders.");
  move(now);
}
