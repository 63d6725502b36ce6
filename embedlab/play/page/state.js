"use strict";
// What is set: prompt, edits in order, seeds; and what was set before, for undo.

const State = (() => {
  const state = { prompt: "", edits: [], seeds: [0, 1, 2, 3] };
  const past = [], future = [];
  let forms = new Map(), active = 0, field = "rows", last = "";

  const told = () => JSON.stringify({ prompt: state.prompt, edits: state.edits, seeds: state.seeds });

  function take(text) {
    const { prompt, edits, seeds } = JSON.parse(text);
    Object.assign(state, { prompt, edits, seeds });
    active = Math.max(0, Math.min(active, edits.length - 1));
    field = rowsOf(active);
  }

  /** The first setting of an edit that a click on a token fills in. */
  const rowsOf = (n) => forms.get(state.edits[n]?.operator)?.fields.find((one) => one.kind === "rows")?.name ?? "";

  /** The first selection of an edit that has to be made and is not. */
  const missing = (n) => forms.get(state.edits[n].operator).fields.find((one) => one.kind === "rows" && one.needed && (state.edits[n].settings[one.name] ?? "") === "")?.name;

  /** What a new operator is set to: what its YAML file says. */
  const usual = (name) => Object.fromEntries(forms.get(name).fields.filter((one) => one.default !== null).map((one) => [one.name, one.default]));

  const more = {
    told, take, rowsOf, usual,
    begin(about) {
      forms = new Map(about.forms.map((form) => [form.name, form]));
      for (const edit of about.state.edits) edit.settings = { ...usual(edit.operator), ...edit.settings };
      take(JSON.stringify(about.state));
      last = told();
    },
    form: (name) => forms.get(name),
    forms: () => [...forms.values()],
    get active() { return active; },
    get field() { return field; },
    focus(n, name) { active = n; field = name ?? rowsOf(n); },
    /** Remember where things were, if they are elsewhere now. */
    commit() {
      const now = told();
      if (now === last) return;
      past.push(last);
      if (past.length > 200) past.shift();
      future.length = 0;
      last = now;
    },
    undo: () => step(past, future),
    redo: () => step(future, past),
    get canUndo() { return past.length > 0; },
    get canRedo() { return future.length > 0; },
    add(operator, rows, encoder = null) {
      const settings = { ...usual(operator), ...(encoder ? { encoder } : {}) };
      state.edits.push({ operator, settings });
      active = state.edits.length - 1;
      field = rowsOf(active);
      if (field && rows !== undefined) settings[field] = rows;
    },
    remove(n) {
      state.edits.splice(n, 1);
      active = Math.max(0, Math.min(active, state.edits.length - 1));
      field = rowsOf(active);
    },
    change(n, operator) {
      const before = state.edits[n], settings = usual(operator);
      const rows = before.settings[rowsOf(n)];
      before.operator = operator;
      before.settings = settings;
      active = n;
      field = rowsOf(n);
      if (field && rows !== undefined) settings[field] = rows;
      field = missing(n) ?? field;
    },
    missing,
  };

  function step(from, to) {
    if (!from.length) return;
    to.push(last);
    last = from.pop();
    take(last);
  }

  return Object.defineProperties(state, Object.getOwnPropertyDescriptors(more));
})();

/** A value as YAML in one line, as a field shows it. */
function flow(value, inside = false) {
  if (value === null || value === undefined) return inside ? "null" : "";
  if (Array.isArray(value)) return `[${value.map((one) => flow(one, true)).join(", ")}]`;
  if (typeof value === "object") return `{${Object.entries(value).map(([key, one]) => `${key}: ${flow(one, true)}`).join(", ")}}`;
  if (typeof value === "string" && inside && !/^[\p{L}][\p{L} _-]*$/u.test(value)) return JSON.stringify(value);
  return String(value);
}
