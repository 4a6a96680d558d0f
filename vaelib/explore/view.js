// A view's buttons and controls: the live widget (anywidget) and the saved page. After figure.js.

// Buttons below the figure; host: reset(), extra(index)
function tools(shown, setup, host) {
  const bar = document.createElement("div");
  shown.audio.before(bar);
  bar.className = "tools";
  const button = (textContent, title, act) => add(bar, "button", { type: "button", textContent, title }).addEventListener("click", act);
  button("Reset", "back to the start", () => host.reset());
  const label = add(bar, "label", { title: "what is louder (red) and softer (blue) than in another picture" });
  add(label, "span", { textContent: "difference from" });
  const select = add(label, "select");
  for (const textContent of [NOTHING, PINNED, MARKED]) add(select, "option", { textContent, value: textContent });
  select.addEventListener("change", () => shown.compare(select.value));
  button("Pin", "take differences from this picture, not from the start", () => {
    shown.pin(shown.frame);
    select.options[1].textContent = "the pinned picture";
  });
  setup.extras.forEach((text, i) => button(`▶ ${text}`, "play", () => host.extra(i)));
  return (frame) => { // a new start: nothing is pinned, no difference is shown
    select.options[1].textContent = PINNED;
    select.value = NOTHING;
    shown.pin(frame);
    if (shown.frame) shown.compare(NOTHING);
  };
}

// --- live: fed by the kernel ---

function render({ model, el }) {
  const setup = model.get("setup");
  const shown = figure(el, setup, (tile) => model.send({ do: "sound", tile }));
  const begin = tools(shown, setup, { reset: () => model.send({ do: "reset" }), extra: (i) => model.send({ do: "sound", tile: -1 - i }) });
  let url = "";
  const draw = () => { if (model.get("frame").shades) shown.draw(unpacked(model.get("frame"))); };
  const start = () => { if (model.get("reference").shades) begin(unpacked(model.get("reference"))); };
  const play = () => {
    URL.revokeObjectURL(url);
    url = URL.createObjectURL(new Blob([model.get("sound").data], { type: "audio/mpeg" }));
    shown.play(url, true);
  };
  const heard = [["change:frame", draw], ["change:reference", start], ["change:sound", play], ["change:note", () => shown.note(model.get("note"))]];
  for (const [name, act] of heard) model.on(name, act);
  draw();
  start();
  requestAnimationFrame(() => { // the whole view is in the page: its controls get names, and keep their keys from the notebook
    const view = el.closest(".vaelib-view");
    if (view) view.dataset.lmSuppressShortcuts = "true";
    for (const row of view?.querySelectorAll(".widget-slider") ?? []) {
      row.querySelector(".noUi-handle")?.setAttribute("aria-label", row.querySelector("label").textContent);
    }
  });
  return () => { for (const [name, act] of heard) model.off(name, act); URL.revokeObjectURL(url); };
}

export default { render };

// --- saved: everything inside the page ---

function page(root) {
  delete root.dataset.saved;
  const data = JSON.parse(root.querySelector("script").textContent), seen = new Map(), inputs = [];
  root.querySelector("img").remove();
  let scene = 0, now = [0, 0], turn = 0; // the control that is moved, and where it stands
  const shown = figure(root, data.setup, (tile) => hear(tile, true)), panel = add(root, "div", { className: "panel" });
  const controls = () => data.scenes[scene].controls;
  const begin = tools(shown, data.setup, { reset: () => enter(), extra: (i) => hear(-1 - i, true) });

  async function frameOf(control, at) {
    const frame = controls()[control].frames[at];
    if (!seen.has(frame.picture)) seen.set(frame.picture, await decoded(data.pictures[frame.picture]));
    return { ...frame, ...seen.get(frame.picture) };
  }

  function hear(tile, aloud) { // what is kept of it
    const [control, at] = now, still = at === controls()[control].start; // then all controls are at their start
    const place = (s) => (still ? s.at === controls()[s.control].start : s.control === control && s.at === at);
    const sound = data.scenes[scene].sounds.find((s) => s.tile === tile && place(s));
    if (sound) shown.play(sound.src, aloud);
    else {
      shown.silence();
      shown.note("no sound of this is kept in the saved page: it has those of the start and of the ends of sliders");
    }
  }

  async function go(control, at, aloud) { // the frames of a control were made with the others at their start
    const mine = ++turn;
    now = [control, at];
    controls().forEach((c, i) => {
      const k = i === control ? at : c.start, { input, output } = inputs[i];
      input.max = c.frames.length - 1;
      input.value = k;
      output.textContent = c.slider ? c.frames[k].text : "";
    });
    const frame = await frameOf(control, at);
    if (mine !== turn) return;
    shown.draw(frame);
    hear(shown.tile, aloud);
  }

  async function enter() { // a scene, at its start
    begin(await frameOf(0, controls()[0].start));
    go(0, controls()[0].start, false);
  }

  const row = (text) => {
    const label = add(panel, "label");
    add(label, "span", { textContent: text });
    return label;
  };
  const choices = data.choices.map((c) => {
    const select = add(row(c.label), "select");
    for (const textContent of c.options) add(select, "option", { textContent });
    select.addEventListener("change", () => {
      const picked = choices.map((s) => s.selectedIndex); // scenes count through the options, the last choice fastest
      scene = data.choices.reduce((n, { options }, i) => n * options.length + picked[i], 0);
      enter();
    });
    return select;
  });
  controls().forEach((c, i) => {
    const label = row(c.label), input = c.slider ? add(label, "input", { type: "range", min: 0, step: 1 }) : add(label, "select");
    if (!c.slider) c.frames.forEach((f, value) => add(input, "option", { textContent: f.text, value }));
    inputs.push({ input, output: add(label, "span") });
    input.addEventListener("input", () => go(i, Number(input.value), false));
    input.addEventListener("change", () => go(i, Number(input.value), true)); // let go: play what is kept
  });
  const alone = controls().length > 1 ? "one control moves at a time, the others return to their start; " : "";
  add(panel, "div", { className: "hint", textContent: `Saved page: ${alone}sounds are kept of the start and of the ends of sliders.` });
  enter();
}

document.querySelectorAll(".vaelib-view[data-saved]").forEach(page);
