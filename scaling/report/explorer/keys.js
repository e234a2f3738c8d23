// What each key does: its share of the variance, and the metric over its values.
import { element } from "./dom.js";
import { keyAxis, keyValue, metricDomain, sampled } from "./groups.js";
import { lazily, onResize } from "./lazily.js";
import { nats, percent, DASH } from "./numbers.js";
import { colour, palette } from "./theme.js";
import { vegaTooltip } from "./tooltip.js";
import { embed } from "./vega.js";
import { column, metricColumn, on, store } from "./store.js";

const DOT = 0.55; // opacity

export function keys(home) {
  const chart = element("div", { class: "chart" }),
    notes = element("div");
  const plots = element("div", { class: "grid-of-plots" });
  home.append(
    chart,
    notes,
    element("h3", {}, "The metric over each key"),
    element(
      "p",
      { class: "quiet" },
      "Dots are trials that filter and brushes leave. Bars are the mean at a value with the " +
        "other keys held fixed, with its interval.",
    ),
    plots,
  );
  const redraw = lazily(chart, () => embed(chart, importanceSpec(), { tooltip: vegaTooltip }));
  let drawn = [];
  const update = () => {
    notes.replaceChildren(...remarks());
    redraw();
    const names = store.columns.filter((c) => c.key).map((c) => c.name);
    if (names.join("\n") !== drawn.map((one) => one.name).join("\n")) {
      drawn = byImportance(names).map((name) => onePlot(name));
      plots.replaceChildren(...drawn.map((one) => one.figure));
    } else for (const one of drawn) one.redraw();
  };
  on("data", update);
  on("theme", redraw);
  onResize(chart, redraw);
  for (const topic of ["shown", "theme"]) on(topic, () => drawn.forEach((one) => one.redraw()));
  update();
}

function effectOf(name) {
  return store.data.ranking.effects.find((one) => one.key === name);
}

function byImportance(names) {
  const share = (name) => effectOf(name)?.importance?.value ?? -1;
  return [...names].sort((a, b) => share(b) - share(a));
}

function onePlot(name) {
  const plot = element("div", {
    class: "chart small",
    role: "img",
    "aria-label": `${metricColumn().title} over ${column(name).title}`,
  });
  const figure = element("figure", {}, plot);
  return {
    name,
    figure,
    redraw: lazily(plot, () =>
      embed(plot, scatterSpec(column(name)), { tooltip: vegaTooltip, actions: false }),
    ),
  };
}

function importanceSpec() {
  const { effects, interactions, level } = store.data.ranking;
  const title = (key) => column(key)?.title ?? key;
  const rows = [
    ...effects.map((one) => ({ name: title(one.key), kind: "key", ...one })),
    ...interactions
      .slice(0, 5)
      .map((one) => ({ name: one.keys.map(title).join(" × "), kind: "interaction", ...one })),
  ]
    .filter((row) => row.importance)
    .map(({ name, kind, importance, p }) => ({
      name,
      kind,
      ...importance,
      title: name,
      about: [
        ["share of the variance", percent(importance.value)],
        [`${percent(level)} interval`, `${percent(importance.lo)} to ${percent(importance.hi)}`],
        ...(p === undefined
          ? []
          : [["p of its effect", p === null ? DASH : p < 0.001 ? "<0.001" : p.toFixed(3)]]),
      ],
    }));
  const [key, interaction] = palette();
  const y = {
    field: "name",
    type: "nominal",
    sort: rows.map((row) => row.name),
    title: null,
    axis: { labelLimit: 220 },
  };
  const x = {
    type: "quantitative",
    title: "share of the variance of the metric",
    axis: { format: ".0%", tickCount: 6 },
  };
  return {
    data: { values: rows },
    width: "container",
    height: 26 * rows.length,
    autosize: { type: "fit-x", contains: "padding" },
    encoding: { y },
    layer: [
      {
        mark: { type: "bar", height: 13, opacity: 0.85 },
        encoding: {
          x: { field: "value", ...x },
          color: {
            field: "kind",
            type: "nominal",
            title: null,
            scale: { domain: ["key", "interaction"], range: [key, interaction] },
            legend: interactions.length ? { orient: "bottom" } : null,
          },
        },
      },
      {
        mark: { type: "rule", color: colour("ink"), strokeWidth: 1.5 },
        encoding: { x: { field: "lo", ...x }, x2: { field: "hi" } },
      },
    ],
  };
}

// Notes on effects, and why there may be no importances.
function remarks() {
  const { effects } = store.data.ranking,
    known = effects.filter((one) => one.importance);
  const lines = effects
    .filter((one) => one.note)
    .map((one) => `${column(one.key)?.title ?? one.key}: ${one.note}`);
  const method = known.length
    ? `Importance: ${known[0].method}.`
    : "No importances for these trials.";
  return [
    element("p", { class: "quiet" }, method),
    ...(lines.length
      ? [element("ul", { class: "quiet" }, ...lines.map((line) => element("li", {}, line)))]
      : []),
  ];
}

function scatterSpec(c) {
  const metric = metricColumn(),
    places = sampled();
  const rows = places.map((i) => ({ i, x: keyValue(c, i), y: store.data.trials.value[i] }));
  const marginal = (effectOf(c.name)?.marginal ?? []).map((one) => ({
    x:
      c.key.scale === "category"
        ? (c.key.labels[c.key.values.indexOf(one.value)] ?? String(one.value))
        : one.value,
    mean: one.mean,
    lo: one.lo ?? one.mean,
    hi: one.hi ?? one.mean,
    title: c.title,
    about: [
      ["mean", nats(one.mean)],
      ["interval", one.lo === null ? DASH : `${nats(one.lo)} to ${nats(one.hi)}`],
      ["configurations", String(one.n)],
    ],
  }));
  const all = places.map((i) => store.data.trials.value[i]);
  const domain = all.length ? metricDomain(all) : [0, 1];
  const y = (field) => ({
    field,
    type: "quantitative",
    title: metric.title,
    scale: { domain, zero: false, nice: false },
  });
  const [dot, , , , , bar] = palette();
  const share = effectOf(c.name)?.importance;
  return {
    title: {
      text: `${c.title}${share ? `, ${percent(share.value)} of the variance` : ""}`,
      anchor: "start",
      fontSize: 13,
      fontWeight: 500,
      color: colour("ink"),
    },
    width: "container",
    height: 190,
    autosize: { type: "fit-x", contains: "padding" },
    layer: [
      {
        data: { values: rows },
        mark: {
          type: "circle",
          size: rows.length > 300 ? 14 : 34,
          opacity: DOT,
          clip: true,
          color: dot,
        },
        encoding: { x: keyAxis(c), y: y("y") },
      },
      {
        data: { values: marginal },
        mark: { type: "rule", strokeWidth: 2.5, color: bar, clip: true },
        encoding: { x: keyAxis(c), y: y("lo"), y2: { field: "hi" } },
      },
      {
        data: { values: marginal },
        mark: {
          type: "point",
          shape: "stroke",
          size: 220,
          strokeWidth: 2.5,
          opacity: 1,
          color: bar,
          clip: true,
        },
        encoding: { x: keyAxis(c), y: y("mean") },
      },
    ],
  };
}
