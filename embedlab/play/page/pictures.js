"use strict";
// Pictures: edited, unedited and kept ones, a row each, a seed a column.

const Pictures = (() => {
  const MOST = 6; // kept rows
  const rows = { edited: null, unedited: null };
  const kept = [];
  let restored = () => {}, number = 0;

  function take(message) {
    rows[message.which] = { ...message, old: false };
    draw();
  }

  /** What is shown belongs to an older state, until its own comes. */
  function fade() {
    for (const row of Object.values(rows)) if (row) row.old = true;
    for (const node of document.querySelectorAll(".shots:not(.kept)")) node.classList.add("old");
  }

  /** Without an edit there is one row: the unedited one. */
  function only() {
    rows.edited = null;
    draw();
  }

  function keep(seen) {
    const row = rows.edited ?? rows.unedited;
    if (!row) return;
    kept.unshift({ ...row, seen, state: State.told(), number: ++number });
    kept.length = Math.min(kept.length, MOST);
    draw();
  }

  function draw() {
    const parts = [];
    if (rows.edited) parts.push(line(rows.edited, "edited", rows.edited.label));
    if (rows.unedited) parts.push(line(rows.unedited, "unedited", rows.edited ? "" : rows.unedited.prompt));
    byId("pictures").replaceChildren(...parts);
    byId("kept").replaceChildren(...kept.map((row) => line(row, `kept ${row.number}`, row.label, row)));
    byId("stage").style.setProperty("--seeds", String(Math.max(1, ...[rows.edited, rows.unedited, ...kept].map((row) => row?.pictures.length ?? 0))));
  }

  function line(row, name, label, own = null) {
    const shots = row.pictures.map((picture, n) => el("figure", { class: "shot" },
      el("img", { src: picture, alt: `${name}, seed ${row.seeds[n]}: ${label || row.prompt}`, draggable: false, decoding: "async" }), el("figcaption", {}, String(row.seeds[n]))));
    const buttons = own && [
      el("button", { type: "button", class: "back", onclick: () => restored(own.state) }, "go back to it"),
      el("button", { type: "button", class: "drop", "aria-label": `Let ${name} go`, title: "Let it go", onclick: () => { kept.splice(kept.indexOf(own), 1); draw(); } }, "×")];
    return el("section", { class: `shots${own ? " kept" : ""}${row.old && !own ? " old" : ""}`, "aria-label": name, "data-which": own ? "kept" : row.which, "data-stage": row.stage },
      el("header", {}, el("h3", {}, name), el("p", { class: "label", title: label }, label), row.stage === "few" && el("span", { class: "note few" }, "few steps"), buttons),
      el("div", { class: "strip-of" }, shots), own && own.seen && el("p", { class: "seen" }, own.seen));
  }

  return { take, fade, only, keep, get ready() { return Boolean(rows.edited ?? rows.unedited); }, get kept() { return kept.length; }, onrestore: (then) => { restored = then; } };
})();
