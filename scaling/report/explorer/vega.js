// Draws Vega-Lite specifications with the library that the page carries, which it parses when the
// first chart comes into view.
import { recoloured, vegaConfig } from "./theme.js";
import { lazily, onResize } from "./lazily.js";
import { on } from "./store.js";

const MISSING =
  "This chart needs the extra that draws: pip install -e '.[report]', then write the " +
  "page again.";

// Whether the page carries the library; its first call defines window.vegaEmbed.
function library() {
  if (!window.vegaEmbed) {
    const text = document.getElementById("library").textContent;
    if (!text.trim()) return false;
    const script = document.createElement("script");
    script.textContent = `{${text}\n}`;
    document.head.append(script);
  }
  return Boolean(window.vegaEmbed);
}

// The specification without layers that have no rows; null if nothing is left.
function filled(spec) {
  const empty = (part) => part.data?.values?.length === 0;
  if (!spec.layer) return empty(spec) ? null : spec;
  const layer = spec.layer.filter((part) => !empty(part));
  return empty(spec) || !layer.length ? null : { ...spec, layer };
}

// Draws a specification in the page's colours. `more` are options of vega-embed.
export async function embed(element, spec, more = {}) {
  if (!library()) {
    element.textContent = MISSING;
    element.classList.add("quiet");
    return;
  }
  const drawn = filled(spec);
  element.vega?.finalize();
  element.vega = null;
  if (!drawn) {
    element.textContent = "No finished trial to show.";
    return;
  }
  const actions = { export: true, source: false, compiled: false, editor: false };
  const { config = {}, ...rest } = drawn,
    ours = vegaConfig();
  const legend = { ...ours.legend, ...config.legend };
  // Marks without a tooltip of their own call the handler of `more` too.
  const mark = more.tooltip ? { tooltip: true } : {};
  const options = { renderer: "canvas", actions, ...more };
  element.vega = await window.vegaEmbed(
    element,
    { ...rest, config: { ...ours, ...config, legend, mark: { ...config.mark, ...mark } } },
    options,
  );
}

// The figures of the law, which come with the page as finished specifications.
export function drawLaw() {
  const specs = JSON.parse(document.getElementById("specs").textContent);
  for (const [name, spec] of Object.entries(specs)) {
    const element = document.getElementById(name);
    const redraw = lazily(element, () =>
      embed(element, narrow(recoloured(spec)), { renderer: "svg" }),
    );
    on("theme", redraw);
    onResize(element, redraw);
  }
}

// Below 760 px, legends go under the plot, in columns that fit.
export function narrow(spec) {
  if (window.innerWidth >= 760) return spec;
  const columns = window.innerWidth < 520 ? 1 : 2;
  const legend = { orient: "bottom", direction: "horizontal", columns, gradientLength: 200 };
  const walk = (value, key) => {
    if (Array.isArray(value)) return value.map((one) => walk(one));
    if (!value || typeof value !== "object" || key === "data") return value;
    const moved = key === "legend" ? { ...value, ...legend, labelLimit: 240 } : value;
    return Object.fromEntries(Object.entries(moved).map(([k, v]) => [k, walk(v, k)]));
  };
  const found = walk(spec),
    config = found.config || {};
  return { ...found, config: { ...config, legend: { ...(config.legend || {}), ...legend } } };
}
