// Trials grouped by the values of keys, with means and spreads, and axes of keys for Vega.
import { nats, quantile, threeDigits, ticks } from "./numbers.js";
import { measured, metricColumn, store } from "./store.js";

export const MOST_VALUES = 12; // distinct values of a key that have a place of their own
const MOST_POINTS = 1500; // dots of a scatter plot

// For a key with few values the label of each trial's value; for one with many its bin: equally
// many trials in each of at most `bins`. {label(i), labels in order}.
export function binned(column, bins = 8) {
  const { key } = column;
  if (key.values.length <= MOST_VALUES || key.scale === "category") {
    return { label: (i) => column.text(i), labels: key.labels };
  }
  const sorted = column.number.filter((v) => v != null).sort((a, b) => a - b);
  const edges = Array.from({ length: bins + 1 }, (_, k) => quantile(sorted, k / bins));
  const labels = edges.slice(1).map((end, k) => `${threeDigits(edges[k])}–${threeDigits(end)}`);
  const bin = (v) => Math.min(bins - 1, Math.max(0, edges.findIndex((edge) => edge > v) - 1));
  const place = (v) => (v >= edges[bins] ? bins - 1 : bin(v));
  return {
    label: (i) => (column.number[i] == null ? "—" : labels[place(column.number[i])]),
    labels,
  };
}

// {mean, spread, n, low, high} of the metric over trials; spread is null for one.
export function summary(trials) {
  const values = trials.map((i) => store.data.trials.value[i]),
    n = values.length;
  const mean = values.reduce((a, b) => a + b, 0) / n;
  const squares = values.reduce((sum, v) => sum + (v - mean) ** 2, 0);
  const spread = n > 1 ? Math.sqrt(squares / (n - 1)) : null;
  return { mean, spread, n, low: Math.min(...values), high: Math.max(...values) };
}

// A Map of text → trials.
export function grouped(trials, text) {
  const groups = new Map();
  for (const i of trials) {
    const name = text(i);
    if (!groups.has(name)) groups.set(name, []);
    groups.get(name).push(i);
  }
  return groups;
}

export function about({ mean, spread, n, low, high }, rows = []) {
  const metric = metricColumn().title;
  return [
    ...rows,
    [`mean ${metric}`, nats(mean)],
    ["± between trials", nats(spread)],
    ["from, to", `${nats(low)}, ${nats(high)}`],
    ["trials", String(n)],
  ];
}

// The finished trials to draw, every k-th of very many.
export function sampled() {
  const all = measured(),
    every = Math.ceil(all.length / MOST_POINTS);
  return all.filter((_, place) => place % Math.max(1, every) === 0);
}

// The encoding of a key's axis: numbers on their scale, anything else in the order of its values.
export function keyAxis(column, field = "x") {
  if (column.key?.scale === "category") {
    const axis = { labelAngle: -30, labelLimit: 110 };
    return { field, type: "ordinal", sort: column.key.labels, title: column.title, axis };
  }
  const known = column.number.filter((v) => v != null);
  const few = column.key.values.length <= MOST_VALUES;
  const low = known.reduce((a, b) => Math.min(a, b), Infinity);
  const high = known.reduce((a, b) => Math.max(a, b), -Infinity);
  const values = few ? column.key.values : ticks(low, high, column.log);
  const texts = few ? column.key.labels : values.map(threeDigits);
  const labels = values.map((v, k) => `datum.value == ${v} ? ${JSON.stringify(texts[k])}`);
  return {
    field,
    type: "quantitative",
    title: column.title,
    scale: { ...(column.log ? { type: "log" } : { zero: false }), nice: false, padding: 14 },
    axis: { values, labelExpr: `${labels.join(" : ")} : datum.label` },
  };
}

export function keyValue(column, i) {
  return column.key?.scale === "category" ? column.text(i) : column.number[i];
}

// A range of the metric that one bad trial does not stretch.
export function metricDomain(values) {
  const sorted = [...values].sort((a, b) => a - b);
  const [low, high] = [quantile(sorted, 0.25), quantile(sorted, 0.75)],
    reach = 3 * (high - low);
  const inside = reach > 0 ? sorted.filter((v) => v >= low - reach && v <= high + reach) : sorted;
  const [least, most] = [inside[0], inside[inside.length - 1]];
  const pad = 0.05 * (most - least) || 0.01;
  return [least - pad, most + pad];
}
