"use strict";
// What everything is: on hover or focus beside it, and all together in the help panel.

const About = (() => {
  const TOKENS = {
    encoder: "Which text encoder reads the token; an SDXL has two.",
    "token row": "Where the token stands: row 0 is the start token, and every window of a long prompt goes on counting.",
    token: "The piece of text, as the tokenizer cut it. Start, end and padding say what they are.",
    id: "The token's number in the vocabulary.",
    kept: "How much of the row as written is in the edited one: its projection on that row, (r'·r)/(r·r). 1 where nothing was edited.",
    length: "The length (norm) of the token's row, in units of the mean length of the vocabulary; → is after the edit.",
    "nearest words": "The words of the vocabulary whose rows are most alike by cosine; → is after the edit.",
  };
  const LAYERS = "Mean and deviation of the rows of words at each hidden state of the encoder, as written and edited; state 0 is what enters.";
  const tip = el("div", { class: "tip", id: "tip", role: "tooltip", popover: "manual" });
  let waiting = 0, of = null;

  const touch = matchMedia("(hover: none)");

  function show(target) {
    if (!target.isConnected || !target.dataset.about) return;
    of = target;
    tip.textContent = target.dataset.about;
    if (tip.parentNode !== (target.closest("dialog") ?? document.body)) (target.closest("dialog") ?? document.body).append(tip);
    tip.showPopover?.();
    const box = target.getBoundingClientRect(), own = tip.getBoundingClientRect();
    const below = box.bottom + 6 + own.height < innerHeight;
    tip.style.left = `${Math.max(8, Math.min(innerWidth - own.width - 8, box.left))}px`;
    tip.style.top = `${below ? box.bottom + 6 : Math.max(8, box.top - own.height - 6)}px`;
    target.setAttribute("aria-describedby", "tip");
  }

  function hide() {
    clearTimeout(waiting);
    of?.removeAttribute("aria-describedby");
    of = null;
    if (tip.matches(":popover-open")) tip.hidePopover();
  }

  function watch() {
    const over = (wait) => (event) => {
      const target = event.target.closest?.("[data-about]");
      if (target === of && of) return;
      hide();
      if (target && !touch.matches) waiting = setTimeout(() => show(target), wait);
    };
    document.addEventListener("pointerover", over(350));
    document.addEventListener("focusin", over(350));
    document.addEventListener("pointerdown", hide, true);
    document.addEventListener("keydown", hide, true);
    addEventListener("scroll", () => { if (of) hide(); }, true);
    document.body.append(tip);
  }

  const list = (pairs) => el("dl", {}, pairs.map(([name, text, key]) => [el("dt", {}, name, key && key !== name && el("code", {}, key)), el("dd", {}, text)]));

  /** The help panel, for the sweep that is shown. */
  function panel() {
    const { axes, scores, notes } = Model.data;
    const parts = [
      ["Axes", axes.map(({ name, about, key }) => [name, about, key])],
      ["What differs between the sweeps", notes ?? []],
      ["Scores", scores.map(({ name, about, key }) => [name, about, key])],
      ["Table of tokens", Object.entries(TOKENS)],
    ];
    byId("about").replaceChildren(...parts.filter(([, pairs]) => pairs.length).map(([title, pairs]) => el("section", {}, el("h3", {}, title), list(pairs))));
    const dialog = byId("help");
    if (!dialog.open) dialog.showModal();
    dialog.scrollTop = 0;
  }

  watch();
  return { panel, hide, TOKENS, LAYERS };
})();
