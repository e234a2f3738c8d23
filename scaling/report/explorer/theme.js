// Colours from the CSS variables, for canvases and for Vega; redraws when the scheme changes.
import { emit } from "./store.js";

export const PALETTE = [
  "#0072B2",
  "#E69F00",
  "#009E73",
  "#CC79A7",
  "#56B4E9",
  "#D55E00",
  "#8A8F98",
];
const DARK_PALETTE = ["#56B4E9", "#E69F00", "#2fc79c", "#CC79A7", "#8fb4ff", "#f0763a", "#a4adba"];
const VIRIDIS = [
  [68, 1, 84],
  [72, 40, 120],
  [62, 74, 137],
  [49, 104, 142],
  [38, 130, 142],
  [31, 158, 137],
  [53, 183, 121],
  [110, 206, 88],
  [181, 222, 43],
  [253, 231, 37],
];
const INK = "#1d2330"; // the ink of figures for print, which are drawn on white
const dark = window.matchMedia("(prefers-color-scheme: dark)");

export function isDark() {
  return dark.matches;
}

export function colour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
}

export function palette() {
  return isDark() ? DARK_PALETTE : PALETTE;
}

// A colour for a share in [0, 1]: light to dark on white, dark to light on black, so that 1 always
// stands out from the background.
export function ramp(share) {
  const [low, high] = isDark() ? [0.25, 1] : [0.92, 0];
  const at = (low + (high - low) * Math.min(1, Math.max(0, share))) * (VIRIDIS.length - 1);
  const first = Math.min(Math.floor(at), VIRIDIS.length - 2),
    part = at - first;
  const mixed = VIRIDIS[first].map((v, k) => Math.round(v + part * (VIRIDIS[first + 1][k] - v)));
  return `rgb(${mixed.join(",")})`;
}

// A sequential Vega scale with the colours of `ramp`.
export function rampRange(count = 12) {
  return Array.from({ length: count }, (_, i) => ramp(i / (count - 1)));
}

export function vegaConfig() {
  const text = {
    labelColor: colour("ink"),
    titleColor: colour("ink"),
    labelFontSize: 12,
    titleFontSize: 13,
  };
  return {
    background: "transparent",
    font: "system-ui, Helvetica, Arial, sans-serif",
    view: { stroke: null },
    axis: {
      gridColor: colour("line"),
      domainColor: colour("quiet"),
      tickColor: colour("quiet"),
      titleFontWeight: 500,
      titlePadding: 8,
      labelOverlap: "greedy",
      labelSeparation: 5,
      ...text,
    },
    legend: {
      titleFontWeight: 500,
      symbolOpacity: 1,
      ...text,
      symbolBaseFillColor: colour("ink"),
      symbolBaseStrokeColor: colour("ink"),
    },
  };
}

// A figure for print in the colours of the page: its ink, its grid, and no white background.
export function recoloured(spec) {
  const swap = {
    [INK]: colour("ink"),
    white: "transparent",
    "#e6e8ec": colour("line"),
    "#9aa0aa": colour("quiet"),
  };
  if (isDark()) PALETTE.forEach((one, k) => (swap[one] = DARK_PALETTE[k]));
  const walk = (value, key) => {
    if (Array.isArray(value)) return value.map((one) => walk(one));
    if (value && typeof value === "object") {
      if (isDark() && value.name === "viridis" && value.extent) {
        return { ...value, extent: value.extent.map((end) => 0.25 + 0.75 * end) };
      }
      const entries = Object.entries(value).map(([k, v]) => [k, k === "values" ? v : walk(v, k)]);
      return Object.fromEntries(entries);
    }
    return typeof value === "string" && value in swap && key !== "text" ? swap[value] : value;
  };
  return walk(spec);
}

dark.addEventListener("change", () => emit("theme"));
