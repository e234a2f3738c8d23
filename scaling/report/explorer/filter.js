// The language of the filter: "d_model == 64 and loss < 2", or a word that a trial contains.
import { nearest, parseAmount } from "./numbers.js";

const CLAUSE = /^([\p{L}\p{N}_.\- ]+?)\s*(==|!=|<=|>=|=|<|>)\s*(.+)$/u;
const COMPARE = {
  "==": (a, b) => a === b,
  "=": (a, b) => a === b,
  "!=": (a, b) => a !== b,
  "<": (a, b) => a < b,
  ">": (a, b) => a > b,
  "<=": (a, b) => a <= b,
  ">=": (a, b) => a >= b,
};

// {keep(i), error}: whether a trial passes, and what is wrong with the text. A clause with an error
// keeps every trial.
export function parseFilter(text, columns, metric) {
  const tests = [],
    errors = [];
  for (const clause of text
    .split(/\s+and\s+|&&|,/)
    .map((part) => part.trim())
    .filter(Boolean)) {
    const { test, error } = parseClause(clause, columns, metric);
    if (error) errors.push(error);
    else tests.push(test);
  }
  return { keep: (i) => tests.every((test) => test(i)), error: errors.join("; ") };
}

function parseClause(clause, columns, metric) {
  const found = CLAUSE.exec(clause);
  if (!found) {
    if (/[<>=]/.test(clause)) return { error: `“${clause}” is not NAME == VALUE` };
    const word = clause.toLowerCase();
    return { test: (i) => columns.some((c) => c.text(i).toLowerCase().includes(word)) };
  }
  const [, name, operator, raw] = found;
  const named = columns.find((c) => [c.name, c.title].includes(name === "loss" ? metric : name));
  if (!named) {
    const known = columns.flatMap((c) => [c.name, c.title]);
    return { error: `“${name}” is no column; did you mean ${nearest(name, known)}?` };
  }
  const value = raw.replace(/^(["'])(.*)\1$/, "$2"),
    compare = COMPARE[operator];
  const numeric = named.number && !(named.key && named.key.scale === "category");
  const wanted = numeric ? parseAmount(value) : NaN;
  if (numeric && !Number.isNaN(wanted)) {
    return { test: (i) => named.number[i] != null && compare(named.number[i], wanted) };
  }
  if (/[<>]/.test(operator)) {
    return { error: `“${clause}”: ${named.title} is text; only == and != compare it` };
  }
  return { test: (i) => compare(named.text(i), value) };
}
