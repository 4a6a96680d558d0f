// One spectrogram figure for two hosts: the live widget (anywidget) and the offline player of a report.

function add(parent, tag, props = {}) {
  const node = Object.assign(document.createElement(tag), props);
  parent.append(node);
  return node;
}

// A frame from the kernel, and a picture kept in a page, as the shades that a figure draws.
const bytes = (view) => new Uint8Array(view.buffer, view.byteOffset, view.byteLength);
const unpacked = (f) => ({ ...f, shades: bytes(f.shades), height: f.shape[0], width: f.shape[1] });

async function decoded(src) {
  const image = Object.assign(new Image(), { src });
  await image.decode();
  const { width, height } = image, canvas = Object.assign(document.createElement("canvas"), { width, height });
  const ctx = canvas.getContext("2d", { willReadFrequently: true });
  ctx.drawImage(image, 0, 0);
  const rgba = ctx.getImageData(0, 0, width, height).data;
  return { width, height, shades: Uint8Array.from({ length: width * height }, (_, i) => rgba[4 * i]) };
}

const CONTRAST_DB = 20; // the ends of the difference's colours

function figure(parent, setup, onTile) {
  const root = add(parent, "div", { className: "vaelib-figure" });
  add(root, "div", { className: "title", textContent: setup.title });
  const plot = add(root, "div", { className: "plot" });
  const y = add(plot, "div", { className: "y" });
  const screen = add(plot, "div", { className: "screen" });
  const canvas = add(screen, "canvas");
  const over = add(screen, "div", { className: "over" }), head = add(screen, "div", { className: "head", hidden: true });
  const bar = add(plot, "div", { className: "bar" });
  const x = add(plot, "div", { className: "x" });
  const readout = add(root, "div", { className: "below" });
  const caption = add(root, "div", { className: "below caption" });
  const audio = add(root, "audio", { controls: true });
  canvas.setAttribute("role", "img");
  audio.setAttribute("aria-label", `sound: ${setup.title}`);
  const ctx = canvas.getContext("2d", { willReadFrequently: true }); // pixels come from memory: no detour over a GPU
  let now = null, reference = null, contrast = false, axis = "", idle = "", at = 0, film = null;

  const alike = () => reference && reference.width === now.width && reference.height === now.height;
  const comparing = () => contrast && alike();

  function draw(frame) { // {shades: Uint8Array, width, height, tiles, seconds, caption, labels?}
    now = root.shown = frame;
    paint();
    caption.textContent = frame.caption;
    axes();
  }

  function paint() {
    const { shades, width, height, tiles: [rows, columns] } = now;
    if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
    const image = ctx.createImageData(width, height), before = comparing() ? reference.shades : null;
    const scale = 127 / CONTRAST_DB * (setup.db[1] - setup.db[0]) / 255;
    for (let i = 0, p = 0; i < shades.length; i++, p += 4) {
      const c = before
        ? setup.contrast[Math.max(0, Math.min(255, Math.round(128 + scale * (shades[i] - before[i]))))]
        : setup.lut[shades[i]];
      image.data[p] = c[0]; image.data[p + 1] = c[1]; image.data[p + 2] = c[2]; image.data[p + 3] = 255;
    }
    ctx.putImageData(image, 0, 0);
    const w = (width + setup.gap) / columns, h = (height + setup.gap) / rows;
    for (let c = 1; c < columns; c++) ctx.clearRect(c * w - setup.gap, 0, setup.gap, height);
    for (let r = 1; r < rows; r++) ctx.clearRect(0, r * h - setup.gap, width, setup.gap);
    for (let i = now.count ?? rows * columns; i < rows * columns; i++) ctx.clearRect((i % columns) * w, Math.floor(i / columns) * h, w, h);
  }

  function axes() {
    const [rows, columns] = now.tiles, tiled = rows * columns > 1, words = (now.labels ?? []).join("\n");
    const key = [rows, columns, now.seconds, contrast, comparing(), words].join("\t");
    if (key === axis) return;
    axis = key;
    y.replaceChildren(); x.replaceChildren(); over.replaceChildren();
    canvas.style.aspectRatio = tiled ? Math.max(0.75, Math.min(3, 1.25 * columns / rows)) : 1.6;
    canvas.style.imageRendering = !tiled && now.width > 200 ? "auto" : "pixelated";
    canvas.tabIndex = tiled && onTile ? 0 : -1;
    colourBar();
    idle = tiled ? `tiles: 0 to ${(setup.hz.at(-1) / 1000).toFixed(0)} kHz, ${now.seconds.toFixed(1)} s; ${onTile ? "click one (arrows, Enter) to hear it" : "the first one sounds"}` : "";
    if (contrast && !alike()) idle = "the start has another layout: no difference to show";
    readout.textContent = idle;
    canvas.setAttribute("aria-label", `spectrogram: ${setup.title}`);
    (now.labels ?? []).forEach((text, i) => {
      const label = add(over, "span", { textContent: text });
      Object.assign(label.style, { left: `${100 * (i % columns) / columns}%`, top: `${100 * Math.floor(i / columns) / rows}%`, maxWidth: `${96 / columns}%` });
      label.classList.toggle("small", columns > 4);
    });
    if (tiled) return;
    for (const [up, text] of setup.ticks) add(y, "span", { textContent: text }).style.bottom = `${100 * up}%`;
    const step = [1, 2, 5, 10].find((s) => now.seconds / s <= 7) ?? 30;
    for (let t = 0; t < 0.97 * now.seconds; t += step) add(x, "span", { textContent: `${t} s` }).style.left = `${100 * t / now.seconds}%`;
  }

  function colourBar() {
    bar.replaceChildren();
    const colours = comparing() ? setup.contrast : setup.lut;
    const [low, high] = comparing() ? [-CONTRAST_DB, CONTRAST_DB] : setup.db;
    const stops = Array.from({ length: 17 }, (_, i) => `rgb(${colours[Math.min(255, 16 * i)].join(" ")})`);
    add(bar, "div", { className: "colours" }).style.background = `linear-gradient(to top, ${stops.join(", ")})`;
    const sign = (v) => (comparing() && v > 0 ? "+" : "") + v.toFixed(0).replace("-", "−");
    for (const v of [low, (low + high) / 2, high]) add(bar, "span", { textContent: `${sign(v)} dB` }).style.bottom = `${100 * (v - low) / (high - low)}%`;
  }

  function point(event) {
    const box = canvas.getBoundingClientRect(), [rows, columns] = now.tiles;
    const u = (event.clientX - box.left) / box.width, v = (event.clientY - box.top) / box.height;
    const column = Math.min(columns - 1, Math.floor(u * columns)), row = Math.min(rows - 1, Math.floor(v * rows));
    const band = setup.hz[Math.max(0, Math.min(setup.hz.length - 1, Math.floor((1 - (v * rows - row)) * setup.hz.length)))];
    const i = Math.min(now.height - 1, Math.floor(v * now.height)) * now.width + Math.min(now.width - 1, Math.floor(u * now.width));
    const slope = (setup.db[1] - setup.db[0]) / 255;
    const change = (now.shades[i] - (comparing() ? reference.shades[i] : 0)) * slope;
    const level = comparing() ? `${change > 0 ? "+" : ""}${change.toFixed(1)} dB against the start` : `${(setup.db[0] + change).toFixed(1)} dB`;
    return { tile: row * columns + column, text: `${now.labels?.[row * columns + column] ? `${now.labels[row * columns + column]} · ` : ""}${band.toFixed(0)} Hz · ${((u * columns - column) * now.seconds).toFixed(2)} s · ${level}` };
  }
  canvas.addEventListener("pointermove", (e) => { if (now) readout.textContent = point(e).text; });
  canvas.addEventListener("pointerleave", () => { readout.textContent = idle; });
  canvas.addEventListener("click", (e) => { if (now && now.tiles[0] * now.tiles[1] > 1) onTile?.(at = point(e).tile); });
  canvas.addEventListener("keydown", (e) => {
    const [rows, columns] = now.tiles, step = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -columns, ArrowDown: columns }[e.key];
    if (rows * columns < 2 || !(step || e.key === "Enter")) return;
    e.preventDefault(); e.stopPropagation(); // else the notebook would move to another cell
    if (step) at = Math.max(0, Math.min(rows * columns - 1, at + step));
    readout.textContent = `tile ${at + 1}${now.labels?.[at] ? `: ${now.labels[at]}` : ""}; Enter plays it`;
    if (e.key === "Enter") onTile?.(at);
  });

  // While a sound as long as the picture plays, a line moves through it; a film also changes the picture.
  function follow() {
    const share = audio.currentTime / (audio.duration || 1);
    if (film) film(Math.min(1, share));
    head.hidden = !now || now.tiles[0] * now.tiles[1] > 1 || audio.paused || audio.currentTime > now.seconds;
    head.style.left = `${100 * audio.currentTime / (now?.seconds || 1)}%`;
    if (!audio.paused && root.isConnected) requestAnimationFrame(follow);
  }
  audio.addEventListener("play", follow);
  audio.addEventListener("ended", () => { film?.(null); film = null; head.hidden = true; });

  function play(src, aloud, moving = null) {
    film?.(null);
    film = moving;
    audio.src = src;
    if (aloud) audio.play().catch(() => {}); // a browser may refuse until the page has been clicked
  }
  return {
    draw, play, root, canvas,
    note: (text) => { readout.textContent = text || idle; },
    reference: (frame) => { reference = frame; if (now) { paint(); axes(); } },
    compare: (on) => { contrast = on; if (now) { paint(); axes(); } },
    get frame() { return now; },
  };
}
