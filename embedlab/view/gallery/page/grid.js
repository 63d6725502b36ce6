"use strict";
// The grid of pictures, or all of them in a list. Cells get their pictures when they come near the screen.

const Grid = (() => {
  const grid = byId("grid"), scroller = byId("scroller");
  let lines = []; // cells by line, null where nothing lies
  let where = new Map(); // cell number → [line, column]
  let elements = new Map(); // "line,column" → element
  let built = "", selected = null, along = null, near = new Set(), painted = new Set();

  const watcher = new IntersectionObserver((entries) => {
    for (const { target, isIntersecting } of entries) {
      if (!isIntersecting) { near.delete(target); continue; }
      near.add(target);
      paint(target);
    }
  }, { root: scroller, rootMargin: "240px" });

  /** A colour for a share between 0 and 1: even steps in lightness, from violet to yellow. */
  function colour(share) {
    return `oklch(${(0.34 + 0.56 * share).toFixed(3)} ${(0.1 - 0.03 * share + 0.09 * share ** 3).toFixed(3)} ${(300 - 205 * share).toFixed(1)})`;
  }

  function share(cell) {
    const range = Model.range(State.score), value = Model.score(cell, State.score);
    if (!range || value === null) return null;
    return range[1] > range[0] ? (value - range[0]) / (range[1] - range[0]) : 0.5;
  }

  const matches = (cell) => {
    const words = State.filter.toLowerCase().split(/\s+/).filter(Boolean);
    if (!words.length) return true;
    const places = cell.at.map((index, a) => `${Model.axes[a].name} ${Model.axes[a].values[index]}`);
    const text = [cell.label, cell.prompt, cell.state, cell.error, `seed ${cell.seed}`, ...places].join("\n").toLowerCase();
    return words.every((word) => text.includes(word));
  };

  /** Lines of cells, and the heads of lines and columns where those are an axis. */
  function layout() {
    const cells = State.shown().filter(matches);
    if (State.layout === "list") {
      if (State.sort !== "job") {
        const sign = State.sort === "high" ? -1 : 1;
        const value = (cell) => Model.score(cell, State.score) ?? sign * Infinity;
        cells.sort((a, b) => sign * (value(a) - value(b)) || a.n - b.n);
      }
      return { cells, flow: true };
    }
    const rows = State.axisOf("rows"), columns = State.axisOf("columns");
    if (!rows || !columns) return { cells, flow: true, along: rows ?? columns }; // one axis runs on from line to line
    const a = Model.axis(rows.key), b = Model.axis(columns.key);
    const used = (axis) => [...new Set(cells.map((cell) => cell.at[axis]))].sort((x, y) => x - y);
    return { cells, a, b, down: used(a), across: used(b), flow: false };
  }

  function draw() {
    const plan = layout();
    grid.style.setProperty("--side", `${State.side}px`);
    document.documentElement.style.setProperty("--aspect", Model.data.aspect);
    const key = plan.flow ? `flow ${plan.cells.length}` : JSON.stringify([plan.a, plan.b, plan.down, plan.across, Model.data.axes]);
    along = plan.along ?? null;
    if (key !== built) build(plan, key);
    place(plan);
    const none = byId("nothing");
    none?.remove();
    if (!plan.cells.length) {
      grid.append(el("p", { id: "nothing", class: "notice" }, State.filter ? "Nothing here holds these words." : "Nothing lies here."));
    }
    return plan;
  }

  /** New elements for a new shape; texts and pictures come after. */
  function build(plan, key) {
    const focused = grid.contains(document.activeElement);
    built = key;
    watcher.disconnect();
    near = new Set();
    painted = new Set();
    elements = new Map();
    grid.replaceChildren();
    grid.className = plan.flow ? "grid flow" : "grid";
    grid.setAttribute("role", "grid");
    const cell = (line, column) => {
      const node = el("div", { class: "cell", role: "gridcell", tabIndex: -1 });
      node.dataset.place = `${line},${column}`;
      elements.set(node.dataset.place, node);
      return node;
    };
    if (plan.flow) {
      grid.append(el("div", { role: "row", class: "row" }, plan.cells.map((_, n) => cell(0, n))));
    } else {
      const head = (a, index) => Model.axes[a].values[index];
      grid.style.setProperty("--columns", plan.across.length);
      grid.append(el("div", { role: "row", class: "row" },
        el("div", { class: "corner", role: "columnheader" }, el("span", {}, `${Model.axes[plan.b].name} →`), el("span", {}, `${Model.axes[plan.a].name} ↓`)),
        plan.across.map((index) => el("div", { class: "head across", role: "columnheader", title: head(plan.b, index) }, el("span", {}, head(plan.b, index))))));
      plan.down.forEach((row, line) => grid.append(el("div", { role: "row", class: "row" },
        el("div", { class: "head down", role: "rowheader", title: head(plan.a, row) }, el("span", {}, head(plan.a, row))),
        plan.across.map((_, column) => cell(line, column)))));
    }
    for (const node of elements.values()) watcher.observe(node);
    if (focused) queueMicrotask(() => selected && focus(selected, false));
  }

  /** Say which cell stands where, and repaint what is near the screen. */
  function place(plan) {
    where = new Map();
    lines = plan.flow ? [plan.cells] : plan.down.map(() => plan.across.map(() => null));
    if (plan.flow) plan.cells.forEach((cell, n) => where.set(cell.n, [0, n]));
    else {
      const row = new Map(plan.down.map((index, n) => [index, n])), column = new Map(plan.across.map((index, n) => [index, n]));
      for (const cell of plan.cells) {
        const at = [row.get(cell.at[plan.a]), column.get(cell.at[plan.b])];
        lines[at[0]][at[1]] = cell;
        where.set(cell.n, at);
      }
    }
    if (selected) {
      const same = Model.named(selected.key);
      selected = same && where.has(same.n) ? same : standIn();
    }
    selected ??= plan.cells[0] ?? null;
    for (const element of painted) if (!near.has(element)) blank(element);
    for (const element of near) paint(element);
    for (const element of grid.querySelectorAll('[tabindex="0"]')) element.tabIndex = -1;
    const element = selected && elementOf(selected);
    if (element) element.tabIndex = 0;
  }

  /** Whoever stands now where the selected cell stood. */
  function standIn() {
    const before = grid.querySelector('[tabindex="0"]')?.dataset.place;
    return before ? cellAt(before) : null;
  }

  const cellAt = (text) => { const [line, column] = text.split(",").map(Number); return lines[line]?.[column] ?? null; };
  const elementOf = (cell) => elements.get((where.get(cell.n) ?? []).join());

  /** What a cell is called. */
  function title(cell) {
    const places = Model.axes.map((axis, a) => `${axis.name} ${axis.values[cell.at[a]]}`);
    const value = State.score && Model.score(cell, State.score) !== null ? [`${Model.name(State.score)} ${Model.show(State.score, Model.score(cell, State.score))}`] : [];
    return [cell.label, ...places, ...(cell.state === "done" ? value : [cell.state, cell.error])].filter(Boolean).join(", ").slice(0, 400);
  }

  /** Take what a cell shows away; it comes back, as it then is, when the cell is near again. */
  function blank(element) {
    painted.delete(element);
    element.replaceChildren();
    element.removeAttribute("aria-label");
  }

  function paint(element) {
    painted.add(element);
    const cell = cellAt(element.dataset.place);
    element.classList.toggle("absent", !cell);
    element.classList.toggle("marked", Boolean(cell) && State.marks.includes(cell.key));
    element.classList.toggle("opened", Boolean(cell) && State.open === cell.key);
    if (!cell) {
      element.replaceChildren();
      element.removeAttribute("aria-label");
      element.dataset.state = "absent";
      return;
    }
    element.setAttribute("aria-label", title(cell));
    element.dataset.state = cell.state;
    element.dataset.key = cell.key;
    if (cell.state !== "done") {
      element.replaceChildren(el("span", { class: "reason", title: cell.error }, el("b", {}, cell.state), cell.error && ` ${cell.error.slice(0, 300)}`), caption(cell));
      return;
    }
    let picture = element.querySelector("img");
    if (!picture) {
      picture = el("img", { alt: "", decoding: "async", draggable: false });
      picture.addEventListener("error", () => element.classList.add("broken"));
      picture.addEventListener("load", () => element.classList.remove("broken"));
      element.replaceChildren(picture, el("span", { class: "strip" }));
    }
    const address = Model.address(cell, { unedited: State.unedited, small: true });
    if (picture.getAttribute("src") !== address) picture.src = address;
    element.classList.toggle("plain", State.unedited && Boolean(cell.baseline));
    element.lastChild.replaceWith(caption(cell));
  }

  /** The score in its colour, and in a list which cell this is. */
  function caption(cell) {
    const at = State.unedited && cell.baseline ? null : share(cell);  // scores are those of the edited picture
    const value = el("span", { class: "value" }, State.score && at !== null ? Model.show(State.score, Model.score(cell, State.score)) : "");
    if (at !== null) {
      value.style.background = colour(at);
      value.style.color = at > 0.4 ? "#000" : "#fff";
    }
    const named = along ? `${along.name} ${along.values[cell.at[Model.axis(along.key)]]}` : `seed ${cell.seed ?? "–"} · ${cell.label}`;
    return el("span", { class: "strip" }, grid.classList.contains("flow") && el("span", { class: "who", title: cell.label }, named), value);
  }

  /** Move the focus to a cell. */
  function focus(cell, scroll = true) {
    const element = cell && elementOf(cell);
    if (!element) return;
    for (const other of grid.querySelectorAll('[tabindex="0"]')) other.tabIndex = -1;
    selected = cell;
    element.tabIndex = 0;
    paint(element);
    element.focus({ preventScroll: !scroll });
  }

  /** The next cell in a direction, gaps skipped. */
  function step(dx, dy) {
    if (!selected || !where.has(selected.n)) return null;
    let [line, column] = where.get(selected.n);
    if (grid.classList.contains("flow")) {
      const across = Math.max(1, getComputedStyle(grid.firstChild).gridTemplateColumns.split(" ").length);
      return lines[0][column + dx + dy * across] ?? null;
    }
    for (;;) {
      line += dy; column += dx;
      if (line < 0 || column < 0 || line >= lines.length || column >= lines[0].length) return null;
      if (lines[line][column]) return lines[line][column];
    }
  }

  /** The first or last cell of the selected one's line. */
  function end(last) {
    const line = lines[where.get(selected?.n)?.[0]]?.filter(Boolean) ?? [];
    return line.at(last ? -1 : 0) ?? null;
  }

  /** Fetch the pictures that a move of a slider would show. */
  function preload(axis) {
    const a = Model.axis(axis.key);
    for (const element of near) {
      const cell = cellAt(element.dataset.place);
      if (!cell) continue;
      for (const by of [-1, 1]) {
        const other = Model.at(cell.at.with(a, cell.at[a] + by));
        if (other?.state === "done") new Image().src = Model.address(other, { unedited: State.unedited, small: true });
      }
    }
  }

  const cellOf = (event) => {
    const element = event.target.closest?.(".cell");
    return element ? cellAt(element.dataset.place) : null;
  };

  return {
    draw, focus, step, end, preload, colour, cellOf, title, matches,
    repaint: () => near.forEach(paint),
    get selected() { return selected; },
    select(cell) { selected = cell; },
  };
})();
