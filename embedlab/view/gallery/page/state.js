"use strict";
// What is looked at: which axis lies where, which place of the others, and all else that an address can carry.

const State = (() => {
  const DENSE = 0.5; // an evenly filled grid is shown as one; a scattered sweep as a list
  const state = {
    layout: "grid", sort: "job", roles: {}, chosen: {}, at: {}, score: "", side: 0, curves: null, spread: "std",
    x: "", lines: "", filter: "", unedited: false, open: "", marks: [],
  };
  let usual = {}, view = "";

  const numeric = (axis) => Boolean(axis.numbers) && axis.key !== "repeat";

  /** Seeds down, the longest row of numbers across; other numbers on sliders, the rest on pages. */
  function usualRoles(axes) {
    const roles = {};
    const seed = axes.find((axis) => axis.key === "seed");
    const others = axes.filter((axis) => axis !== seed).sort((a, b) => b.values.length - a.values.length);
    const columns = others.find((axis) => numeric(axis)) ?? others[0] ?? seed;
    if (columns) roles[columns.key] = "columns";
    const rows = seed && seed !== columns ? seed : others.find((axis) => axis !== columns && axis.key !== "repeat");
    if (rows) roles[rows.key] = "rows";
    for (const axis of axes) roles[axis.key] ??= numeric(axis) ? "slider" : "page";
    return roles;
  }

  function usualScore(scores) {
    const words = scores.filter(({ key }) => key.startsWith("clip_score/") && key !== "clip_score/prompt");
    return (words[0] ?? scores[0])?.key ?? "";
  }

  /** Choices that the data cannot keep become the usual ones. */
  function settle() {
    const { axes, scores, cells } = Model.data;
    const places = axes.reduce((product, axis) => product * axis.values.length, 1);
    usual = {
      layout: cells.job.length < DENSE * places ? "list" : "grid",
      roles: usualRoles(axes), score: usualScore(scores),
      curves: axes.some((axis) => numeric(axis) && axis.key !== "seed" && axis.values.length > 2) && innerWidth >= 900 && innerHeight >= 700,
      side: innerWidth < 600 ? 88 : 128,
    };
    if (!state.chosenLayout) state.layout = usual.layout;
    const roles = { ...usual.roles };
    for (const axis of axes) {
      const role = state.chosen[axis.key];
      if (role && (role !== "slider" || numeric(axis))) give(roles, axis.key, role);
    }
    state.roles = roles;
    for (const axis of axes) {
      if (!axis.values.includes(state.at[axis.key])) state.at[axis.key] = axis.values[0];
    }
    if (!scores.some(({ key }) => key === state.score)) state.score = usual.score;
    state.side ||= usual.side;
    if (!shown().length) nearest();
  }

  /** Give an axis a role; rows and columns hold one axis, so that whoever had the role takes the old one. */
  function give(roles, key, role) {
    const before = roles[key];
    if (role === "rows" || role === "columns") {
      const other = Object.keys(roles).find((name) => name !== key && roles[name] === role);
      const axis = Model.data.axes[Model.axis(other)];
      if (other) roles[other] = before === "slider" && !numeric(axis) ? "page" : before;
    }
    roles[key] = role;
  }

  const axisOf = (role) => Model.axes.find((axis) => state.roles[axis.key] === role);

  /** The place that pages and sliders stand at, an index for every axis. */
  const place = () => Model.axes.map((axis) => Math.max(0, axis.values.indexOf(state.at[axis.key])));

  const held = (axis) => ["page", "slider"].includes(state.roles[axis.key]);

  /** Cells on the present page. */
  function shown() {
    if (state.layout === "list") return Model.cells;
    const here = place();
    const fixed = Model.axes.map((axis, a) => (held(axis) ? a : -1)).filter((a) => a >= 0);
    return Model.cells.filter((cell) => fixed.every((a) => cell.at[a] === here[a]));
  }

  /** Where nothing lies, go to the cell that differs least; `moved` is the axis that has to stay as chosen. */
  function nearest(moved = -1) {
    const here = place();
    let best = null, least = Infinity;
    for (const cell of Model.cells) {
      if (moved >= 0 && cell.at[moved] !== here[moved]) continue;
      const away = Model.axes.reduce((sum, axis, a) => sum + (held(axis) && cell.at[a] !== here[a] ? 1 : 0), 0);
      if (away < least) [best, least] = [cell, away];
    }
    if (best) goTo(best);
  }

  /** Turn pages and sliders to where a cell lies. */
  function goTo(cell) {
    Model.axes.forEach((axis, a) => { if (held(axis)) state.at[axis.key] = axis.values[cell.at[a]]; });
  }

  /** Move one page or slider. */
  function move(axis, index) {
    state.at[axis.key] = axis.values[Math.min(axis.values.length - 1, Math.max(0, index))];
    if (!shown().length) nearest(Model.axis(axis.key));
  }

  // ── the address ──

  function write() {
    const said = new URLSearchParams();
    if (state.chosenLayout) said.set("layout", state.layout);
    for (const axis of Model.axes) {
      if (state.roles[axis.key] !== usual.roles[axis.key]) said.set(`role.${axis.key}`, state.roles[axis.key]);
      if (held(axis) && state.at[axis.key] !== axis.values[0]) said.set(`at.${axis.key}`, state.at[axis.key]);
    }
    for (const key of ["score", "side"]) if (state[key] !== usual[key]) said.set(key, state[key]);
    for (const [key, plain] of [["sort", "job"], ["spread", "std"], ["x", ""], ["lines", ""], ["filter", ""], ["open", ""]]) {
      if (state[key] !== plain) said.set(key, state[key]);
    }
    if (state.curves !== null) said.set("curves", state.curves ? 1 : 0);
    if (state.unedited) said.set("unedited", 1);
    for (const mark of state.marks) said.append("mark", mark);
    const hash = said.toString();
    window.gallery.told?.({ view: hash, open: state.open, marks: [...state.marks] });
    if (location.protocol === "about:") view = hash; // a frame has no address of its own
    else if (hash !== location.hash.slice(1)) history.replaceState(null, "", hash ? `#${hash}` : location.pathname + location.search);
  }

  function readAddress() {
    const said = new URLSearchParams(view || location.hash.slice(1));
    Object.assign(state, { chosen: {}, at: {}, chosenLayout: said.has("layout") });
    for (const [key, value] of said) {
      if (key.startsWith("role.") && ["rows", "columns", "page", "slider"].includes(value)) state.chosen[key.slice(5)] = value;
      if (key.startsWith("at.")) state.at[key.slice(3)] = value;
    }
    state.layout = said.get("layout") === "list" ? "list" : "grid";
    for (const key of ["score", "x", "lines", "filter", "open"]) state[key] = said.get(key) ?? "";
    state.sort = ["high", "low"].includes(said.get("sort")) ? said.get("sort") : "job";
    state.spread = said.get("spread") === "range" ? "range" : "std";
    state.side = Math.min(320, Math.max(0, Number(said.get("side")) || 0));
    state.curves = said.has("curves") ? said.get("curves") === "1" : null;
    state.unedited = said.get("unedited") === "1";
    state.marks = said.getAll("mark").slice(0, 2);
  }

  return Object.assign(state, {
    settle, numeric, axisOf, place, held, shown, goTo, move, write, readAddress,
    show(given) { view = given; },
    choose(key, role) {
      give(state.roles, key, role);
      for (const axis of Model.axes) if (state.roles[axis.key] !== usual.roles[axis.key]) state.chosen[axis.key] = state.roles[axis.key];
      state.chosen[key] = role;
    },
    curvesShown: () => state.curves ?? usual.curves ?? false,
  });
})();
