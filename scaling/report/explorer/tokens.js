// The tokens of a text: shows the numbers of the one that is pointed at or chosen by arrow keys.
import { element } from "./dom.js";
import { DASH, nats } from "./numbers.js";

const percent = (p) => `${(100 * p).toFixed(p < 0.001 ? 4 : 1)} %`;

export function tokens(data) {
  const strip = document.getElementById("strip"),
    detail = document.getElementById("detail");
  const spans = [...strip.querySelectorAll(".token")];
  const go = choosing(strip, spans, (place) => {
    const value = data.nats[place];
    detail.replaceChildren(
      element("b", {}, element("code", {}, data.pieces[place])),
      fact("probability", value == null ? "0 %" : percent(Math.exp(-value))),
      fact("nats", value == null ? "∞" : nats(value)),
      fact("entropy", nats(data.entropy[place])),
      fact("rank", data.rank[place].toLocaleString("en")),
      element("ol", {}, ...data.top[place].map((piece, k) => guess(piece, data.top_p[place][k]))),
    );
  });
  const surprise = data.nats.map((value) => value ?? Infinity);
  go(surprise.indexOf(Math.max(...surprise)));
}

// Calls chosen(place) for the token of a strip that the reader points at, taps or reaches by keys.
export function choosing(strip, spans, chosen) {
  let now = 0;
  const go = (place, focus) => {
    now = Math.max(0, Math.min(spans.length - 1, place));
    for (const span of spans) span.classList.toggle("chosen", span === spans[now]);
    if (focus) spans[now].scrollIntoView({ block: "nearest" });
    chosen(now);
  };
  const pointed = (event) => {
    const span = event.target.closest(".token");
    if (span) go(spans.indexOf(span));
  };
  strip.addEventListener("pointerover", pointed);
  strip.addEventListener("click", pointed);
  strip.addEventListener("keydown", (event) => {
    const by = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    if (!by) return;
    event.preventDefault();
    go(now + by, true);
  });
  return go;
}

function fact(name, value) {
  return element("span", {}, element("small", {}, `${name} `), value ?? DASH);
}

function guess(piece, p) {
  const bar = element("span", { class: "bar" }, element("span", { style: `width:${100 * p}%` }));
  return element("li", {}, element("code", {}, piece), bar, element("small", {}, percent(p)));
}
