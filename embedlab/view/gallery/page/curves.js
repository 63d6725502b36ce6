"use strict";
// A score against a numeric axis: a line of means over the seeds, with a band of their spread.

const Curves = (() => {
  const panel = byId("curves");
  const HEIGHT = 210, LEFT = 52, RIGHT = 128, TOP = 12, BOTTOM = 34, MOST = 8;

  const numericAxes = () => Model.axes.filter((axis) => State.numeric(axis) && axis.key !== "seed");

  /** The axis of the abscissa, and the one whose values are lines. */
  function axes() {
    const all = numericAxes();
    const x = all.find((axis) => axis.key === State.x) ?? State.axesOf("columns").toReversed().find((axis) => all.includes(axis))
      ?? all.find((axis) => State.roles[axis.key] === "slider") ?? all[0];
    const others = Model.axes.filter((axis) => axis !== x && axis.key !== "seed" && axis.key !== "repeat");
    const lines = State.lines === "none" ? null
      : others.find((axis) => axis.key === State.lines) ?? others.find((axis) => axis.key === "sweep") ?? others.find((axis) => axis.values.length <= MOST) ?? null;
    return { x, lines, others };
  }

  /** Means and spreads by line and place; the axes that are neither stay where pages, sliders or the selection are. */
  function series({ x, lines }) {
    const a = Model.axis(x.key), b = lines ? Model.axis(lines.key) : -1, seed = Model.axis("seed");
    const here = State.place(), selected = Grid.selected;
    const fixed = Model.axes.map((axis, n) => (n === a || n === b || n === seed ? -1 : State.held(axis) ? here[n] : selected?.at[n] ?? 0));
    const found = new Map();
    for (const cell of State.visible()) {
      if (!cell.at.every((index, n) => fixed[n] < 0 || fixed[n] === index) || x.numbers[cell.at[a]] === null) continue;
      const value = cell.state === "done" ? Model.score(cell, State.score) : null;
      if (value === null) continue;
      const line = b < 0 ? 0 : cell.at[b];
      if (!found.has(line)) found.set(line, new Map());
      const points = found.get(line);
      if (!points.has(cell.at[a])) points.set(cell.at[a], []);
      points.get(cell.at[a]).push(value);
    }
    const names = Model.axes.map((axis, n) => (fixed[n] >= 0 && axis.values.length > 1 ? `${axis.name} ${axis.values[fixed[n]]}` : "")).filter(Boolean);
    const curves = [...found.entries()].sort((p, q) => p[0] - q[0]).slice(0, MOST).map(([line, points]) => ({
      name: b < 0 ? Model.name(State.score) : `${lines.name} ${lines.values[line]}`,
      tag: b < 0 ? "" : lines.values[line],
      points: [...points.entries()].map(([index, values]) => ({ index, x: x.numbers[index], ...summary(values) })).sort((p, q) => p.x - q.x),
    }));
    return { curves, names, left: found.size - curves.length };
  }

  function summary(values) {
    const mean = values.reduce((sum, v) => sum + v, 0) / values.length;
    const deviation = values.length > 1 ? Math.sqrt(values.reduce((sum, v) => sum + (v - mean) ** 2, 0) / (values.length - 1)) : 0;
    const [low, high] = State.spread === "range" ? [Math.min(...values), Math.max(...values)] : [mean - deviation, mean + deviation];
    return { mean, low, high, count: values.length };
  }

  /** Round numbers between two values. */
  function ticks(low, high, about) {
    const rough = (high - low) / about || 1, power = 10 ** Math.floor(Math.log10(rough));
    const step = [1, 2, 2.5, 5, 10].map((n) => n * power).find((n) => n >= rough * 0.999);
    const marks = [];
    for (let n = Math.ceil(low / step - 1e-9); n * step <= high + step * 1e-9; n += 1) marks.push(Number((n * step).toPrecision(10)));
    return marks;
  }

  function draw() {
    const visible = State.curvesShown();
    panel.hidden = !visible;
    byId("show-curves").checked = visible;
    if (!visible) return;
    const chosen = axes();
    if (!chosen.x || !State.score) {
      panel.replaceChildren(el("p", { class: "notice" }, chosen.x ? "There are no scores to draw." : "No setting of numbers varies in this sweep, so that there is no curve."));
      return;
    }
    const { curves, names, left } = series(chosen);
    const most = Math.max(0, ...curves.flatMap(({ points }) => points.map((point) => point.count)));
    const spread = most > 1 ? `mean and ${State.spread === "range" ? "lowest to highest" : "standard deviation"} of ${most} seeds` : "one seed";
    const focused = panel.contains(document.activeElement) ? document.activeElement.id : "";
    panel.replaceChildren(
      el("div", { class: "controls bare" },
        choice("curve-x", "Along", numericAxes().map((axis) => [axis.key, axis.name]), chosen.x.key, (value) => { State.x = value; }),
        chosen.others.length > 0 && choice("curve-lines", "A line for each", [["none", "nothing"], ...chosen.others.map((axis) => [axis.key, axis.name])], chosen.lines?.key ?? "none", (value) => { State.lines = value; }),
        choice("curve-spread", "Band", [["std", "standard deviation"], ["range", "lowest to highest"]], State.spread, (value) => { State.spread = value; }),
        el("p", { class: "note" }, [spread, ...names, left > 0 ? `${left} lines more are not drawn` : ""].filter(Boolean).join("; "))),
      curves.length ? chart(chosen.x, curves) : el("p", { class: "notice" }, `No picture here has ${Model.name(State.score)} yet.`));
    if (focused) byId(focused)?.focus();
  }

  function choice(id, name, options, value, set) {
    const select = el("select", { id, onchange: (event) => { set(event.target.value); draw(); State.write(); } });
    fill(select, options, value);
    return el("div", { class: "field" }, el("label", { htmlFor: id }, name), select);
  }

  function chart(axis, curves) {
    const width = Math.min(960, Math.max(300, panel.clientWidth - 24)), right = curves.length > 1 ? Math.min(RIGHT, width / 4) : 16;
    const points = curves.flatMap((line) => line.points);
    const xs = points.map((point) => point.x);
    let [left, end] = [Math.min(...xs), Math.max(...xs)];
    if (left === end) [left, end] = [left - 0.5, end + 0.5];
    let [low, high] = [Math.min(...points.map((p) => p.low)), Math.max(...points.map((p) => p.high))];
    if (low === high) [low, high] = [low - 0.5, high + 0.5];
    const pad = (high - low) * 0.06;
    [low, high] = [low - pad, high + pad];
    const px = (x) => LEFT + (x - left) / (end - left) * (width - LEFT - right);
    const py = (y) => TOP + (high - y) / (high - low) * (HEIGHT - TOP - BOTTOM);
    const values = [...new Set(xs)].sort((p, q) => p - q);
    const marks = values.length <= 9 ? values : ticks(left, end, 7);
    const drawing = svg("svg", { viewBox: `0 0 ${width} ${HEIGHT}`, width, height: HEIGHT, role: "img", "aria-label": spoken(axis, curves) });
    for (const y of ticks(low, high, 4)) {
      drawing.append(svg("line", { class: "rule", x1: LEFT, x2: width - right, y1: py(y), y2: py(y) }),
        svg("text", { class: "tick", x: LEFT - 7, y: py(y) + 4, "text-anchor": "end" }, Model.show(State.score, y)));
    }
    let free = -Infinity;
    for (const x of marks) {
      const text = String(Number(x.toPrecision(6)));
      if (px(x) < free) continue;
      free = px(x) + 12 + 7 * text.length;
      drawing.append(svg("text", { class: "tick", x: px(x), y: HEIGHT - BOTTOM + 17, "text-anchor": "middle" }, text));
    }
    drawing.append(svg("text", { class: "tick name", x: LEFT + (width - LEFT - right) / 2, y: HEIGHT - 3, "text-anchor": "middle" }, axis.name));
    const now = State.held(axis) ? axis.numbers[axis.values.indexOf(State.at[axis.key])] : Grid.selected && axis.numbers[Grid.selected.at[Model.axis(axis.key)]];
    if (typeof now === "number") drawing.append(svg("line", { class: "now", x1: px(now), x2: px(now), y1: TOP, y2: HEIGHT - BOTTOM }));
    const labels = [];
    curves.forEach((line, n) => {
      const group = svg("g", { class: `line line-${n}` });
      const path = (points) => points.map(([x, y], i) => `${i ? "L" : "M"}${px(x).toFixed(1)} ${py(y).toFixed(1)}`).join("");
      const band = [...line.points.map((p) => [p.x, p.high]), ...line.points.map((p) => [p.x, p.low]).reverse()];
      group.append(svg("path", { class: "band", d: `${path(band)}Z` }), svg("path", { class: "mean", d: path(line.points.map((p) => [p.x, p.mean])) }));
      for (const p of line.points) {
        group.append(svg("circle", { cx: px(p.x), cy: py(p.mean), r: 3 },
          svg("title", {}, `${line.name}, ${axis.name} ${axis.values[p.index]}: ${Model.show(State.score, p.mean)} (${Model.show(State.score, p.low)} to ${Model.show(State.score, p.high)}, ${p.count} seeds)`)));
      }
      drawing.append(group);
      labels.push({ n, name: line.tag, y: py(line.points.at(-1).mean) });
    });
    if (curves.length > 1) {
      labels.sort((p, q) => p.y - q.y).forEach((label, i) => { if (i) label.y = Math.max(label.y, labels[i - 1].y + 15); });
      const over = labels.at(-1).y - (HEIGHT - BOTTOM);
      for (const { n, name, y } of labels) {
        const room = Math.floor((right - 14) / 6.6);
        drawing.append(svg("text", { class: `tag line-${n}`, x: width - right + 10, y: y + 4 - Math.max(0, over) }, name.length > room ? `${name.slice(0, room - 1)}…` : name, name.length > room ? svg("title", {}, name) : []));
      }
    }
    drawing.addEventListener("click", (event) => {
      const x = left + (event.offsetX - LEFT) / (width - LEFT - right) * (end - left);
      const best = values.reduce((p, q) => (Math.abs(q - x) < Math.abs(p - x) ? q : p));
      panel.dispatchEvent(new CustomEvent("reach", { detail: { axis, index: axis.numbers.indexOf(best) } }));
    });
    return drawing;
  }

  /** The curve for those who do not see it. */
  function spoken(axis, curves) {
    const lines = curves.map(({ name, points }) => `${name}: ${points.slice(0, 12).map((p) => `${axis.values[p.index]} ${Model.show(State.score, p.mean)}`).join(", ")}`);
    return `${Model.name(State.score)} along ${axis.name}. ${lines.join("; ")}`;
  }

  return { draw, panel };
})();
