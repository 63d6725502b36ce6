"use strict";
// What stands where: rows and columns of nested axes, the unedited pictures beside them, or one long list.

const Layout = (() => {
  const PAIRED = 400; // pictures up to which each has its unedited one above it unasked
  const grid = byId("scroller");

  const matches = (cell) => {
    const words = State.filter.toLowerCase().split(/\s+/).filter(Boolean);
    if (!words.length) return true;
    const places = cell.at.map((index, a) => `${Model.axes[a].name} ${Model.axes[a].values[index]}`);
    const text = [cell.label, cell.prompt, cell.state, cell.error, `seed ${cell.seed}`, ...places].join("\n").toLowerCase();
    return words.every((word) => text.includes(word));
  };

  /** The combinations of some axes that are there, in their order; the outermost axis changes slowest. */
  function combinations(cells, axes) {
    const found = new Map();
    for (const cell of cells) {
      const own = axes.map((a) => cell.at[a]);
      found.set(own.join(), own);
    }
    return [...found.values()].sort((p, q) => { for (let n = 0; n < p.length; n += 1) if (p[n] !== q[n]) return p[n] - q[n]; return 0; });
  }

  const has = (cell) => cell?.state === "done" && cell.baseline;

  /** Where the unedited pictures go: a column where each row has one, a row where each column has, else above or left of each. */
  function beside(lines) {
    if (State.unedited !== "beside") return "";
    const one = (cells) => new Set(cells.filter(has).map((cell) => cell.same)).size < 2;
    const all = lines.flat();
    if (!all.some(has)) return "";
    if (lines.every(one)) return "column";
    if (lines[0].every((_, n) => one(lines.map((line) => line[n])))) return "row";
    if (all.length > PAIRED && !State.asked) return "";
    const wide = grid.clientWidth / lines[0].length - 5, high = (rows) => ((grid.clientHeight - 70) / rows - 23) * Model.data.aspect;
    const sizes = [Math.min(wide / 2, high(lines.length)), Math.min(wide, high(2 * lines.length))];
    return 2 * lines[0].length <= State.most() && sizes[0] > sizes[1] ? "left" : "pairs";
  }

  /** Heads of one level of nested columns: their texts, and from which to which column each goes. */
  function level(across, combos, depth) {
    const axis = Model.axes[across[depth]], short = Words.cut(combos.map((combo) => axis.values[combo[depth]]), true);
    const heads = [];
    combos.forEach((combo, n) => {
      const before = combos[n - 1];
      if (before && combo.slice(0, depth + 1).join() === before.slice(0, depth + 1).join() && depth < across.length - 1) heads.at(-1).last = n;
      else heads.push({ text: short.get(axis.values[combo[depth]]), full: `${axis.name} ${axis.values[combo[depth]]}`, first: n, last: n });
    });
    return heads;
  }

  function plan() {
    const cells = State.shown().filter(matches);
    if (State.layout === "list") {
      if (State.sort !== "job") {
        const sign = State.sort === "high" ? -1 : 1;
        const value = (cell) => Model.score(cell, State.score) ?? sign * Infinity;
        cells.sort((a, b) => sign * (value(a) - value(b)) || a.n - b.n);
      }
      return { cells, flow: true, lines: [cells] };
    }
    let [down, across] = ["rows", "columns"].map((role) => State.axesOf(role).map((axis) => Model.axis(axis.key)));
    if (!across.length && down.length === 1) [down, across] = [across, down]; // one axis alone goes across
    if (!down.length && across.length === 1 && cells.length > State.most()) { // one axis runs on from line to line
      const first = State.unedited === "beside" && cells.every((cell) => cell.same === cells[0].same) ? cells.find(has) : null;
      const line = first ? [Model.plain(first), ...cells] : cells;
      return { cells, flow: true, along: Model.axes[across[0]], lines: [line] };
    }
    return { cells, flow: false, ...nested(cells, down, across) };
  }

  function nested(cells, down, across) {
    const [rows, columns] = [down, across].map((axes) => combinations(cells, axes));
    const line = new Map(rows.map((combo, n) => [combo.join(), n])), column = new Map(columns.map((combo, n) => [combo.join(), n]));
    const places = rows.map(() => columns.map(() => null));
    for (const cell of cells) places[line.get(down.map((a) => cell.at[a]).join())][column.get(across.map((a) => cell.at[a]).join())] = cell;
    const lead = cells.length ? beside(places) : "";
    const plain = (cell) => (has(cell) ? Model.plain(cell) : null);
    const inner = down.at(-1), short = inner === undefined ? null : Words.cut(Model.axes[inner].values);
    const lines = [];
    if (lead === "row") lines.push({ head: "unedited", full: "unedited", plain: true, cells: columns.map((_, n) => plain(places.map((row) => row[n]).find(has))) });
    rows.forEach((combo, n) => {
      const outer = combo.slice(0, -1).join(), isNew = combo.length > 1 && outer !== rows[n - 1]?.slice(0, -1).join();
      const band = isNew ? down.slice(0, -1).map((a, d) => [Model.axes[a].name, Model.axes[a].values[combo[d]]]) : null;
      const value = inner === undefined ? "" : Model.axes[inner].values[combo.at(-1)];
      const head = short?.get(value) ?? (lead === "row" || lead === "pairs" ? "edited" : "");
      const full = inner === undefined ? head : `${Model.axes[inner].name} ${value}`;
      if (lead === "pairs") lines.push({ band, head, full, span: 2, plain: true, cells: places[n].map(plain) });
      const own = lead === "column" ? [plain(places[n].find(has)), ...places[n]] : lead === "left" ? places[n].flatMap((cell) => [plain(cell), cell]) : places[n];
      lines.push({ band: lead === "pairs" ? null : band, head: lead === "pairs" ? null : head, full, cells: own });
    });
    // tracks: the heads, the unedited column and a gap, the columns with a gap wherever an outer value changes
    const tracks = lines.some(({ head }) => head) ? ["max-content"] : [], at = [];
    if (lead === "column") { at.push(tracks.length + 1); tracks.push("var(--side)", "8px"); }
    columns.forEach((combo, n) => {
      if (n && combo.length > 1 && combo.slice(0, -1).join() !== columns[n - 1].slice(0, -1).join()) tracks.push("8px");
      else if (n && lead === "left") tracks.push("2px");
      for (let k = 0; k < (lead === "left" ? 2 : 1); k += 1) {
        at.push(tracks.length + 1);
        tracks.push("var(--side)");
      }
    });
    const spans = (first, last) => { // from which track to which some columns go
      const by = lead === "left" ? 2 : 1, shift = lead === "column" ? 1 : 0;
      return [at[first * by + shift], at[last * by + by - 1 + shift]];
    };
    return {
      down, across, lead, at, tracks, spans, lines: lines.map((one) => one.cells), rows: lines, columns,
      levels: across.map((_, depth) => level(across, columns, depth)),
    };
  }

  const CURVES = 290; // pixels that the curves take below the grid

  /** The room above curves that lie below the grid, without the place of a scroll bar. */
  function above() {
    const main = byId("main"), scroller = byId("scroller");
    return [main.clientWidth - (scroller.offsetWidth - scroller.clientWidth), main.clientHeight - CURVES];
  }

  /** Whether the curves leave the pictures more room below the grid than beside it. */
  function below(plan, heads) {
    const main = byId("main");
    if (plan.flow || State.open || !State.curvesShown() || main.clientWidth < 900) return false;
    const [wide, height] = above(), under = side(plan, heads, [wide, height]);
    const high = plan.rows.length * (under / Model.data.aspect + 23) + 34 * (plan.levels.length + 1);
    const narrow = main.clientWidth - byId("side-column").dataset.width - 30, least = 52;
    if (high > height) return false;
    if (across(plan, heads, narrow) < least) return across(plan, heads, wide) >= least; // beside them it would be scrolled sideways
    return under > 1.1 * side(plan, heads, [narrow, main.clientHeight]);
  }

  /** How wide a picture is where all columns fill so much width. */
  function across(plan, heads, wide) {
    const gaps = plan.tracks.reduce((sum, track) => sum + (parseInt(track, 10) || 0), 0);
    return (wide - 8 - heads - gaps - 5 * (plan.tracks.length - 1)) / Math.max(1, plan.at.length);
  }

  /** How wide a picture is so that all columns fill the width; where all rows come to fit as well, a little less. */
  function side(plan, heads, [wide, height] = [grid.clientWidth, grid.clientHeight]) {
    const aspect = Model.data.aspect, width = wide - 8;
    const clamp = (value, most = 420) => Math.floor(Math.max(Math.min(innerWidth < 600 ? 44 : 52, width), Math.min(most, value)));
    if (plan.flow) {
      const usual = innerWidth < 600 ? 88 : 136, count = Math.max(1, Math.floor(width / usual));
      return clamp(plan.lines[0].length < count ? Math.min(width / plan.lines[0].length, 2 * usual) - 6 : width / count - 6.5);
    }
    const all = across(plan, heads, wide);
    const lines = plan.rows.length, bands = plan.rows.filter(({ band }) => band).length;
    const free = height - 34 * plan.levels.length - 34 * bands - 22;
    const tall = (free / Math.max(1, lines) - 23) * aspect;
    if (all < (innerWidth < 600 ? 44 : 52)) return innerWidth < 600 ? 72 : 104; // it has to be scrolled sideways anyway
    if (innerWidth <= 760) return clamp(all, Math.max(120, 0.8 * innerHeight * aspect));
    return clamp(tall >= 96 ? Math.min(all, tall) : Math.min(all, Math.max(160, (free / 2.3 - 23) * aspect)));
  }

  return { plan, matches, side, below, above };
})();
