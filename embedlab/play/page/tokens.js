"use strict";
// The tokens of the prompt as chips, window by window; a click chooses which rows the edit is of.

const Tokens = (() => {
  let windows = [], readings = [], towers = [], clicked = () => {};

  const same = (a, b) => JSON.stringify(a) === JSON.stringify(b);
  const listed = (value) => (value === null || value === undefined || value === "" ? [] : Array.isArray(value) ? value : [value]);

  /** What the active edit has chosen. */
  const chosen = () => listed(State.edits[State.active]?.settings[State.field]);

  /** Whether the active edit is of a text encoder that reads a window. */
  const read = (w) => { const encoder = State.edits[State.active]?.settings.encoder; return typeof encoder !== "number" || windows[w].one.encoders.includes(encoder); };

  let shown = "";

  /** Chips of other windows than before; else those that are there are marked, so that a click under way is not lost. */
  function draw(given) {
    if (given) {
      readings = given;
      windows = readings.flatMap((one) => one.windows.map((window, n) => ({ ...window, n, of_all: one.windows.length, one })));
    }
    const now = JSON.stringify(readings);
    if (now === shown) mark();
    else {
      shown = now;
      build();
    }
    const form = State.form(State.edits[State.active]?.operator);
    const several = form?.fields.filter((field) => field.kind === "rows").length > 1;
    byId("hint").textContent = !State.edits.length ? "click a word to edit it" : several ? `click words for ${State.field}` : State.field ? "click the words that are edited" : "";
  }

  function mark() {
    const mine = chosen();
    for (const node of document.querySelectorAll(".chip")) {
      const [w, n] = node.dataset.at.split(".");
      node.setAttribute("aria-pressed", String(read(w) && mine.some((selector) => same(selector, windows[w].chips[n].selector))));
    }
  }

  function build() {
    const mine = chosen();
    const focused = document.activeElement?.closest?.(".chip")?.dataset.at;
    byId("tokens").replaceChildren(...windows.map((window, w) => el("div", { class: "window", role: "group", "aria-label": `${readings.length > 1 ? `text encoder ${window.one.encoders.join(" and ")}, ` : ""}window ${window.n + 1}` },
      window.n === 0 && towers.length > 1 && el("p", { class: "note reader" }, readBy(window.one)),
      window.of_all > 1 && el("span", { class: "note" }, `window ${window.n + 1} · ${window.taken} of ${window.of}`),
      el("div", { class: "chips" }, window.chips.map((one, n) => chip(one, `${w}.${n}`, mine, readings.length > 1 ? window.one.encoders[0] : null))))));
    if (focused) document.querySelector(`.chip[data-at="${focused}"]`)?.focus();
  }

  /** Which text encoders read these, and what they pad with where that differs. */
  function readBy({ encoders, pads }) {
    const names = encoders.map((n) => `${n} (${towers[n - 1].name}, rows of ${towers[n - 1].width})`).join(" and ");
    const padded = new Set(pads).size > 1 ? `; padding has id ${pads.join(" in one and ")} in the other` : "";
    return `${encoders.length > 1 ? "read alike by text encoders" : "read by text encoder"} ${names}${padded}`;
  }

  function chip(one, at, mine, encoder) {
    const on = read(Number(at.split(".")[0])) && mine.some((selector) => same(selector, one.selector));
    const rows = one.rows.length > 1 ? `rows ${one.rows[0]} to ${one.rows[one.rows.length - 1]}` : `row ${one.rows[0]}`;
    const ids = one.ids.join(" ");
    const button = el("button", { type: "button", class: `chip${one.role ? " quiet" : ""}`, "aria-pressed": String(on), title: `${rows}, id ${ids}`, onclick: () => clicked(one.selector, button.getAttribute("aria-pressed") === "true", encoder) },
      el("span", { class: "word" }, one.text), el("span", { class: "ids" }, one.role === "pad" ? `× ${one.rows.length}` : ids));
    button.dataset.at = at;
    return button;
  }

  /** A selection with one more, or without one. */
  function toggled(selector, on) {
    const left = chosen().filter((one) => !same(one, selector));
    const now = on ? left : [...left, selector];
    return now.length > 1 ? now : now[0] ?? null;
  }

  return { draw, toggled, begin: (about) => { towers = about.towers; }, onclick: (then) => { clicked = then; } };
})();
