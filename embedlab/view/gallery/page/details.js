"use strict";
// All there is to say of one picture: how to make it again, its tokens, what lies beside it, its settings.

const Details = (() => {
  const panel = byId("details");
  const LAYERS = { encoder: "encoder", layer: "hidden state", mean: "mean", std: "deviation", mean_after: "mean edited", std_after: "deviation edited" };
  const scrollers = [panel, panel.parentNode]; // on a phone the panel itself, elsewhere the column that it stands in
  const beginning = () => panel.offsetTop - panel.parentNode.offsetTop;
  let panelKey = "", drawn = "";

  function open(cell, focus = true) {
    State.open = cell.key;
    draw();
    if (focus) panel.focus({ preventScroll: true });
  }

  function close() {
    const cell = Model.named(State.open);
    State.open = "";
    draw();
    if (cell) Grid.focus(cell);
  }

  /** Show whichever cell is open; one that is drawn already stays as it is. */
  function draw() {
    const cell = Model.named(State.open);
    panel.hidden = !cell;
    document.body.classList.toggle("detailed", Boolean(cell));
    const now = cell ? `${Model.data.version} ${cell.key} ${State.instead} ${State.marks} ${State.score}` : "";
    if (now === drawn) return;
    const same = cell?.key === panelKey;
    const at = scrollers.map((scroller) => scroller.scrollTop), focused = same && panel.contains(document.activeElement) ? document.activeElement.id : "";
    [panelKey, drawn] = [cell?.key ?? "", now];
    if (!cell) return;
    const more = same && panel.querySelector(".more");
    panel.replaceChildren(...head(cell), more || el("div", { class: "more" }, el("p", { class: "note" }, "Reading…")));
    scrollers.forEach((scroller, n) => { scroller.scrollTop = same ? at[n] : n * beginning(); });
    if (focused) byId(focused)?.focus();
    if (more) more.dataset.version === Model.data.version || fetchMore(cell);
    else fetchMore(cell);
  }

  async function fetchMore(cell) {
    const version = Model.data.version;
    let parts;
    try {
      parts = more(cell, await Model.details(cell));
    } catch {
      parts = [el("p", { class: "notice" }, "The details of this job are being written again; they come in a moment.")];
    }
    if (panelKey !== cell.key) return;
    const place = panel.querySelector(".more");
    place.dataset.version = version;
    place.replaceChildren(...parts);
  }

  function head(cell) {
    const marked = State.marks.includes(cell.key);
    const unedited = cell.plain || (State.instead && cell.baseline);
    const address = cell.state === "done" && Model.address(cell, { unedited: State.instead });
    const own = Model.data.scores.filter(({ key }) => key in Model.data.cells.scores); // the others are of the whole job
    const values = own.map(({ key, name }) => [key, name, Model.score(cell, key)]).filter(([, , value]) => value !== null);
    return [
      el("div", { class: "panel-head" },
        el("h2", {}, cell.label),
        el("button", { type: "button", id: "details-mark", "aria-pressed": String(marked), onclick: () => panel.dispatchEvent(new CustomEvent("mark", { detail: cell })) }, marked ? "Marked" : "Compare", " ", el("kbd", {}, "c")),
        el("button", { type: "button", id: "details-close", "aria-label": "Close", title: "Close  Esc", onclick: close }, "×")),
      cell.state === "done"
        ? el("figure", {},
          el("a", Model.link(`${unedited ? "baseline-" : ""}seed-${cell.seed}`, address), el("img", { src: address, alt: `${cell.label}, seed ${cell.seed}${unedited ? ", unedited" : ""}` })),
          el("figcaption", {}, `seed ${cell.seed}`, " ",
            cell.baseline && !cell.plain && el("button", { type: "button", id: "details-unedited", "aria-pressed": String(State.instead), onclick: () => panel.dispatchEvent(new CustomEvent("unedited")) }, "unedited ", el("kbd", {}, "b"))))
        : el("div", { class: `why ${cell.state}` }, el("b", {}, cell.state === "pending" ? "Still to come" : "Failed"), cell.error && el("p", {}, cell.error)),
      el("p", { class: "prompt" }, cell.prompt),
      ...heat(cell, unedited),
      ...steps(cell),
      ...(cell.plain ? [] : neighbours(cell)),
      ...(values.length ? [el("h3", {}, "Scores"), el("dl", { class: "pairs" }, values.map(([key, name, value]) => [el("dt", { class: key === State.score ? "chosen" : "", "data-about": aboutOf(key), tabIndex: 0 }, name), el("dd", {}, Model.show(key, value))]))] : []),
    ];
  }

  const aboutOf = (key) => Model.data.scores.find((score) => score.key === key)?.about;

  /** Where in the picture each word was looked at. */
  function heat(cell, unedited) {
    const found = cell.state === "done" ? Model.maps(cell, unedited) : [];
    return found.length ? [el("h3", {}, "Looked at"), el("div", { class: "heat" }, found.map(({ word, address }) =>
      el("figure", {}, el("a", Model.link(`${word}-seed-${cell.seed}`, address), el("img", { src: address, alt: `where ${word} is looked at` })), el("figcaption", {}, word))))] : [];
  }

  /** The kept steps, side by side. */
  function steps(cell) {
    const address = cell.state === "done" && Model.strip(cell);
    if (!address) return [];
    return [el("h3", {}, "Steps"), el("a", { class: "steps", ...Model.link(`steps-seed-${cell.seed}`, address) }, el("img", { src: address, alt: `kept steps, seed ${cell.seed}` }))];
  }

  /** The cells one step away on each axis. */
  function neighbours(cell) {
    const found = Model.axes.map((axis, a) => {
      const beside = [-1, 1].map((by) => {
        for (let n = cell.at[a] + by; n >= 0 && n < axis.values.length; n += by) {
          const other = Model.at(cell.at.with(a, n));
          if (other) return other;
        }
        return null;
      });
      return el("div", { class: "axis" }, el("span", { class: "name", "data-about": axis.about }, axis.name),
        ...[beside[0], cell, beside[1]].map((other, n) => step(other, axis.values[other?.at[a]], n === 1, `beside-${a}-${n}`)));
    });
    return found.length ? [el("h3", {}, "Beside it"), el("div", { class: "beside" }, found)] : [];
  }

  function step(cell, value, here, id) {
    if (!cell) return el("span", { class: "step none" }, "end");
    const inside = [
      cell.state === "done" ? el("img", { src: Model.address(cell, { unedited: State.instead, small: true }), alt: "" }) : el("span", { class: "blank" }, cell.state),
      el("span", {}, value),
    ];
    if (here) return el("span", { class: "step here", "aria-current": "true" }, inside);
    return el("button", { type: "button", class: "step", id, title: Grid.title(cell), "aria-label": Grid.title(cell), onclick: () => panel.dispatchEvent(new CustomEvent("go", { detail: cell })) }, inside);
  }

  function more(cell, job) {
    const parts = [];
    if (cell.plain) {
      parts.push(el("p", { class: "note" }, "What the prompt gives without the edit, with the same seed. The job that draws the edited picture draws it, too."));
      job = { ...job, notes: null, tokens: null, lengths: null, shifts: null, schedule: null, layers: null }; // which are of the edit
    }
    if (job.command) {
      parts.push(el("h3", {}, "Make it again"), el("pre", { class: "command", tabIndex: 0 }, job.command), copyButton(job.command, "Copy the command"));
    }
    if (job.notes?.length) parts.push(el("h3", {}, "To mind"), el("ul", { class: "notes" }, job.notes.map((note) => el("li", {}, note))));
    if (job.tokens) parts.push(el("h3", {}, "Tokens"), tokens(job.tokens));
    if (job.lengths) {
      parts.push(el("p", { class: "note" }, Object.entries(job.lengths).map(([side, { tokens, windows, rows }]) => `${side === "positive" ? "prompt" : side}: ${tokens} tokens, ${windows} ${windows === 1 ? "window" : "windows"}, ${rows} rows reach the UNet`).join("; ")));
    }
    if (job.shifts && Object.values(job.shifts).some(Boolean)) {
      parts.push(el("p", { class: "note" }, `hidden states moved, in shares of their length: ${Object.entries(job.shifts).map(([role, share]) => `${role} ${(100 * share).toFixed(1)}%`).join(", ")}`));
    }
    const folded = (name, content, about) => el("details", {}, el("summary", { "data-about": about }, name), content);
    if (job.schedule) parts.push(folded("Over time", tableOf(job.schedule.heads, job.schedule.rows)));
    if (job.layers) parts.push(folded("Layers of the encoder", tableOf(job.layers.heads.map((head) => LAYERS[head] ?? head), job.layers.rows), About.LAYERS));
    if (Object.keys(job.settings).length) parts.push(folded("All settings", tableOf(["setting", "value"], Object.entries(job.settings).sort(([p], [q]) => (p < q ? -1 : 1)))));
    if (job.versions) parts.push(folded("Versions", tableOf(["of", "version"], Object.entries(job.versions))));
    if (job.key) parts.push(el("p", { class: "note" }, `job ${Model.data.jobs.number[cell.job]}, folder ${Model.data.jobs.folder[cell.job]}, key ${job.key}`));
    return parts;
  }

  /** The table of tokens: what stands where, and its nearest words before and after the edit. */
  function tokens({ heads, rows }) {
    const of = (row, head) => row[heads.indexOf(head)];
    const several = new Set(rows.map((row) => of(row, "encoder"))).size > 1;
    const changed = rows.map((row) => String(of(row, "near")) !== String(of(row, "near_after")) || of(row, "norm") !== of(row, "norm_after") || of(row, "moved") > 0);
    const arrow = (a, b) => (String(a) === String(b) ? say(a) : `${say(a)} → ${say(b)}`);
    const cells = rows.map((row) => [
      ...(several ? [of(row, "encoder")] : []),
      of(row, "row"), of(row, "role") === "words" ? of(row, "piece") : `${of(row, "piece")} (${of(row, "role")})`,
      of(row, "id"), of(row, "kept") ?? of(row, "weight"), arrow(of(row, "norm"), of(row, "norm_after")),
      el("span", {}, say(of(row, "near")), String(of(row, "near")) !== String(of(row, "near_after")) && el("span", { class: "after" }, ` → ${say(of(row, "near_after"))}`),
        of(row, "moved") > 0 && ` (position moved by ${Math.round(100 * of(row, "moved"))}%)`),
    ]);
    return tableOf([...(several ? ["encoder"] : []), "token row", "token", "id", "kept", "length", "nearest words"], cells, (r) => (changed[r] ? "changed" : ""), About.TOKENS);
  }

  return { open, close, draw, panel };
})();
