"use strict";
// Elements from values. Texts become text nodes, never markup.

const FRAMED = location.protocol === "about:"; // in a host page: no address of its own, and what is kept would be the host's

const byId = (id) => document.getElementById(id);

/** An element with properties (`class`, `on…`, `data-…`, `aria-…` and others) and children. */
function el(tag, properties = {}, ...children) {
  const node = document.createElement(tag);
  for (const [key, value] of Object.entries(properties)) {
    if (value === null || value === undefined || value === false) continue;
    if (key === "class") node.className = value;
    else if (key.startsWith("on")) node.addEventListener(key.slice(2), value);
    else if (key in node && !key.includes("-") && key !== "list") node[key] = value;
    else node.setAttribute(key, value);
  }
  node.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
  return node;
}

/** An SVG element with attributes and children. */
function svg(tag, attributes = {}, ...children) {
  const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  node.append(...children.flat(Infinity));
  return node;
}

/** A select's options and choice. */
function fill(select, options, chosen) {
  select.replaceChildren(...options.map(([value, text]) => el("option", { value, selected: value === chosen }, text)));
}

/** A table from heads and rows; `mark(row, column)` names a class for a cell, `about` says what a head means. */
function tableOf(heads, rows, mark = () => "", about = {}) {
  return el("div", { class: "table", tabIndex: 0, role: "region", "aria-label": heads.join(", ") },
    el("table", {},
      el("thead", {}, el("tr", {}, heads.map((head) => el("th", { scope: "col", "data-about": about[head], tabIndex: about[head] ? 0 : null }, head)))),
      el("tbody", {}, rows.map((row, r) => el("tr", {}, row.map((value, c) => el("td", { class: mark(r, c) }, say(value))))))));
}

/** A plain value as text. */
function say(value) {
  if (value === null || value === undefined) return "–";
  if (value instanceof Node) return value;
  if (Array.isArray(value)) return value.map(say).join(", ");
  if (typeof value === "object") return JSON.stringify(value);
  if (typeof value === "number" && !Number.isInteger(value)) return String(Number(value.toPrecision(4)));
  return String(value);
}

/** A button that copies a text and says so. */
function copyButton(text, name = "Copy") {
  const button = el("button", { type: "button", class: "copy" }, name);
  button.addEventListener("click", async () => {
    const good = await copied(text);
    button.textContent = good ? "Copied" : "Press Ctrl+C";
    setTimeout(() => { button.textContent = name; }, 1500);
  });
  return button;
}

async function copied(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch { // older browsers, and those that give files no clipboard
    const area = el("textarea", { value: text, class: "unseen", readOnly: true });
    (document.querySelector("dialog[open]") || document.body).append(area);
    area.select();
    const good = document.execCommand("copy");
    area.remove();
    return good;
  }
}
