(() => {
  const { nodes, focus } = JSON.parse(document.getElementById("data").textContent);
  const canvas = document.getElementById("canvas"), svg = canvas.querySelector("svg"), panel = document.getElementById("panel");
  const boxes = new Map([...svg.querySelectorAll(".node")].map((g) => [g.dataset.key, g]));
  const edges = [...svg.querySelectorAll(".edge")];
  const above = new Map(), below = new Map();
  for (const key of boxes.keys()) { above.set(key, []); below.set(key, []); }
  for (const e of edges) { above.get(e.dataset.to).push(e.dataset.from); below.get(e.dataset.from).push(e.dataset.to); }

  // ---- looking: the view box moves, the drawing stays
  const whole = svg.viewBox.baseVal, full = { w: whole.width, h: whole.height };
  let view = { x: 0, y: 0, k: 1 };  // k: screen pixels per drawing unit
  const apply = () => svg.setAttribute("viewBox", `${view.x} ${view.y} ${canvas.clientWidth / view.k} ${canvas.clientHeight / view.k}`);
  const frame = (x, y, w, h, largest) => {
    view.k = Math.min(canvas.clientWidth / (w + 40), canvas.clientHeight / (h + 40), largest);
    view.x = x + w / 2 - canvas.clientWidth / view.k / 2;
    view.y = y + h / 2 - canvas.clientHeight / view.k / 2;
    apply();
  };
  const fit = () => frame(0, 0, full.w, full.h, 1.15);
  const zoom = (factor, px = canvas.clientWidth / 2, py = canvas.clientHeight / 2) => {
    const k = Math.min(Math.max(view.k * factor, 0.05), 4);
    view.x += px / view.k - px / k; view.y += py / view.k - py / k; view.k = k;
    apply();
  };
  const place = (key) => { const m = boxes.get(key).transform.baseVal.getItem(0).matrix; return { x: m.e, y: m.f }; };
  const centre = (key) => {
    if (view.k < 0.45) view.k = 0.8;
    const at = place(key);
    view.x = at.x + 86 - canvas.clientWidth / view.k / 2; view.y = at.y + 29 - canvas.clientHeight / view.k / 2;
    apply();
  };
  const pointers = new Map();
  let moved = 0;
  canvas.addEventListener("pointerdown", (e) => { pointers.set(e.pointerId, e); moved = 0; });
  window.addEventListener("pointerup", (e) => { pointers.delete(e.pointerId); canvas.classList.remove("moving"); });
  window.addEventListener("pointercancel", (e) => pointers.delete(e.pointerId));
  window.addEventListener("pointermove", (e) => {
    const last = pointers.get(e.pointerId);
    if (!last) return;
    const other = [...pointers.values()].find((p) => p.pointerId !== e.pointerId);
    if (other) {
      const span = (p) => Math.hypot(p.clientX - other.clientX, p.clientY - other.clientY);
      const edge = canvas.getBoundingClientRect();
      zoom(span(e) / Math.max(span(last), 1), (e.clientX + other.clientX) / 2 - edge.left, (e.clientY + other.clientY) / 2 - edge.top);
    } else {
      view.x -= (e.clientX - last.clientX) / view.k; view.y -= (e.clientY - last.clientY) / view.k;
      apply();
    }
    moved += Math.abs(e.clientX - last.clientX) + Math.abs(e.clientY - last.clientY);
    if (moved > 4) canvas.classList.add("moving");
    pointers.set(e.pointerId, e);
  });
  canvas.addEventListener("wheel", (e) => {
    e.preventDefault();
    const edge = canvas.getBoundingClientRect();
    zoom(Math.exp(-e.deltaY * (e.deltaMode ? 0.05 : 0.0016)), e.clientX - edge.left, e.clientY - edge.top);
  }, { passive: false });
  document.getElementById("fit").onclick = fit;
  document.getElementById("larger").onclick = () => zoom(1.3);
  document.getElementById("smaller").onclick = () => zoom(1 / 1.3);
  window.addEventListener("resize", apply);

  // ---- choosing: ancestors and descendants stay lit
  const reach = (key, next) => {
    const seen = new Set(), stack = [key];
    while (stack.length) for (const n of next.get(stack.pop())) if (!seen.has(n)) { seen.add(n); stack.push(n); }
    return seen;
  };
  let first = null, second = null;
  const light = () => {
    const near = first ? new Set([first, ...reach(first, above), ...reach(first, below)]) : null;
    for (const [key, g] of boxes) {
      g.classList.toggle("dim", !!near && !near.has(key) && key !== second);
      g.classList.toggle("chosen", key === first);
      g.classList.toggle("second", key === second);
    }
    for (const e of edges) {
      const lit = !!near && near.has(e.dataset.from) && near.has(e.dataset.to);
      e.classList.toggle("lit", lit);
      e.classList.toggle("dim", !!near && !lit);
    }
  };
  const choose = (key, look) => {
    first = key; second = null;
    light();
    if (!key) return;
    describe(key);
    if (look) centre(key);
  };

  // ---- the panel: everything set as text, never as markup
  const make = (tag, text, css) => {
    const element = document.createElement(tag);
    if (text !== undefined) element.textContent = text;
    if (css) element.className = css;
    return element;
  };
  const title = (key) => `${key.split("=")[0]} ${key.slice(key.indexOf("=") + 1).slice(0, 8)}`;
  const links = (heading, keys) => {
    if (!keys.length) return [];
    const list = make("ul");
    for (const key of keys) {
      const item = make("li"), button = make("button", title(key));
      button.onclick = () => choose(key, true);
      item.append(button); list.append(item);
    }
    return [make("h3", heading), list];
  };
  const count = (n) => typeof n === "number" ? n.toLocaleString("en") : n;
  const describe = (key) => {
    const m = nodes[key], [kind] = key.split("=");
    panel.replaceChildren(make("h2", kind), make("div", key.slice(kind.length + 1), "version"));
    panel.scrollTop = 0;
    if (!m) return panel.append(make("p", "Its manifest is not among those given.", "hint"), ...links("Used by", below.get(key)));
    const metrics = m.metrics || {}, dropped = Object.entries(metrics.dropped || {});
    const facts = [["step", m.step], ["rows in", metrics.rows_in], ["kept", metrics.kept],
      ...dropped.map(([why, n]) => [`dropped: ${why}`, n]),
      ["seconds", typeof metrics.seconds === "number" ? metrics.seconds.toFixed(2) : metrics.seconds],
      ["started", m.start], ["ended", m.end], ["seed", m.seed], ["digest", m.digest && m.digest.slice(0, 16) + "…"],
      ["package", (m.code || {}).package_version], ["commit", (m.code || {}).git_commit && m.code.git_commit.slice(0, 12) + (m.code.dirty ? " with changes" : "")]];
    const list = make("dl");
    for (const [name, value] of facts) if (value !== undefined && value !== null && value !== "") list.append(make("dt", name), make("dd", count(value)));
    const json = make("details"), config = make("details");
    config.append(make("summary", "Settings"), make("pre", JSON.stringify(m.config, null, 2)));
    json.append(make("summary", "Manifest"), make("pre", JSON.stringify(m, null, 2)));
    config.open = true;
    panel.append(list, ...links("Made from", above.get(key)), ...links("Used by", below.get(key)), config, json);
  };
  const flat = (value, path, into) => {
    if (value && typeof value === "object") for (const [k, v] of Object.entries(value)) flat(v, path ? `${path}.${k}` : k, into);
    else into.set(path, value);
    return into;
  };
  const compare = (a, b) => {
    second = b;
    light();
    const part = (key) => { const { config, metrics, models, inputs, code } = nodes[key] || {}; return flat({ config, metrics, models, inputs, code }, "", new Map()); };
    const left = part(a), right = part(b);
    const paths = [...new Set([...left.keys(), ...right.keys()])].filter((p) => left.get(p) !== right.get(p));
    const table = make("table"), head = make("tr");
    head.append(make("th", "what differs"), make("th", title(a)), make("th", title(b)));
    table.append(head);
    for (const p of paths) {
      const row = make("tr"), show = (v) => v === undefined ? "–" : String(v);
      row.append(make("td", p), make("td", show(left.get(p))), make("td", show(right.get(p))));
      table.append(row);
    }
    panel.replaceChildren(make("h2", "Two artifacts compared"), make("p", `${paths.length} values differ in settings, inputs, models, metrics and code.`, "hint"), table);
  };
  for (const [key, g] of boxes) {
    g.addEventListener("click", (e) => {
      if (moved > 4) return;
      if (e.shiftKey && first && first !== key) compare(first, key); else choose(key);
    });
    g.addEventListener("keydown", (e) => { if (e.key === "Enter" || e.key === " ") { e.preventDefault(); choose(key); } });
  }

  // ---- searching
  const search = document.getElementById("search"), found = document.getElementById("found");
  const texts = new Map([...boxes.keys()].map((key) => {
    const m = nodes[key];
    return [key, (key + " " + (m ? `${m.step} ${m.end} ${JSON.stringify(m.config)} ${JSON.stringify(m.models || [])}` : "")).toLowerCase()];
  }));
  let hits = [], at = -1;
  search.addEventListener("input", () => {
    const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    hits = words.length ? [...texts].filter(([, text]) => words.every((w) => text.includes(w))).map(([key]) => key) : [];
    at = -1;
    for (const [key, g] of boxes) g.classList.toggle("hit", hits.includes(key));
    found.textContent = words.length ? `${hits.length} found${hits.length ? ", Enter walks them" : ""}` : "";
  });
  search.addEventListener("keydown", (e) => {
    if (e.key !== "Enter" || !hits.length) return;
    at = (at + (e.shiftKey ? hits.length - 1 : 1)) % hits.length;
    choose(hits[at], true);
  });
  document.addEventListener("keydown", (e) => { if (e.key === "Escape") choose(null); });

  fit();
  if (focus) choose(focus, view.k < 0.45);
})();
