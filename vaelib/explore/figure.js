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
