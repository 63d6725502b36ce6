"use strict";
// The controls, the keys, and who is told when something moves.

const Main = (() => {
  let shape = "", playing = 0, holding = false;

  /** Draw all that depends on the state. */
  function draw() {
    const { pending, title, cells } = Model.data;
    const failed = cells.state.filter((state) => state === 1).length, done = cells.state.filter((state) => state === 0).length;
    byId("title").textContent = title;
    const plan = Grid.draw();
    const counts = [`${done} pictures`, failed && `${failed} failed`, pending && `${pending} jobs to come`, `${plan.cells.length} shown`, Model.data.carried?.note].filter(Boolean).join(" · ");
    if (byId("counts").textContent !== counts) byId("counts").textContent = counts;
    const prompts = [...new Set(Model.cells.map((cell) => cell.prompt))].filter(Boolean);
    byId("prompt").textContent = prompts.length === 1 ? prompts[0] : "";
    controls();
    places();
    legend();
    Curves.draw();
    Details.draw();
    Compare.draw();
    State.write();
  }

  function controls() {
    const { axes, scores } = Model.data;
    byId("layout").value = State.layout;
    byId("sort-field").hidden = State.layout !== "list";
    byId("sort").value = State.sort;
    byId("side").value = byId("grid").dataset.side;
    byId("fit").setAttribute("aria-pressed", String(!State.side));
    byId("unedited").value = State.unedited;
    byId("shared").checked = State.shared;
    byId("shared-field").hidden = !Model.shared;
    byId("unedited").parentNode.hidden = !Model.cells.some((cell) => cell.baseline);
    if (byId("filter").value !== State.filter) byId("filter").value = State.filter;
    const now = JSON.stringify([axes, scores]);
    if (now !== shape) {
      shape = now;
      byId("roles").replaceChildren(...axes.map(Axes.field));
      fill(byId("score"), scores.map(({ key, name }) => [key, name]), State.score);
      byId("places").replaceChildren();
    }
    Axes.update();
    byId("score-name").dataset.about = scores.find(({ key }) => key === State.score)?.about ?? "";
    byId("roles").hidden = State.layout === "list";
    byId("score").value = State.score;
    byId("score").parentNode.hidden = !scores.length;
  }

  /** A slider or a page turner for each axis that is neither rows nor columns. */
  function places() {
    const held = State.layout === "list" ? [] : Model.axes.filter(State.held);
    const section = byId("places");
    const ids = held.map((axis) => `${State.roles[axis.key]} ${axis.key} ${State.hidden[axis.key] ?? ""}`).join("\n");
    if (section.dataset.ids !== ids || !section.children.length) {
      section.dataset.ids = ids;
      section.replaceChildren(...held.map((axis) => (State.roles[axis.key] === "slider" ? slider(axis) : pages(axis))));
    }
    section.hidden = !held.length;
    for (const axis of held) {
      const input = byId(`place-${Model.axis(axis.key)}`), index = axis.values.indexOf(State.at[axis.key]);
      input.value = String(index);
      const said = input.parentNode.querySelector("output");
      if (said) said.textContent = axis.values[index];
      if (input.type === "range") input.setAttribute("aria-valuetext", axis.values[index]);
    }
  }

  const moved = (axis, index) => { State.move(axis, index); draw(); Grid.preload(axis); };

  function slider(axis) {
    const id = `place-${Model.axis(axis.key)}`;
    const input = el("input", { type: "range", id, min: 0, max: axis.values.length - 1, step: 1, oninput: () => moved(axis, Number(input.value)), onpointerdown: () => Grid.preload(axis) });
    const play = el("button", { type: "button", class: "play", "aria-label": `Play ${axis.name}`, title: "Play", onclick: () => run(axis, play) }, "▷");
    return el("div", { class: "field slider" }, el("label", { htmlFor: id, "data-about": axis.about }, axis.name), play, input, el("output", { htmlFor: id }));
  }

  /** Walk a slider to its end and back to its beginning, until it is stopped. */
  function run(axis, button) {
    const own = button.textContent === "▷";
    clearInterval(playing);
    for (const other of document.querySelectorAll(".play")) other.textContent = "▷";
    if (!own) return;
    button.textContent = "◼";
    playing = setInterval(() => {
      if (!button.isConnected) return clearInterval(playing);
      const index = axis.values.indexOf(State.at[axis.key]);
      return moved(axis, (index + 1) % axis.values.length);
    }, 400);
  }

  function pages(axis) {
    const id = `place-${Model.axis(axis.key)}`;
    const select = el("select", { id, onchange: () => moved(axis, Number(select.value)) });
    fill(select, axis.values.map((value, n) => [String(n), value]).filter(([, value]) => !State.isHidden(axis, value)), "0");
    const turn = (by, sign, name) => el("button", { type: "button", class: "turn", "aria-label": `${name} ${axis.name}`, onclick: () => moved(axis, Number(select.value) + by) }, sign);
    return el("div", { class: "field page" }, el("label", { htmlFor: id, "data-about": axis.about }, axis.name), turn(-1, "‹", "Previous"), select, turn(1, "›", "Next"));
  }

  function legend() {
    const range = Model.range(State.score), place = byId("legend");
    place.hidden = !range;
    if (!range) return;
    const [low, high] = range.map((value) => Model.show(State.score, value));
    place.setAttribute("aria-label", `${Model.name(State.score)} from ${low}, dark violet, to ${high}, light yellow`);
    const bar = el("span", { class: "bar" });
    bar.style.background = `linear-gradient(90deg, ${Array.from({ length: 9 }, (_, n) => Grid.colour(n / 8)).join(", ")})`;
    place.replaceChildren(el("span", {}, low), bar, el("span", {}, high));
  }

  // ── moving about ──

  /** Go to a cell, wherever it lies; details that are open follow. */
  function go(cell, focus = true) {
    if (!cell) return;
    if (!State.shown().includes(cell)) State.goTo(cell);
    if (!Layout.matches(cell)) State.filter = "";
    Grid.select(cell);
    if (State.open) State.open = cell.key;
    draw();
    if (focus) Grid.focus(cell);
  }

  function mark(cell) {
    if (!cell) return;
    Compare.mark(cell);
    draw();
  }

  /** The unedited pictures for as long as a key is held, or the other way round where they are shown anyway. */
  function hold(on) {
    if (holding === on) return;
    holding = State.holding = on;
    draw();
  }

  const firstHeld = (role) => (State.layout === "list" ? null : Model.axes.find((axis) => State.roles[axis.key] === role));
  function shift(role, by) {
    const axis = firstHeld(role);
    if (axis) moved(axis, axis.values.indexOf(State.at[axis.key]) + by);
  }

  const STEPS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

  function keys(event) {
    if (!Model.data || event.ctrlKey || event.metaKey || event.altKey || document.querySelector("dialog[open], [popover]:popover-open:not(.tip)")) return;
    const typing = event.target.matches("input, select, textarea");
    const { key } = event;
    if (key === "Escape") {
      if (event.target === byId("filter") && State.filter) { State.filter = ""; draw(); } else if (State.open) Details.close();
      else if (typing) Grid.focus(Grid.selected);
      return;
    }
    if (typing) return;
    const inGrid = !event.target.closest(".details, .curves, .table");
    const done = {
      "/": () => byId("filter").focus(), "?": About.panel,
      "[": () => shift("slider", -1), "]": () => shift("slider", 1),
      b: () => event.repeat || hold(true), c: () => mark(Model.named(State.open) ?? Grid.selected),
    }[key];
    if (done) done();
    else if (inGrid && firstHeld("page") && ["PageUp", "PageDown"].includes(key)) shift("page", key === "PageUp" ? -1 : 1);
    else if (event.target.closest(".cell") && STEPS[key]) go(Grid.step(...STEPS[key]));
    else if (event.target.closest(".cell") && (key === "Home" || key === "End")) go(Grid.end(key === "End"));
    else if (event.target.closest(".cell") && (key === "Enter" || key === " ")) Details.open(Grid.selected);
    else return;
    event.preventDefault();
    State.write();
  }

  function theme() {
    const dark = getComputedStyle(document.body).colorScheme.trim() === "dark" || (document.documentElement.dataset.theme ?? (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light")) === "dark";
    document.documentElement.dataset.theme = dark ? "light" : "dark";
    if (FRAMED) return; // what would be kept is the host's
    try { localStorage.setItem("embedlab-theme", dark ? "light" : "dark"); } catch { /* a browser may keep nothing for files */ }
  }

  /** Show what the address says. */
  function arrive() {
    clearInterval(playing);
    State.readAddress();
    State.settle();
    const cell = Model.named(State.open);
    if (cell) go(cell, false);
    else draw();
  }

  function start() {
    try { document.documentElement.dataset.theme = (!FRAMED && localStorage.getItem("embedlab-theme")) || ""; } catch { /* as above */ }
    if (!document.documentElement.dataset.theme) delete document.documentElement.dataset.theme;
    const set = (id, event, change) => byId(id).addEventListener(event, (given) => { change(given.target); if (Model.data) draw(); });
    set("layout", "change", ({ value }) => { State.layout = value; State.chosenLayout = true; });
    set("sort", "change", ({ value }) => { State.sort = value; });
    set("side", "input", ({ value }) => { State.side = Number(value); });
    set("score", "change", ({ value }) => { State.score = value; });
    set("filter", "input", ({ value }) => { State.filter = value; });
    set("unedited", "change", ({ value }) => { State.unedited = value; State.asked = true; });
    set("shared", "change", ({ checked }) => { State.shared = checked; });
    set("show-curves", "change", ({ checked }) => { State.curves = checked; });
    byId("fit").addEventListener("click", () => { State.side = 0; draw(); });
    byId("theme").addEventListener("click", theme);
    byId("help-button").addEventListener("click", About.panel);
    byId("save").addEventListener("click", ({ currentTarget }) => Drawing.save(currentTarget));
    byId("link").hidden = FRAMED;
    byId("link").addEventListener("click", async ({ currentTarget: button }) => {
      const good = await copied(`${location.href.split("#")[0]}#${State.address(true)}`);
      button.textContent = good ? "Copied" : "Copy the address";
      setTimeout(() => { button.textContent = "Copy link"; }, 1500);
    });
    Axes.told(draw);
    byId("settings-button").addEventListener("click", (event) => {
      const open = document.body.classList.toggle("controls-open");
      event.target.setAttribute("aria-expanded", String(open));
    });
    byId("skip").addEventListener("click", (event) => { event.preventDefault(); Grid.focus(Grid.selected); });
    byId("grid").addEventListener("click", (event) => {
      const cell = Grid.cellOf(event);
      if (!cell) return;
      Grid.focus(cell, false);
      Details.open(cell, false);
      draw();
    });
    byId("grid").addEventListener("focusin", (event) => { const cell = Grid.cellOf(event); if (cell) Grid.select(cell); });
    Details.panel.addEventListener("mark", ({ detail }) => mark(detail));
    Details.panel.addEventListener("go", ({ detail }) => {
      const focused = document.activeElement?.id;
      go(detail, false);
      (byId(focused) ?? Details.panel).focus();
    });
    Details.panel.addEventListener("unedited", () => { State.unedited = State.unedited === "instead" ? "beside" : "instead"; draw(); });
    Compare.tray.addEventListener("cleared", draw);
    Curves.panel.addEventListener("reach", ({ detail: { axis, index } }) => { if (State.held(axis) && index >= 0) moved(axis, index); });
    document.addEventListener("keydown", keys);
    document.addEventListener("keyup", ({ key }) => { if (key === "b" && Model.data) hold(false); });
    addEventListener("blur", () => { if (Model.data && holding) hold(false); });
    let width = 0;
    new ResizeObserver(() => {
      if (!Model.data) return;
      if (State.unseen && innerWidth > State.UNSEEN) { // drawn where nobody saw it, as notebooks do
        State.settle();
        draw();
      }
      Grid.fit();
      byId("side").value = byId("grid").dataset.side;
      if (innerWidth !== width) { width = innerWidth; Curves.draw(); }
    }).observe(byId("scroller"));
    addEventListener("hashchange", () => { if (Model.data) arrive(); });
    window.gallery.theme = (name) => { document.documentElement.dataset.theme = name; };
    window.gallery.show = (view) => {
      State.show(view);
      if (Model.data) arrive();
    };
    let first = true;
    Model.changed(() => {
      if (first) arrive();
      else { State.settle(); draw(); }
      first = false;
    });
  }

  start();
  const held = byId("data"); // a page that carries its data; else data.js hands it over
  if (held) Model.receive(JSON.parse(held.textContent));
  return { go };
})();
