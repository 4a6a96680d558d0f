// Put into a page before its own scripts: notes moves of a held pointer, draws on a figure's canvas and new sounds.
(() => {
  const seen = (window.stopwatch = { moves: [], draws: [], releases: [], sounds: [] });
  let held = null;

  // What the held slider stands at: [name, number] in JupyterLab, [null, words] in a report.
  const position = () => {
    const handle = held.querySelector(".noUi-handle");
    if (!handle) return [null, held.closest("label").lastElementChild.textContent];
    const name = held.closest(".widget-slider").querySelector(".widget-label").textContent.split(":")[0];
    return [name, Number(handle.getAttribute("aria-valuetext"))]; // aria-valuenow is rounded to one decimal
  };
  addEventListener("pointerdown", (e) => { held = e.target.closest(".noUi-target, input[type=range]"); }, true);
  addEventListener("pointermove", (e) => {
    if (!held || !e.buttons) return;
    const move = { at: performance.now(), input: e.timeStamp };
    seen.moves.push(move);
    setTimeout(() => { if (held) move.value = position(); }); // once the slider has heard of it too
  }, true);
  addEventListener("pointerup", () => {
    if (held) seen.releases.push(performance.now());
    held = null;
  }, true);

  const put = CanvasRenderingContext2D.prototype.putImageData;
  CanvasRenderingContext2D.prototype.putImageData = function (image, ...rest) {
    put.call(this, image, ...rest);
    const shown = this.canvas.closest(".vaelib-figure")?.shown; // the frame, with the values that it was made for
    if (!shown) return;
    const draw = { put: performance.now(), values: shown.values ?? null, text: shown.text ?? null, pixels: image.data.slice() };
    seen.draws.push(draw);
    requestAnimationFrame(() => { // a message posted from the frame arrives when the frame has been painted
      const { port1, port2 } = new MessageChannel();
      port1.onmessage = () => { draw.shown = performance.now(); };
      port2.postMessage(0);
    });
  };

  addEventListener("loadeddata", (e) => { // does not bubble, but is captured
    seen.sounds.push({ at: performance.now(), seconds: e.target.duration });
  }, true);

  let before = [];
  const changed = (pixels) => { // compared here, for it takes time
    const same = before.length === pixels.length && pixels.every((v, i) => v === before[i]);
    before = pixels;
    return !same;
  };
  window.stopwatchTake = () => {
    const taken = { ...seen, draws: seen.draws.map(({ pixels, ...draw }) => ({ ...draw, changed: changed(pixels) })) };
    Object.assign(seen, { moves: [], draws: [], releases: [], sounds: [] });
    return taken;
  };
})();
