// The last of four scripts: parts of a page, and what is asked, live and in a saved page. Holds of all explorers.

function add(parent, tag, props = {}) {
  const node = Object.assign(document.createElement(tag), props);
  parent.append(node);
  return node;
}

const part = (parent, className, textContent = "") => add(parent, "div", { className, textContent });
const button = (parent, textContent, onclick, title = "") => add(parent, "button", { type: "button", textContent, onclick, title });

function choice(parent, textContent, names, change) {
  const select = add(add(parent, "label", { textContent }), "select", { onchange: () => change(select.value) });
  select.append(...names.map((name) => new Option(name)));
  return select;
}

function tick(parent, text, checked, onchange) {
  const label = add(parent, "label"), box = add(label, "input", { type: "checkbox", checked, onchange });
  label.append(` ${text}`);
  return box;
}

// ask("frame", values) and the like → a promise. `known` questions need not be asked: of a saved page there are no others.
function asking({ known, answers }, kernel) {
  const held = new Map(known.map(([question, place]) => [JSON.stringify(question), answers[place]]));
  const ask = async (...question) => {
    const answer = held.get(JSON.stringify(question));
    return answer ? JSON.parse(answer) : kernel(question);
  };
  ask.knows = (...question) => held.has(JSON.stringify(question));
  return ask;
}

function open(root, setup, ask, saved) {
  root.dataset.lmSuppressShortcuts = "true"; // else keys typed here are commands of JupyterLab
  return (setup.fields ? clips : view)(root, setup, ask, saved);
}

function kernel({ invoke }) { // what is asked at the same moment goes in one message, each of which takes a kernel milliseconds
  const { signal } = new AbortController(); // no limit: it may be busy for hours
  const questions = [];
  let replies = null;
  return async (question) => {
    if (!questions.length) replies = Promise.resolve().then(() => invoke("ask", questions.splice(0), { signal }));
    const place = questions.push(question) - 1, [answered] = await replies, { answer, error } = answered[place];
    if (error) throw Error(error);
    return answer;
  };
}

export default {
  async render({ model, el, experimental }) {
    const setup = model.get("setup");
    await open(part(el, "vaelib"), setup, asking(setup, kernel(experimental)));
    return () => el.querySelector("audio").pause();
  },
};

for (const root of document.querySelectorAll(".vaelib[data-saved]")) {
  delete root.dataset.saved;
  const setup = JSON.parse(root.querySelector("script").textContent);
  root.querySelector("p").remove();
  open(root, setup, asking(setup, ([what]) => { throw Error(`the saved page has no ${what} of this`); }), true);
}
