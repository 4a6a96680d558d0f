// For view.js and clips.js: what the kernel answers, and a figure of one or several spectrograms that sound.

const kernel = (experimental) => async (...given) => {
  const [{ answer, error }] = await experimental.invoke("ask", given, { signal: new AbortController().signal }); // it may be busy for hours
  if (error) throw Error(error);
  return answer;
};

function add(parent, tag, props = {}) {
  const node = Object.assign(document.createElement(tag), props);
  parent.append(node);
  return node;
}

async function decoded(src) { // a picture as the shades that a figure draws
  const image = Object.assign(new Image(), { src });
  await image.decode();
  const { width, height } = image, context = new OffscreenCanvas(width, height).getContext("2d");
  context.drawImage(image, 0, 0);
  return { width, shades: context.getImageData(0, 0, width, height).data.filter((_, i) => i % 4 === 0) };
}

const HERTZ = [100, 500, 1000, 2000, 4000, 8000];
const CONTRAST_DB = 20; // the ends of the difference's colours
const NOTHING = "nothing", PINNED = "the start", MARKED = "the marked tile"; // what a difference is taken from

function figure(parent, setup, onTile = () => {}) {
  const root = add(parent, "div", { className: "vaelib-figure" });
  add(root, "div", { className: "title", textContent: setup.title });
  const plot = add(root, "div", { className: "plot" });
  const [y, tiles, bar, x] = ["y", "tiles", "bar", "x"].map((className) => add(plot, "div", { className }));
  const [readout, caption] = ["", "caption"].map((className) => add(root, "div", { className, role: "status" }));
  const audio = add(root, "audio", { controls: true, ariaLabel: `sound: ${setup.title}`, onplay: follow });
  const head = Object.assign(document.createElement("div"), { className: "head" });
  const buttons = [], slope = (setup.db[1] - setup.db[0]) / 255; // dB of a shade
  let now = null, reference = null, against = NOTHING, at = setup.first ?? 0;

  const comparing = () => (against === MARKED ? now.count > 1 : against === PINNED && reference.shades.length === now.shades.length);
  const before = (p) => (against === MARKED ? now.shades[at * now.size + p % now.size] : reference.shades[p]);
  const tick = (axis, textContent, side, share) => { add(axis, "span", { textContent }).style[side] = `${100 * share}%`; };

  function tile(i) {
    const button = add(tiles, "button", { type: "button" });
    button.onclick = () => {
      at = i;
      paint();
      onTile(i);
    };
    button.onpointermove = ({ offsetX, offsetY }) => {
      const u = offsetX / button.clientWidth, v = offsetY / button.clientHeight, { width, size, shades, seconds } = now;
      const p = i * size + Math.floor(v * size / width) * width + Math.floor(u * width);
      const level = slope * (shades[p] - (comparing() ? before(p) : 0)) + (comparing() ? 0 : setup.db[0]);
      readout.textContent = `${setup.hz[Math.floor((1 - v) * setup.hz.length)]} Hz · ${(u * seconds).toFixed(2)} s · ${level.toFixed(1)} dB${comparing() ? ` against ${against}` : ""}`;
    };
    return { button, canvas: add(button, "canvas"), label: add(button, "span") };
  }

  function paint() {
    const { width, size, count, shades } = now, on = comparing(), colours = on ? setup.contrast : setup.lut;
    const levels = Uint8ClampedArray.from(shades, (s, p) => (on ? 128 + 127 / CONTRAST_DB * slope * (s - before(p)) : s));
    while (buttons.length > count) buttons.pop().button.remove();
    while (buttons.length < count) buttons.push(tile(buttons.length));
    buttons.forEach(({ button, canvas, label }, i) => {
      const image = new ImageData(width, size / width);
      image.data.fill(255);
      for (let p = 0; p < size; p++) image.data.set(colours[levels[i * size + p]], 4 * p);
      Object.assign(canvas, { width, height: image.height }).getContext("2d").putImageData(image, 0, 0);
      label.textContent = button.title = now.labels[i] ?? "";
      Object.assign(button, { ariaLabel: `spectrogram ${i + 1} ${button.title}`, ariaPressed: count > 1 && i === at });
    });
    const columns = count < 5 ? count : Math.min(6, Math.ceil(Math.sqrt(1.5 * count))), rows = Math.ceil(count / columns);
    tiles.style.gridTemplateColumns = `repeat(${columns}, 1fr)`;
    tiles.style.aspectRatio = Math.max(0.75, Math.min(1.6, 1.6 * columns / rows));
    for (const axis of [y, x, bar]) axis.replaceChildren();
    const known = HERTZ.filter((f) => rows === 1 && f > setup.hz[0] && f < setup.hz.at(-1));
    for (const f of known) tick(y, `${f} Hz`, "bottom", setup.hz.findIndex((h) => h >= f) / setup.hz.length);
    for (let k = 1; k <= columns; k++) tick(x, `${now.seconds.toFixed(1)} s`, "left", k / columns);
    const [low, high] = on ? [-CONTRAST_DB, CONTRAST_DB] : setup.db;
    bar.style.background = `linear-gradient(to top, ${colours.filter((_, i) => i % 15 === 0).map((c) => `rgb(${c})`)})`;
    for (const v of [0, 0.5, 1]) tick(bar, `${(low + v * (high - low)).toFixed(0)} dB`, "bottom", v);
  }

  function follow() { // while a sound plays, a line moves through its tile
    head.style.left = `${100 * audio.currentTime / now?.seconds}%`;
    buttons[at]?.button.append(head);
    if (audio.paused || audio.currentTime > now?.seconds) return head.remove();
    requestAnimationFrame(follow);
  }

  return {
    root, audio,
    draw(frame) { // {shades, width, count, seconds, caption, labels}
      now = root.shown = { ...frame, size: frame.shades.length / frame.count };
      if (at >= frame.count) at = 0;
      caption.textContent = frame.caption;
      paint();
    },
    play(src, aloud) {
      audio.src = src;
      if (aloud) audio.play().catch(() => {}); // a browser may refuse until the page has been clicked
    },
    silence() { audio.pause(); audio.removeAttribute("src"); },
    note(text) { readout.textContent = text; },
    compare(what, frame = reference) { // from now on
      [against, reference] = [what, frame];
      if (now) paint();
    },
    get frame() { return now; },
    get tile() { return at; },
  };
}
