// One tooltip for every plot: the trial with all its varied keys and what it measured.
import { element } from "./dom.js";
import { metricColumn, store } from "./store.js";

const tip = element("div", { class: "tip", role: "tooltip", hidden: true });
document.body.append(tip);

export function showTip(event, title, rows) {
  tip.replaceChildren(
    element("b", {}, title),
    element(
      "dl",
      {},
      ...rows.map(([k, v]) => element("div", {}, element("dt", {}, k), element("dd", {}, v))),
    ),
  );
  tip.hidden = false;
  const { width, height } = tip.getBoundingClientRect();
  const left =
    event.clientX + 14 + width > window.innerWidth
      ? event.clientX - width - 14
      : event.clientX + 14;
  const top = Math.min(event.clientY + 14, window.innerHeight - height - 4);
  tip.style.transform = `translate(${Math.max(4, left)}px, ${Math.max(4, top)}px)`;
}

export function hideTip() {
  tip.hidden = true;
}

// Title and rows about a trial: its varied keys first.
export function aboutTrial(i) {
  const shown = store.columns.filter((c) => c.name !== "id");
  const rows = shown
    .map((c) => [c.title, c.text(i)])
    .filter(([, text]) => text !== "" && text !== "—");
  return [store.data.trials.id[i], rows];
}

export function showTrial(event, i) {
  showTip(event, ...aboutTrial(i));
}

// The tooltips of a Vega chart whose rows have `i`, a trial, or `about`, rows of text.
export function vegaTooltip(_, event, item, value) {
  const row = value == null ? null : item.datum;
  if (row && row.i !== undefined) showTrial(event, row.i);
  else if (row && row.about) showTip(event, row.title || metricColumn().title, row.about);
  else hideTip();
}
