"use strict";
// What is looked at: which axes lie where, which place of the others, and all else that an address can carry.

const State = (() => {
  const DENSE = 0.5; // an evenly filled grid is shown as one; a scattered sweep as a list
  const FULL = 600; // pictures up to which all of them are laid out at first
  const UNSEEN = 50; // pixels: a frame that is no wider is not looked at yet
  const ROLES = ["rows", "columns", "page", "slider"];
  const state = {
    layout: "grid", sort: "job", roles: {}, order: [], hidden: {}, chosen: null, at: {}, score: "", side: 0, curves: null, spread: "std",
    x: "", lines: "", filter: "", unedited: "beside", asked: false, shared: false, holding: false, open: "", marks: [],
  };
  let usual = {}, view = "";

  const numeric = (axis) => Boolean(axis.numbers) && axis.key !== "repeat";

  /** How many pictures fit side by side. */
  const most = () => Math.max(3, Math.floor((innerWidth > 1000 ? innerWidth - 480 : innerWidth - 50) / (innerWidth < 600 ? 46 : 78)));

  /** Seeds down, the longest row of numbers across; what else varies nested into these where it fits, else on sliders and pages. */
  function usualRoles(axes) {
    const roles = {}, count = { rows: 1, columns: 1 };
    const seed = axes.find((axis) => axis.key === "seed");
    const others = axes.filter((axis) => axis !== seed && axis.key !== "sweep").sort((a, b) => b.values.length - a.values.length);
    const columns = others.find(numeric) ?? others.find((axis) => axis.values.every((value) => value.length < 40)) ?? others[0] ?? seed ?? axes[0];
    const put = (axis, role) => { roles[axis.key] = role; count[role] *= axis.values.length; };
    if (columns) put(columns, "columns");
    const rows = seed && seed !== columns ? seed : others.find((axis) => axis !== columns && axis.key !== "repeat");
    if (rows) put(rows, "rows");
    const order = [columns, rows].filter(Boolean).map((axis) => axis.key);
    const sweep = axes.find(({ key }) => key === "sweep");
    if (sweep && !roles.sweep && count.rows * sweep.values.length <= 24) { // the same picture of each sweep, one under the other
      put(sweep, "rows");
      order.push("sweep");
    }
    for (const axis of axes.filter(({ key }) => !roles[key]).sort((a, b) => a.values.length - b.values.length)) {
      const n = axis.values.length, wide = innerWidth > 1000 ? innerWidth - 520 : innerWidth - 60, tall = Math.max(300, innerHeight - 250);
      const sizes = { columns: Math.min(wide / (count.columns * n), tall / count.rows), rows: Math.min(wide / count.columns, tall / (count.rows * n)) };
      const fits = { columns: count.columns * n <= most(), rows: count.rows * n <= 24 };
      const best = ["columns", "rows"].filter((role) => fits[role]).sort((p, q) => sizes[q] - sizes[p])[0];
      if (best && count.rows * count.columns * n <= FULL) {
        put(axis, best);
        order.unshift(axis.key); // around what is there
      } else {
        roles[axis.key] = numeric(axis) ? "slider" : "page";
        order.push(axis.key);
      }
    }
    return { roles, order };
  }

  function usualScore(scores) {
    const words = scores.filter(({ key }) => key.startsWith("clip_score/") && key !== "clip_score/prompt");
    return (words[0] ?? scores[0])?.key ?? "";
  }

  /** Choices that the data cannot keep become the usual ones. */
  function settle() {
    const { axes, scores, cells } = Model.data;
    state.unseen = innerWidth <= UNSEEN;
    const places = axes.reduce((product, axis) => product * axis.values.length, 1);
    const scattered = cells.job.length < DENSE * places; // its lines would have a point each
    usual = {
      layout: scattered ? "list" : "grid",
      ...usualRoles(axes), score: usualScore(scores),
      curves: !scattered && axes.some((axis) => numeric(axis) && axis.key !== "seed" && axis.values.length > 2) && innerWidth >= 900 && innerHeight >= 700,
    };
    if (!state.chosenLayout) state.layout = usual.layout;
    state.roles = { ...usual.roles };
    state.order = [...usual.order];
    if (state.chosen) {
      for (const axis of axes) {
        const role = state.chosen.roles[axis.key];
        if (ROLES.includes(role) && (role !== "slider" || numeric(axis))) state.roles[axis.key] = role;
      }
      const asked = state.chosen.order.filter((key) => state.order.includes(key));
      state.order = [...asked, ...state.order.filter((key) => !asked.includes(key))];
    }
    for (const axis of axes) {
      const open = axis.values.filter((value) => !isHidden(axis, value));
      if (!open.length) { delete state.hidden[axis.key]; open.push(...axis.values); }
      if (!open.includes(state.at[axis.key])) state.at[axis.key] = open[0];
    }
    if (!scores.some(({ key }) => key === state.score)) state.score = usual.score;
    if (!shown().length) nearest();
  }

  /** The axes of a role, the outermost first. */
  const axesOf = (role) => state.order.map((key) => Model.axes[Model.axis(key)]).filter((axis) => axis && state.roles[axis.key] === role);

  /** The place that pages and sliders stand at, an index for every axis. */
  const place = () => Model.axes.map((axis) => Math.max(0, axis.values.indexOf(state.at[axis.key])));

  const held = (axis) => ["page", "slider"].includes(state.roles[axis.key]);

  const isHidden = (axis, value) => Boolean(state.hidden[axis.key]?.includes(value));

  /** Cells whose values are all shown, and which all sweeps have where that is asked for. */
  function visible() {
    const there = open();
    return state.shared && Model.shared ? there.filter(Model.shared) : there;
  }

  function open() {
    const gone = Model.axes.map((axis) => (state.hidden[axis.key]?.length ? new Set(axis.values.map((value, n) => (isHidden(axis, value) ? n : -1))) : null));
    return gone.some(Boolean) ? Model.cells.filter((cell) => cell.at.every((index, a) => !gone[a]?.has(index))) : Model.cells;
  }

  /** Cells on the present page. */
  function shown() {
    if (state.layout === "list") return [...visible()];
    const here = place(), fixed = Model.axes.map(held);
    return visible().filter((cell) => cell.at.every((index, a) => !fixed[a] || index === here[a]));
  }

  /** Go where something lies; `moved`, an axis that was just moved, stays if it can. */
  function nearest(moved = -1) {
    const here = place();
    let best = null, least = Infinity;
    for (const cell of visible()) {
      if (moved >= 0 && cell.at[moved] !== here[moved]) continue;
      const away = Model.axes.reduce((sum, axis, a) => sum + (held(axis) && cell.at[a] !== here[a] ? 1 : 0), 0);
      if (away < least) [best, least] = [cell, away];
    }
    if (best) goTo(best);
  }

  /** Turn pages and sliders to where a cell lies, and show its values. */
  function goTo(cell) {
    Model.axes.forEach((axis, a) => {
      const value = axis.values[cell.at[a]];
      if (held(axis)) state.at[axis.key] = value;
      if (isHidden(axis, value)) state.hidden[axis.key] = state.hidden[axis.key].filter((other) => other !== value);
    });
  }

  /** Move one page or slider, past values that are hidden. */
  function move(axis, index) {
    const last = axis.values.length - 1, before = axis.values.indexOf(state.at[axis.key]);
    const by = index < before ? -1 : 1;
    let n = Math.min(last, Math.max(0, index));
    while (isHidden(axis, axis.values[n]) && axis.values[n + by] !== undefined) n += by;
    if (isHidden(axis, axis.values[n])) return;
    state.at[axis.key] = axis.values[n];
    if (!shown().length) nearest(Model.axis(axis.key));
  }

  /** Take the roles and their order as they are for chosen ones. */
  const keep = () => { state.chosen = { roles: { ...state.roles }, order: [...state.order] }; };

  /** Give an axis a role; among several of one side a new one stands around those that are there. */
  function choose(key, role) {
    state.roles[key] = role;
    state.order = [key, ...state.order.filter((other) => other !== key)];
    keep();
  }

  /** Exchange an axis with the one around it, or inside it, on its side. */
  function nest(key, by) {
    const side = axesOf(state.roles[key]).map((axis) => axis.key), other = side[side.indexOf(key) + by];
    if (!other) return;
    const [a, b] = [state.order.indexOf(key), state.order.indexOf(other)];
    [state.order[a], state.order[b]] = [other, key];
    keep();
  }

  function hide(axis, values) {
    state.hidden[axis.key] = values.length < axis.values.length ? values : axis.values.slice(1);
    if (!state.hidden[axis.key].length) delete state.hidden[axis.key];
    if (isHidden(axis, state.at[axis.key])) state.at[axis.key] = axis.values.find((value) => !isHidden(axis, value));
  }

  // ── the address ──

  /** The view as an address holds it; a `whole` one names also what is usual here, which a smaller screen may not show. */
  function address(whole = false) {
    const said = new URLSearchParams();
    if (state.chosenLayout || whole) said.set("layout", state.layout);
    if (state.chosen || whole) for (const key of state.order) said.set(`role.${key}`, state.roles[key]);
    for (const axis of Model.axes) {
      if (held(axis) && state.at[axis.key] !== axis.values[0]) said.set(`at.${axis.key}`, state.at[axis.key]);
      for (const value of state.hidden[axis.key] ?? []) said.append(`hide.${axis.key}`, value);
    }
    if (state.score !== usual.score || whole) said.set("score", state.score);
    for (const [key, plain] of [["sort", "job"], ["side", 0], ["spread", "std"], ["x", ""], ["lines", ""], ["filter", ""], ["unedited", "beside"], ["open", ""]]) {
      if (state[key] !== plain) said.set(key, state[key]);
    }
    if (state.shared) said.set("shared", 1);
    if (state.curves !== null) said.set("curves", state.curves ? 1 : 0);
    for (const mark of state.marks) said.append("mark", mark);
    return said.toString();
  }

  function write() {
    const hash = address();
    window.gallery.told?.({ view: hash, open: state.open, marks: [...state.marks] });
    if (FRAMED) view = hash;
    else if (hash !== location.hash.slice(1)) history.replaceState(null, "", hash ? `#${hash}` : location.pathname + location.search);
  }

  function readAddress() {
    const said = new URLSearchParams(view || location.hash.slice(1));
    const chosen = { roles: {}, order: [] };
    Object.assign(state, { at: {}, hidden: {}, chosenLayout: said.has("layout") });
    for (const [key, value] of said) {
      if (key.startsWith("role.") && ROLES.includes(value)) { chosen.roles[key.slice(5)] = value; chosen.order.push(key.slice(5)); }
      if (key.startsWith("at.")) state.at[key.slice(3)] = value;
      if (key.startsWith("hide.")) (state.hidden[key.slice(5)] ??= []).push(value);
    }
    state.chosen = chosen.order.length ? chosen : null;
    state.layout = said.get("layout") === "list" ? "list" : "grid";
    for (const key of ["score", "x", "lines", "filter", "open"]) state[key] = said.get(key) ?? "";
    state.sort = ["high", "low"].includes(said.get("sort")) ? said.get("sort") : "job";
    state.spread = said.get("spread") === "range" ? "range" : "std";
    state.side = Math.min(480, Math.max(0, Number(said.get("side")) || 0));
    state.shared = said.get("shared") === "1";
    state.curves = said.has("curves") ? said.get("curves") === "1" : null;
    state.unedited = { instead: "instead", 1: "instead", none: "none" }[said.get("unedited")] ?? "beside";
    state.marks = said.getAll("mark").slice(0, 2);
  }

  Object.defineProperty(state, "instead", { get: () => (state.unedited === "instead") !== state.holding });
  return Object.assign(state, {
    UNSEEN, settle, numeric, axesOf, place, held, isHidden, shown, visible, goTo, move, choose, nest, hide, most, address, write, readAddress,
    show(given) { view = given; },
    curvesShown: () => state.curves ?? usual.curves ?? false,
  });
})();
