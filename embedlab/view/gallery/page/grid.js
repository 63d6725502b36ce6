"use strict";
// The grid of pictures, or all of them in a list. Cells get their pictures when they come near the screen.

const Grid = (() => {
  const grid = byId("grid"), scroller = byId("scroller");
  let lines = []; // cells by line, null where nothing lies
  let where = new Map(); // a cell's key → [line, column]
  let elements = new Map(); // "line,column" → element
  let built = "", selected = null, now = null, near = new Set(), painted = new Set(), captions = new Map();

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

  function draw() {
    const plan = Layout.plan();
    now = plan;
    document.documentElement.style.setProperty("--aspect", Model.data.aspect);
    const key = plan.flow ? `flow ${plan.lines[0].length}` : JSON.stringify([plan.down, plan.across, plan.tracks, plan.rows.map(({ band, head, span }) => [band, head, span]), plan.levels, Model.data.axes]);
    if (plan.flow) captions = Words.cut(plan.cells.map((cell) => cell.label), true);
    if (key !== built) build(plan, key);
    fit();
    place(plan);
    const none = byId("nothing");
    none?.remove();
    if (!plan.cells.length) {
      grid.append(el("p", { id: "nothing", class: "notice" }, State.filter ? "Nothing here holds these words." : "Nothing lies here."));
    }
    return plan;
  }

  /** Pictures as large as was chosen, or as fill the width. */
  function fit() {
    if (!now) return;
    const heads = (grid.querySelector(".down") ?? grid.querySelector(".corner"))?.offsetWidth ?? 0;
    byId("side-column").dataset.width = Math.min(480, Math.max(360, 0.31 * innerWidth));
    const below = Layout.below(now, heads);
    byId("main").classList.toggle("below", below);
    const side = State.side || Layout.side(now, heads, below ? Layout.above() : undefined);
    grid.style.setProperty("--side", `${side}px`);
    grid.dataset.side = side;
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
    if (plan.flow) grid.append(el("div", { role: "row", class: "row" }, plan.lines[0].map((_, n) => cell(0, n))));
    else {
      grid.style.setProperty("--tracks", plan.tracks.join(" "));
      if (plan.levels.length || plan.lead === "column") grid.append(heads(plan));
      plan.rows.forEach((row, line) => {
        if (row.band) grid.append(band(row.band));
        grid.append(el("div", { role: "row", class: "row" }, down(plan, row), row.cells.map((_, column) => {
          const node = cell(line, column);
          node.style.gridColumn = plan.at[column];
          return node;
        })));
      });
    }
    for (const node of elements.values()) watcher.observe(node);
    if (focused) queueMicrotask(() => selected && focus(selected, false));
  }

  /** The head of a row; over two lines where the unedited pictures have one of their own. */
  function down(plan, row) {
    if (plan.tracks[0] !== "max-content" || row.head === null) return null;
    return el("div", { class: `head down${row.span ? " both" : ""}`, role: "rowheader", title: row.full }, el("span", {}, row.head));
  }

  /** The values of outer axes, above the rows that have them. */
  const band = (parts) => el("div", { role: "row", class: "row" }, el("div", { class: "group-head", role: "rowheader" }, el("span", {}, parts.map(([name, value], n) => [n > 0 && " · ", el("small", {}, name), " ", value]))));

  /** The heads of all columns, a line for each nested axis, which stay in sight. */
  function heads(plan) {
    const depth = Math.max(1, plan.levels.length);
    const spot = (node, line, tall, first, last = first) => {
      node.style.gridRow = `${line} / span ${tall}`; // the first line is for the corner of narrow screens
      node.style.gridColumn = `${first} / ${last + 1}`;
      return node;
    };
    const shift = plan.lead === "column" ? 1 : 0;
    const names = [plan.across.length > 0 && `${plan.across.map((a) => Model.axes[a].name).join(" × ")} →`, plan.down.length > 0 && `${plan.down.map((a) => Model.axes[a].name).join(" × ")} ↓`];
    const corner = plan.tracks[0] === "max-content" && spot(el("div", { class: "corner", role: "columnheader" }, names.filter(Boolean).map((name) => el("span", {}, name))), 1, depth + 1, 1);
    const lead = shift > 0 && spot(el("div", { class: "head across lead", role: "columnheader" }, el("span", {}, "unedited")), 2, depth, plan.at[0]);
    const rows = plan.levels.map((level, n) => el("div", { class: "row", role: "row" }, n === 0 && [corner, lead], level.map((head) => spot(
      el("div", { class: n < plan.levels.length - 1 ? "head across outer" : "head across", role: "columnheader", title: head.full }, el("span", {}, head.text)),
      n + 2, 1, ...plan.spans(head.first, head.last)))));
    return el("div", { class: "heads", role: "rowgroup" }, rows.length ? rows : el("div", { class: "row", role: "row" }, corner, lead));
  }

  /** Say which cell stands where, and repaint what is near the screen. */
  function place(plan) {
    lines = plan.lines;
    where = new Map();
    lines.forEach((line, l) => line.forEach((cell, c) => { if (cell) where.set(cell.key, [l, c]); }));
    if (selected) {
      const same = Model.named(selected.key);
      selected = same && where.has(same.key) ? same : standIn();
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
  const elementOf = (cell) => elements.get((where.get(cell.key) ?? []).join());

  /** What a cell is called. */
  function title(cell) {
    const places = Model.axes.map((axis, a) => `${axis.name} ${axis.values[cell.at[a]]}`);
    if (cell.plain) return ["unedited", ...(Model.axes.some(({ key }) => key === "seed") ? [`seed ${cell.seed}`] : [])].join(", ");
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
    const address = Model.address(cell, { unedited: State.instead, small: true });
    if (picture.getAttribute("src") !== address) picture.src = address;
    element.classList.toggle("plain", Boolean(cell.plain) || (State.instead && Boolean(cell.baseline)));
    element.lastChild.replaceWith(caption(cell));
  }

  /** What stands under a picture: the score in its colour, and in a list which cell this is. */
  function told(cell) {
    const at = cell.plain || (State.instead && cell.baseline) ? null : share(cell); // scores are those of the edited picture
    const along = now?.along, flow = now?.flow;
    const name = cell.plain ? "unedited" : along ? `${along.name} ${along.values[cell.at[Model.axis(along.key)]]}` : `seed ${cell.seed ?? "–"} · ${captions.get(cell.label) ?? cell.label}`;
    return { at, who: flow ? name : "", value: cell.plain && ["pairs", "left"].includes(now?.lead) ? "unedited" : State.score && at !== null ? Model.show(State.score, Model.score(cell, State.score)) : "" };
  }

  function caption(cell) {
    const { at, who, value } = told(cell);
    const shown = el("span", { class: cell.plain ? "value soft" : "value" }, value);
    if (at !== null) {
      shown.style.background = colour(at);
      shown.style.color = at > 0.4 ? "#000" : "#fff";
    }
    return el("span", { class: "strip" }, who && el("span", { class: "who", title: cell.label }, who), shown);
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
    if (!selected || !where.has(selected.key)) return null;
    let [line, column] = where.get(selected.key);
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
    const line = lines[where.get(selected?.key)?.[0]]?.filter(Boolean) ?? [];
    return line.at(last ? -1 : 0) ?? null;
  }

  /** Fetch the pictures that a move of a slider would show. */
  function preload(axis) {
    const a = Model.axis(axis.key);
    for (const element of near) {
      const cell = cellAt(element.dataset.place);
      if (!cell || cell.plain) continue;
      for (const by of [-1, 1]) {
        const other = Model.at(cell.at.with(a, cell.at[a] + by));
        if (other?.state === "done") new Image().src = Model.address(other, { unedited: State.instead, small: true });
      }
    }
  }

  const cellOf = (event) => {
    const element = event.target.closest?.(".cell");
    return element ? cellAt(element.dataset.place) : null;
  };

  return {
    draw, fit, focus, step, end, preload, colour, cellOf, title, told,
    repaint: () => near.forEach(paint),
    get plan() { return now; },
    get selected() { return selected; },
    select(cell) { selected = cell; },
  };
})();
