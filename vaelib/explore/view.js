// One spectrogram figure for two hosts: the live widget (anywidget) and the offline player of a report.

function add(parent, tag, props = {}) {
  const node = Object.assign(document.createElement(tag), props);
  parent.append(node);
  return node;
}

function figure(parent, setup, onTile) {
  const root = add(parent, "div", { className: "vaelib-figure" });
  add(root, "div", { className: "title", textContent: setup.title });
  const plot = add(root, "div", { className: "plot" });
  const y = add(plot, "div", { className: "y" });
  const canvas = add(plot, "canvas");
  const x = add(plot, "div", { className: "x" });
  const readout = add(root, "div", { className: "below" });
  const caption = add(root, "div", { className: "below caption" });
  const audio = add(root, "audio", { controls: true });
  canvas.setAttribute("role", "img");
  audio.setAttribute("aria-label", `sound: ${setup.title}`);
  const ctx = canvas.getContext("2d");
  let now = null, axis = "", idle = "";

  function draw(frame) { // {shades: Uint8Array, width, height, tiles, seconds, caption}
    now = frame;
    const { shades, width, height, tiles: [rows, columns] } = frame;
    if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
    const image = ctx.createImageData(width, height);
    for (let i = 0, p = 0; i < shades.length; i++, p += 4) {
      const c = setup.lut[shades[i]];
      image.data[p] = c[0]; image.data[p + 1] = c[1]; image.data[p + 2] = c[2]; image.data[p + 3] = 255;
    }
    ctx.putImageData(image, 0, 0);
    const w = (width + setup.gap) / columns, h = (height + setup.gap) / rows;
    for (let c = 1; c < columns; c++) ctx.clearRect(c * w - setup.gap, 0, setup.gap, height);
    for (let r = 1; r < rows; r++) ctx.clearRect(0, r * h - setup.gap, width, setup.gap);
    caption.textContent = frame.caption;
    axes(rows * columns > 1, frame.seconds, columns / rows);
  }

  function axes(tiled, seconds, ratio) {
    const key = `${tiled} ${seconds} ${ratio}`;
    if (key === axis) return;
    axis = key;
    y.replaceChildren(); x.replaceChildren();
    canvas.style.aspectRatio = tiled ? Math.min(3, 1.25 * ratio) : 1.6;
    canvas.style.imageRendering = !tiled && now.width > 200 ? "auto" : "pixelated";
    idle = tiled ? `each tile: up to ${(setup.hz.at(-1) / 1000).toFixed(0)} kHz, ${seconds.toFixed(1)} s; ${onTile ? "click one to hear it" : "the first one sounds"}` : "";
    readout.textContent = idle;
    canvas.setAttribute("aria-label", `spectrogram: ${setup.title}`);
    if (tiled) return;
    for (const [at, text] of setup.ticks) add(y, "span", { textContent: text }).style.bottom = `${100 * at}%`;
    const step = [1, 2, 5, 10].find((s) => seconds / s <= 7) ?? 30;
    for (let t = 0; t < 0.97 * seconds; t += step) add(x, "span", { textContent: `${t} s` }).style.left = `${100 * t / seconds}%`;
  }

  function point(event) {
    const box = canvas.getBoundingClientRect(), [rows, columns] = now.tiles;
    const u = (event.clientX - box.left) / box.width, v = (event.clientY - box.top) / box.height;
    const column = Math.min(columns - 1, Math.floor(u * columns)), row = Math.min(rows - 1, Math.floor(v * rows));
    const band = setup.hz[Math.min(setup.hz.length - 1, Math.floor((1 - (v * rows - row)) * setup.hz.length))];
    const shade = now.shades[Math.min(now.height - 1, Math.floor(v * now.height)) * now.width + Math.min(now.width - 1, Math.floor(u * now.width))];
    const db = setup.db[0] + (setup.db[1] - setup.db[0]) * shade / 255;
    return { tile: row * columns + column, text: `${band.toFixed(0)} Hz · ${((u * columns - column) * now.seconds).toFixed(2)} s · ${db.toFixed(1)} dB` };
  }
  canvas.addEventListener("pointermove", (e) => { if (now) readout.textContent = point(e).text; });
  canvas.addEventListener("pointerleave", () => { readout.textContent = idle; });
  canvas.addEventListener("click", (e) => { if (now && now.tiles[0] * now.tiles[1] > 1) onTile?.(point(e).tile); });

  function play(src, aloud) {
    audio.src = src;
    if (aloud) audio.play().catch(() => {}); // a browser may refuse until the page has been clicked
  }
  return { draw, play, note: (text) => { readout.textContent = text || idle; } };
}

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
