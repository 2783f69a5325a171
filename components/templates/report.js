// The side navigation marks the section in view, and a link opens the step that it leads to.
(() => {
  const links = new Map([...document.querySelectorAll(".side a:not(.home)")].map((a) => [a.getAttribute("href").slice(1), a]));
  const parts = [...links.keys()].map((id) => document.getElementById(id)).filter(Boolean);
  const mark = () => {
    const passed = parts.filter((part) => part.getBoundingClientRect().top < 120);
    const here = passed.length ? passed[passed.length - 1].id : parts[0].id;
    for (const [id, a] of links) a.classList.toggle("here", id === here);
  };
  addEventListener("scroll", mark, { passive: true });
  document.addEventListener("click", (event) => {
    const link = event.target.closest("a[href^='#step-']");
    if (link) document.getElementById(link.getAttribute("href").slice(1)).open = true;
  });
  mark();
})();
