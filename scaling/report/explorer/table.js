// The table of trials or configurations: sortable, filtered, and only the rows in view exist.
import { choice, element } from "./dom.js";
import { nats, DASH } from "./numbers.js";
import { emit, metricColumn, on, select, setHovered, setPinned, store } from "./store.js";

const ROW = 30; // height in pixels, as in the style sheet
const SPARE = 12; // rows drawn beyond the view, on each side

export function table(home) {
  const state = { mode: "trials", sort: "rank", down: false, rows: [], columns: [] };
  const scroll = element("div", {
    class: "scroll",
    tabindex: "0",
    role: "region",
    "aria-label": "Table of trials",
  });
  const head = element("thead"),
    body = element("tbody");
  const count = element("span", { class: "quiet", role: "status" });
  const error = element("span", { class: "reason", role: "alert" });
  const tools = element("div", { class: "tools" });
  const grid = element("table", { class: "grid" }, head, body);
  scroll.append(grid);
  home.append(tools, element("div", { class: "cue" }, scroll));

  const filter = element("input", {
    type: "search",
    placeholder: "filter: d_model == 64 and loss < 2",
    "aria-label": "Filter of the trials",
    oninput: () => {
      store.filter = filter.value;
      error.textContent = select();
      emit("shown");
    },
  });

  // Everything that depends on the data, the order or the filter.
  function update() {
    const { configurations } = store.data;
    const several = configurations.trials.some((places) => places.length > 1);
    const modes = [
      ["trials", "trials"],
      ["configurations", "configurations (seeds together)"],
    ];
    const changed = (mode) => {
      state.mode = mode;
      update();
    };
    tools.replaceChildren(
      filter,
      ...(several ? [choice("rows:", modes, state.mode, changed)] : []),
      count,
      error,
    );
    state.columns = state.mode === "trials" ? trialColumns() : configurationColumns();
    order();
    drawHead();
    drawRows();
  }

  // The column that the reader chose, or the first one while there is no such column.
  function sorting() {
    return state.columns.find((c) => c.name === state.sort) ?? state.columns[0];
  }

  function order() {
    const shown = new Set(store.shown),
      { configurations, trials } = store.data;
    state.rows =
      state.mode === "trials"
        ? [...store.shown]
        : configurations.trials
            .map((_, row) => row)
            .filter((row) => configurations.trials[row].some((i) => shown.has(i)));
    const by = sorting(),
      sign = state.down ? -1 : 1;
    state.rows.sort((a, b) => {
      if (!by.number) return sign * by.text(a).localeCompare(by.text(b)) || a - b;
      const [x, y] = [by.number[a], by.number[b]];
      if (x == null || y == null) return (x == null) - (y == null) || a - b; // unknown ones last
      return sign * (x - y) || a - b;
    });
    const all = state.mode === "trials" ? trials.id.length : configurations.trials.length;
    count.textContent = `${state.rows.length} of ${all} ${state.mode}`;
    grid.setAttribute("aria-rowcount", String(state.rows.length + 1));
  }

  function drawHead() {
    const focused = document.activeElement?.dataset?.column;
    head.replaceChildren(
      element(
        "tr",
        { "aria-rowindex": "1" },
        ...state.columns.map((c) => {
          const sorted = c === sorting();
          const arrow = !sorted ? "" : state.down ? " ▾" : " ▴";
          const sort = () => {
            [state.sort, state.down] = [c.name, sorted && !state.down];
            order();
            drawHead();
            drawRows();
          };
          const button = element(
            "button",
            {
              type: "button",
              "data-column": c.name,
              onclick: sort,
              title: c.key ? c.key.key : c.title,
            },
            c.title,
            element("span", { "aria-hidden": "true" }, arrow),
          );
          const way = sorted ? (state.down ? "descending" : "ascending") : "none";
          return element(
            "th",
            { scope: "col", "aria-sort": way, class: c.number && !c.key ? "number" : "" },
            button,
          );
        }),
      ),
    );
    if (focused) head.querySelector(`[data-column="${CSS.escape(focused)}"]`)?.focus();
  }

  function drawRows() {
    const first = Math.max(0, Math.floor(scroll.scrollTop / ROW) - SPARE);
    const last = Math.min(
      state.rows.length,
      Math.ceil((scroll.scrollTop + scroll.clientHeight) / ROW) + SPARE,
    );
    const gap = (rows) =>
      element(
        "tr",
        { class: "gap", "aria-hidden": "true" },
        element("td", { colspan: String(state.columns.length), style: `height:${rows * ROW}px` }),
      );
    const rows = [];
    for (let at = first; at < last; at += 1) rows.push(row(state.rows[at], at));
    body.replaceChildren(gap(first), ...rows, gap(state.rows.length - last));
  }

  function row(one, at) {
    const trial = state.mode === "trials" ? one : store.data.configurations.trials[one][0];
    const made = element(
      "tr",
      {
        "aria-rowindex": String(at + 2),
        "data-trial": String(trial),
        class: marks(trial),
        onpointerenter: () => setHovered(trial),
        onclick: () => setPinned(trial),
      },
      ...state.columns.map((c) =>
        element(
          "td",
          { class: c.number && !c.key ? "number" : "", title: c.text(one) },
          c.text(one),
        ),
      ),
    );
    return made;
  }

  function mark() {
    for (const one of body.querySelectorAll("[data-trial]"))
      one.className = marks(Number(one.dataset.trial));
  }

  scroll.addEventListener("scroll", () => requestAnimationFrame(drawRows), { passive: true });
  scroll.addEventListener("pointerleave", () => setHovered(-1));
  on("data", update);
  on("shown", () => {
    order();
    drawRows();
  });
  on("hovered", mark);
  update();
  drawRows(); // the first time, the height of the view was not known
}

function marks(trial) {
  return (trial === store.pinned ? "pinned " : "") + (trial === store.hovered ? "hovered" : "");
}

function trialColumns() {
  const { configurations } = store.data;
  const member = new Array(store.data.trials.id.length).fill(null);
  configurations.trials.forEach((places, row) =>
    places.forEach((i) => (member[i] = configurations.among_best[row])),
  );
  return store.columns.map((c) =>
    c.name === "rank" ? { ...c, text: (i) => c.text(i) + (member[i] ? " =" : "") } : c,
  );
}

// The columns of the configurations: the keys of their first trial, and means over seeds.
function configurationColumns() {
  const { configurations, ranking } = store.data,
    first = (row) => configurations.trials[row][0];
  const plain = (name, title, numbers, text) => ({
    name,
    title,
    number: numbers,
    text: (row) => text(numbers[row], row),
  });
  const rank = configurations.mean.map((_, row) => row + 1);
  const keys = store.columns.filter((c) => c.key || ["params", "tokens", "flops"].includes(c.name));
  return [
    plain("rank", "rank", rank, (v, row) => `${v}${configurations.among_best[row] ? " =" : ""}`),
    ...keys.map((c) => ({
      ...c,
      number: rank.map((_, row) => c.number[first(row)]),
      text: (row) => c.text(first(row)),
    })),
    plain(metricColumn().name, `mean ${ranking.metric}`, configurations.mean, nats),
    plain("spread", "± seeds", configurations.spread, nats),
    plain("eval_se", "± evaluation", configurations.eval_se, nats),
    plain(
      "seeds",
      "seeds",
      configurations.trials.map((places) => places.length),
      String,
    ),
    plain("p", "p", configurations.p, (v) =>
      v == null ? DASH : v < 0.001 ? "<0.001" : v.toFixed(3),
    ),
  ];
}
