// The page in an iframe of a notebook. The host gives `model` (its traits) and `el` (the place to draw in).

function render({ model, el }) {
  const frame = document.createElement("iframe");
  frame.title = "Gallery";
  frame.style.cssText = "display: block; width: 100%; border: 0; color-scheme: normal;";
  const inside = () => frame.contentWindow?.gallery;
  let told = "", addresses = [];

  /** Hand over the data, with each picture as an address of the frame's own. */
  function give() {
    const data = JSON.parse(model.get("content"));
    if (!data || !inside()) return;
    const { URL, Blob } = frame.contentWindow;
    const bytes = model.get("pictures");
    const before = addresses;
    let at = 0;
    addresses = data.carried.parts.map(([type, length]) => {
      const part = new Uint8Array(bytes.buffer ?? bytes, (bytes.byteOffset ?? 0) + at, length);
      at += length;
      return URL.createObjectURL(new Blob([part], { type }));
    });
    inside().receive({ ...data, carried: { ...data.carried, uris: addresses } });
    for (const address of before) URL.revokeObjectURL(address);
  }

  /** Tell Python what is looked at. */
  function tell({ view, open, marks }) {
    told = view;
    for (const [name, value] of [["view", view], ["picked", open], ["marked", marks]]) {
      if (JSON.stringify(model.get(name)) !== JSON.stringify(value)) model.set(name, value);
    }
    model.save_changes();
  }

  /** As dark as the notebook: where its text is light. Any colour becomes red, green and blue on a canvas. */
  function ground() {
    const brush = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
    brush.fillStyle = getComputedStyle(el).color;
    brush.fillRect(0, 0, 1, 1);
    const [red, green, blue] = brush.getImageData(0, 0, 1, 1).data;
    const name = 0.3 * red + 0.6 * green + 0.1 * blue > 127 ? "dark" : "light";
    if (name === ground.told) return; // its own button may have said otherwise
    inside()?.theme(name);
    if (inside()) ground.told = name;
  }
  const themes = new MutationObserver(() => { ground(); setTimeout(ground, 500); }); // a style may come after its name

  const size = () => { frame.style.height = `${model.get("height")}px`; };
  const move = () => { if (model.get("view") !== told) inside()?.show(model.get("view")); };
  frame.addEventListener("load", () => {
    if (!inside()) return;
    const view = model.get("view");
    ground.told = "";
    ground();
    give();
    if (view) inside().show(view);
    inside().told = tell;
  });
  model.on("change:content", give);
  model.on("change:height", size);
  model.on("change:view", move);
  size();
  frame.srcdoc = PAGE;
  el.append(frame);
  for (const whole of [document.documentElement, document.body]) themes.observe(whole, { attributes: true });
  return () => {
    themes.disconnect();
    model.off("change:content", give);
    model.off("change:height", size);
    model.off("change:view", move);
    frame.remove();
  };
}

export default { render };
