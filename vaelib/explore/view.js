// A figure with buttons, sliders and drop-downs, in two hosts: the live widget (anywidget) and the saved page. After figure.js.

const PAUSE = 100; // ms without a move before a sound is asked for

// host: moved(control, place), reset(), hear(tile), setting(), go(setting): all controls as they were
function view(root, setup, controls, host) {
  root.classList.add("vaelib-view");
  root.dataset.lmSuppressShortcuts = "true"; // JupyterLab: the keys of controls are not the notebook's
  const shown = figure(root, setup, (tile) => host.hear(tile)), bar = document.createElement("div");
  shown.audio.before(bar);
  bar.className = "tools";
  const button = (textContent, title, act) => {
    const made = add(bar, "button", { type: "button", textContent, title });
    made.addEventListener("click", act);
    return made;
  };
  button("Reset", "back to the start", () => host.reset());
  const compared = add(bar, "label", { title: "what is louder (red) and softer (blue) than in another picture" });
  add(compared, "span", { textContent: "difference from" });
  const select = add(compared, "select");
  for (const textContent of [NOTHING, PINNED, MARKED]) add(select, "option", { textContent, value: textContent });
  select.addEventListener("change", () => shown.compare(select.value));
  const pins = {};
  let at = "A";
  const pin = (name) => {
    at = name;
    pins[name] = host.setting();
    swap.disabled = !(pins.A && pins.B);
    swap.textContent = "A ⇄ B";
  };
  button("Pin A", "keep this setting, and take differences from its picture, not from the start", () => {
    pin("A");
    shown.pin(shown.frame);
    select.options[1].textContent = "A";
  });
  button("Pin B", "keep this setting", () => pin("B"));
  const swap = button("A ⇄ B", "see and hear the other pinned setting", () => {
    at = at === "A" ? "B" : "A";
    swap.textContent = `A ⇄ B: ${at}`;
    host.go(pins[at]);
  });
  swap.disabled = true;
  setup.extras.forEach((text, i) => button(`▶ ${text}`, "play", () => host.hear(-1 - i)));

  const panel = add(root, "div", { className: "panel" });
  let play = null, timer = 0;
  const inputs = controls.map((c, i) => {
    const row = add(panel, "label");
    add(row, "span", { textContent: c.label });
    const input = add(row, c.slider ? "input" : "select", c.slider ? { type: "range", min: 0, step: 1 } : {});
    if (!c.slider) c.texts.forEach((textContent, value) => add(input, "option", { textContent, value }));
    const moved = () => {
      clearTimeout(timer);
      host.moved(i, Number(input.value));
    };
    input.addEventListener("input", moved);
    input.addEventListener("change", () => { if (play.checked) timer = setTimeout(() => host.hear(shown.tile), PAUSE); }); // let go
    for (const near of ["pointerenter", "focusin"]) row.addEventListener(near, () => { if (c.slider) host.near?.(i); });
    return { input, output: add(row, "span") };
  });
  const row = add(panel, "label");
  add(row, "span", { textContent: "play when released" });
  play = add(row, "input", { type: "checkbox", checked: true });
  return {
    shown, panel,
    stand(now, values) { // the controls, whose positions may be others in each scene, and what they are set to
      inputs.forEach(({ input, output }, i) => {
        const { slider, texts } = now[i], place = now[i].values.indexOf(values[now[i].name]);
        if (slider) input.max = texts.length - 1;
        input.value = place;
        if (slider) output.textContent = texts[place];
      });
    },
    begin(frame) { // a new start: no difference is shown
      select.options[1].textContent = PINNED;
      select.value = NOTHING;
      shown.pin(frame);
      if (shown.frame) shown.compare(NOTHING);
    },
  };
}

// --- live: fed by the kernel ---

function render({ model, el }) {
  const setup = model.get("setup"), { controls } = setup, values = () => model.get("values");
  let ahead = { frames: [] }, leads = false, url = ""; // the frames that a slider leads to; the page's own is shown
  const same = (a, b, except) => controls.every(({ name }) => name === except || a[name] === b[name]);
  const set = (next) => {
    model.set("values", next);
    model.save_changes();
  };
  const show = view(el, setup, controls, {
    moved(i, place) {
      const { name, values: all, scene } = controls[i], next = { ...values(), [name]: all[place] };
      if (scene) return model.send({ do: "start", values: next });
      set(next);
    },
    near(i) {
      const { name } = controls[i];
      if (ahead.name === name && same(ahead.values, values(), name)) return;
      ahead = { name, values: values(), frames: [] };
      model.send({ do: "ahead", name, values: ahead.values });
    },
    reset: () => model.send({ do: "start", values: values() }),
    hear: (tile) => model.send({ do: "sound", tile, values: values() }),
    setting: values,
    go(setting) {
      set(setting);
      this.hear(show.shown.tile);
    },
  });
  const lead = () => { // draw at once what was sent ahead; the kernel's frame follows
    const own = ahead.frames.find((f) => same(f.values, values()));
    leads = Boolean(own);
    if (leads) show.shown.draw(own);
  };
  const stand = () => {
    show.stand(controls, values());
    lead();
  };
  const draw = () => { // a frame of older values would take the picture back
    const frame = model.get("frame");
    if (frame.shades && !(leads && !same(frame.values, values()))) show.shown.draw(unpacked(frame));
  };
  const start = () => { if (model.get("reference").shades) show.begin(unpacked(model.get("reference"))); };
  const message = (content, buffers) => {
    if (content.frames) {
      if (content.ahead === ahead.name) ahead.frames.push(...content.frames.map((f, i) => unpacked({ ...f, shades: buffers[i] })));
    } else if (content.sound !== undefined && buffers[0].byteLength && same(content.values, values())) {
      URL.revokeObjectURL(url);
      url = URL.createObjectURL(new Blob([buffers[0]], { type: "audio/mpeg" }));
      show.shown.play(url, true);
    }
  };
  const note = () => show.shown.note(model.get("note"));
  const heard = { "change:values": stand, "change:frame": draw, "change:reference": start, "change:note": note, "msg:custom": message };
  for (const name in heard) model.on(name, heard[name]);
  stand();
  draw();
  start();
  return () => {
    for (const name in heard) model.off(name, heard[name]);
    URL.revokeObjectURL(url);
  };
}

export default { render };

// --- saved: everything inside the page ---

function page(root) {
  delete root.dataset.saved;
  const { setup, scenes, pictures } = JSON.parse(root.querySelector("script").textContent), seen = new Map();
  root.querySelector("img").remove();
  const same = (a, b) => Object.keys(a).every((name) => a[name] === b[name]);
  const sceneOf = (values) => scenes.find(({ controls, start }) => controls.every((c) => !c.scene || values[c.name] === start[c.name]));
  let scene = null, now = scenes[0].start;
  const frameOf = async (values) => {
    const frame = scene.frames.find((f) => same(f.values, values));
    if (!seen.has(frame.picture)) seen.set(frame.picture, await decoded(pictures[frame.picture]));
    return { ...frame, ...seen.get(frame.picture) };
  };

  async function go(values) {
    const fresh = scene !== sceneOf(values);
    now = values;
    scene = sceneOf(values);
    show.stand(scene.controls, now);
    if (fresh) show.begin(await frameOf(scene.start));
    const frame = await frameOf(values);
    if (now !== values) return;
    show.shown.draw(frame);
    hear(show.shown.tile, false);
  }

  function hear(tile, aloud = true) { // what is kept of it
    const sound = scene.sounds.find((s) => s.tile === tile && same(s.values, now));
    if (sound) return show.shown.play(sound.src, aloud);
    show.shown.silence();
    show.shown.note("no sound of this is kept in the saved page: it has those of the start and of the ends of sliders");
  }

  const show = view(root, setup, scenes[0].controls, {
    moved(i, place) { // the frames of a control were made with the others at their start
      const { name, values, scene: chooses } = scene.controls[i], moved = { [name]: values[place] };
      go(chooses ? sceneOf({ ...now, ...moved }).start : { ...scene.start, ...moved });
    },
    reset: () => go(scene.start),
    hear,
    setting: () => now,
    go: (setting) => go(setting).then(() => hear(show.shown.tile)),
  });
  const alone = scenes[0].controls.filter((c) => !c.scene).length > 1 ? "one control moves at a time, the others return to their start; " : "";
  add(show.panel, "div", { className: "hint", textContent: `Saved page: ${alone}sounds are kept of the start and of the ends of sliders.` });
  go(now);
}

document.querySelectorAll(".vaelib-view[data-saved]").forEach(page);
