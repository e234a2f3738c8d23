// The metric over one key, a learning rate if there is one, for each value of another: means with
// their spread, and the fitted minima.
import { choice, element } from "./dom.js";
import {
  about,
  binned,
  grouped,
  keyAxis,
  keyValue,
  metricDomain,
  summary,
  MOST_VALUES,
} from "./groups.js";
import { lazily, onResize } from "./lazily.js";
import { nats, threeDigits } from "./numbers.js";
import { colour, palette, rampRange } from "./theme.js";
import { vegaTooltip } from "./tooltip.js";
import { embed } from "./vega.js";
import { column, measured, metricColumn, on, store } from "./store.js";

const NONE = ""; // one line for all trials

export function rates(home) {
  const tools = element("div", { class: "tools" }),
    chart = element("div", { class: "chart" });
  const fitted = element("ul", { class: "quiet" });
  home.append(tools, chart, fitted);
  const state = { x: null, by: null };
  const redraw = lazily(chart, () => {
    fitted.replaceChildren(...minima(state).map((one) => element("li", {}, sentence(one))));
    return embed(chart, spec(state), { tooltip: vegaTooltip });
  });
  const update = () => {
    const keyed = store.columns.filter((c) => c.key),
      names = keyed.map((c) => [c.name, c.title]);
    home.hidden = !names.length;
    if (home.hidden) return;
    if (!column(state.x)) state.x = firstRate(keyed);
    if (state.by === null || (state.by && !column(state.by))) state.by = firstWidth(keyed, state.x);
    const pick = (label, which, options) =>
      choice(label, options, state[which], (name) => {
        state[which] = name;
        redraw();
      });
    tools.replaceChildren(
      pick("x:", "x", names),
      pick("a line for each:", "by", [[NONE, "(none)"], ...names]),
    );
    redraw();
  };
  on("data", update);
  for (const topic of ["shown", "theme"]) on(topic, redraw);
  onResize(chart, redraw);
  update();
}

function firstRate(keyed) {
  const fitted = store.data.ranking.optima[0]?.key;
  const named =
    keyed.find((c) => c.name === fitted) ??
    keyed.find((c) => /learning_rate|(^|\.)lr$/.test(c.name));
  return (named ?? keyed.find((c) => c.log) ?? keyed[0]).name;
}

function firstWidth(keyed, x) {
  const others = keyed.filter((c) => c.name !== x && c.key.values.length <= MOST_VALUES);
  const at = Object.keys(store.data.ranking.optima[0]?.at ?? {});
  const found =
    others.find((c) => /width|d_model/.test(c.name)) ??
    others.find((c) => at.includes(c.name)) ??
    others[0];
  return found ? found.name : NONE;
}

// The fitted minima of this key, where the lines are the settings that they were fitted at.
function minima(state) {
  return store.data.ranking.optima.filter((one) => one.key === state.x);
}

function sentence(one) {
  const at = Object.entries(one.at)
    .map(([key, value]) => `${column(key)?.title ?? key} ${value}`)
    .join(", ");
  const where = `Fitted minimum${at ? ` at ${at}` : ""}: `;
  if (one.value === null) return `${where}${one.reason}.`;
  const range =
    one.lo === null && one.hi === null ? "" : ` [${threeDigits(one.lo)}, ${threeDigits(one.hi)}]`;
  const inside = one.inside ? "inside the grid" : "outside the grid";
  const reason = one.reason ? `; ${one.reason}` : "";
  return `${where}${threeDigits(one.value)}${range}, ${inside}${reason}.`;
}

function spec(state) {
  const cx = column(state.x),
    by = state.by ? column(state.by) : null,
    metric = metricColumn();
  const lines = by ? binned(by, 5) : { label: () => "all trials", labels: ["all trials"] };
  const rows = [];
  let repeated = false;
  for (const [line, trials] of grouped(measured(), lines.label)) {
    for (const [, inside] of grouped(trials, (i) => cx.text(i))) {
      const found = summary(inside),
        x = keyValue(cx, inside[0]);
      repeated ||= found.n > 1;
      rows.push({
        x,
        line,
        ...found,
        lo: found.mean - (found.spread ?? 0),
        hi: found.mean + (found.spread ?? 0),
        title: cx.text(inside[0]),
        about: about(found, by ? [[by.title, line]] : []),
      });
    }
  }
  const domain = rows.length ? metricDomain(rows.flatMap((row) => [row.lo, row.hi])) : [0, 1];
  const y = (field) => ({
    field,
    type: "quantitative",
    title: `mean ${metric.title} (${metric.unit})`,
    scale: { domain, zero: false, nice: false },
  });
  const many = lines.labels.length > 2,
    range = many ? rampRange(lines.labels.length + 1).slice(1) : palette();
  const color = {
    field: "line",
    type: "nominal",
    sort: lines.labels,
    title: by ? by.title : null,
    scale: { domain: lines.labels, range },
    legend: by ? { orient: "bottom", columns: window.innerWidth < 520 ? 4 : 8 } : null,
  };
  const continuous = cx.key.values.length > MOST_VALUES && cx.key.scale !== "category";
  const layers = [
    ...(continuous
      ? []
      : [
          {
            mark: { type: "line", strokeWidth: 2, clip: true },
            encoding: { x: keyAxis(cx), y: y("mean"), color },
          },
        ]),
    {
      mark: { type: "rule", strokeWidth: 1.5, clip: true },
      encoding: { x: keyAxis(cx), y: y("lo"), y2: { field: "hi" }, color },
    },
    {
      mark: { type: "circle", size: continuous ? 24 : 64, opacity: 1, clip: true },
      encoding: { x: keyAxis(cx), y: y("mean"), color },
    },
  ];
  return {
    data: { values: rows },
    width: "container",
    height: 340,
    autosize: { type: "fit-x", contains: "padding" },
    layer: [...layers, ...minimumLayers(state, cx, y)],
  };
}

// A diamond at each fitted minimum, with a rule over its interval.
function minimumLayers(state, cx, y) {
  const rows = minima(state)
    .filter((one) => one.value !== null && one.loss !== null)
    .map((one) => ({
      x: one.value,
      mean: one.loss,
      lo: one.lo ?? one.value,
      hi: one.hi ?? one.value,
      title: "fitted minimum",
      about: [
        ...Object.entries(one.at).map(([key, v]) => [column(key)?.title ?? key, String(v)]),
        [cx.title, threeDigits(one.value)],
        ["mean there", nats(one.loss)],
        ["inside the grid", one.inside ? "yes" : "no"],
      ],
    }));
  if (!rows.length || cx.key.scale === "category") return [];
  const mark = colour("mark");
  return [
    {
      data: { values: rows },
      mark: { type: "rule", color: mark, strokeWidth: 2, clip: true },
      encoding: { x: keyAxis(cx, "lo"), x2: { field: "hi" }, y: y("mean") },
    },
    {
      data: { values: rows },
      mark: {
        type: "point",
        shape: "diamond",
        filled: true,
        size: 130,
        opacity: 1,
        color: mark,
        clip: true,
      },
      encoding: { x: keyAxis(cx), y: y("mean") },
    },
  ];
}
