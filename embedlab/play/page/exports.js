"use strict";
// What is set, to be taken elsewhere: a command, a file, Python, a sweep.

const Exports = (() => {
  const NAMES = { command: "As a command", yaml: "As an experiment YAML", python: "As Python", sweep: "Sweep this slider" };
  const ABOUT = {
    command: "Draws the same pictures, the unedited ones beside them, and measures the edit.",
    yaml: "Save it as experiment/NAME.yaml in a folder of yours: embedlab --config-dir FOLDER experiment=NAME",
    python: "The same pictures in a script or a notebook.",
    sweep: "Tries values from one end of the slider to the other.",
  };
  const same = (one, other) => ["edit", "name", "part", "n"].every((key) => one[key] === other?.[key]);
  let chosen = null;

  async function show(slider = null) {
    const sliders = Edits.sliders();
    chosen = slider ?? sliders.find((one) => same(one, chosen)) ?? sliders[0] ?? null;
    const found = await Wire.exports({ state: JSON.parse(State.told()), slider: chosen });
    const dialog = byId("exports");
    byId("fault-export").hidden = !found.fault;
    byId("fault-export").textContent = found.fault?.text ?? "";
    const kinds = found.fault ? [] : ["command", "yaml", "python", "sweep"].filter((kind) => found[kind]);
    if (slider) kinds.sort((a, b) => (b === "sweep") - (a === "sweep"));
    byId("exported").replaceChildren(...kinds.map((kind) => part(kind, found[kind], sliders)));
    if (!dialog.open) dialog.showModal();
  }

  function part(kind, text, sliders) {
    const name = el("h3", { id: `export-${kind}` }, NAMES[kind]);
    const choose = kind === "sweep" && sliders.length > 1 && el("select", { "aria-label": "Which slider", onchange: (event) => show(sliders[Number(event.target.value)]) });
    if (choose) fill(choose, sliders.map((one, n) => [String(n), one.label]), String(sliders.findIndex((one) => same(one, chosen))));
    return el("section", { class: "export", "aria-labelledby": `export-${kind}` },
      el("div", { class: "export-head" }, name, choose, copyButton(text)), el("p", { class: "note" }, ABOUT[kind]), el("pre", { class: "command", tabIndex: 0, "data-kind": kind }, text));
  }

  return { show };
})();
