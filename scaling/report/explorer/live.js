// A page that `isoflop report --watch` or `isoflop sweep --open` serves asks for new data while the
// trials run. What the reader sorted, filtered and brushed stays.
import { contents } from "./contents.js";
import { drawLaw } from "./vega.js";
import { emit, setData, store } from "./store.js";

const EVERY = 2000; // milliseconds between questions

export function live(badge) {
  if (!location.protocol.startsWith("http")) return;
  const versions = {};
  // The new JSON of a path; null if it has not changed.
  const fresh = async (path) => {
    const answer = await fetch(`${path}?have=${versions[path] ?? ""}`);
    if (answer.status === 204) return null;
    if (!answer.ok) throw new Error(`${path}: ${answer.status}`);
    versions[path] = answer.headers.get("ETag");
    return answer.json();
  };
  const ask = async () => {
    try {
      const data = await fresh("data.json");
      if (data) {
        const law = store.data.law_version;
        setData(data);
        store.curves = (await fresh("curves.json")) ?? store.curves;
        emit("curves");
        if (data.law_version !== law) await replaceLaw();
      }
      const { waiting = 0, running = 0, unfinished = 0 } = store.data.status;
      const open = waiting + running + unfinished;
      badge.textContent = open ? `live: ${open} trials to go` : "live: all trials have ended";
      badge.className = "badge live";
    } catch {
      badge.textContent = "no longer served; report/index.html in the folder is the page to keep";
      badge.className = "badge";
    }
    setTimeout(ask, EVERY);
  };
  badge.hidden = false;
  ask();
}

async function replaceLaw() {
  const page = new DOMParser().parseFromString(await (await fetch("/")).text(), "text/html");
  for (const id of ["law", "specs"])
    document.getElementById(id).replaceWith(page.getElementById(id));
  drawLaw();
  contents(document.getElementById("contents"));
}
