// The card of the winner: the verdict, the best configuration, its errors, and what to doubt.
import { element } from "./dom.js";
import { clock, nats, DASH } from "./numbers.js";
import { on, store } from "./store.js";

export function winner(home) {
  const draw = () => {
    const { ranking, configurations, keys, status, trials } = store.data;
    const best = configurations.trials.length ? configurations.trials[0] : null;
    const cards = element("div", { class: "cards" });
    if (best) {
      const values = keys.map((key) => {
        const place = trials.keys[key.key][best[0]];
        return element(
          "div",
          { title: key.key },
          element("dt", {}, key.name),
          element("dd", {}, key.labels[place]),
        );
      });
      cards.append(
        card(title(ranking), element("dl", { class: "settings" }, ...values), "", "wide"),
        card(`${ranking.metric} (${ranking.unit})`, nats(configurations.mean[0]), errors()),
        card("Indistinguishable from the best", among(), tested()),
      );
    }
    cards.append(card("Trials", String(trials.id.length), counts(status)));
    const doubts = [...ranking.confounding.map((c) => c.text), ...ranking.warnings];
    home.replaceChildren(
      element("h2", {}, "Which is best"),
      element(
        "p",
        { class: "verdict" },
        sentence(ranking.best.verdict || "no trial has finished yet"),
      ),
      cards,
    );
    if (doubts.length) {
      const list = element(
        "ul",
        { class: "warnings" },
        ...doubts.map((text) => element("li", {}, sentence(text))),
      );
      home.append(element("h3", {}, "What to doubt"), list);
    }
  };
  on("data", draw);
  draw();
}

function sentence(text) {
  const named = store.data.keys.some((key) => text.startsWith(key.name));
  const whole = named ? text : text.charAt(0).toUpperCase() + text.slice(1);
  return /[.!?]$/.test(whole) ? whole : `${whole}.`;
}

function card(label, value, note = "", kind = "") {
  return element(
    "div",
    { class: `card ${kind}` },
    element("div", { class: "label" }, label),
    element("div", { class: "value" }, value),
    element("div", { class: "note" }, note),
  );
}

function title({ best, better }) {
  if (best.among_best === 1) return "Best configuration";
  return best.among_best
    ? "Best, or within noise of it"
    : better === "higher"
      ? "Highest"
      : "Lowest";
}

// The two errors of the best mean, which mean different things.
function errors() {
  const { configurations } = store.data;
  const [spread, error] = [configurations.spread[0], configurations.eval_se[0]];
  const seeds = configurations.trials[0].length;
  const between =
    spread == null
      ? "one seed: the spread between seeds is unknown"
      : `± ${nats(spread)} between ${seeds} seeds`;
  const finite = `± ${nats(error)} from the finite evaluation set`;
  return element("div", {}, element("div", {}, between), element("div", {}, finite));
}

function among() {
  const { among_best: member } = store.data.configurations;
  const unknown = member.every((one) => one === null);
  return unknown ? DASH : `${member.filter((one) => one === true).length} of ${member.length}`;
}

function tested() {
  const { best, level } = store.data.ranking;
  const test = best.test
    ? `${best.test} test, Holm-adjusted, ${Math.round(100 * level)}%`
    : "no test: seeds are missing";
  return best.more_seeds ? `${test}; about ${best.more_seeds} more seeds would decide` : test;
}

function counts(status) {
  const { seconds } = store.data.trials;
  const total = seconds.reduce((sum, v) => sum + (v || 0), 0);
  const texts = Object.entries(status).map(([name, n]) => `${n} ${name}`);
  return texts.join(", ") + (total ? `; ${clock(total)} of training` : "");
}
