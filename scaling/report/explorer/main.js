// Starts the page: the winner and the table at once, everything else when it comes into view.
import { attention } from "./attention.js";
import { contents } from "./contents.js";
import { curves } from "./curves.js";
import { heat } from "./heat.js";
import { keys } from "./keys.js";
import { lazily } from "./lazily.js";
import { live } from "./live.js";
import { parallel } from "./parallel.js";
import { rates } from "./rates.js";
import { emit, setData, store } from "./store.js";
import { table } from "./table.js";
import { tokens } from "./tokens.js";
import { drawLaw } from "./vega.js";
import { winner } from "./winner.js";

const PARTS = { best: winner, trials: table, parallel, keys, heat, rates, curves };

function parsed(id) {
  return JSON.parse(document.getElementById(id).textContent);
}

function start() {
  const carried = document.getElementById("data");
  if (carried) {
    setData(parsed("data"));
    for (const [id, part] of Object.entries(PARTS)) part(document.getElementById(id));
    // The curves are most of the data: they are parsed when their panel comes near.
    lazily(document.getElementById("curves").querySelector("h2"), () => {
      store.curves = parsed("curve-data");
      emit("curves");
    });
    live(document.getElementById("badge"));
  }
  if (document.getElementById("inspection")) {
    const inside = parsed("inspection");
    tokens(inside);
    if (inside.attention) attention(document.getElementById("heads"), inside);
  }
  drawLaw();
  contents(document.getElementById("contents"));
  // Just before the first paint: what a benchmark reads as the time to the first draw.
  requestAnimationFrame(() => {
    document.body.getBoundingClientRect(); // includes the layout
    document.documentElement.dataset.drawn = performance.now().toFixed(0);
  });
}

start();
