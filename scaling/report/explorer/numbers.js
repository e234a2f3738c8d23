// Numbers and names as text, the same as scaling/report/number_text.py, and axes with round ticks.

const LETTERS = [
  ["T", 1e12],
  ["B", 1e9],
  ["M", 1e6],
  ["k", 1e3],
];
export const DASH = "—";

// "3e-3" for "3.00e-3".
function shortPower(text) {
  const [lead, power] = text.split("e");
  if (power === undefined) return text;
  const digits = lead.includes(".") ? lead.replace(/\.?0+$/, "") : lead;
  return `${digits}e${Number(power)}`;
}

// "0.35", "2.09e3", "3e-3": FLOPs and any number without a unit of its own.
export function threeDigits(value) {
  if (value == null) return DASH;
  if (value === 0) return "0";
  if (Math.abs(value) < 0.01) return shortPower(value.toExponential(2));
  const text = value.toPrecision(3);
  if (text.includes("e")) return shortPower(text);
  return text.includes(".") ? text.replace(/\.?0+$/, "") : text;
}

// "30k", "1.5M", "7B": counts of parameters and tokens.
export function amount(value) {
  if (value == null) return DASH;
  for (const [letter, size] of LETTERS) {
    if (value >= 0.9995 * size) return threeDigits(value / size) + letter;
  }
  return threeDigits(value);
}

// Losses keep four decimals: runs differ in the third.
export function nats(value) {
  return value == null ? DASH : value.toFixed(4);
}

// Seconds as m:ss or h:mm:ss.
export function clock(seconds) {
  if (seconds == null) return DASH;
  const whole = Math.round(seconds),
    two = (n) => String(n).padStart(2, "0");
  const [hour, minute, second] = [
    Math.floor(whole / 3600),
    Math.floor(whole / 60) % 60,
    whole % 60,
  ];
  return hour ? `${hour}:${two(minute)}:${two(second)}` : `${minute}:${two(second)}`;
}

export function percent(value) {
  return value == null ? DASH : `${Math.round(100 * value)}%`;
}

// "30k", "1.5M", "3e-3": the number that a text means, or NaN.
export function parseAmount(text) {
  const found = /^([-+.\de]+)([tbmk]?)$/i.exec(text.trim());
  if (!found) return NaN;
  const letter = LETTERS.find(([name]) => name.toLowerCase() === found[2].toLowerCase());
  return Number(found[1]) * (letter ? letter[1] : 1);
}

// Round numbers in [low, high]: about `count` on a linear axis, 1 and 3 times powers of ten on a
// logarithmic one.
export function ticks(low, high, log, count = 5) {
  if (!(high > low)) return [low];
  if (log) {
    const decades = Math.log10(high / low);
    const leads = decades > 3 ? [1] : decades > 1 ? [1, 3] : [1, 1.5, 2, 3, 5, 7];
    const found = [];
    for (let k = Math.floor(Math.log10(low)); k <= Math.log10(high); k += 1) {
      for (const lead of leads) found.push(Number(`${lead}e${k}`));
    }
    const inside = found.filter((v) => v >= low * 0.999 && v <= high * 1.001);
    if (inside.length > 2) return thinTo(inside, count + 3);
  }
  const rough = (high - low) / count,
    power = 10 ** Math.floor(Math.log10(rough));
  const step = power * [1, 2, 5, 10].find((lead) => lead * power >= rough * 0.999);
  const found = [];
  for (let k = Math.ceil(low / step - 1e-9); k * step <= high + 1e-9 * step; k += 1) {
    found.push(Number((k * step).toPrecision(12)));
  }
  return found;
}

function thinTo(values, most) {
  const every = Math.ceil(values.length / most);
  return values.filter((_, i) => i % every === 0);
}

// The known word that is fewest edits away from `word`.
export function nearest(word, known) {
  const cost = (a, b) => {
    let row = Array.from({ length: b.length + 1 }, (_, i) => i);
    for (let i = 1; i <= a.length; i += 1) {
      const next = [i];
      for (let j = 1; j <= b.length; j += 1) {
        const change = row[j - 1] + (a[i - 1] === b[j - 1] ? 0 : 1);
        next.push(Math.min(change, row[j] + 1, next[j - 1] + 1));
      }
      row = next;
    }
    return row[b.length];
  };
  const costs = known.map((one) => cost(word.toLowerCase(), one.toLowerCase()));
  return known[costs.indexOf(Math.min(...costs))];
}

// The value below which a share of the sorted numbers lies, interpolated.
export function quantile(sorted, share) {
  const at = share * (sorted.length - 1),
    low = Math.floor(at);
  const high = Math.min(low + 1, sorted.length - 1);
  return sorted[low] + (at - low) * (sorted[high] - sorted[low]);
}

// An upper limit that one bad value cannot raise: the median plus 5 robust standard deviations
// (1.4826 times the median absolute deviation), at most the largest value.
export function robustHigh(values) {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = quantile(sorted, 0.5);
  const off = sorted.map((v) => Math.abs(v - middle)).sort((a, b) => a - b);
  const spread = 1.4826 * quantile(off, 0.5);
  const largest = sorted[sorted.length - 1];
  return spread > 0 ? Math.min(largest, middle + 5 * spread) : largest;
}
