"use strict";
// Two pictures side by side, and how they differ: in pixels, in settings, in scores.

const Compare = (() => {
  const dialog = byId("compare"), tray = byId("tray");
  let amplified = 4;

  /** Mark a cell or take the mark away; a second mark opens the comparison. */
  function mark(cell) {
    if (State.marks.includes(cell.key)) State.marks = State.marks.filter((key) => key !== cell.key);
    else if (cell.state === "done") State.marks = [...State.marks.slice(-1), cell.key];
    draw();
    if (State.marks.length === 2 && State.marks.includes(cell.key)) open();
  }

  function draw() {
    State.marks = State.marks.filter((key) => Model.named(key)?.state === "done");
    const cells = State.marks.map(Model.named);
    tray.hidden = !cells.length;
    if (!cells.length) return;
    tray.replaceChildren(
      ...cells.map((cell) => el("img", { src: Model.address(cell, { small: true }), alt: Grid.title(cell), title: Grid.title(cell) })),
      cells.length === 2
        ? el("button", { type: "button", id: "compare-open", class: "strong", onclick: open }, "Compare")
        : el("span", {}, "Mark another picture to compare with ", el("kbd", {}, "c")),
      el("button", { type: "button", id: "compare-clear", onclick: () => { State.marks = []; draw(); tray.dispatchEvent(new CustomEvent("cleared")); } }, "Clear"));
  }

  async function open() {
    const [a, b] = State.marks.map(Model.named);
    if (!a || !b) return;
    const blend = el("div", { class: "blend" }, picture(a, ""), picture(b, ""));
    const say = el("output", {}, `×${amplified}`);
    const amplify = (value) => { amplified = value; say.textContent = `×${value}`; blend.style.filter = `brightness(${value})`; };
    amplify(amplified);
    const range = el("input", { type: "range", id: "amplify", min: 1, max: 16, step: 1, value: amplified, oninput: (event) => amplify(Number(event.target.value)) });
    const differences = el("div", { class: "differences" });
    dialog.replaceChildren(
      el("div", { class: "panel-head" }, el("h2", {}, "Side by side"),
        el("button", { type: "button", id: "compare-swap", onclick: () => { State.marks.reverse(); draw(); open(); } }, "Swap"),
        el("button", { type: "button", id: "compare-close", "aria-label": "Close", title: "Close  Esc", autofocus: true, onclick: () => dialog.close() }, "×")),
      el("div", { class: "pair" },
        el("figure", {}, picture(a, `first: ${Grid.title(a)}`), el("figcaption", {}, el("b", {}, "first "), a.label, `, seed ${a.seed}`)),
        el("figure", {}, picture(b, `second: ${Grid.title(b)}`), el("figcaption", {}, el("b", {}, "second "), b.label, `, seed ${b.seed}`)),
        el("figure", {}, blend, el("figcaption", {}, el("label", { htmlFor: "amplify" }, "difference "), range, say))),
      differences);
    if (!dialog.open) dialog.showModal();
    const details = await Promise.all([a, b].map((cell) => Model.details(cell).catch(() => ({ settings: {} }))));
    const settings = details.map((job, n) => ({ ...overview([a, b][n]), ...(a.plain || b.plain ? { edit: [a, b][n].plain ? "none" : [a, b][n].label } : {}), ...without([a, b][n], job.settings) }));
    const keys = [...new Set(settings.flatMap(Object.keys))].filter((key) => settings[0][key] !== settings[1][key]);
    const scores = Model.data.scores.map(({ key, name }) => [key, name, ...[a, b].map((cell) => Model.score(cell, key))]).filter(([, , p, q]) => p !== null || q !== null);
    differences.replaceChildren(
      el("section", {}, el("h3", {}, "What differs"),
      keys.length ? tableOf(["setting", "first", "second"], keys.map((key) => [key, settings[0][key], settings[1][key]])) : el("p", { class: "note" }, "Their settings are the same.")),
      scores.length ? el("section", {}, el("h3", {}, "Scores"), tableOf(["score", "first", "second", "change"], scores.map(([key, name, p, q]) => [name, Model.show(key, p), Model.show(key, q), p === null || q === null ? "–" : p === q ? "0" : `${q >= p ? "+" : "−"}${Model.show(key, Math.abs(q - p))}`]))) : "");
  }

  /** Settings as they are; of an unedited picture without the edit's. */
  const without = (cell, settings) => (cell.plain ? Object.fromEntries(Object.entries(settings).filter(([key]) => !key.startsWith("operators"))) : settings);

  const overview = (cell) => without(cell, { prompt: cell.prompt, ...Object.fromEntries(Model.axes.map((axis, n) => [axis.key, axis.values[cell.at[n]]])), seed: String(cell.seed) });

  const picture = (cell, alt) => el("img", { src: Model.address(cell), alt });

  return { mark, draw, dialog, tray };
})();
