"use strict";
// The axes among the controls: where each lies, how it is nested, which of its values are shown.

const Axes = (() => {
  const ROLES = { rows: "rows", columns: "columns", slider: "slider", page: "page" };
  let changed = () => {};

  /** A name that opens the axis, and the place where it lies. */
  function field(axis, n) {
    const select = el("select", { id: `role-${n}`, "aria-label": `${axis.name} lies on`, onchange: (event) => { State.choose(axis.key, event.target.value); changed(); } });
    fill(select, Object.entries(ROLES).filter(([role]) => role !== "slider" || State.numeric(axis)), State.roles[axis.key]);
    const panel = el("div", { class: "values", id: `values-${n}`, popover: "auto", role: "dialog", "aria-label": axis.name });
    const button = el("button", { type: "button", class: "axis-name", id: `axis-${n}`, "data-about": axis.about, "aria-haspopup": "dialog" }, axis.name);
    button.setAttribute("popovertarget", panel.id);
    panel.addEventListener("beforetoggle", ({ newState }) => { if (newState === "open") { About.hide(); open(axis, panel); } });
    panel.addEventListener("toggle", ({ newState }) => { if (newState === "open") beside(panel, button); });
    return el("div", { class: "field" }, button, select, panel);
  }

  function beside(panel, button) {
    const box = button.getBoundingClientRect(), own = panel.getBoundingClientRect();
    panel.style.left = `${Math.max(8, Math.min(innerWidth - own.width - 8, box.left))}px`;
    panel.style.top = `${Math.max(8, Math.min(innerHeight - own.height - 8, box.bottom + 4))}px`;
  }

  function open(axis, panel) {
    const side = ["rows", "columns"].includes(State.roles[axis.key]) && State.layout === "grid" ? State.axesOf(State.roles[axis.key]) : [];
    const at = side.indexOf(axis), hidden = () => State.hidden[axis.key] ?? [];
    const set = (values) => { State.hide(axis, values); changed(); mark(); };
    const boxes = axis.values.map((value) => el("input", { type: "checkbox", onchange: ({ target }) => set(target.checked ? hidden().filter((other) => other !== value) : [...hidden(), value]) }));
    const mark = () => boxes.forEach((box, n) => { box.checked = !hidden().includes(axis.values[n]); });
    const move = (by, name) => el("button", { type: "button", disabled: !side[at + by], onclick: () => { State.nest(axis.key, by); changed(); open(axis, panel); } }, name);
    panel.replaceChildren(...[
      el("h2", {}, axis.name), axis.about && el("p", {}, axis.about), axis.key !== axis.name && el("code", {}, axis.key),
      side.length > 1 && el("div", { class: "group nesting" }, el("span", { class: "note" }, `${side.map(({ name }) => name).join(" › ")}`), move(-1, "Outwards"), move(1, "Inwards")),
      el("div", { class: "group" },
        el("button", { type: "button", onclick: () => set([]) }, "Show all"),
        axis.values.length > 3 && el("button", { type: "button", onclick: () => set(axis.values.filter((_, n) => n % 2)) }, "Every second")),
      el("ul", {}, axis.values.map((value, n) => el("li", {}, el("label", {}, boxes[n], el("span", {}, value)),
        el("button", { type: "button", class: "only", "aria-label": `Only ${value}`, onclick: () => set(axis.values.filter((other) => other !== value)) }, "only")))),
    ].filter(Boolean));
    mark();
  }

  /** Show the present roles, and how many values are hidden. */
  function update() {
    Model.axes.forEach((axis, n) => {
      byId(`role-${n}`).value = State.roles[axis.key];
      const gone = State.hidden[axis.key]?.length ?? 0;
      byId(`axis-${n}`).textContent = gone ? `${axis.name} ${axis.values.length - gone}/${axis.values.length}` : axis.name;
    });
  }

  return { field, update, told: (call) => { changed = call; } };
})();
