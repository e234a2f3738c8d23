// Colours trials by any column: a few values have one colour each, many a scale from low to high.
import { element } from "./dom.js";
import { amount, nats, robustHigh, threeDigits } from "./numbers.js";
import { palette, ramp } from "./theme.js";
import { store } from "./store.js";

// {of(i), legend}: the colour of each trial, and an element that explains it.
export function colouring(column) {
  const distinct = new Map();
  for (let i = 0; i < store.data.trials.id.length; i += 1) {
    if (!column.number || column.number[i] != null)
      distinct.set(column.text(i), column.number?.[i]);
  }
  const colours = palette();
  if (!column.measured && distinct.size <= colours.length) {
    const texts = [...distinct.keys()];
    if (column.number) texts.sort((a, b) => distinct.get(a) - distinct.get(b));
    const ordered = column.number && column.key?.scale !== "category" && texts.length > 2;
    const shade = (k) => (ordered ? ramp(0.15 + (0.85 * k) / (texts.length - 1)) : colours[k]);
    const by = new Map(texts.map((text, k) => [text, shade(k)]));
    const entries = [...by].map(([text, colour]) => entry(text, colour));
    return {
      of: (i) => by.get(column.text(i)) || colours[6],
      legend: legend(column.title, entries),
    };
  }
  if (!column.number) return { of: () => colours[0], legend: legend(column.title, []) };
  const sorted = column.number.filter((v) => v != null).sort((a, b) => a - b);
  if (!sorted.length) return { of: () => colours[6], legend: legend(column.title, []) };
  const higher = store.data.ranking.better === "higher";
  const [low, high] = limits(column, sorted, higher);
  const place = column.log && low > 0 ? Math.log : (v) => v;
  const width = place(high) - place(low) || 1;
  // The better end of the metric stands out.
  const turned = column.measured && !higher;
  const shade = (share) => ramp(turned ? 1 - share : share);
  const text = column.measured
    ? nats
    : column.name === "flops" || column.key
      ? threeDigits
      : amount;
  const bar = element("span", { class: "ramp" });
  const stops = [0, 0.25, 0.5, 0.75, 1].map(shade).join(",");
  bar.style.background = `linear-gradient(to right, ${stops})`;
  return {
    of: (i) =>
      column.number[i] == null ? colours[6] : shade((place(column.number[i]) - place(low)) / width),
    legend: legend(column.title, [text(low), bar, text(high)]),
  };
}

// One bad trial must not give all others one colour: the worse end is robust.
function limits(column, sorted, higher) {
  const ends = [sorted[0], sorted[sorted.length - 1]];
  if (!column.measured) return ends;
  return higher ? [-robustHigh(sorted.map((v) => -v)), ends[1]] : [ends[0], robustHigh(sorted)];
}

function entry(text, colour) {
  const swatch = element("span", { class: "swatch" });
  swatch.style.background = colour;
  return element("span", {}, swatch, text);
}

function legend(title, entries) {
  return element("div", { class: "legend" }, element("b", {}, title), ...entries);
}
