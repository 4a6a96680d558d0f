// More like this: the clips nearest to one in each model's own space. Between figure.js and clips.js.

// data: what near.py packs; on: {names, labels, code(field, clip), about(clip), choose(clip), play(), hover(clip), ask(clip), change()}
function nearby(parent, titles, data, on) {
  const lists = Object.fromEntries(["every", "others"].map((n) => [n, data[n].map((t) => unpack(t, Int32Array))])), groups = unpack(data.groups, Int32Array);
  const root = add(parent, "section", { className: "near" }), top = add(root, "div", { className: "now" });
  let query = -1, chosen = -1;
  const name = add(top, "strong", { textContent: "More like this" });
  name.setAttribute("aria-live", "polite");
  const move = add(top, "button", { type: "button", textContent: "More like the chosen clip", disabled: true });
  move.addEventListener("click", () => on.ask(chosen));
  const apart = data.kin ? add(add(top, "label", { className: "auto" }), "input", { type: "checkbox", checked: true }) : null;
  apart?.after(`other ${data.kin}s only`);
  apart?.addEventListener("change", () => { show(query); on.change(); });
  const hint = add(root, "div", { className: "hint" }), grid = add(root, "div", { className: "cards" });

  const related = (clip) => groups && clip !== query && groups[clip] === groups[query];
  const of = (panel) => (query < 0 ? [] : Array.from(lists[apart?.checked ? "others" : "every"][panel].subarray(query * data.k, (query + 1) * data.k)).filter((i) => i >= 0));
  const shared = (f, clip) => on.code(f, clip) >= 0 && on.code(f, clip) === on.code(f, query);
  const cards = titles.map((title) => {
    const card = add(grid, "div", { className: "card" }), head = add(card, "div", { className: "name", title });
    add(head, "b", { textContent: title });
    const score = add(head, "span");
    const about = (i) => {
      const a = on.about(i);
      return { ...a, labels: [...(related(i) ? [`same ${data.kin}`] : []), ...(a.labels ? [a.labels] : [])].join(" · "), alike: on.labels.length && shared(on.labels[0], i) };
    };
    return { score, list: listing(card, about, on.choose, on.play, `nearest clips in ${title}: arrow keys choose, Enter plays`, on.hover) };
  });
  for (const box of grid.querySelectorAll(".list")) box.style.height = `${data.k * ROW + 2}px`;

  function show(clip) {
    query = clip;
    if (query < 0) return;
    name.textContent = name.title = `More like ${on.names[query]}`;
    const known = on.labels.filter((f) => on.code(f, query) >= 0), expected = [];
    for (const f of known) {
      let same = 0, open = 0;
      for (let i = 0; i < on.names.length; i++) if (i !== query && !(apart?.checked && related(i))) { open++; same += shared(f, i); }
      expected.push(`${f.name} ${(data.k * same / Math.max(open, 1)).toFixed(1)}`);
    }
    hint.textContent = `The nearest clips, nearest first, by ${data.metric} distance in each model's own space, not in the map; lines lead to them. Choosing one keeps the list.`
      + (known.length ? ` In brackets: how many share the label (by chance, of ${data.k}: ${expected.join(", ")}).` : "");
    cards.forEach(({ score, list }, p) => {
      const found = of(p);
      score.textContent = known.length && found.length ? ` (${known.map((f) => `${f.name} ${found.filter((i) => shared(f, i)).length}`).join(", ")} of ${found.length})` : "";
      if (!found.length) score.textContent = data.kin && apart.checked ? `: no clip of another ${data.kin}` : ": no other clip";
      list.show(found, chosen);
    });
  }

  return {
    show, of,
    get query() { return query; },
    mark(clip) {
      chosen = clip;
      move.disabled = clip < 0 || clip === query;
      for (const { list } of cards) list.mark(clip);
    },
    end() { for (const { list } of cards) list.end(); },
  };
}
