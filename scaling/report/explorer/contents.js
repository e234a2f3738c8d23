// The contents that stay in view: a link to each section, the present one marked.
import { element } from "./dom.js";

export function contents(home) {
  const sections = document.querySelectorAll("main section[id], main details[id]");
  const links = new Map();
  for (const section of sections) {
    const title = section.dataset.title ?? section.querySelector("h2")?.textContent;
    if (!title || section.hidden) continue;
    const link = element("a", { href: `#${section.id}` }, title);
    links.set(section, link);
  }
  home.replaceChildren(...links.values());
  const inView = new Set();
  const seen = new IntersectionObserver(
    (entries) => {
      for (const { target, isIntersecting } of entries) {
        if (isIntersecting) inView.add(target);
        else inView.delete(target);
      }
      const first = [...links.keys()].find((section) => inView.has(section));
      if (first) mark(links, first, home);
    },
    { rootMargin: "-15% 0px -75% 0px" },
  );
  for (const section of links.keys()) seen.observe(section);
}

function mark(links, section, home) {
  for (const [one, link] of links) {
    if (one === section) link.setAttribute("aria-current", "true");
    else link.removeAttribute("aria-current");
  }
  const link = links.get(section);
  home.scrollTo({ left: link.offsetLeft - home.clientWidth / 2, behavior: "smooth" });
}
