// Makes elements. Text is always set as text, never as markup.

// element("p", {class: "quiet", onclick: f, "aria-label": "…"}, "text", child, …)
export function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (value === true) made.setAttribute(name, "");
    else if (value !== false && value != null) made.setAttribute(name, value);
  }
  made.append(...children.filter((child) => child != null));
  return made;
}

// A labelled choice: options are [value, text] pairs.
export function choice(label, options, value, changed) {
  const select = element(
    "select",
    { onchange: () => changed(select.value) },
    ...options.map(([one, text]) =>
      element("option", { value: one, selected: one === value }, text),
    ),
  );
  return element("label", {}, `${label} `, select);
}

export function toggle(label, checked, changed) {
  const box = element("input", { type: "checkbox", checked, onchange: () => changed(box.checked) });
  return element("label", {}, box, ` ${label}`);
}

// A canvas of a size in CSS pixels, sharp on every screen, and its context.
export function canvas(width, height, attributes = {}) {
  const scale = window.devicePixelRatio || 1;
  const made = element("canvas", {
    width: Math.round(width * scale),
    height: Math.round(height * scale),
    ...attributes,
  });
  made.style.width = `${width}px`;
  made.style.height = `${height}px`;
  const context = made.getContext("2d");
  context.scale(scale, scale);
  return { made, context };
}

const SVG = "http://www.w3.org/2000/svg";

export function svg(tag, attributes = {}, ...children) {
  const made = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}
