// Draws a panel when it comes into view, and again when what it shows has changed.

const PANELS = new Map();
const seen = new IntersectionObserver(
  (entries) => {
    for (const entry of entries) {
      const panel = PANELS.get(entry.target);
      panel.visible = entry.isIntersecting;
      if (panel.visible) schedule(panel);
    }
  },
  { rootMargin: "300px" },
);

// Calls draw(element) once the element is near the view; returns a function that asks for a redraw.
export function lazily(element, draw) {
  const panel = { element, draw, stale: true, visible: false, waiting: false };
  PANELS.set(element, panel);
  seen.observe(element);
  return () => {
    panel.stale = true;
    if (panel.visible) schedule(panel);
  };
}

// One panel a turn of the event loop, so that the page answers in between.
function schedule(panel) {
  if (panel.waiting || !panel.stale) return;
  panel.waiting = true;
  setTimeout(async () => {
    panel.waiting = panel.stale = false;
    try {
      await panel.draw(panel.element);
    } catch (error) {
      panel.element.textContent = String(error);
      console.error(error);
    }
  });
}

// Redraws when the width of an element changes.
export function onResize(element, redraw) {
  let width = element.clientWidth;
  new ResizeObserver(() => {
    if (Math.abs(element.clientWidth - width) < 2) return;
    width = element.clientWidth;
    redraw();
  }).observe(element);
}
