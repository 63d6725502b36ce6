"use strict";
// What data.js says, as objects: cells, the axes that they lie on, scores, details that are read when asked for.

const Model = (() => {
  const listeners = [];
  const packets = new Map(); // name → {promise, resolve}
  let everywhere = null; // whether a cell is one that all sweeps have
  let data = null, cells = [], byPlace = new Map(), byKey = new Map(), ranges = new Map();

  const path = (name) => name.split("/").map(encodeURIComponent).join("/");

  function receive(given) {
    if (!given || given.version === data?.version) return;
    data = given;
    const { texts, jobs } = data;
    cells = data.cells.job.map((job, n) => {
      const text = (kind) => (data.cells[kind][n] < 0 ? "" : texts[data.cells[kind][n]]);
      return {
        n, job, same: data.cells.same?.[n] ?? -1, seed: data.cells.seed[n], at: data.cells.at[n], state: ["done", "failed", "pending"][data.cells.state[n]],
        error: text("error"), file: text("file"), baseline: text("baseline"), strip: data.cells.strip ? text("strip") : "", label: texts[jobs.label[job]],
        prompt: texts[jobs.prompt[job]], maps: (data.cells.maps?.[n] ?? []).map((k) => texts[k]), key: `${jobs.folder[job]}/${data.cells.seed[n]}`,
      };
    });
    byPlace = new Map(cells.map((cell) => [cell.at.join(), cell]));
    byKey = new Map(cells.map((cell) => [cell.key, cell]));
    ranges = new Map();
    everywhere = null;
    const several = data.axes.findIndex(({ key }) => key === "sweep"), repeat = data.axes.findIndex(({ key }) => key === "repeat");
    if (several >= 0) {
      const without = (cell) => cell.at.filter((_, a) => a !== several && a !== repeat).join();
      const found = new Map();
      for (const cell of cells) found.set(without(cell), (found.get(without(cell)) ?? new Set()).add(cell.at[several]));
      everywhere = (cell) => found.get(without(cell)).size === data.axes[several].values.length;
    }
    for (const listen of listeners) listen();
  }

  /** The address of a cell's picture that a canvas may draw: pages of the disk may not read the files beside them. */
  async function drawable(cell, unedited) {
    if (data.carried || !location.protocol.startsWith("file")) return address(cell, { unedited });
    const { packets: names, packet } = data.drawn, n = data.drawn[(unedited || cell.plain) && cell.baseline ? "baseline" : "file"][cell.n];
    const found = await packed(`drawn/${names[Math.floor(n / packet)]}`);
    return found[n % packet] ?? "";
  }

  async function unpacked(text) {
    const bytes = Uint8Array.from(atob(text), (sign) => sign.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
    return JSON.parse(await new Response(stream).text());
  }

  const unpack = async (name, text) => packets.get(`details/${name}`)?.resolve(await unpacked(text));
  const unfold = (name, pictures) => packets.get(`drawn/${name}`)?.resolve(pictures);

  /** What a script beside the page hands over; it is read once. */
  function packed(name) {
    if (!packets.has(name)) {
      const packet = {};
      packet.promise = new Promise((resolve, reject) => { packet.resolve = resolve; packet.reject = reject; });
      packets.set(name, packet);
      load(`${name}.js`, () => { packets.delete(name); packet.reject(new Error(name)); poll(); });
    }
    return packets.get(name).promise;
  }

  /** Insert a script from beside the page. */
  function load(address, failed) {
    const node = el("script", { src: address, async: true });
    node.addEventListener("load", () => node.remove());
    node.addEventListener("error", () => { node.remove(); failed?.(); });
    document.head.append(node);
  }

  /** The details of a cell's job. */
  async function details(cell) {
    const name = data.packets[Math.floor(cell.job / data.packet)];
    const packet = await (data.carried ? unpacked(data.carried.details[name]) : packed(`details/${name}`));
    const job = packet.jobs[cell.job - packet.first];
    return { ...job, settings: { ...packet.common, ...job.settings } };
  }

  /** The address of a picture as it is; one that the page carries is a data: or blob: address. */
  const whole = (name) => (data.carried ? data.carried.uris[data.carried.names[name]] ?? "data:," : data.pictures + path(name));

  /** The unedited picture of a cell as a cell of its own: it can be opened, and compared. */
  function plain(cell) {
    return cell.unedited ??= Object.freeze({ ...cell, plain: true, key: `${cell.key}/unedited`, label: "unedited", strip: "" });
  }

  /** A cell by its key. */
  function named(key) {
    if (!key.endsWith("/unedited")) return byKey.get(key);
    const cell = byKey.get(key.slice(0, -"/unedited".length));
    return cell?.baseline ? plain(cell) : undefined;
  }

  /** What makes a link show a picture, or save one that the page carries. */
  const link = (name, address) => (data.carried ? { href: address, download: name } : { href: address, target: "_blank", rel: "noopener" });

  /** The address of a cell's picture, unedited or not; small where a thumbnail was made. */
  function address(cell, { unedited = false, small = false } = {}) {
    const name = `${data.jobs.folder[cell.job]}/${((unedited || cell.plain) && cell.baseline) || cell.file}`;
    return small && !data.carried && data.thumbnails[cell.n] ? `thumbnails/${path(name)}.webp` : whole(name);
  }

  /** The addresses of the heat maps of a cell, of its picture or of the unedited one, with the word of each. */
  const maps = (cell, unedited = false) => cell.maps
    .map((file) => ({ file, own: file.match(/^maps\/(baseline-)?seed-\d+-(.*)\.png$/) }))
    .filter(({ own }) => own && Boolean(own[1]) === ((unedited || Boolean(cell.plain)) && Boolean(cell.baseline)))
    .map(({ file, own }) => ({ word: own[2], address: whole(`${data.jobs.folder[cell.job]}/${file}`) }));

  /** The address of the strip of a cell's kept steps. */
  const strip = (cell) => cell.strip && whole(`${data.jobs.folder[cell.job]}/${cell.strip}`);

  /** A cell's score; of those that only a job has, the job's. */
  const score = (cell, key) => (cell.plain ? null : data.cells.scores[key]?.[cell.n] ?? data.jobs.scores[key]?.[cell.job] ?? null);

  /** Lowest and highest value of a score in the whole sweep. */
  function range(key) {
    if (!ranges.has(key)) {
      const values = cells.map((cell) => score(cell, key)).filter((value) => value !== null);
      ranges.set(key, values.length ? values.reduce(([a, b], v) => [Math.min(a, v), Math.max(b, v)], [Infinity, -Infinity]) : null);
    }
    return ranges.get(key);
  }

  function show(key, value) {
    if (value === null || value === undefined) return "–";
    if (["closest/", "eye/", "attention/"].some((kind) => key.startsWith(kind))) return `${Math.round(100 * value)}%`;
    if (key.startsWith("clip_score/")) return value.toFixed(1);
    return Math.abs(value) >= 1000 || (value !== 0 && Math.abs(value) < 1e-3) ? value.toExponential(1) : String(Number(value.toFixed(3)));
  }

  /** Ask for the data again; equal data changes nothing. */
  const poll = () => load(`data.js?${Date.now()}`);
  const alone = Boolean(byId("data")); // one page that carries all, or is handed it
  if (!alone) setInterval(() => { if (!data || data.pending || data.watched) poll(); }, 2000);

  window.gallery = { receive, unpack, unfold, told: null, show: null };
  return {
    address, details, drawable, link, maps, named, plain, range, score, show, strip,
    receive,
    changed: (listen) => listeners.push(listen),
    at: (place) => byPlace.get(place.join()),
    name: (key) => data.scores.find((score) => score.key === key)?.name ?? key,
    axis: (key) => data.axes.findIndex((axis) => axis.key === key),
    get shared() { return everywhere; },
    get data() { return data; },
    get cells() { return cells; },
    get axes() { return data.axes; },
  };
})();
