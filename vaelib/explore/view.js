// A view's controls in two hosts: the live widget (anywidget) and the offline player of a report. After figure.js.

// --- live: fed by the kernel ---

function render({ model, el }) {
  const shown = figure(el, model.get("setup"), (tile) => { model.set("tile", tile); model.save_changes(); });
  let url = null;
  const draw = () => {
    const f = model.get("frame");
    if (!f.shades) return;
    const shades = new Uint8Array(f.shades.buffer, f.shades.byteOffset, f.shades.byteLength);
    shown.draw({ ...f, shades, height: f.shape[0], width: f.shape[1] });
  };
  const play = () => {
    const { data, aloud } = model.get("sound");
    if (url) URL.revokeObjectURL(url);
    url = data?.byteLength ? URL.createObjectURL(new Blob([data], { type: "audio/mpeg" })) : null;
    if (url) shown.play(url, aloud);
  };
  const hold = (held) => { if (model.get("held") !== held) { model.set("held", held); model.save_changes(); } };
  const down = (e) => { if (el.closest(".vaelib-view")?.contains(e.target) && !el.contains(e.target)) hold(true); };
  const up = () => hold(false);
  const note = () => shown.note(model.get("note"));
  model.on("change:frame", draw);
  model.on("change:sound", play);
  model.on("change:note", note);
  addEventListener("pointerdown", down, true);
  for (const type of ["pointerup", "pointercancel"]) addEventListener(type, up, true);
  draw();
  play();
  return () => {
    removeEventListener("pointerdown", down, true);
    for (const type of ["pointerup", "pointercancel"]) removeEventListener(type, up, true);
    if (url) URL.revokeObjectURL(url);
  };
}

export default { render };

// --- offline: frames inside the page ---

function player(root) {
  root.dataset.on = "";
  const data = JSON.parse(root.querySelector("script").textContent);
  root.querySelector("img").remove();
  const shown = figure(root, data.setup), panel = add(root, "div", { className: "panel" });
  const decoded = new Map(), inputs = [];
  let turn = 0;

  async function shades(src) {
    if (!decoded.has(src)) {
      const image = Object.assign(new Image(), { src });
      await image.decode();
      const { width, height } = image, canvas = Object.assign(document.createElement("canvas"), { width, height });
      const ctx = canvas.getContext("2d", { willReadFrequently: true });
      ctx.drawImage(image, 0, 0);
      const rgba = ctx.getImageData(0, 0, width, height).data;
      decoded.set(src, { width, height, shades: Uint8Array.from({ length: width * height }, (_, i) => rgba[4 * i]) });
    }
    return decoded.get(src);
  }

  const soundAt = (control, at) => data.sounds.find((s) => at === s.at && (s.control === control || at === data.controls[control].start && s === data.sounds[0]));

  async function show(control, at, aloud = false) {
    const mine = ++turn;
    data.controls.forEach((c, i) => { // the frames of a control were made with the others at their start
      const k = i === control ? at : c.start;
      inputs[i].input.value = k;
      if (inputs[i].output) inputs[i].output.textContent = c.frames[k].text;
    });
    const frame = data.controls[control].frames[at], pixels = await shades(frame.src);
    if (mine === turn) shown.draw({ ...frame, ...pixels });
    const sound = soundAt(control, at);
    if (sound && mine === turn) shown.play(sound.src, aloud);
  }

  data.controls.forEach((c, i) => {
    const label = add(panel, "label");
    add(label, "span", { textContent: c.label });
    const input = c.slider
      ? add(label, "input", { type: "range", min: 0, max: c.frames.length - 1, step: 1 })
      : add(label, "select");
    if (!c.slider) c.frames.forEach((f, k) => add(input, "option", { value: k, textContent: soundAt(i, k) ? `${f.text} ♪` : f.text }));
    inputs.push({ input, output: c.slider ? add(label, "span") : null });
    input.addEventListener("input", () => show(i, Number(input.value)));
    input.addEventListener("change", () => show(i, Number(input.value), true)); // let go: play what is kept
  });
  const buttons = add(panel, "div", { className: "buttons" });
  add(buttons, "button", { type: "button", textContent: "Reset" }).addEventListener("click", () => show(0, data.controls[0].start));
  for (const s of data.sounds) {
    if (s !== data.sounds[0] && !data.controls[s.control].slider) continue; // a choice plays when it is chosen
    add(buttons, "button", { type: "button", textContent: `▶ ${s.text}` }).addEventListener("click", () => show(s.control, s.at, true));
  }
  const alone = data.controls.length > 1 ? "one control moves at a time, the others return to their start; " : "";
  add(panel, "div", { className: "hint", textContent: `Saved copy: ${alone}sounds are kept for the positions marked ▶ or ♪.` });
  show(0, data.controls[0].start);
}

document.querySelectorAll(".vaelib-player:not([data-on])").forEach(player);
