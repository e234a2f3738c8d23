// The loss curves: training and validation over steps, tokens, FLOPs or seconds, on a canvas.
import { canvas, choice, element, svg, toggle } from "./dom.js";
import { colouring } from "./colouring.js";
import { lazily, onResize } from "./lazily.js";
import { amount, clock, robustHigh, threeDigits, ticks } from "./numbers.js";
import { hideTip, showTrial } from "./tooltip.js";
import { colour } from "./theme.js";
import { column, metricColumn, on, setHovered, setPinned, store } from "./store.js";

const HEIGHT = 400,
  LEFT = 62,
  RIGHT = 14,
  TOP = 12,
  BOTTOM = 44,
  NEAR = 22; // pixels
const EARLY = 0.05; // share of a curve whose fall from the start does not stretch the axis
const FAR = 2.5; // times the usual range from which a value is left out
const AXES = {
  steps: { text: amount, of: (curve, k) => curve.step[k] },
  tokens: { text: amount, of: (curve, k, per) => curve.step[k] * per.tokens },
  FLOPs: { text: threeDigits, of: (curve, k, per) => curve.step[k] * per.flops },
  seconds: { text: clock, of: (curve, k) => curve.seconds[k] },
};
const KINDS = { evaluated: "validation", train: "training" };

export function curves(home) {
  const state = {
    kinds: "evaluated",
    x: "tokens",
    logX: false,
    logY: false,
    smooth: 0,
    by: null,
    whole: false,
  };
  const tools = element("div", { class: "tools" }),
    plot = element("div", { class: "layers plot" });
  const legend = element("div"),
    note = element("p", { class: "quiet", role: "status" });
  home.append(tools, plot, legend, note);
  let view = null;
  const draw = () => {
    view = lay(state, plot.clientWidth);
    if (!view) {
      plot.replaceChildren(element("p", { class: "quiet" }, "No such curves of these trials."));
      return;
    }
    const base = canvas(view.width, HEIGHT, {
      role: "img",
      tabindex: "0",
      "aria-label":
        `${view.lines.length} curves of ${metricColumn().title} over ${state.x}. ` +
        "Arrow keys go through the trials.",
    });
    const over = canvas(view.width, HEIGHT, { "aria-hidden": "true", class: "through" });
    const shades = colouring(column(state.by) ?? metricColumn());
    paint(base.context, view, shades);
    Object.assign(view, { over: over.context, shades });
    plot.replaceChildren(base.made, over.made, axes(view, state));
    legend.replaceChildren(shades.legend);
    note.textContent = remarks(view, state);
    listen(base.made, () => view);
    highlight(view);
  };
  const redraw = lazily(plot, draw);
  const update = () => {
    tools.replaceChildren(...controls(state, redraw));
    redraw();
  };
  for (const topic of ["shown", "theme", "curves"]) on(topic, redraw);
  on("data", update);
  on("hovered", () => view?.over && highlight(view));
  onResize(plot, redraw);
  update();
}

function controls(state, redraw) {
  const set = (name) => (value) => {
    state[name] = value;
    redraw();
  };
  const same = (names) => names.map((name) => [name, name]);
  const kinds = [
    ["evaluated", "validation"],
    ["train", "training"],
    ["both", "training and validation"],
  ];
  const by = store.columns.filter(
    (c) => c.key || c.measured || ["status", "params", "seed"].includes(c.name),
  );
  state.by ??= metricColumn().name;
  const slider = element("input", {
    type: "range",
    min: "0",
    max: "0.95",
    step: "0.05",
    value: String(state.smooth),
    oninput: () => set("smooth")(Number(slider.value)),
  });
  return [
    choice("curves:", kinds, state.kinds, set("kinds")),
    choice("x:", same(Object.keys(AXES)), state.x, set("x")),
    choice(
      "colour:",
      by.map((c) => [c.name, c.title]),
      state.by,
      set("by"),
    ),
    toggle("log x", state.logX, set("logX")),
    toggle("log y", state.logY, set("logY")),
    toggle("all values", state.whole, set("whole")),
    element("label", {}, "smoothing ", slider),
  ];
}

// The points of each curve: {i, kind, xs, ys}; unknown or unusable points end a stretch (null).
function collect(state) {
  const kinds = state.kinds === "both" ? ["train", "evaluated"] : [state.kinds];
  const { tokens, flops } = store.data.trials,
    { of } = AXES[state.x],
    lines = [];
  let left = 0;
  for (const i of store.shown) {
    const whole = store.curves[i] ?? {};
    const per = {
      tokens: whole.per_step,
      flops: flops[i] ? (whole.per_step * flops[i]) / tokens[i] : null,
    };
    if ((state.x === "FLOPs" && !per.flops) || (state.x === "tokens" && !per.tokens)) {
      left += Object.keys(whole).length > 0;
      continue;
    }
    for (const kind of kinds.filter((one) => whole[one])) {
      const curve = whole[kind],
        usable = (v, log) => v !== null && (!log || v > 0);
      const xs = curve.step.map((_, k) => of(curve, k, per));
      const ys = smoothed(curve.value, state.smooth).map((v, k) =>
        usable(v, state.logY) && usable(xs[k], state.logX) ? v : null,
      );
      if (ys.some((v) => v !== null)) lines.push({ i, kind, xs, ys });
    }
  }
  return { lines, left };
}

// An exponential moving average that starts at the first value, without its bias towards zero.
function smoothed(values, weight) {
  if (!weight) return values;
  let sum = 0,
    total = 0;
  return values.map((v) => {
    if (v === null) return null;
    sum = weight * sum + (1 - weight) * v;
    total = weight * total + (1 - weight);
    return sum / total;
  });
}

function lay(state, width) {
  const { lines, left } = collect(state);
  if (!lines.length || width < 50) return null;
  const late = lines.map(({ ys }) =>
    ys.slice(Math.ceil(EARLY * (ys.length - 1))).filter((v) => v !== null),
  );
  const tops = late.filter((ys) => ys.length).map((ys) => Math.max(...ys));
  const every = lines.flatMap(({ ys }) => ys.filter((v) => v !== null));
  const low = every.reduce((a, b) => Math.min(a, b)),
    largest = every.reduce((a, b) => Math.max(a, b));
  const usual = tops.length ? robustHigh(tops) : largest;
  const high = state.whole || largest - low <= FAR * (usual - low) ? largest : usual;
  const ends = lines.map(({ xs, ys }) => xs.filter((_, k) => ys[k] !== null));
  const x = scale(
    Math.min(...ends.map((v) => v[0])),
    Math.max(...ends.map((v) => v[v.length - 1])),
    state.logX,
    LEFT,
    width - RIGHT,
    0,
  );
  const y = scale(low, Math.max(high, low), state.logY, HEIGHT - BOTTOM, TOP, 0.04);
  const above = new Set(lines.filter(({ ys }) => ys.some((v) => v > y.high)).map((line) => line.i));
  return { lines, left, x, y, width, above: above.size };
}

// A function from values to pixels with its limits; `pad` is the share of the range around it.
function scale(low, high, log, from, to, pad) {
  const place = log ? Math.log : (v) => v,
    back = log ? Math.exp : (v) => v;
  const reach = place(high) - place(low) || Math.abs(place(low)) * 0.1 || 1;
  const [start, end] = [place(low) - pad * reach, place(low) + (1 + pad) * reach];
  const pixel = (v) => from + ((place(v) - start) / (end - start)) * (to - from);
  return Object.assign(pixel, { low: back(start), high: back(end), log });
}

function trace(context, view, { xs, ys }) {
  let pen = false;
  context.beginPath();
  for (let k = 0; k < xs.length; k += 1) {
    if (ys[k] === null) pen = false;
    else {
      if (pen) context.lineTo(view.x(xs[k]), view.y(ys[k]));
      else context.moveTo(view.x(xs[k]), view.y(ys[k]));
      pen = true;
    }
  }
  context.stroke();
}

function clip(context, view) {
  context.beginPath();
  context.rect(LEFT, TOP, view.width - LEFT - RIGHT, HEIGHT - TOP - BOTTOM);
  context.clip();
}

function paint(context, view, shades) {
  context.save();
  context.strokeStyle = colour("line");
  for (const v of ticks(view.y.low, view.y.high, view.y.log)) {
    context.beginPath();
    context.moveTo(LEFT, view.y(v));
    context.lineTo(view.width - RIGHT, view.y(v));
    context.stroke();
  }
  clip(context, view);
  context.globalAlpha = Math.min(0.9, Math.max(0.15, 80 / view.lines.length));
  for (const line of view.lines) {
    context.lineWidth = line.kind === "train" ? 1 : 1.8;
    context.strokeStyle = shades.of(line.i);
    trace(context, view, line);
  }
  context.restore();
}

function axes(view, state) {
  const end = HEIGHT - BOTTOM,
    metric = metricColumn();
  const drawing = svg("svg", {
    width: view.width,
    height: HEIGHT,
    class: "through axis",
    "aria-hidden": "true",
  });
  for (const v of ticks(view.x.low, view.x.high, view.x.log, view.width < 500 ? 4 : 8)) {
    drawing.append(
      svg("text", { x: view.x(v), y: end + 18, "text-anchor": "middle" }, AXES[state.x].text(v)),
    );
  }
  for (const v of ticks(view.y.low, view.y.high, view.y.log)) {
    drawing.append(
      svg("text", { x: LEFT - 8, y: view.y(v) + 4, "text-anchor": "end" }, threeDigits(v)),
    );
  }
  const middle = (TOP + end) / 2;
  drawing.append(
    svg("line", { x1: LEFT, x2: view.width - RIGHT, y1: end, y2: end }),
    svg(
      "text",
      {
        x: (LEFT + view.width - RIGHT) / 2,
        y: HEIGHT - 6,
        "text-anchor": "middle",
        class: "title",
      },
      state.x,
    ),
    svg(
      "text",
      {
        x: 14,
        y: middle,
        transform: `rotate(-90 14 ${middle})`,
        "text-anchor": "middle",
        class: "title",
      },
      `${metric.title} (${metric.unit})`,
    ),
  );
  return drawing;
}

function remarks(view, state) {
  const texts = [];
  if (view.above)
    texts.push(`${view.above} trials leave the plot at the top; “all values” shows them.`);
  if (view.left) texts.push(`${view.left} trials have no count of ${state.x} until they end.`);
  if (state.kinds === "both") texts.push("Thick: validation; thin: training.");
  return texts.join(" ");
}

function highlight(view) {
  const { over } = view;
  over.clearRect(0, 0, view.width, HEIGHT);
  over.save();
  clip(over, view);
  for (const i of [store.pinned, store.hovered].filter((one) => one >= 0)) {
    for (const line of view.lines.filter((one) => one.i === i)) {
      over.lineWidth = 6;
      over.strokeStyle = colour("panel");
      trace(over, view, line);
      over.lineWidth = line.kind === "train" ? 2 : 3;
      over.strokeStyle = colour("mark");
      trace(over, view, line);
    }
  }
  over.restore();
}

// Hover and arrow keys highlight a trial; a click or Enter keeps it highlighted.
function listen(made, current) {
  made.addEventListener("pointermove", (event) => {
    const box = made.getBoundingClientRect();
    const i = nearestTrial(current(), event.clientX - box.left, event.clientY - box.top);
    setHovered(i);
    if (i < 0) hideTip();
    else showTrial(event, i);
  });
  made.addEventListener("pointerleave", () => {
    setHovered(-1);
    hideTip();
  });
  made.addEventListener("click", () => store.hovered >= 0 && setPinned(store.hovered));
  made.addEventListener("keydown", (event) => {
    const step = { ArrowDown: 1, ArrowRight: 1, ArrowUp: -1, ArrowLeft: -1 }[event.key];
    if (event.key === "Enter" && store.hovered >= 0) setPinned(store.hovered);
    if (!step) return;
    event.preventDefault();
    const trials = [...new Set(current().lines.map((line) => line.i))];
    const next = (trials.indexOf(store.hovered) + step + trials.length) % trials.length;
    setHovered(trials[next]);
    const box = made.getBoundingClientRect();
    showTrial({ clientX: box.left + LEFT, clientY: box.top + TOP }, trials[next]);
  });
  made.addEventListener("blur", hideTip);
}

function nearestTrial(view, px, py) {
  let [best, nearest] = [-1, NEAR * NEAR];
  for (const { i, xs, ys } of view.lines) {
    for (let k = 0; k < xs.length; k += 1) {
      if (ys[k] === null) continue;
      // Between two points the line is nearer than either.
      const [x0, y0] = [view.x(xs[k]), view.y(ys[k])];
      const next =
        k + 1 < xs.length && ys[k + 1] !== null ? [view.x(xs[k + 1]), view.y(ys[k + 1])] : [x0, y0];
      if (Math.min(x0, next[0]) > px + NEAR || Math.max(x0, next[0]) < px - NEAR) continue;
      const [dx, dy] = [next[0] - x0, next[1] - y0],
        length = dx * dx + dy * dy;
      const share = length
        ? Math.min(1, Math.max(0, ((px - x0) * dx + (py - y0) * dy) / length))
        : 0;
      const off = (x0 + share * dx - px) ** 2 + (y0 + share * dy - py) ** 2;
      if (off < nearest) [best, nearest] = [i, off];
    }
  }
  return best;
}
