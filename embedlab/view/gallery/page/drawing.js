"use strict";
// The view as one picture: drawn on a canvas with its labels, and saved as a PNG.

const Drawing = (() => {
  const PAD = 24, GAP = 5, STRIP = 18, WHO = 34, FONT = "system-ui, sans-serif";
  const LARGEST = 16000, AREA = 120e6; // what browsers allow a canvas: pixels a side, and in all

  /** A text in lines that are no wider than told, the last with an ellipsis where something is left out. */
  function wrap(pen, text, width, most = 3) {
    const lines = [""];
    for (const word of text.split(/\s+/).filter(Boolean)) {
      const longer = lines.at(-1) ? `${lines.at(-1)} ${word}` : word;
      if (!lines.at(-1) || pen.measureText(longer).width <= width) lines[lines.length - 1] = longer;
      else lines.push(word);
    }
    const cut = lines.slice(0, most);
    return cut.map((line, n) => {
      const more = n === most - 1 && lines.length > most;
      let shown = more ? `${line}…` : line;
      while (shown.length > 2 && pen.measureText(shown).width > width) shown = `${shown.replace(/…$/, "").slice(0, -1)}…`;
      return shown;
    });
  }

  /** The pictures of cells, loaded; one that cannot be read is null. */
  async function pictures(cells) {
    const addresses = await Promise.all(cells.map((cell) => Model.drawable(cell, State.instead)));
    const own = new Map();
    for (const address of new Set(addresses)) {
      const image = new Image();
      image.src = address;
      own.set(address, image.decode().then(() => image, () => null));
    }
    const found = new Map();
    for (const [n, cell] of cells.entries()) found.set(cell.key, await own.get(addresses[n]));
    return found;
  }

  const colours = () => {
    const style = getComputedStyle(document.documentElement), probe = el("span", { class: "unseen" });
    document.body.append(probe);
    const found = Object.fromEntries(["ground", "sunk", "edge", "ink", "soft", "warn"].map((name) => {
      probe.style.color = `var(--${name})`;
      return [name, getComputedStyle(probe).color];
    }));
    probe.remove();
    return { ...found, dark: style.colorScheme };
  };

  /** What is where: boxes of texts and pictures, and how large all of it is. */
  function arrange(pen, plan, side) {
    const tall = Math.round(side / Model.data.aspect), texts = [], boxes = [];
    const write = (text, x, y, width, how = {}) => {
      pen.font = `${how.weight ?? 400} ${how.size ?? 12}px ${FONT}`;
      const lines = wrap(pen, text, width, how.most);
      lines.forEach((line, n) => texts.push({ line, x, y: y + n * (how.size ?? 12) * 1.3, ...how }));
      return lines.length * (how.size ?? 12) * 1.3;
    };
    let y = PAD, width;
    const held = State.layout === "list" ? [] : Model.axes.filter(State.held).map((axis) => `${axis.name} ${State.at[axis.key]}`);
    const prompt = byId("prompt").textContent;
    const title = () => {
      y += write(Model.data.title, PAD, y, width, { weight: 600, size: 16 }) + 4;
      if (prompt) y += write(prompt, PAD, y, width, { size: 13, most: 4 }) + 4;
      if (held.length) y += write(held.join(" · "), PAD, y, width, { ink: "soft" }) + 4;
      y += 8;
    };
    if (plan.flow) {
      const cells = plan.lines[0], across = Math.max(1, Math.min(cells.length, getComputedStyle(byId("grid").firstChild).gridTemplateColumns.split(" ").length));
      width = Math.max(240, across * (side + GAP) - GAP);
      title();
      cells.forEach((cell, n) => boxes.push({ cell, x: PAD + (n % across) * (side + GAP), y: y + Math.floor(n / across) * (tall + STRIP + WHO + GAP) }));
      y += Math.ceil(cells.length / across) * (tall + STRIP + WHO + GAP);
      return { texts, boxes, tall, width, y };
    }
    pen.font = `400 12px ${FONT}`;
    const names = [plan.across, plan.down].map((axes, n) => (axes.length ? `${axes.map((a) => Model.axes[a].name).join(" × ")} ${"→↓"[n]}` : "")).filter(Boolean);
    const headed = plan.tracks[0] === "max-content";
    const heads = headed ? Math.min(190, Math.max(24, ...[...names, ...plan.rows.map(({ head }) => head ?? "")].map((text) => pen.measureText(text).width)) + 10) : 0;
    const lefts = [];
    let x = PAD;
    plan.tracks.forEach((track) => {
      lefts.push(x);
      x += (track === "max-content" ? heads : track.endsWith("px") ? parseInt(track, 10) : side) + GAP;
    });
    width = Math.max(240, x - GAP - PAD);
    title();
    const top = y;
    plan.levels.forEach((level, n) => {
      const inner = n === plan.levels.length - 1;
      let high = 0;
      for (const head of level) {
        const [from, to] = plan.spans(head.first, head.last), left = lefts[from - 1], right = lefts[to - 1] + side;
        high = Math.max(high, write(head.text, (left + right) / 2, y, right - left, { align: "center", ink: inner ? "soft" : "ink", weight: inner ? 400 : 600, most: inner ? 3 : 2 }));
        if (!inner) boxes.push({ rule: [left, right], head: n });
      }
      y += high + 5;
      for (const box of boxes) if (box.head === n) box.y = y - 3;
    });
    if (plan.lead === "column") {
      if (!plan.levels.length) y += 20;
      write("unedited", lefts[plan.at[0] - 1] + side / 2, y - 20, side, { align: "center", ink: "soft" });
    }
    if (headed) names.forEach((name, n) => write(name, PAD + heads, Math.max(top, y - 5 - 14 * (names.length - n)), heads, { align: "right", ink: "soft", size: 11, most: 1 }));
    for (const row of plan.rows) {
      if (row.band) y += write(row.band.map((pair) => pair.join(" ")).join(" · "), PAD, y + 8, width, { weight: 600, most: 2 }) + 12;
      if (row.head) {
        const middle = y + (row.span ? tall + STRIP : tall / 2);
        const lines = wrap(pen, row.head, heads, 4).length;
        write(row.head, PAD + heads, middle - 7 * lines, heads, { align: "right", ink: "soft", most: 4 });
      }
      row.cells.forEach((cell, n) => { if (cell) boxes.push({ cell, x: lefts[plan.at[n] - 1], y }); });
      y += tall + STRIP + GAP;
    }
    return { texts, boxes, tall, width, y };
  }

  async function draw() {
    const plan = Grid.plan, side = Number(byId("grid").dataset.side), ink = colours();
    const canvas = document.createElement("canvas"), pen = canvas.getContext("2d");
    const { texts, boxes, tall, width, y } = arrange(pen, plan, side);
    const range = Model.range(State.score), full = [width + 2 * PAD, y + (range ? 34 : 0) + PAD - GAP];
    const scale = Math.min(2, LARGEST / full[0], LARGEST / full[1], Math.sqrt(AREA / (full[0] * full[1])));
    [canvas.width, canvas.height] = full.map((length) => Math.round(length * scale));
    pen.scale(scale, scale);
    pen.fillStyle = ink.ground;
    pen.fillRect(0, 0, ...full);
    const found = await pictures(boxes.filter(({ cell }) => cell?.state === "done").map(({ cell }) => cell));
    pen.textBaseline = "top";
    const put = (text, x, top, width_, colour, size = 11.5, align = "center", most = 1) => {
      pen.font = `400 ${size}px ${FONT}`;
      [pen.fillStyle, pen.textAlign] = [colour, align];
      wrap(pen, text, width_, most).forEach((line, n) => pen.fillText(line, x, top + n * 14));
    };
    for (const box of boxes) {
      if (box.rule) {
        pen.fillStyle = ink.edge;
        pen.fillRect(box.rule[0], box.y, box.rule[1] - box.rule[0], 1);
        continue;
      }
      const { cell, x } = box, image = found.get(cell.key);
      pen.fillStyle = ink.sunk;
      pen.fillRect(x, box.y, side, tall);
      if (image) {
        const fit = Math.min(side / image.naturalWidth, tall / image.naturalHeight);
        const [w, h] = [image.naturalWidth * fit, image.naturalHeight * fit];
        pen.imageSmoothingQuality = "high";
        pen.drawImage(image, x + (side - w) / 2, box.y + (tall - h) / 2, w, h);
      } else put(cell.state === "done" ? "not readable" : cell.state, x + side / 2, box.y + tall / 2 - 6, side - 8, cell.state === "pending" ? ink.soft : ink.warn);
      if (cell.plain || (State.instead && cell.baseline)) {
        Object.assign(pen, { strokeStyle: ink.soft, lineWidth: 1.5 });
        pen.setLineDash([4, 3]);
        pen.strokeRect(x + 1, box.y + 1, side - 2, tall - 2);
        pen.setLineDash([]);
      }
      const { at, who, value } = Grid.told(cell);
      if (at !== null) {
        pen.fillStyle = Grid.colour(at);
        pen.fillRect(x, box.y + tall, side, STRIP);
      }
      put(value, x + side / 2, box.y + tall + 3, side - 4, at === null ? ink.soft : at > 0.4 ? "#000" : "#fff");
      if (who) put(who, x + 2, box.y + tall + STRIP + 2, side - 4, ink.soft, 11.5, "left", 2);
    }
    for (const { line, x, y: top, size = 12, weight = 400, align = "left", ink: colour = "ink" } of texts) {
      pen.font = `${weight} ${size}px ${FONT}`;
      [pen.fillStyle, pen.textAlign] = [ink[colour], align];
      pen.fillText(line, x, top);
    }
    if (range) legend(pen, ink, range, y + 8);
    return canvas;
  }

  function legend(pen, ink, range, y) {
    const [low, high] = range.map((value) => Model.show(State.score, value));
    Object.assign(pen, { font: `400 12px ${FONT}`, fillStyle: ink.soft, textAlign: "left" });
    const before = `${Model.name(State.score)}   ${low}`, x = PAD + pen.measureText(before).width + 8;
    pen.fillText(before, PAD, y);
    for (let n = 0; n < 120; n += 1) {
      pen.fillStyle = Grid.colour(n / 119);
      pen.fillRect(x + n, y + 2, 1.5, 10);
    }
    pen.fillStyle = ink.soft;
    pen.fillText(high, x + 129, y);
  }

  async function save(button) {
    const name = button.textContent;
    button.disabled = true;
    button.textContent = "Drawing…";
    try {
      const canvas = await draw();
      const blob = await new Promise((done, failed) => { canvas.toBlob((found) => (found ? done(found) : failed(new Error("too large"))), "image/png"); });
      const link = el("a", { href: URL.createObjectURL(blob), download: `${Model.data.title.replace(/[^\p{L}\p{N}._ -]+/gu, "-")}.png` });
      link.click();
      setTimeout(() => URL.revokeObjectURL(link.href), 10000);
      button.textContent = "Saved";
    } catch {
      button.textContent = "It cannot be drawn";
    }
    setTimeout(() => { button.textContent = name; button.disabled = false; }, 1500);
  }

  return { draw, save };
})();
