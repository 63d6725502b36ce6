"use strict";
// States to the server, and its answers: a newer state ends the answer to an older one.

const Wire = (() => {
  const bytes = crypto.getRandomValues(new Uint8Array(16)); // this page's own; it is in no address and in no store
  const key = Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
  const listeners = [];
  let now = null, next = null, late = 0;

  const post = (to, body, more = {}) => fetch(to, { method: "POST", headers: { "Content-Type": "application/json", "X-Page": key }, body, ...more });
  const tell = (message) => { for (const listen of listeners) listen(message); };

  /** Ask for the pictures of a state. One that is dragged waits until the last one has shown its first pictures. */
  function draw(said, dragged = false) {
    clearTimeout(late);
    if (now && now.said === said && !now.failed) { next = null; return; }
    if (dragged && now && !now.answered && !now.over) { next = said; return; }
    next = null;
    start(said);
  }

  async function start(said) {
    now?.control.abort();
    const mine = { said, control: new AbortController(), answered: false, over: false, failed: false };
    now = mine;
    tell({ kind: "asked" });
    try {
      const answer = await post("draw", said, { signal: mine.control.signal });
      if (!answer.ok && answer.status !== 400) throw new Error(`the server answered ${answer.status}`);
      const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
      for (let left = ""; ;) {
        const { done, value } = await reader.read();
        if (done || now !== mine) break;
        const lines = (left + value).split("\n");
        left = lines.pop();
        for (const line of lines) {
          const message = JSON.parse(line);
          tell(message);
          if (["pictures", "fault"].includes(message.kind)) mine.answered = true;
          if (message.kind === "fault") mine.failed = true;
        }
        if (mine.answered && next !== null) { const newer = next; next = null; start(newer); return; }
      }
      if (now === mine) { mine.over = true; tell({ kind: "over" }); }
    } catch (error) {
      if (now !== mine || error.name === "AbortError") return;
      mine.over = mine.failed = true;
      tell({ kind: "lost" });
    }
    if (now === mine && next !== null) { const newer = next; next = null; start(newer); }
  }

  addEventListener("pagehide", () => { now?.control.abort(); now = null; post("leave", "", { keepalive: true }).catch(() => {}); });

  return {
    draw, heard: (listen) => listeners.push(listen),
    /** The same, a moment later: while somebody types. */
    soon(said) { clearTimeout(late); late = setTimeout(() => draw(said()), 180); },
    about: async () => (await fetch("about")).json(),
    exports: async (asked) => (await post("export", JSON.stringify(asked))).json(),
  };
})();
