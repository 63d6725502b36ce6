"use strict";
// Who is told when something moves.

const Main = (() => {
  let seen = "", steps = 0;

  /** Something was set: ask for its pictures; while it is dragged or typed it is not yet worth an undo. */
  function moved(dragged = false) {
    clear();
    if (!dragged) State.commit();
    Wire.draw(State.told(), dragged);
    buttons();
  }

  function buttons() {
    byId("undo").disabled = !State.canUndo;
    byId("redo").disabled = !State.canRedo;
    byId("keep").disabled = !Pictures.ready;
  }

  /** All of the page, from the state. */
  function draw() {
    if (byId("prompt").value !== State.prompt) byId("prompt").value = State.prompt;
    byId("seeds").value = State.seeds.join(", ");
    Edits.draw();
    Tokens.draw();
    buttons();
  }

  function travelled() {
    clear();
    draw();
    Wire.draw(State.told());
  }

  function clear() {
    for (const node of document.querySelectorAll(".fault:not([hidden])")) { node.hidden = true; node.textContent = ""; }
    for (const node of document.querySelectorAll("[aria-invalid]")) node.removeAttribute("aria-invalid");
  }

  function fault({ field, text }) {
    clear();
    const place = (field && byId(`fault-${field}`)) || byId("fault");
    place.textContent = text;
    place.hidden = false;
    const more = place.closest("details");
    if (more) more.open = true;
    place.parentNode.querySelector("textarea, input, select")?.setAttribute("aria-invalid", "true");
    byId("status").textContent = "nothing was drawn: see what is said in red";
  }

  function heard(message) {
    const status = byId("status");
    if (message.kind === "asked") { Pictures.fade(); byId("seen").classList.add("old"); }
    if (message.kind === "tokens") {
      clear();
      Tokens.draw(message.readings);
      byId("notes").replaceChildren(...message.notes.map((note) => el("li", {}, note)));
    }
    if (message.kind === "pictures") {
      if (message.which === "unedited" && !State.edits.length) Pictures.only();
      Pictures.take(message);
      status.textContent = message.stage === "few" ? `${message.seconds.toFixed(1)} s, few steps` : `${message.seconds.toFixed(1)} s`;
      buttons();
    }
    if (message.kind === "step") status.textContent = `${message.which}, ${message.stage === "few" ? "first " : ""}step ${message.step} of ${message.of}`;
    if (message.kind === "seen") { byId("seen").textContent = seen = message.text; byId("seen").classList.remove("old"); }
    if (message.kind === "fault") fault(message);
    if (message.kind === "lost") fault({ field: "", text: "the server does not answer; start embedlab play again and open the address that it prints." });
  }

  function theme() {
    const dark = (document.documentElement.dataset.theme ?? (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light")) === "dark";
    document.documentElement.dataset.theme = dark ? "light" : "dark";
  }

  function keys(event) {
    if (!(event.ctrlKey || event.metaKey) || event.key.toLowerCase() !== "z" || event.target.matches("textarea, input[type=text]")) return;
    event.preventDefault();
    if (event.shiftKey) State.redo(); else State.undo();
    travelled();
  }

  async function start() {
    const about = await Wire.about();
    steps = about.steps;
    byId("about").textContent = `${about.model} · ${about.sampler}, ${steps} steps · ${about.engine}`;
    Curves.begin(about);
    Tokens.begin(about);
    Edits.begin(about);
    State.begin(about);
    byId("words").append(...about.words.map((word) => el("option", { value: word })));
    Wire.heard(heard);
    Edits.onmove(moved);
    Edits.onsweep((slider) => Exports.show(slider));
    Tokens.onclick((selector, on, encoder) => {
      const mine = State.edits[State.active]?.settings;
      if (!mine) State.add("interpolate", selector, encoder);
      else if (encoder && mine.encoder !== encoder && State.field) { mine.encoder = encoder; mine[State.field] = selector; } // another reads other words
      else if (State.field) {
        State.edits[State.active].settings[State.field] = Tokens.toggled(selector, on);
        if (!on) State.focus(State.active, State.missing(State.active) ?? State.field); // the next click fills what is still missing
      }
      moved();
      draw();
    });
    Pictures.onrestore((told) => { State.take(told); State.commit(); travelled(); });
    const prompt = byId("prompt");
    prompt.addEventListener("input", () => { State.prompt = prompt.value; Wire.soon(State.told); });
    prompt.addEventListener("change", () => { State.prompt = prompt.value; moved(); });
    prompt.addEventListener("keydown", (event) => { if (event.key === "Enter" && !event.shiftKey) { event.preventDefault(); prompt.blur(); } });
    byId("seeds").addEventListener("change", ({ target }) => { State.seeds = target.value.split(/[\s,]+/).filter(Boolean).map((one) => (/^\d+$/.test(one) ? Number(one) : one)); moved(); });
    byId("others").addEventListener("click", () => { const top = Math.max(...State.seeds.map(Number)); State.seeds = State.seeds.map((_, n) => top + 1 + n); moved(); draw(); });
    byId("add").addEventListener("click", () => { State.add("interpolate"); moved(); draw(); });
    byId("undo").addEventListener("click", () => { State.undo(); travelled(); });
    byId("redo").addEventListener("click", () => { State.redo(); travelled(); });
    byId("keep").addEventListener("click", () => Pictures.keep(seen));
    byId("export").addEventListener("click", () => Exports.show());
    byId("theme").addEventListener("click", theme);
    document.addEventListener("keydown", keys);
    addEventListener("pageshow", (event) => { if (event.persisted) Wire.draw(State.told()); });
    draw();
    Wire.draw(State.told());
  }

  start();
  return { moved };
})();
