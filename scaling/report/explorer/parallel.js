// Parallel coordinates: a line a trial over all varied keys and the metric. A range that is brushed
// on an axis filters the table and every other plot.
import { canvas, element, svg } from "./dom.js";
import { colouring } from "./colouring.js";
import { nats, robustHigh, threeDigits, ticks } from "./numbers.js";
import { lazily, onResize } from "./lazily.js";
import { hideTip, showTrial } from "./tooltip.js";
import { colour } from "./theme.js";
import { metricColumn, on, setBrush, setHovered, store } from "./store.js";

const HEIGHT = 340,
  TOP = 46,
  BOTTOM = 24,
  LEFT = 96,
  RIGHT = 64,
  NARROWEST = 100,
  NEAR = 8; // pixels

export function parallel(home) {
  const plot = element("div", { class: "layers" });
  const legend = element("div");
  home.append(
    element(
      "div",
      { class: "cue" },
      element(
        "div",
        {
          class: "scroll wide",
          tabindex: "0",
          role: "region",
          "aria-label": "Parallel coordinates, which may be scrolled sideways",
        },
        plot,
      ),
    ),
    legend,
  );
  let state = null;
  const draw = () => {
    state = lay(plot.parentElement.clientWidth);
    const lines = canvas(state.width, HEIGHT, {
      role: "img",
      "aria-label": `${store.shown.length} trials over ${state.axes.length} axes, as in the table`,
    });
    const over = canvas(state.width, HEIGHT, { "aria-hidden": "true" });
    const axes = svg("svg", {
      width: state.width,
      height: HEIGHT,
      role: "group",
      "aria-label": "Axes; drag along one to filter",
    });
    const shades = colouring(metricColumn());
    state.axes.forEach((axis) => axes.append(axisOf(axis, state)));
    plot.replaceChildren(lines.made, over.made, axes);
    plot.style.width = `${state.width}px`;
    plot.style.height = `${HEIGHT}px`;
    legend.replaceChildren(shades.legend);
    paint(lines.context, state, shades);
    Object.assign(state, { over: over.context, shades });
    axes.addEventListener("pointermove", (event) => hover(event, state, axes));
    axes.addEventListener("pointerleave", () => {
      setHovered(-1);
      hideTip();
    });
    highlight(state);
  };
  const redraw = lazily(plot, draw);
  for (const topic of ["data", "shown", "theme"]) on(topic, redraw);
  on("hovered", () => state?.over && highlight(state));
  onResize(home, redraw);
}

// Axes with their places: {column, x, y(i), low, high, toY(value), fromY(y), marks}.
function lay(width) {
  const columns = [...store.columns.filter((c) => c.key), metricColumn()];
  const gap = Math.max(NARROWEST, (width - LEFT - RIGHT) / Math.max(1, columns.length - 1));
  const axes = columns.map((c, place) => axis(c, LEFT + place * gap));
  return { axes, width: LEFT + RIGHT + gap * (columns.length - 1) };
}

function axis(column, x) {
  const known = column.number.filter((v) => v != null);
  const low = known.length ? known.reduce((a, b) => Math.min(a, b)) : 0;
  const high = known.length
    ? column.measured
      ? robustHigh(known)
      : known.reduce((a, b) => Math.max(a, b))
    : 1;
  const log = column.log && low > 0,
    place = log ? Math.log : (v) => v;
  const span = place(high) - place(low) || 1,
    tall = HEIGHT - TOP - BOTTOM;
  // A value above the axis' end, such as a diverged loss, is drawn at its end.
  const toY = (v) => HEIGHT - BOTTOM - tall * Math.min(1, (place(v) - place(low)) / span);
  const fromY = (y) => {
    const at = place(low) + (span * (HEIGHT - BOTTOM - y)) / tall;
    return log ? Math.exp(at) : at;
  };
  const y = (i) => (column.number[i] == null ? null : toY(column.number[i]));
  return { column, x, low, high, toY, fromY, y, marks: marks(column, low, high, log) };
}

// [value, text] of the ticks: every value of a key that has few, otherwise round numbers.
function marks(column, low, high, log) {
  if (column.number.every((v) => v == null)) return [];
  const { key } = column;
  if (key && key.values.length <= 12) {
    return key.values.map((v, place) => [key.scale === "category" ? place : v, key.labels[place]]);
  }
  if (key?.scale === "category")
    return [
      [low, key.labels[0]],
      [high, key.labels[high]],
    ];
  return ticks(low, high, log).map((v) => [v, column.measured ? nats(v) : threeDigits(v)]);
}

function axisOf(axis, state) {
  const { column, x } = axis,
    end = HEIGHT - BOTTOM;
  const last = axis === state.axes[state.axes.length - 1];
  const group = svg("g", { class: "axis" });
  const title = svg(
    "text",
    { x, y: 16, "text-anchor": "middle", class: "title" },
    short(column.title),
  );
  title.append(svg("title", {}, column.key ? column.key.key : column.title));
  group.append(title, svg("line", { x1: x, x2: x, y1: TOP, y2: end }));
  for (const [value, text] of axis.marks) {
    const side = last ? { x: x + 8, "text-anchor": "start" } : { x: x - 8, "text-anchor": "end" };
    group.append(svg("text", { ...side, y: axis.toY(value) + 4 }, short(text)));
  }
  const range = store.brushes[column.name];
  const band = svg("rect", { x: x - 9, width: 18, class: "brush" });
  const place = ([low, high]) => {
    const [top, bottom] = [axis.toY(high) - 3, axis.toY(low) + 3];
    band.setAttribute("y", top);
    band.setAttribute("height", Math.max(0, bottom - top));
  };
  if (range) place(range);
  const hit = svg("rect", {
    x: x - 16,
    y: TOP - 8,
    width: 32,
    height: end - TOP + 16,
    class: "hit",
  });
  drag(hit, axis, place);
  group.append(band, hit, ...["low", "high"].map((which) => handle(axis, which)));
  return group;
}

function short(text) {
  return text.length > 13 ? `${text.slice(0, 12)}…` : text;
}

// Dragging along an axis brushes it; a click clears the brush.
function drag(hit, axis, place) {
  let from = null;
  const y = (event) => event.clientY - hit.ownerSVGElement.getBoundingClientRect().top;
  const range = (event) => [axis.fromY(from), axis.fromY(y(event))].sort((a, b) => a - b);
  hit.addEventListener("pointerdown", (event) => {
    from = y(event);
    hit.setPointerCapture(event.pointerId);
    event.preventDefault();
  });
  hit.addEventListener("pointermove", (event) => from !== null && place(range(event)));
  hit.addEventListener("pointerup", (event) => {
    const [low, high] = range(event),
      moved = Math.abs(y(event) - from) > 4;
    from = null;
    setBrush(axis.column.name, moved ? open(axis, low, high) : null);
  });
}

// A range that reaches the upper end of an axis holds what lies beyond it too.
function open(axis, low, high) {
  return [low, high >= axis.high ? Infinity : high];
}

// One end of a brush for the keyboard: arrows move it through the values, Escape clears it.
function handle(axis, which) {
  const { column } = axis,
    name = `${column.title}, ${which === "low" ? "least" : "greatest"} value`;
  const values = [...new Set(column.number.filter((v) => v != null))].sort((a, b) => a - b);
  const range = store.brushes[column.name] || [axis.low, Infinity];
  const at = which === "low" ? range[0] : Math.min(range[1], axis.high);
  const known = column.number.findIndex((v) => v === at);
  const made = svg("rect", {
    x: axis.x - 9,
    y: axis.toY(at) + (which === "low" ? 2 : -6),
    width: 18,
    height: 4,
    class: "handle",
    tabindex: 0,
    role: "slider",
    "aria-label": name,
    "aria-orientation": "vertical",
    "aria-valuemin": axis.low,
    "aria-valuemax": axis.high,
    "aria-valuenow": at,
    "aria-valuetext": known < 0 ? threeDigits(at) : column.text(known),
    "data-handle": `${column.name} ${which}`,
  });
  made.addEventListener("keydown", (event) => {
    const step = { ArrowUp: 1, ArrowRight: 1, ArrowDown: -1, ArrowLeft: -1 }[event.key];
    if (!step && event.key !== "Escape") return;
    event.preventDefault();
    const above = values.findIndex((v) => v >= at),
      here = above < 0 ? values.length - 1 : above;
    const next = values[Math.min(values.length - 1, Math.max(0, here + (step || 0)))];
    const [low, high] = which === "low" ? [next, range[1]] : [range[0], next];
    setBrush(column.name, step ? open(axis, Math.min(low, high), Math.max(low, high)) : null);
    const again = `[data-handle="${CSS.escape(`${column.name} ${which}`)}"]`;
    setTimeout(() => document.querySelector(again)?.focus(), 60);
  });
  return made;
}

function trace(context, state, i) {
  let pen = false;
  context.beginPath();
  for (const axis of state.axes) {
    const y = axis.y(i);
    if (y === null) pen = false;
    else if (pen) context.lineTo(axis.x, y);
    else context.moveTo(axis.x, y);
    pen = y !== null;
  }
  context.stroke();
}

// Trials that are filtered out are grey and below; of the others the best are drawn last.
function paint(context, state, shades) {
  const { number } = metricColumn(),
    { data } = store;
  const shown = new Set(store.shown),
    sign = data.ranking.better === "higher" ? 1 : -1;
  const crowd = Math.min(1, Math.max(0.04, 60 / Math.max(1, store.shown.length)));
  context.lineWidth = 1.2;
  context.strokeStyle = colour("line");
  context.globalAlpha = 0.5;
  for (let i = 0; i < data.trials.id.length; i += 1) if (!shown.has(i)) trace(context, state, i);
  const ordered = [...store.shown].sort(
    (a, b) => sign * ((number[a] ?? Infinity) - (number[b] ?? Infinity)),
  );
  context.globalAlpha = crowd;
  for (const i of ordered) {
    context.strokeStyle = shades.of(i);
    trace(context, state, i);
  }
  context.globalAlpha = 1;
}

function highlight(state) {
  state.over.clearRect(0, 0, state.width, HEIGHT);
  for (const i of [store.pinned, store.hovered]) {
    if (i < 0 || i >= store.data.trials.id.length) continue;
    state.over.lineWidth = 6;
    state.over.strokeStyle = colour("panel");
    trace(state.over, state, i);
    state.over.lineWidth = 3;
    state.over.strokeStyle = colour("mark");
    trace(state.over, state, i);
  }
}

// The trial whose line passes nearest to the pointer.
function hover(event, state, axes) {
  if (event.buttons) return;
  const box = axes.getBoundingClientRect(),
    [px, py] = [event.clientX - box.left, event.clientY - box.top];
  const right = Math.max(
    1,
    state.axes.findIndex((axis) => axis.x >= px),
  );
  const [a, b] = [state.axes[right - 1], state.axes[right]];
  let [best, nearest] = [-1, NEAR];
  if (b) {
    const share = (px - a.x) / (b.x - a.x);
    for (const i of store.shown) {
      const [from, to] = [a.y(i), b.y(i)];
      if (from === null || to === null) continue;
      const off = Math.abs(from + share * (to - from) - py);
      if (off < nearest) [best, nearest] = [i, off];
    }
  }
  setHovered(best);
  if (best < 0) hideTip();
  else showTrial(event, best);
}
