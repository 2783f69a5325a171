// One picture at a time, one key an answer. Answers live in localStorage under the audit's id, and in a file on demand.
(() => {
  const audit = JSON.parse(document.getElementById("audit").textContent);
  const { items, answers } = audit;
  const store = `sapiens2-audit-${audit.spec.id}`;
  const element = (id) => document.getElementById(id);
  const buttons = [...document.querySelectorAll("#answers button")];
  let labels = {}, at = 0;

  const read = () => {
    try { return JSON.parse(localStorage.getItem(store)) || {}; } catch { return {}; }
  };
  const keep = () => {
    try { localStorage.setItem(store, JSON.stringify(labels)); } catch { /* a browser that keeps nothing can still save */ }
  };
  const done = () => items.filter((item) => item.image_id in labels).length;
  const firstOpen = () => {
    const open = items.findIndex((item) => !(item.image_id in labels));
    return open < 0 ? items.length - 1 : open;
  };

  const show = () => {
    const item = items[at];
    element("picture").src = `data:image/jpeg;base64,${item.jpeg}`;
    element("about").textContent = item.about;
    element("progress").value = done();
    element("state").textContent = `Picture ${at + 1} of ${items.length}, ${done()} answered`;
    for (const button of buttons) button.setAttribute("aria-pressed", labels[item.image_id] === button.dataset.value);
  };
  const go = (step) => { at = Math.min(items.length - 1, Math.max(0, at + step)); show(); };
  const answer = (value) => { labels[items[at].image_id] = value; keep(); go(1); };
  const exported = () => JSON.stringify({ ...audit.spec, labels }, null, 1);
  const save = () => {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([exported()], { type: "application/json" }));
    link.download = `${audit.spec.id}.labels.json`;
    link.click();
  };
  const take = (text) => {
    const other = JSON.parse(text);
    if (other.id !== audit.spec.id) throw new Error(`these are the labels of the audit ${other.id}, not of ${audit.spec.id}`);
    labels = { ...labels, ...other.labels };
    keep();
    at = firstOpen();
    show();
  };

  for (const button of buttons) button.addEventListener("click", () => answer(button.dataset.value));
  element("back").addEventListener("click", () => go(-1));
  element("forward").addEventListener("click", () => go(1));
  element("next").addEventListener("click", () => go(1));
  element("save").addEventListener("click", save);
  element("load").addEventListener("change", async (event) => {
    try { take(await event.target.files[0].text()); } catch (error) { element("state").textContent = String(error.message); }
  });
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const chosen = answers.find((each) => each.key === event.key.toLowerCase());
    if (chosen) answer(chosen.value);
    else if (event.key === "ArrowLeft") go(-1);
    else if (event.key === "ArrowRight" || event.key === " ") go(1);
    else if (event.key.toLowerCase() === "s") save();
    else return;
    event.preventDefault();
  });

  labels = read();
  at = firstOpen();
  show();
  window.audit = { exported, take };
})();
