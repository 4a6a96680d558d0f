// One spectrogram figure for the live widgets (anywidget) and the saved pages.

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
  const { width, height } = image;
  const ctx = add(document.createElement("div"), "canvas", { width, height }).getContext("2d");
  ctx.drawImage(image, 0, 0);
  const rgba = ctx.getImageData(0, 0, width, height).data;
  return { width, height, shades: Uint8Array.from({ length: width * height }, (_, i) => rgba[4 * i]) };
}

const CONTRAST_DB = 20; // the ends of the difference's colours
const NOTHING = "nothing", PINNED = "the start", MARKED = "the marked tile"; // what a difference is taken from

function figure(parent, setup, onTile = null) {
  const root = add(parent, "div", { className: "vaelib-figure" });
  add(root, "div", { className: "title", textContent: setup.title });
  const plot = add(root, "div", { className: "plot" }), y = add(plot, "div", { className: "y" });
  const screen = add(plot, "div", { className: "screen" }), canvas = add(screen, "canvas");
  const over = add(screen, "div", { className: "over" });
  const head = add(screen, "div", { className: "head", hidden: true }), mark = add(screen, "div", { className: "mark" });
  const bar = add(plot, "div", { className: "bar" }), x = add(plot, "div", { className: "x" });
  const readout = add(root, "div", { className: "below", role: "status" });
  const caption = add(root, "div", { className: "below caption" });
  const audio = add(root, "audio", { controls: true, ariaLabel: `sound: ${setup.title}` });
  canvas.setAttribute("role", "img");
  const ctx = canvas.getContext("2d", { willReadFrequently: true });
  let now = null, reference = null, against = NOTHING, at = setup.first ?? 0;

  const alike = () => reference && reference.width === now.width && reference.height === now.height;
  const comparing = () => (against === PINNED && alike()) || (against === MARKED && now.count > 1);
  const cell = () => [(now.width + setup.gap) / now.tiles[1], (now.height + setup.gap) / now.tiles[0]]; // of a tile, pixels

  function before(i) { // the shade that pixel i is compared with
    if (against === PINNED) return reference.shades[i];
    const [w, h] = cell(), columns = now.tiles[1];
    const u = (i % now.width) % w + w * (at % columns), v = Math.floor(i / now.width) % h + h * Math.floor(at / columns);
    return now.shades[v * now.width + u] ?? 0; // the last gap has no pixel of the tile
  }

  function paint() {
    const { shades, width, height, tiles: [rows, columns], count } = now, [w, h] = cell(), on = comparing();
    if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
    const image = ctx.createImageData(width, height), scale = 127 / CONTRAST_DB * (setup.db[1] - setup.db[0]) / 255;
    for (let i = 0, p = 0; i < shades.length; i++, p += 4) {
      const level = on ? Math.max(0, Math.min(255, Math.round(128 + scale * (shades[i] - before(i))))) : shades[i];
      image.data.set((on ? setup.contrast : setup.lut)[level], p);
      image.data[p + 3] = 255;
    }
    ctx.putImageData(image, 0, 0);
    for (let c = 1; c < columns; c++) ctx.clearRect(c * w - setup.gap, 0, setup.gap, height);
    for (let r = 1; r < rows; r++) ctx.clearRect(0, r * h - setup.gap, width, setup.gap);
    for (let i = count; i < rows * columns; i++) ctx.clearRect((i % columns) * w, Math.floor(i / columns) * h, w, h);
    axes(rows, columns);
  }

  function axes(rows, columns) {
    const tiled = now.count > 1;
    for (const part of [y, x, over, bar]) part.replaceChildren();
    canvas.style.aspectRatio = tiled ? Math.max(0.75, Math.min(2, 1.25 * columns / rows)) : 1.6;
    canvas.tabIndex = tiled && onTile ? 0 : -1;
    canvas.setAttribute("aria-label", `spectrogram: ${setup.title}`);
    const place = (i) => ({ left: `${100 * (i % columns) / columns}%`, top: `${100 * Math.floor(i / columns) / rows}%` });
    now.labels.forEach((textContent, i) => {
      const label = add(over, "span", { textContent, title: textContent, className: columns > 4 ? "small" : "" });
      Object.assign(label.style, place(i), { maxWidth: `${96 / columns}%` });
    });
    mark.hidden = !tiled || !onTile;
    Object.assign(mark.style, place(at), { width: `${100 / columns}%`, height: `${100 / rows}%` });
    if (rows === 1) for (const [up, text] of setup.ticks) add(y, "span", { textContent: text }).style.bottom = `${100 * up}%`;
    const step = [1, 2, 5, 10].find((s) => now.seconds / s <= 7) ?? 30;
    for (let t = 0; !tiled && t < 0.97 * now.seconds; t += step) add(x, "span", { textContent: `${t} s` }).style.left = `${100 * t / now.seconds}%`;
    if (tiled) add(x, "span", { textContent: `each ${now.seconds.toFixed(1)} s` });
    const [low, high] = comparing() ? [-CONTRAST_DB, CONTRAST_DB] : setup.db;
    const colours = (comparing() ? setup.contrast : setup.lut).filter((_, i) => i % 15 === 0).map((c) => `rgb(${c.join(" ")})`);
    add(bar, "div", { className: "colours" }).style.background = `linear-gradient(to top, ${colours.join(", ")})`;
    for (const v of [low, (low + high) / 2, high]) add(bar, "span", { textContent: `${v.toFixed(0)} dB` }).style.bottom = `${100 * (v - low) / (high - low)}%`;
  }

  function point(event) { // what is under the pointer
    const box = canvas.getBoundingClientRect(), [rows, columns] = now.tiles, slope = (setup.db[1] - setup.db[0]) / 255;
    const u = columns * (event.clientX - box.left) / box.width, v = rows * (event.clientY - box.top) / box.height;
    const tile = Math.min(rows - 1, Math.floor(v)) * columns + Math.min(columns - 1, Math.floor(u));
    const hz = setup.hz[Math.max(0, Math.min(setup.hz.length - 1, Math.floor((1 - v % 1) * setup.hz.length)))];
    const i = Math.min(now.height - 1, Math.floor(v / rows * now.height)) * now.width + Math.min(now.width - 1, Math.floor(u / columns * now.width));
    const level = comparing() ? `${((now.shades[i] - before(i)) * slope).toFixed(1)} dB against ${against}` : `${(setup.db[0] + now.shades[i] * slope).toFixed(1)} dB`;
    return { tile, text: [now.labels[tile], `${hz.toFixed(0)} Hz`, `${(u % 1 * now.seconds).toFixed(2)} s`, level].filter(Boolean).join(" · ") };
  }

  function choose(tile) {
    if (now.count < 2 || !onTile) return;
    at = Math.max(0, Math.min(now.count - 1, tile));
    paint();
    readout.textContent = `tile ${at + 1}${now.labels[at] ? `: ${now.labels[at]}` : ""}`;
  }
  canvas.addEventListener("pointermove", (e) => { if (now) readout.textContent = point(e).text; });
  canvas.addEventListener("pointerleave", () => { readout.textContent = ""; });
  canvas.addEventListener("click", (e) => { choose(point(e).tile); if (now.count > 1) onTile?.(at); });
  canvas.addEventListener("keydown", (e) => {
    const step = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -now.tiles[1], ArrowDown: now.tiles[1] }[e.key];
    if (!step && e.key !== "Enter") return;
    e.preventDefault();
    if (step) choose(at + step);
    else onTile?.(at);
  });

  function follow() { // while a sound as long as the picture plays, a line moves through it
    head.hidden = now.count > 1 || audio.paused || audio.currentTime > now.seconds;
    head.style.left = `${100 * audio.currentTime / now.seconds}%`;
    if (!audio.paused && root.isConnected) requestAnimationFrame(follow);
  }
  audio.addEventListener("play", follow);
  audio.addEventListener("pause", follow);

  return {
    root, audio,
    draw(frame) { // {shades: Uint8Array, width, height, tiles, count, seconds, caption, labels}
      now = root.shown = frame;
      if (at >= frame.count) at = setup.first ?? 0;
      caption.textContent = frame.caption;
      paint();
    },
    play(src, aloud) {
      audio.src = src;
      if (aloud) audio.play().catch(() => {}); // a browser may refuse until the page has been clicked
    },
    silence() { audio.pause(); audio.removeAttribute("src"); audio.load(); },
    note(text) { readout.textContent = text; },
    pin(frame) { reference = frame; if (now) paint(); },
    compare(what) { against = what; paint(); },
    get frame() { return now; },
    get tile() { return at; },
  };
}
