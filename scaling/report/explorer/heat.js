// The heat map: the mean of the metric over any two keys.
import { choice, element } from "./dom.js";
import { about, binned, grouped, metricDomain, summary } from "./groups.js";
import { lazily, onResize } from "./lazily.js";
import { nats } from "./numbers.js";
import { colour, isDark, rampRange } from "./theme.js";
import { vegaTooltip } from "./tooltip.js";
import { embed } from "./vega.js";
import { column, measured, metricColumn, on, store } from "./store.js";

const LABELLED = 70; // largest number of cells with their number written in them

export function heat(home) {
  const tools = element("div", { class: "tools" }),
    chart = element("div", { class: "chart" });
  home.append(tools, chart);
  const state = { x: null, y: null };
  const redraw = lazily(chart, () => embed(chart, spec(state), { tooltip: vegaTooltip }));
  const update = () => {
    const names = store.columns.filter((c) => c.key).map((c) => [c.name, c.title]);
    home.hidden = names.length < 2;
    if (home.hidden) return;
    const shares = store.data.ranking.effects.map((e) => [e.key, e.importance?.value ?? 0]);
    const order = shares.sort((a, b) => b[1] - a[1]).map(([key]) => key);
    if (!column(state.x)) [state.x] = order;
    if (!column(state.y)) state.y = order.find((key) => key !== state.x);
    const pick = (axis) =>
      choice(`${axis}:`, names, state[axis], (name) => {
        state[axis] = name;
        redraw();
      });
    tools.replaceChildren(pick("x"), pick("y"));
    redraw();
  };
  on("data", update);
  for (const topic of ["shown", "theme"]) on(topic, redraw);
  onResize(chart, redraw);
  update();
}

function spec(state) {
  const [cx, cy] = [column(state.x), column(state.y)],
    metric = metricColumn();
  const [x, y] = [binned(cx), binned(cy)];
  const cells = [];
  for (const [left, trials] of grouped(measured(), x.label)) {
    for (const [right, inside] of grouped(trials, y.label)) {
      const found = summary(inside);
      cells.push({
        x: left,
        y: right,
        ...found,
        text: nats(found.mean),
        title: "",
        about: about(found, [
          [cx.title, left],
          [cy.title, right],
        ]),
      });
    }
  }
  const domain = cells.length ? metricDomain(cells.map((cell) => cell.mean)) : [0, 1];
  // The better end stands out from the background; the legend says which it is.
  const range = rampRange(),
    better = store.data.ranking.better === "higher" ? range : range.reverse();
  const long = Math.max(...x.labels.map((text) => text.length)) > 10;
  const axis = { labelAngle: long ? -25 : 0, labelLimit: 140 };
  const middle = (domain[0] + domain[1]) / 2,
    bright = isDark() === (store.data.ranking.better !== "higher");
  const ink = {
    condition: { test: `datum.mean ${bright ? "<" : ">"} ${middle}`, value: "#111" },
    value: "#fff",
  };
  const labels =
    cells.length <= LABELLED
      ? [
          {
            mark: { type: "text", fontSize: 11 },
            encoding: { text: { field: "text" }, color: ink },
          },
        ]
      : [];
  return {
    data: { values: cells },
    width: "container",
    height: Math.max(120, 34 * y.labels.length),
    autosize: { type: "fit-x", contains: "padding" },
    encoding: {
      x: { field: "x", type: "ordinal", sort: x.labels, title: cx.title, axis },
      y: {
        field: "y",
        type: "ordinal",
        sort: [...y.labels].reverse(),
        title: cy.title,
        axis: { labelLimit: 140 },
      },
    },
    layer: [
      {
        mark: { type: "rect", stroke: colour("panel") },
        encoding: {
          color: {
            field: "mean",
            type: "quantitative",
            title: `mean ${metric.title}`,
            scale: { domain, range: better, clamp: true },
            legend: { orient: "bottom", gradientLength: 240 },
          },
        },
      },
      ...labels,
    ],
  };
}
