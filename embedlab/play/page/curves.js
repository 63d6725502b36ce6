"use strict";
// Settings that change over the steps: how they change, their curve, whose points can be moved, and their numbers.

const Curves = (() => {
  const WAYS = { Ramp: "a line", Switch: "steps", Alternate: "in turn" };
  const HOME = "embedlab.schedule.";
  const WIDE = 360, HIGH = 104, LEFT = 40, RIGHT = 14, TOP = 10, BOTTOM = 20; // of a drawing, and its margins
  const NEAR = 18; // how far from a point it can be taken hold of
  const CLOCKS = { fraction: "of the steps", step: "(steps)", timestep: "(timesteps)" };
  let steps = 1;

  const rounded = (value) => Number(value.toPrecision(6));
  const clockOf = (value) => value.clock ?? (wayOf(value) === "Alternate" ? "step" : "fraction");
  const lastOf = (clock) => ({ fraction: 1, step: steps, timestep: 1000 })[clock];
  const grain = (clock) => (clock === "fraction" ? 0.01 : 1);

  /** What a schedule is called, "" for what is none. */
  const wayOf = (value) => (typeof value?._target_ === "string" && Object.keys(WAYS).find((way) => [`${HOME}${way}`, `embedlab.${way}`].includes(value._target_))) || "";

  /** When a schedule's values change: as many as it has (a line), or one fewer (steps). */
  const timesOf = (value) => (wayOf(value) === "Alternate" ? [] : Array.isArray(value.at) ? value.at : value.at === undefined ? [0, 1] : [value.at]);

  /** Whether a field has a form for a schedule: of numbers for a slider, else of texts, by a clock that is drawn. */
  function drawn(field, value) {
    const way = wayOf(value), kind = field.kind === "source" ? "string" : "number";
    return Boolean(way) && Array.isArray(value.values) && value.values.every((one) => typeof one === kind) && clockOf(value) in CLOCKS && timesOf(value).every((one) => typeof one === "number") && ways(field).includes(way);
  }

  /** How a setting may change. Between words, and between whole numbers, there is no line. */
  const ways = (field) => (!field.timed || !(field.ends || field.kind === "source") ? [] : field.kind === "number" ? ["Ramp", "Switch", "Alternate"] : ["Switch", "Alternate"]);

  const even = (way, many) => Array.from({ length: way === "Ramp" ? many : many - 1 }, (_, n) => rounded(way === "Ramp" ? n / (many - 1) : (n + 1) / many));

  /** A value that changes in another way, or no more: the values stay, as far as they can. */
  function turned(value, way, first) {
    const values = wayOf(value) ? value.values : value === first ? [first, first] : [first, value];
    if (!way) return values[values.length - 1];
    const now = { _target_: HOME + way, values };
    return way === "Alternate" ? { ...now, every: 1 } : { ...now, at: even(way, values.length) };
  }

  /** A value with another one in a place of one of its lists. */
  const placed = (value, key, n, one) => ({ ...value, [key]: (key === "at" ? timesOf(value) : value[key]).map((old, k) => (k === n ? one : old)) });

  /** With one more point at the end, or with one fewer. */
  function longer(value) {
    const values = [...value.values, value.values[value.values.length - 1]], way = wayOf(value);
    if (way === "Alternate") return { ...value, values };
    const at = timesOf(value), clock = clockOf(value), last = clock === "timestep" ? 0 : lastOf(clock), end = at[at.length - 1];
    if (way === "Ramp" && Math.abs(end - last) < 1e-9) { // there is no time after the last: the new one goes between
      const before = at[at.length - 2], middle = clock === "fraction" ? rounded((before + end) / 2) : Math.round((before + end) / 2);
      const between = rounded((value.values[value.values.length - 2] + value.values[value.values.length - 1]) / 2);
      return { ...value, values: [...value.values.slice(0, -1), between, value.values[value.values.length - 1]], at: [...at.slice(0, -1), middle, end] };
    }
    return { ...value, values, at: [...at, clock === "fraction" ? rounded((end + last) / 2) : Math.round((end + last) / 2)] };
  }

  function shorter(value, n) {
    const without = (list, k) => list.filter((_, at) => at !== k);
    if (wayOf(value) === "Alternate") return { ...value, values: without(value.values, n) };
    return { ...value, values: without(value.values, n), at: without(timesOf(value), wayOf(value) === "Ramp" ? n : Math.max(0, n - 1)) };
  }

  /** The same times by another clock. */
  function retimed(value, clock) {
    const old = clockOf(value), share = (time) => (old === "timestep" ? 1 - time / 1000 : time / lastOf(old));
    const now = (time) => (clock === "timestep" ? Math.round(1000 * (1 - share(time))) : clock === "step" ? Math.round(steps * share(time)) : rounded(share(time)));
    return { ...value, at: timesOf(value).map(now), clock };
  }

  // ── drawing ──

  const shareOf = (time, clock) => (clock === "timestep" ? 1 - time / 1000 : time / lastOf(clock));
  const timeAt = (share, clock) => { const raw = clock === "timestep" ? 1000 * (1 - share) : share * lastOf(clock), fine = grain(clock); return rounded(Math.round(raw / fine) * fine); };
  const across = (share) => LEFT + (WIDE - LEFT - RIGHT) * share;
  const up = (value, [low, high]) => HIGH - BOTTOM - ((HIGH - BOTTOM - TOP) * (value - low)) / (high - low || 1);
  const label = (x, y, text, anchor = "start") => svg("text", { x, y, "text-anchor": anchor }, text);

  /** The parts of the steps, each with its value: [from, to, number of the value]. */
  function parts(value) {
    const clock = clockOf(value), many = value.values.length;
    if (wayOf(value) === "Alternate") {
      const turns = Math.ceil(steps / (value.every ?? 1));
      return Array.from({ length: turns }, (_, n) => [(n * (value.every ?? 1)) / steps, Math.min(1, ((n + 1) * (value.every ?? 1)) / steps), n % many]);
    }
    const marks = [0, ...timesOf(value).map((time) => shareOf(time, clock)), 1];
    return value.values.map((_, n) => [marks[n], marks[n + 1], n]);
  }

  /** What can be moved: [x, y, number of a value or null, number of a time or null]. */
  function points(value, ends) {
    const way = wayOf(value), clock = clockOf(value), at = timesOf(value), flat = typeof value.values[0] !== "number";
    if (way === "Ramp") return value.values.map((one, n) => [across(shareOf(at[n], clock)), up(one, ends), n, n]);
    const levels = flat ? [] : (way === "Alternate" ? parts(value).slice(0, value.values.length) : parts(value)).map(([from, to, n]) => [across((from + to) / 2), up(value.values[n], ends), n, null]);
    const edges = at.map((time, n) => [across(shareOf(time, clock)), flat ? HIGH / 2 : (up(value.values[n], ends) + up(value.values[n + 1], ends)) / 2, null, n]);
    return [...levels, ...edges];
  }

  function line(value, ends) {
    if (wayOf(value) === "Ramp") {
      const at = timesOf(value).map((time) => shareOf(time, clockOf(value))), values = value.values;
      const now = (share) => {
        if (share <= at[0]) return values[0];
        const n = at.findIndex((time) => share < time);
        if (n < 0) return values[values.length - 1];
        const part = (share - at[n - 1]) / (at[n] - at[n - 1]);
        return values[n - 1] + (values[n] - values[n - 1]) * (value.shape === "cosine" ? (1 - Math.cos(Math.PI * part)) / 2 : part);
      };
      const shares = [...new Set([...Array.from({ length: 61 }, (_, n) => n / 60), ...at.filter((one) => one >= 0 && one <= 1)])].sort((a, b) => a - b);
      return shares.map((share) => `${across(share).toFixed(1)},${up(now(share), ends).toFixed(1)}`).join(" ");
    }
    return parts(value).flatMap(([from, to, n]) => [from, to].map((share) => `${across(share).toFixed(1)},${up(value.values[n], ends).toFixed(1)}`)).join(" ");
  }

  function bands(value) {
    return parts(value).filter(([from, to]) => to > from).map(([from, to, n]) => {
      const x = across(from), wide = across(to) - x, room = Math.floor(wide / 6.4), text = String(value.values[n]);
      return svg("g", { class: text ? `lane lane-${n % 6}` : "lane quiet" },
        svg("rect", { x, y: TOP, width: wide, height: HIGH - BOTTOM - TOP }),
        text && room > 1 ? label(x + wide / 2, HIGH / 2, text.length > room ? `${text.slice(0, room - 1)}…` : text, "middle") : []);
    });
  }

  function picture(value, ends) {
    const flat = typeof value.values[0] !== "number", alternating = wayOf(value) === "Alternate";
    const drawing = flat ? bands(value) : [
      svg("path", { class: "frame", d: `M${LEFT} ${up(ends[0], ends)}H${WIDE - RIGHT}M${LEFT} ${up(ends[1], ends)}H${WIDE - RIGHT}` }),
      svg("polyline", { class: "curve", points: line(value, ends) }),
      label(LEFT - 11, up(ends[1], ends) + 4, say(ends[1]), "end"), label(LEFT - 11, up(ends[0], ends) + 4, say(ends[0]), "end")];
    const clock = clockOf(value), [first, last] = clock === "timestep" ? ["timestep 1000", "0"] : ["step 0", String(steps)];
    return [...drawing, label(LEFT, HIGH - 4, first), label(WIDE - RIGHT, HIGH - 4, last, "end"),
      ...points(value, ends).map(([x, y, v, t]) => svg("circle", { cx: x, cy: y, r: v === null ? 4.5 : 6, class: v === null ? "edge" : alternating || t === null ? "level" : "point" }))];
  }

  /** A time that lies between its neighbours, a grain away from those of a line. */
  function bounded(value, n, time) {
    const at = timesOf(value), clock = clockOf(value), falling = clock === "timestep" ? -1 : 1, fine = grain(clock);
    const before = at[n - 1] === undefined ? (falling > 0 ? 0 : 1000) : at[n - 1] + falling * fine;
    const after = at[n + 1] === undefined ? (falling > 0 ? lastOf(clock) : 0) : at[n + 1] - falling * fine;
    const [low, high] = falling > 0 ? [before, after] : [after, before];
    return rounded(Math.min(high, Math.max(low, time)));
  }

  /** The drawing of a schedule, whose points are dragged: `set(value, dragged)` is told of each move. */
  function drawing(name, now, ends, fine, set) {
    const root = svg("svg", { viewBox: `0 0 ${WIDE} ${HIGH}`, class: "over", role: "img" });
    let held = null;
    const paint = () => {
      const value = now();
      root.setAttribute("aria-label", `${name} over the steps: ${value.values.map(String).filter(Boolean).join(", ")}`);
      root.replaceChildren(...picture(value, ends(value)));
    };
    const at = (event) => { const box = root.getBoundingClientRect(); return [((event.clientX - box.left) * WIDE) / box.width, ((event.clientY - box.top) * HIGH) / box.height]; };
    const nearest = (x, y) => points(now(), ends(now())).map((point) => [Math.hypot(point[0] - x, point[2] === null && typeof now().values[0] !== "number" ? 0 : point[1] - y), point]).sort((a, b) => a[0] - b[0])[0];
    root.addEventListener("pointerdown", (event) => {
      const [x, y] = at(event), found = nearest(x, y);
      if (!found || found[0] > NEAR) return;
      event.preventDefault();
      document.activeElement?.blur?.(); // what was typed is done
      root.setPointerCapture(event.pointerId);
      held = { v: found[1][2], t: found[1][3], ends: ends(now()) };
    });
    root.addEventListener("pointermove", (event) => {
      if (!held) return;
      const [x, y] = at(event), [low, high] = held.ends;
      let value = now();
      if (held.v !== null) {
        const raw = low + ((HIGH - BOTTOM - y) / (HIGH - BOTTOM - TOP)) * (high - low);
        value = placed(value, "values", held.v, rounded(Math.min(high, Math.max(low, Math.round(raw / fine) * fine))));
      }
      if (held.t !== null) value = placed(value, "at", held.t, bounded(value, held.t, timeAt((x - LEFT) / (WIDE - LEFT - RIGHT), clockOf(value))));
      set(value, true);
      paint();
    });
    const end = () => { if (held) { held = null; set(now(), false); } };
    root.addEventListener("pointerup", end);
    root.addEventListener("pointercancel", end);
    paint();
    return { root, paint };
  }

  // ── the numbers under it ──

  /** The curve of a setting with its numbers: what a field shows in the place of its slider. */
  function form({ id, field, now, ends, fine, set, redraw }) {
    const value = now(), way = wayOf(value), clock = clockOf(value), number = field.kind !== "source";
    const inputs = [];
    const curve = drawing(field.name, now, ends, fine, (next, dragged) => { set(next, dragged); for (const fresh of inputs) fresh(); });
    const box = (key, n, says, name) => {
      const numeric = key !== "values" || number;
      const node = el("input", { type: "text", id: `${id}-${key}-${n}`, class: numeric ? "number" : "", "aria-label": name, autocomplete: "off", spellcheck: false, inputMode: numeric ? "decimal" : "text",
        oninput: () => { const next = read(); if (next !== null) { set(put(next), true); curve.paint(); } },
        onchange: () => { const next = read(); if (next !== null) set(put(next)); node.value = String(says()); curve.paint(); } });
      const read = () => { const text = node.value.trim(); return numeric ? (text === "" || !Number.isFinite(Number(text)) ? null : Number(text)) : text || null; };
      const put = (next) => (key === "every" ? { ...now(), every: Math.max(1, Math.round(next)) } : placed(now(), key, n, next));
      const fresh = () => { if (document.activeElement !== node) node.value = String(says()); };
      node.value = String(says());
      inputs.push(fresh);
      return node;
    };
    const many = value.values.length, at = timesOf(value);
    const rows = value.values.map((_, n) => {
      const time = way === "Ramp" ? n : n - 1;
      const timed = way !== "Alternate" && time >= 0 && [el("span", { class: "note" }, way === "Ramp" ? "at" : "from"), box("at", time, () => timesOf(now())[time], `time ${time + 1} of ${field.name}`)];
      return el("div", { class: `turn-of${many > 2 ? " several" : ""}${way === "Alternate" ? " plain" : ""}` }, box("values", n, () => now().values[n], `value ${n + 1} of ${field.name}`), timed || (way !== "Alternate" && [el("span", { class: "note" }, "at first"), el("span")]),
        many > 2 && el("button", { type: "button", class: "drop", "aria-label": `Remove value ${n + 1} of ${field.name}`, onclick: () => { set(shorter(now(), n)); redraw(); } }, "×"));
    });
    const by = el("select", { id: `${id}-clock`, "aria-label": `What the times of ${field.name} are counted in`, onchange: (event) => { set(retimed(now(), event.target.value)); redraw(); } });
    if (way !== "Alternate") fill(by, Object.entries({ fraction: "by share of steps", step: "by step", ...(clock === "timestep" ? { timestep: "by timestep" } : {}) }), clock);
    const shape = way === "Ramp" && el("select", { id: `${id}-shape`, "aria-label": `Shape of ${field.name}`, onchange: (event) => { set({ ...now(), shape: event.target.value }); redraw(); } });
    if (shape) fill(shape, [["linear", "straight"], ["cosine", "half a wave"]], value.shape ?? "linear");
    const every = way === "Alternate" && el("span", { class: "every" }, "every ", box("every", 0, () => now().every ?? 1, `steps of each value of ${field.name}`), " steps");
    const full = way !== "Alternate" && at.length > 1 && Math.abs(at[at.length - 1] - at[at.length - 2]) <= 2 * grain(clock);
    return [curve.root, el("div", { class: "turns" }, rows),
      el("div", { class: "how" }, el("button", { type: "button", class: "more", disabled: many > 7 || full, onclick: () => { set(longer(now())); redraw(); } }, "+ value"), shape, way !== "Alternate" && by, every)];
  }

  /** The choice of how a setting changes. */
  function choice({ id, field, value, first, now, set, redraw }) {
    const select = el("select", { id: `${id}-way`, class: "way", "aria-label": `How ${field.name} changes over the steps`, title: "Let it change over the steps", onchange: (event) => { set(turned(now(), event.target.value, first)); redraw(); } });
    fill(select, [["", "constant"], ...ways(field).map((way) => [way, WAYS[way]])], wayOf(value));
    return select;
  }

  /** What a sweep may try of it: each number, and the time of a single change. */
  function swept(field, value, [from, to]) {
    if (field.kind === "source") return single(value);
    return [...value.values.map((_, n) => ({ part: "values", n, from, to, whole: field.kind === "whole", said: `value ${n + 1}` })), ...single(value)];
  }

  function single(value) {
    const clock = clockOf(value);
    return wayOf(value) === "Switch" && timesOf(value).length === 1 ? [{ part: "at", n: 0, from: 0, to: lastOf(clock), whole: clock !== "fraction", said: "time" }] : [];
  }

  /** The part of the steps in which an edit works: all of them, or from one time until another. */
  function lasting({ id, name, now, set, redraw }) {
    const during = now(), clock = during?.clock ?? "fraction", known = clock in CLOCKS, last = clock === "timestep" ? 0 : lastOf(clock), first = clock === "timestep" ? 1000 : 0;
    const select = el("select", { id: `${id}-way`, "aria-label": `When ${name} works`, onchange: (event) => { set(event.target.value ? { begin: 0.2, end: 0.6 } : null); redraw(); } });
    fill(select, [["", "in all steps"], ["part", "in some steps"]], during ? "part" : "");
    if (!during) return [select];
    if (!known) return [select, el("p", { class: "note" }, `begin ${during.begin ?? "–"}, end ${during.end ?? "–"}, by ${clock}`)];
    const times = () => [now().begin ?? first, now().end ?? last];
    const value = () => ({ _target_: `${HOME}Switch`, values: ["", "works", ""], at: times(), clock });
    const take = ([begin, end]) => ({ ...(clock === "fraction" ? {} : { clock }), begin, ...(end === last ? {} : { end }) });
    const inputs = [];
    const curve = drawing(`when ${name} works`, value, () => [0, 1], 1, (next, dragged) => { set(take(next.at), dragged); for (const fresh of inputs) fresh(); });
    const box = (n, said) => {
      const node = el("input", { type: "text", class: "number", id: `${id}-${n}`, "aria-label": said, autocomplete: "off", inputMode: "decimal",
        onchange: () => { const given = Number(node.value); if (node.value.trim() !== "" && Number.isFinite(given)) set(take(times().map((old, k) => (k === n ? given : old)))); node.value = String(times()[n]); curve.paint(); } });
      inputs.push(() => { node.value = String(times()[n]); });
      node.value = String(times()[n]);
      return node;
    };
    return [select, curve.root, el("div", { class: "how" }, el("span", { class: "note" }, "from"), box(0, `from when ${name} works`), el("span", { class: "note" }, "until"), box(1, `until when ${name} works`), el("span", { class: "note" }, CLOCKS[clock]))];
  }

  /** What a sweep may try of it. */
  const lasted = (during) => (during && (during.clock ?? "fraction") in CLOCKS && during.clock !== "timestep" ? Object.keys(during).filter((key) => key !== "clock").map((key) => ({ part: key, n: 0, from: 0, to: lastOf(during.clock ?? "fraction"), whole: during.clock === "step", said: key })) : []);

  return { wayOf, drawn, ways, form, choice, swept, lasting, lasted, begin: (about) => { steps = about.steps; } };
})();
