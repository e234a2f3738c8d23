// The attention of each head: small pictures to choose from, a large one, and the text shaded by
// what a chosen token reads.
import { canvas, choice, element } from "./dom.js";
import { onResize } from "./lazily.js";
import { colour } from "./theme.js";
import { choosing } from "./tokens.js";
import { on } from "./store.js";

const ALL = 64; // most heads whose pictures are shown at once; otherwise those of one layer
const SMALL = 84,
  LARGE = 560; // pixels

export function attention(home, data) {
  const { layers, heads, length, chosen } = data.attention;
  const codes = Uint8Array.from(atob(data.attention.codes), (c) => c.charCodeAt(0));
  const size = (length * (length + 1)) / 2;
  const names = [...data.start, ...data.pieces];
  // The weight that `query` gives `key` in a head, from 0 to 1.
  const weight = (head, query, key) =>
    key > query ? 0 : codes[head * size + (query * (query + 1)) / 2 + key] / 255;
  const state = { head: chosen, query: length - 1 };

  const small = element("div", { class: "small-heads" }),
    large = element("div", { class: "large-head" }),
    line = element("p", { class: "quiet", "aria-live": "polite" }),
    strip = element("div", {
      class: "strip",
      tabindex: "0",
      role: "group",
      "aria-label": "What the chosen token reads",
    });
  const spans = names.map((name, place) =>
    element("span", { class: "token", "data-place": place }, name),
  );
  for (const span of spans) {
    strip.append(span);
    if (span.textContent.endsWith("\\n")) strip.append(element("br"));
  }
  const layerOf = () => Math.floor(state.head / heads);
  const title = (head) => `layer ${Math.floor(head / heads) + 1}, head ${(head % heads) + 1}`;

  function drawSmall() {
    const first = layers * heads > ALL ? layerOf() * heads : 0,
      count = layers * heads > ALL ? heads : layers * heads;
    const buttons = Array.from({ length: count }, (_, n) => {
      const head = first + n;
      return element(
        "button",
        { type: "button", "aria-pressed": String(head === state.head), onclick: () => go(head) },
        picture(weight, head, length, SMALL).made,
        element("small", {}, layers * heads > ALL ? `head ${n + 1}` : title(head)),
      );
    });
    small.replaceChildren(...buttons);
  }

  function drawLarge() {
    const pixels = Math.min(LARGE, large.clientWidth || LARGE),
      cell = pixels / length;
    const { made, context } = picture(weight, state.head, length, pixels);
    context.strokeStyle = colour("ink");
    context.strokeRect(0.5, state.query * cell, pixels - 1, Math.max(cell, 2));
    made.setAttribute("role", "img");
    made.setAttribute("aria-label", `Attention of ${title(state.head)}`);
    const at = (event) => {
      const box = made.getBoundingClientRect();
      const place = (offset, extent) =>
        Math.max(0, Math.min(length - 1, Math.floor((offset / extent) * length)));
      return [
        place(event.clientY - box.top, box.height),
        place(event.clientX - box.left, box.width),
      ];
    };
    made.addEventListener("pointermove", (event) => say(...at(event)));
    made.addEventListener("click", (event) => read(at(event)[0]));
    large.replaceChildren(made);
  }

  function say(query, key) {
    const about = (place) => `${place + 1} “${names[place]}”`;
    line.textContent =
      key > query
        ? `Token ${about(query)} comes before token ${about(key)} and does not see it.`
        : `Token ${about(query)} reads token ${about(key)} with a weight of ` +
          `${(100 * weight(state.head, query, key)).toFixed(1)} %.`;
  }

  function read(query) {
    state.query = query;
    const row = Array.from({ length }, (_, key) => weight(state.head, query, key));
    spans.forEach((span, key) => {
      span.style.setProperty("--s", row[key].toFixed(3));
      span.title = `${(100 * row[key]).toFixed(1)} %`;
      span.classList.toggle("chosen", key === query);
      span.classList.toggle("unseen", key > query);
    });
    say(query, row.indexOf(Math.max(...row)));
    drawLarge();
  }

  function go(head) {
    const before = layerOf();
    state.head = head;
    tools();
    if (layers * heads > ALL && layerOf() !== before) drawSmall();
    [...small.children].forEach((button, n) => {
      const shown = (layers * heads > ALL ? layerOf() * heads : 0) + n;
      button.setAttribute("aria-pressed", String(shown === head));
    });
    read(state.query);
  }

  const bar = element("div", { class: "tools" });
  function tools() {
    const numbered = (count) => Array.from({ length: count }, (_, n) => [String(n), String(n + 1)]);
    const [layer, head] = [layerOf(), state.head % heads];
    bar.replaceChildren(
      choice("Layer", numbered(layers), String(layer), (one) => go(Number(one) * heads + head)),
      choice("Head", numbered(heads), String(head), (one) => go(layer * heads + Number(one))),
      element("span", { class: "quiet" }, "weight 0"),
      element("span", { class: "ramp weights" }),
      element("span", { class: "quiet" }, "1, by its square root"),
    );
  }

  home.replaceChildren(small, bar, large, line, strip);
  choosing(strip, spans, read);
  drawSmall();
  tools();
  read(state.query);
  onResize(large, drawLarge);
  on("theme", () => {
    drawSmall();
    tools();
    drawLarge();
  });
}

// A canvas of `pixels` with the weights of one head, one square for each query and key.
function picture(weight, head, length, pixels) {
  const plain = document.createElement("canvas");
  plain.width = plain.height = length;
  const context = plain.getContext("2d"),
    image = context.createImageData(length, length);
  const accent = colour("accent").match(/[0-9a-f]{2}/gi).map((two) => parseInt(two, 16));
  for (let query = 0; query < length; query++) {
    for (let key = 0; key <= query; key++) {
      const share = Math.sqrt(weight(head, query, key));
      image.data.set([...accent, Math.round(255 * share)], 4 * (query * length + key));
    }
  }
  context.putImageData(image, 0, 0);
  const sharp = canvas(pixels, pixels);
  sharp.context.imageSmoothingEnabled = pixels < length;
  sharp.context.drawImage(plain, 0, 0, pixels, pixels);
  return sharp;
}
