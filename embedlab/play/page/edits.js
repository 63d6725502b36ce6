"use strict";
// The edits as cards: an operator and its settings, each field as the server says it is.

const Edits = (() => {
  const REST = ["choice", "text"]; // seldom changed: behind "more"
  const ends = new Map(); // of sliders, as they were moved: "operator.setting" → [low, high]
  let towers = [];
  let moved = () => {}, swept = () => {};
  const open = new Set();

  const idOf = (n, name) => `edit-${n}-${name}`;
  const sliding = (field, value) => Boolean(field.ends) && typeof value === "number";
  const redraw = () => setTimeout(draw);

  function endsOf(edit, field) {
    const key = `${edit.operator}.${field.name}`;
    const [low, high] = ends.get(key) ?? field.ends ?? [0, 1];
    const value = edit.settings[field.name];
    const numbers = [value, ...(value?.values ?? [])].filter((one) => typeof one === "number");
    return [Math.min(low, ...numbers), Math.max(high, ...numbers)];
  }

  const stepOf = (field, [low, high]) => (field.kind === "whole" ? 1 : 10 ** Math.floor(Math.log10(Math.max(1e-9, high - low) / 50)));

  /** A typed number as one, and anything else as it was typed: YAML, which the server reads. */
  function typed(field, text) {
    const trimmed = text.trim();
    if (["number", "whole"].includes(field.kind) && /^[-+]?(\d+\.?\d*|\.\d+)(e[-+]?\d+)?$/i.test(trimmed)) return Number(trimmed);
    return trimmed === "" ? null : text;
  }

  function draw() {
    const focused = document.activeElement?.id, at = document.activeElement?.selectionStart;
    byId("edits").replaceChildren(...State.edits.map(card));
    const again = focused && byId("edits").contains(byId(focused)) && byId(focused);
    if (again) {
      again.focus();
      if (again.type === "text" && at !== null) again.setSelectionRange(at, at);
    }
  }

  function card(edit, n) {
    const form = State.form(edit.operator);
    const choose = el("select", { id: `edit-${n}`, "aria-label": `Operator of edit ${n + 1}`, onchange: (event) => { State.change(n, event.target.value); moved(); draw(); } });
    fill(choose, State.forms().map(({ name }) => [name, name.replaceAll("_", " ")]), edit.operator);
    const fields = form.fields.filter((field) => !alone(field, edit.settings[field.name]));
    const aside = (field) => REST.includes(field.kind) && field.name !== "encoder";
    const rest = fields.filter(aside), first = fields.filter((field) => !aside(field));
    const more = el("details", { open: open.has(n) || Boolean(edit.during), ontoggle: (event) => { if (event.target.open) open.add(n); else open.delete(n); } },
      el("summary", {}, "more settings"), rest.map((field) => ask(edit, n, field)), works(edit, n));
    const node = el("article", { class: `edit${n === State.active ? " active" : ""}`, "aria-label": `Edit ${n + 1}`, onfocusin: (event) => activate(n, event), onpointerdown: (event) => activate(n, event) },
      el("header", {}, choose, el("p", { class: "note" }, form.about),
        el("button", { type: "button", class: "remove", "aria-label": `Remove edit ${n + 1}`, title: "Remove", onclick: () => { State.remove(n); open.delete(n); moved(); draw(); } }, "×")),
      first.map((field) => ask(edit, n, field)), more);
    return node;
  }

  function activate(n, event) {
    const name = event.target.dataset?.rows;
    if (State.active === n && (!name || name === State.field)) return;
    State.focus(n, name);
    for (const [k, node] of [...byId("edits").children].entries()) node.classList.toggle("active", k === n);
    Tokens.draw();
  }

  /** Which text encoder: nothing to choose where there is one. */
  const alone = (field, value) => field.name === "encoder" && towers.length < 2 && (value ?? null) === null;

  /** When the edit works. */
  function works(edit, n) {
    const id = idOf(n, "during"), fault = el("p", { class: "fault", id: `fault-edits.${n}.during`, role: "alert", hidden: true });
    const set = (now, dragged = false) => { if (now) edit.during = now; else delete edit.during; moved(dragged); };
    const [choose, ...rest] = Curves.lasting({ id, name: `edit ${n + 1}`, now: () => edit.during, set, redraw });
    return el("div", { class: "ask line" }, el("label", { htmlFor: `${id}-way` }, "works"), choose, rest.length > 0 && el("div", { class: "curved" }, rest), fault);
  }

  function ask(edit, n, field) {
    const id = idOf(n, field.name), value = edit.settings[field.name];
    const about = el("p", { class: "about", id: `${id}-about` }, field.comment);
    const fault = el("p", { class: "fault", id: `fault-edits.${n}.${field.name}`, role: "alert", hidden: true });
    const described = `${id}-about ${fault.id}`;
    const set = (now, dragged = false) => { edit.settings[field.name] = now; moved(dragged); };
    if (field.kind === "choice") {
      const select = el("select", { id, "aria-describedby": described, onchange: (event) => set(event.target.value) });
      const known = typeof value === "string" && field.options.includes(value);
      const layers = field.name === "stage" ? [0, 1, 2, 3, 4, 6, 8, 10].map((layer) => `{layer: ${layer}}`) : [];
      const options = [...field.options, ...layers];
      if (!known && !options.includes(flow(value))) options.push(flow(value));
      fill(select, options.map((option) => [option, option]), flow(value));
      return el("div", { class: "ask line" }, el("label", { htmlFor: id }, field.name), select, about, fault);
    }
    const again = { id, field, value, first: field.ends?.[0] ?? value, now: () => edit.settings[field.name], ends: () => endsOf(edit, field), set, redraw };
    const way = Curves.ways(field).length > 0 && (typeof value === (field.ends ? "number" : "string") || Curves.drawn(field, value)) && Curves.choice(again);
    if (Curves.drawn(field, value)) {
      const sweep = Curves.swept(field, value, endsOf(edit, field)).length > 0 && sweepButton(field, () => sliders().findLast((one) => one.edit === n && one.name === field.name && (one.part === "values" || field.kind === "source")));
      return el("div", { class: "ask knob" }, el("label", { htmlFor: `${id}-way` }, field.name), way, sweep, el("div", { class: "curved" }, Curves.form({ ...again, fine: stepOf(field, endsOf(edit, field)) })), about, fault);
    }
    if (field.name === "encoder" && (value === null || value === undefined || typeof value === "number") && (value ?? 1) <= towers.length) {
      const select = el("select", { id, "aria-describedby": described, onchange: (event) => { set(event.target.value === "" ? null : Number(event.target.value)); Tokens.draw(); } });
      fill(select, [["", "all"], ...towers.map(({ name, width }, k) => [String(k + 1), `${k + 1}: ${name}, rows of ${width}`])], String(value ?? ""));
      return el("div", { class: "ask line" }, el("label", { htmlFor: id }, field.name), select, about, fault);
    }
    const text = el("input", { type: "text", id, value: flow(value), autocomplete: "off", spellcheck: false, "aria-describedby": described,
      placeholder: field.kind === "rows" ? (field.needed ? "click words above" : "all that it is meant for") : "",
      oninput: (event) => set(typed(field, event.target.value), true), onchange: (event) => { set(typed(field, event.target.value)); Tokens.draw(); if (sliding(field, value) !== sliding(field, edit.settings[field.name])) setTimeout(draw); } });
    if (field.kind === "rows") text.dataset.rows = field.name;
    if (field.kind === "source") text.setAttribute("list", "words");
    const label = el("label", { htmlFor: id }, field.name);
    if (!sliding(field, value)) return el("div", { class: `ask line${way ? " ways" : ""}` }, label, text, way, about, fault);
    return knob(edit, n, field, { label, text, way, about, fault, set, id });
  }

  /** A number as a slider between two ends, which can be moved too, with the number beside it. */
  function knob(edit, n, field, { label, text, way, about, fault, set, id }) {
    const [low, high] = endsOf(edit, field);
    const range = el("input", { type: "range", id: `${id}-slider`, min: low, max: high, step: stepOf(field, [low, high]), "aria-label": `${field.name}, from ${low} to ${high}`,
      oninput: (event) => { text.value = event.target.value; set(Number(event.target.value), true); }, onchange: (event) => { text.value = event.target.value; set(Number(event.target.value)); } });
    range.value = String(edit.settings[field.name]);
    text.addEventListener("input", () => {
      const now = edit.settings[field.name];
      if (typeof now !== "number") return;
      if (now > Number(range.max)) range.max = now;
      if (now < Number(range.min)) range.min = now;
      range.value = String(now);
    });
    const end = (which, value) => el("input", { type: "text", class: "end", id: `${id}-${which}`, value: String(value), inputMode: "decimal", "aria-label": `${which === "low" ? "lower" : "upper"} end of ${field.name}`,
      onchange: (event) => {
        const given = Number(event.target.value), [a, b] = endsOf(edit, field), now = which === "low" ? [given, b] : [a, given];
        if (Number.isFinite(given) && event.target.value.trim() !== "" && now[0] < now[1]) ends.set(`${edit.operator}.${field.name}`, now);
        setTimeout(draw);
      } });
    const sweep = sweepButton(field, () => sliders().find((one) => one.edit === n && one.name === field.name));
    text.classList.add("number");
    return el("div", { class: "ask knob" }, label, text, way, sweep, el("div", { class: "track" }, end("low", low), range, end("high", high)), about, fault);
  }

  const sweepButton = (field, slider) => el("button", { type: "button", class: "sweep", title: `A command that tries values of ${field.name}`, onclick: () => swept(slider()) }, "sweep");

  /** All sliders there are, and the numbers of what changes over the steps, for a choice of which to sweep. */
  const sliders = () => State.edits.flatMap((edit, n) => {
    const name = edit.operator.replaceAll("_", " ");
    const found = State.form(edit.operator).fields.flatMap((field) => {
      const value = edit.settings[field.name], [from, to] = endsOf(edit, field), mine = { edit: n, name: field.name };
      if (sliding(field, value)) return [{ ...mine, from, to, whole: field.kind === "whole", label: `${name} · ${field.name}` }];
      return Curves.drawn(field, value) ? Curves.swept(field, value, [from, to]).map(({ said, ...part }) => ({ ...mine, ...part, label: `${name} · ${field.name}, ${said}` })) : [];
    });
    return [...found, ...Curves.lasted(edit.during).map(({ said, ...part }) => ({ edit: n, name: "during", ...part, label: `${name} · works, ${said}` }))];
  });

  return { draw, sliders, begin: (about) => { towers = about.towers; }, onmove: (then) => { moved = then; }, onsweep: (then) => { swept = then; } };
})();
