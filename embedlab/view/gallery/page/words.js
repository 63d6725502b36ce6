"use strict";
// Long texts, shortened where all of them agree and never where they differ.

const Words = (() => {
  const LONG = 24, MOST = 80, MANY = 300; // signs that are short enough; words that are looked at; texts that are compared
  const known = new Map();

  /** The longest run of words, gaps allowed, that two lists have in common. */
  function shared(a, b) {
    const rows = Array.from({ length: a.length + 1 }, () => new Uint16Array(b.length + 1));
    for (let i = a.length - 1; i >= 0; i -= 1) {
      for (let j = b.length - 1; j >= 0; j -= 1) rows[i][j] = a[i] === b[j] ? rows[i + 1][j + 1] + 1 : Math.max(rows[i + 1][j], rows[i][j + 1]);
    }
    const found = [];
    for (let i = 0, j = 0; i < a.length && j < b.length;) {
      if (a[i] === b[j]) { found.push(a[i]); i += 1; j += 1; } else if (rows[i + 1][j] >= rows[i][j + 1]) i += 1;
      else j += 1;
    }
    return found;
  }

  /** A text without the stretches that agree, each of which becomes an ellipsis beside the words next to it. */
  function shorten(words, common, more, tight) {
    const parts = [];
    let run = [], next = 0;
    const flush = (last) => {
      const first = !parts.length;
      if (tight ? run.join(" ").length < 6 : run.length < 4 || run.join(" ").length < 16) parts.push(...run);
      else if (tight) parts.push("…");
      else if (first) parts.push("…", run.at(-1));
      else if (last) parts.push(run[0], "…");
      else parts.push(run[0], "…", run.at(-1));
      run = [];
    };
    for (const word of words) {
      if (next < common.length && word === common[next]) { run.push(word); next += 1; } else { flush(false); parts.push(word); }
    }
    flush(true);
    if (more && parts.at(-1) !== "…") parts.push("…");
    return parts.join(" ");
  }

  /** Texts by what is shown of them; `tight` where there is room for a few words only. */
  function cut(texts, tight = false) {
    const own = [...new Set(texts)], name = [tight, ...own].join("\u0000");
    if (!known.has(name)) known.set(name, made(own, tight));
    return known.get(name);
  }

  function made(own, tight) {
    if (own.length < 2 || own.length > MANY || own.every((text) => text.length <= (tight ? LONG / 2 : LONG))) return new Map(own.map((text) => [text, text]));
    const lists = own.map((text) => text.split(/\s+/).filter(Boolean));
    const words = lists.map((list) => list.slice(0, MOST));
    let common = words[0];
    for (const list of words.slice(1)) common = shared(common, list);
    const short = own.map((_, n) => shorten(words[n], common, lists[n].length > MOST, tight));
    return new Map(own.map((text, n) => [text, new Set(short).size === own.length && short[n] ? short[n] : text]));
  }

  return { cut };
})();
