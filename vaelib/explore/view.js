// A view's controls in two hosts: the live widget (anywidget) and the offline player of a report. After figure.js.

// Buttons below the figure. host: values() what is set, said() in words, go(values; null: the start), extra(index)
function tools(shown, setup, host) {
  const bar = document.createElement("div"), kept = document.createElement("div");
  shown.root.querySelector("audio").before(bar, kept);
  bar.className = "tools";
  kept.className = "pins";
  const button = (text, title, act) => {
    const b = add(bar, "button", { type: "button", textContent: text, title });
    b.addEventListener("click", act);
    return b;
  };
  button("Reset", "back to the start", () => host.go(null));
  const label = add(bar, "label", { title: "what has become louder (red) and softer (blue) since the start" });
  const box = add(label, "input", { type: "checkbox" });
  add(label, "span", { textContent: "difference from the start" });
  box.addEventListener("change", () => shown.compare(box.checked));
  const pins = {}, words = { A: add(kept, "span"), B: add(kept, "span") };
  const mark = (on) => { for (const n of ["A", "B"]) words[n].classList.toggle("on", n === on); };
  const pin = (name) => {
    pins[name] = host.values();
    words[name].textContent = `${name}: ${host.said()}`;
    swap.disabled = !(pins.A && pins.B);
    mark(name);
  };
  for (const name of ["A", "B"]) button(`Pin ${name}`, "keep this setting", () => pin(name));
  const swap = button("A ⇄ B", "switch between the two pinned settings", () => {
    const next = JSON.stringify(host.values()) === JSON.stringify(pins.A) ? "B" : "A";
    mark(next);
    host.go(pins[next]);
  });
  swap.disabled = true;
  setup.extras.forEach((text, i) => button(`▶ ${text}`, "play", () => host.extra(i)));
}

// --- live: fed by the kernel ---

// The frames that a slider leads to, asked for when a pointer or the focus comes near it: the page draws them itself as
// soon as the slider moves; the kernel's own frame follows.
function ahead(model, shown) {
  const inputs = {}, { sliders } = model.get("setup"), off = [];
  let path = { slider: "", frames: [] }, leads = false;
  const value = (name) => { const m = inputs[name]; return m?.get("_options_labels")?.[m.get("index")] ?? m?.get("value"); };
  const alike = (a, b) => a === b || Math.abs(a - b) < 1e-4;
  const stands = (values, except) => Object.keys(values).every((n) => n === except || alike(values[n], value(n)));

  function moved(name) {
    const near = path.slider === name && path.frames.find((f) => Math.abs(f.values[name] - value(name)) < f.gap / 2);
    if (!near || !stands(near.values, name)) return;
    leads = true;
    shown.draw(near);
  }
  for (const [name, reference] of Object.entries(model.get("inputs"))) {
    model.widget_manager.get_model(reference.replace("IPY_MODEL_", "")).then((input) => {
      const heard = () => moved(name);
      inputs[name] = input;
      input.on("change:value", heard);
      off.push(() => input.off("change:value", heard));
    });
  }
  return {
    ask(slider) { // number of a slider, from the top
      const name = sliders[slider], asked = path.slider === name;
      if (!name || asked && (!path.frames.length || stands(path.frames[0].values, name))) return;
      path = { slider: name, frames: [] };
      model.send({ do: "ahead", slider: name });
    },
    take({ ahead: name, frames }, shades) {
      if (name !== path.slider) return;
      if (!frames.length) {
        if (!path.frames.length) path.slider = ""; // nothing came of it: ask again
        return;
      }
      if (!stands(frames[0].values, name)) path.slider = ""; // something else has moved meanwhile: ask again
      else path.frames.push(...frames.map((f, i) => unpacked({ ...f, shades: shades[i] })));
    },
    shows(values) { // whether the kernel's frame of these values is older than the page's own, or the same
      leads &&= !stands(values) || Object.keys(values).every((n) => alike(values[n], shown.frame.values[n]));
      return leads;
    },
    off: () => off.forEach((stop) => stop()),
  };
}

function render({ model, el }) {
  const setup = model.get("setup"), urls = [];
  const shown = figure(el, setup, (tile) => model.send({ do: "tile", tile }));
  tools(shown, setup, {
    values: () => model.get("frame").values,
    said: () => model.get("frame").said,
    go: (values) => model.send({ do: "go", values }),
    extra: (index) => model.send({ do: "extra", index }),
  });
  const address = (data) => {
    if (urls.length > 3) URL.revokeObjectURL(urls.shift());
    urls.push(URL.createObjectURL(new Blob([data], { type: "audio/mpeg" })));
    return urls.at(-1);
  };
  const lead = ahead(model, shown);
  const draw = () => { if (model.get("frame").shades) shown.draw(unpacked(model.get("frame"))); };
  const follow = () => { if (!lead.shows(model.get("frame").values)) draw(); };
  const compare = () => { if (model.get("reference").shades) shown.reference(unpacked(model.get("reference"))); };
  const play = () => {
    const { data, aloud } = model.get("sound");
    if (data?.byteLength) shown.play(address(data), aloud);
  };
  const message = (content, buffers) => content.ahead ? lead.take(content, buffers) : extra(content, buffers);
  const extra = ({ shape: [n, height, width] }, [sound, frames]) => {
    if (!sound.byteLength) return;
    const all = bytes(frames), size = height * width;
    const film = (share) => {
      if (share === null) return draw();
      const k = Math.round(share * (n - 1));
      shown.draw({ ...shown.frame, shades: all.subarray(k * size, (k + 1) * size), width, height });
    };
    shown.play(address(sound), true, n ? film : null);
  };
  let box = null; // the whole view; known once it is in the page
  const inside = (e) => e.stopPropagation(); // else the notebook would take the arrow keys of a drop-down
  const near = (e) => {
    const row = e.target.closest(".widget-slider");
    if (row) lead.ask([...box.querySelectorAll(".widget-slider")].indexOf(row));
  };
  const heard = { keydown: inside, pointerover: near, pointerdown: near, focusin: near };
  requestAnimationFrame(() => {
    box = el.closest(".vaelib-view");
    for (const type in heard) box?.addEventListener(type, heard[type]);
  });
  const hold = (held) => { if (model.get("held") !== held) { model.set("held", held); model.save_changes(); } };
  const down = (e) => { if (el.closest(".vaelib-view")?.contains(e.target) && !el.contains(e.target)) hold(true); };
  const up = () => hold(false);
  model.on("change:frame", follow);
  model.on("change:reference", compare);
  model.on("change:sound", play);
  model.on("change:note", () => shown.note(model.get("note")));
  model.on("msg:custom", message);
  addEventListener("pointerdown", down, true);
  for (const type of ["pointerup", "pointercancel"]) addEventListener(type, up, true);
  draw();
  compare();
  play();
  return () => {
    for (const type in heard) box?.removeEventListener(type, heard[type]);
    lead.off();
    removeEventListener("pointerdown", down, true);
    for (const type of ["pointerup", "pointercancel"]) removeEventListener(type, up, true);
    urls.forEach(URL.revokeObjectURL);
  };
}

export default { render };

// --- offline: frames inside the page ---

function player(root) {
  root.dataset.on = "";
  const data = JSON.parse(root.querySelector("script").textContent);
  root.querySelector("img").remove();
  let scene = 0, now = { scene: 0, control: 0, at: 0 }, turn = 0;
  const shown = figure(root, data.setup), panel = add(root, "div", { className: "panel" });
  const seen = new Map(), inputs = [];
  const controls = () => data.scenes[scene].controls;
  const start = () => ({ scene, control: 0, at: controls()[0]?.start ?? 0 });
  const record = ({ scene: s, control, at }) => data.scenes[s].controls[control].frames[at];

  async function pixels(index) {
    if (!seen.has(index)) seen.set(index, await decoded(data.pictures[index]));
    return seen.get(index);
  }
  const frameOf = async (where) => {
    const f = record(where), kept = data.scenes[where.scene];
    return { tiles: kept.tiles, seconds: kept.seconds, caption: kept.caption, labels: kept.labels, count: kept.count, ...f, ...await pixels(f.picture) };
  };

  async function go(where, aloud = false) {
    const mine = ++turn, entered = where.scene !== scene || !shown.frame;
    scene = where.scene;
    now = where;
    data.choices.forEach((c, i) => { inputs[i].value = data.scenes[scene].chosen[i]; });
    controls().forEach((c, i) => { // the frames of a control were made with the others at their start
      const k = i === where.control ? where.at : c.start, { input, output } = inputs[data.choices.length + i];
      if (c.slider) input.max = c.frames.length - 1;
      input.value = k;
      if (output) output.textContent = c.frames[k].text;
    });
    const frame = await frameOf(where);
    if (entered) shown.reference(await frameOf(start()));
    if (mine !== turn) return;
    if (entered) buttons();
    shown.draw(frame);
    const at = controls()[where.control].start === where.at ? { control: 0, at: controls()[0].start } : where;
    const sound = data.scenes[scene].sounds.find((s) => s.control === at.control && s.at === at.at);
    if (sound) shown.play(sound.src, aloud);
  }

  function choose() {
    const chosen = data.choices.map((_, i) => Number(inputs[i].value));
    scene = data.scenes.findIndex((s) => s.chosen.every((k, i) => k === chosen[i]));
    go(start(), true);
  }
  async function film(where) { // the positions of the slider that an extra moves, or the one picture that it shows
    if (where.picture !== null) {
      const kept = await pixels(where.picture);
      return (share) => (share === null ? go(now) : shown.draw({ ...shown.frame, ...kept }));
    }
    const frames = await Promise.all(controls()[where.control].frames.map((_, at) => frameOf({ ...where, at })));
    return (share) => {
      if (share === null) return go(now);
      shown.draw(frames[Math.round(share * (frames.length - 1))]);
      inputs[data.choices.length + where.control].input.value = Math.round(share * (frames.length - 1));
    };
  }

  const row = (text) => { const label = add(panel, "label"); add(label, "span", { textContent: text }); return label; };
  data.choices.forEach((c) => {
    const input = add(row(c.label), "select");
    c.options.forEach((text, k) => add(input, "option", { value: k, textContent: text }));
    inputs.push(input);
    input.addEventListener("change", choose);
  });
  controls().forEach((c, i) => {
    const label = row(c.label);
    const input = c.slider ? add(label, "input", { type: "range", min: 0, step: 1 }) : add(label, "select");
    const kept = (k) => data.scenes[0].sounds.some((s) => s.control === i && s.at === k);
    if (!c.slider) c.frames.forEach((f, k) => add(input, "option", { value: k, textContent: kept(k) ? `${f.text} ♪` : f.text }));
    inputs.push({ input, output: c.slider ? add(label, "span") : null });
    const move = (aloud) => go({ scene, control: i, at: Number(input.value) }, aloud);
    input.addEventListener("input", () => move(false));
    input.addEventListener("change", () => move(true)); // let go: play what is kept
  });
  tools(shown, data.setup, {
    values: () => now,
    said: () => record(now).said,
    go: (where) => go(where ?? start(), true),
    extra: async (index) => {
      const { src, control, picture } = data.scenes[scene].extras[index] ?? {};
      if (src) shown.play(src, true, control === null && picture === null ? null : await film({ scene, control, picture }));
      else shown.note("no sound of this is kept in the saved copy");
    },
  });
  const ends = add(panel, "div", { className: "tools" }); // a choice plays when it is chosen, a slider has its ends here
  function buttons() {
    ends.replaceChildren();
    for (const { text, control, at } of data.scenes[scene].sounds) {
      if (text) add(ends, "button", { type: "button", textContent: `▶ ${text}` }).addEventListener("click", () => go({ scene, control, at }, true));
    }
  }
  const alone = controls().length > 1 ? "one control moves at a time, the others return to their start; " : "";
  add(panel, "div", { className: "hint", textContent: `Saved copy: ${alone}sounds are kept for the start and for the positions marked ▶ or ♪.` });
  go(start());
}

document.querySelectorAll(".vaelib-player:not([data-on])").forEach(player);
