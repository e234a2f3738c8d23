// The state of the page: the trials, what the reader filters and brushes, and who wants to know.
import { amount, clock, nats, threeDigits, DASH } from "./numbers.js";
import { parseFilter } from "./filter.js";

export const store = {
  data: null,
  curves: [],
  filter: "",
  brushes: {}, // column name → [low, high], in the column's positions
  shown: [], // places of the trials that filter and brushes leave
  hovered: -1,
  pinned: -1,
};
const listeners = { data: [], shown: [], hovered: [], curves: [], theme: [] };

export function on(topic, listener) {
  listeners[topic].push(listener);
}

export function emit(topic) {
  for (const listener of listeners[topic]) listener();
}

// The columns of the trials. `number` [n] orders and places the trials (null: unknown), `text` is
// what the reader sees, `log` how the numbers are spaced, `key` the varied key, if it is one.
export function makeColumns(data) {
  const t = data.trials,
    plain = (name, title, values, text, more = {}) => ({
      name,
      title,
      number: values,
      text: (i) => text(values[i]),
      ...more,
    });
  const rank = new Array(t.id.length).fill(null);
  data.configurations.trials.forEach((places, row) => {
    for (const i of places) rank[i] = row + 1;
  });
  const metric = data.ranking.metric;
  const columns = [
    plain("rank", "rank", rank, (v) => (v == null ? "" : String(v))),
    { name: "id", title: "trial", number: null, text: (i) => t.id[i] },
    { name: "status", title: "status", number: null, text: (i) => statusText(data, i) },
    ...data.keys.map((key) => keyColumn(data, key)),
  ];
  if (new Set(t.seed).size > 1) columns.push(plain("seed", "seed", t.seed, String));
  columns.push(
    {
      name: metric,
      title: metric,
      number: t.value.map((v, i) => v ?? t.latest[i]),
      text: (i) =>
        t.value[i] == null && t.latest[i] != null
          ? `${nats(t.latest[i])} so far`
          : nats(t.value[i]),
      measured: true,
      unit: data.ranking.unit,
    },
    plain("error", "± evaluation", t.error, nats),
    plain("params", "parameters", t.params, amount, { log: true }),
    plain("tokens", "tokens", t.tokens, amount, { log: true }),
    plain("flops", "FLOPs", t.flops, threeDigits, { log: true }),
    plain("seconds", "time", t.seconds, clock, { log: true }),
  );
  return columns.filter((c) => !c.number || c.number.some((v) => v != null) || c.key || c.measured);
}

function keyColumn(data, key) {
  const places = data.trials.keys[key.key];
  const numeric = key.scale !== "category";
  return {
    name: key.key,
    title: key.name,
    key,
    log: key.scale === "log",
    number: places.map((p) => (p < 0 ? null : numeric ? key.values[p] : p)),
    text: (i) => (places[i] < 0 ? DASH : key.labels[places[i]]),
    place: (i) => places[i],
  };
}

export function statusText(data, i) {
  return data.trials.status[i] + (data.trials.held_out[i] ? ", held out" : "");
}

export function column(name) {
  return store.columns.find((c) => c.name === name);
}

export function metricColumn() {
  return store.columns.find((c) => c.measured);
}

// Replaces the data; the reader's filter, brushes and order stay.
export function setData(data) {
  store.data = data;
  store.columns = makeColumns(data);
  for (const name of Object.keys(store.brushes)) if (!column(name)) delete store.brushes[name];
  select();
  emit("data");
}

// Works out which trials the filter and the brushes leave; returns an error in the filter, or "".
export function select() {
  const { keep, error } = parseFilter(store.filter, store.columns, metricColumn().name);
  const brushed = Object.entries(store.brushes).map(([name, range]) => [column(name), range]);
  store.shown = [];
  for (let i = 0; i < store.data.trials.id.length; i += 1) {
    const inside = brushed.every(([c, [low, high]]) => {
      const value = c.number[i];
      return value != null && value >= low && value <= high;
    });
    if (inside && keep(i)) store.shown.push(i);
  }
  return error;
}

export function setBrush(name, range) {
  if (range) store.brushes[name] = range;
  else delete store.brushes[name];
  select();
  emit("shown");
}

export function setHovered(i) {
  if (store.hovered === i) return;
  store.hovered = i;
  emit("hovered");
}

export function setPinned(i) {
  store.pinned = store.pinned === i ? -1 : i;
  emit("hovered");
}

// Places of the shown trials that are finished and have a value of the metric.
export function measured() {
  const { status, value } = store.data.trials;
  return store.shown.filter((i) => status[i] === "done" && value[i] != null);
}
