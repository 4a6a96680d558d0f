// A figure of one or several spectrograms that sound, as levels or as differences.

const HERTZ = [100, 500, 1000, 2000, 4000, 8000];
const CONTRAST_DB = 20; // the ends of the difference's colours

async function decoded(frame) { // {picture, count, seconds, caption, labels} with the picture as shades
  const image = Object.assign(new Image(), { src: frame.picture });
  await image.decode();
  const { width, height } = image, context = new OffscreenCanvas(width, height).getContext("2d");
  context.drawImage(image, 0, 0);
  const shades = context.getImageData(0, 0, width, height).data.filter((_, i) => i % 4 === 0);
  return { ...frame, width, shades, size: shades.length / frame.count };
}

function figure(parent, setup, onTile = () => {}) {
  const root = part(parent, "vaelib-figure");
  part(root, "title", setup.title);
  const plot = part(root, "plot");
  const [y, tiles, bar, x] = ["y", "tiles", "bar", "x"].map((name) => part(plot, name));
  const [note, caption] = ["note", "caption"].map((className) => add(root, "div", { className, role: "status" }));
  const audio = add(root, "audio", { controls: true, ariaLabel: `sound: ${setup.title}`, onplay: follow });
  const head = Object.assign(document.createElement("div"), { className: "head" });
  const slope = (setup.db[1] - setup.db[0]) / 255; // dB of a shade
  let now = null, differs = false, reference = null, at = setup.first ?? 0;

  const mark = (axis, textContent, side, share) => { add(axis, "span", { textContent }).style[side] = `${100 * share}%`; };

  function tile(i) {
    const node = button(tiles, "", () => {
      at = i;
      paint();
      onTile(i);
    });
    add(node, "canvas");
    add(node, "span");
  }

  function paint() {
    const { width, size, count, shades } = now;
    const on = differs && (reference ? reference.shades.length === shades.length : count > 1), colours = on ? setup.contrast : setup.lut;
    const taken = (p) => (reference ? reference.shades[p] : shades[at * size + p % size]); // without one the marked tile's
    const levels = Uint8ClampedArray.from(shades, (s, p) => (on ? 128 + 127 / CONTRAST_DB * slope * (s - taken(p)) : s));
    while (tiles.childElementCount > count) tiles.lastChild.remove();
    while (tiles.childElementCount < count) tile(tiles.childElementCount);
    [...tiles.children].forEach((node, i) => {
      const [canvas, label] = node.children, image = new ImageData(width, size / width);
      image.data.fill(255);
      for (let p = 0; p < size; p++) image.data.set(colours[levels[i * size + p]], 4 * p);
      Object.assign(canvas, { width, height: image.height }).getContext("2d").putImageData(image, 0, 0);
      label.textContent = node.title = now.labels[i] ?? "";
      Object.assign(node, { ariaLabel: `spectrogram ${i + 1} ${node.title}`, ariaPressed: count > 1 && i === at });
    });
    const columns = count < 5 ? count : Math.min(6, Math.ceil(Math.sqrt(1.5 * count))), rows = Math.ceil(count / columns);
    tiles.style.gridTemplateColumns = `repeat(${columns}, 1fr)`;
    tiles.style.aspectRatio = Math.max(0.75, Math.min(1.6, 1.6 * columns / rows));
    for (const axis of [y, x, bar]) axis.replaceChildren();
    const known = HERTZ.filter((f) => rows === 1 && f > setup.hz[0] && f < setup.hz.at(-1));
    for (const f of known) mark(y, `${f} Hz`, "bottom", setup.hz.findIndex((h) => h >= f) / setup.hz.length);
    for (let k = 1; k <= columns; k++) mark(x, `${now.seconds.toFixed(1)} s`, "left", k / columns);
    const [low, high] = on ? [-CONTRAST_DB, CONTRAST_DB] : setup.db;
    bar.style.background = `linear-gradient(to top, ${colours.filter((_, i) => i % 15 === 0).map((c) => `rgb(${c})`)})`;
    for (const v of [0, 0.5, 1]) mark(bar, `${(low + v * (high - low)).toFixed(0)} dB`, "bottom", v);
  }

  function follow() { // while a sound plays, a line moves through its tile
    head.style.left = `${100 * audio.currentTime / now?.seconds}%`;
    tiles.children[at]?.append(head);
    if (audio.paused || audio.currentTime > now?.seconds) return head.remove();
    requestAnimationFrame(follow);
  }

  return {
    root,
    draw(frame) {
      now = root.shown = frame;
      if (at >= frame.count) at = 0;
      caption.textContent = frame.caption;
      paint();
    },
    compare(...what) { // from now on differences are taken or not, from a frame or without one from the marked tile
      [differs, reference] = what;
      paint();
    },
    play(src, aloud) {
      audio.src = src;
      if (aloud) audio.play().catch(() => {}); // a browser may refuse until the page has been clicked
    },
    silence() { audio.pause(); audio.removeAttribute("src"); },
    note(text) { note.textContent = text; },
    get tile() { return at; },
  };
}
