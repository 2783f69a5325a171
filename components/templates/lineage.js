(() => {
  const { nodes, focus } = JSON.parse(document.getElementById("data").textContent);
  const canvas = document.getElementById("canvas"), svg = canvas.querySelector("svg"), panel = document.getElementById("panel");
  const boxes = new Map([...svg.querySelectorAll(".node")].map((g) => [g.dataset.key, g]));
  const table = document.getElementById("versions"), cells = new Map([...table.querySelectorAll(".cell")].map((c) => [c.dataset.key, c]));
  const edges = [...svg.querySelectorAll(".edge")];
  const above = new Map(), below = new Map();
  for (const key of boxes.keys()) { above.set(key, []); below.set(key, []); }
  for (const e of edges) { above.get(e.dataset.to).push(e.dataset.from); below.get(e.dataset.from).push(e.dataset.to); }

  // ---- looking: the view box moves, the drawing stays
  const [boxWidth, boxHeight, gap, rise] = svg.dataset.box.split(" ").map(Number);
  const sideways = svg.dataset.sideways === "1";
  const where = new Map([...boxes].map(([key, g]) => { const m = g.transform.baseVal.getItem(0).matrix; return [key, { x: m.e, y: m.f }]; }));
  const home = new Map(where), homePaths = edges.map((e) => e.getAttribute("d"));
  let view = { x: 0, y: 0, k: 1 };  // k: screen pixels per drawing unit
  const apply = () => {
    svg.setAttribute("viewBox", `${view.x} ${view.y} ${canvas.clientWidth / view.k} ${canvas.clientHeight / view.k}`);
    svg.classList.toggle("far", view.k < 0.42);
  };
  const frame = (keys) => {
    const at = keys.map((key) => where.get(key));
    const x = Math.min(...at.map((p) => p.x)), y = Math.min(...at.map((p) => p.y));
    const w = Math.max(...at.map((p) => p.x)) + boxWidth - x, h = Math.max(...at.map((p) => p.y)) + boxHeight - y;
    view.k = Math.min(canvas.clientWidth / (w + 48), canvas.clientHeight / (h + 48), 1.15);
    view.x = x + w / 2 - canvas.clientWidth / view.k / 2;
    view.y = y + h / 2 - canvas.clientHeight / view.k / 2;
    apply();
  };
  const fit = () => frame([...boxes.keys()].filter((key) => !boxes.get(key).classList.contains("away")));
  const zoom = (factor, px = canvas.clientWidth / 2, py = canvas.clientHeight / 2) => {
    const k = Math.min(Math.max(view.k * factor, 0.05), 4);
    view.x += px / view.k - px / k; view.y += py / view.k - py / k; view.k = k;
    apply();
  };
  const centre = (key) => {
    if (view.k < 0.42) view.k = 0.8;
    const at = where.get(key);
    view.x = at.x + boxWidth / 2 - canvas.clientWidth / view.k / 2;
    view.y = at.y + boxHeight / 2 - canvas.clientHeight / view.k / 2;
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
    const kin = first ? near(first) : null;
    for (const [key, g] of [...boxes, ...cells]) {
      g.classList.toggle("dim", !!kin && !kin.has(key) && key !== second);
      g.classList.toggle("kin", !!kin && kin.has(key));
      g.classList.toggle("chosen", key === first);
      g.classList.toggle("second", key === second);
    }
    for (const e of edges) {
      const lit = !!kin && kin.has(e.dataset.from) && kin.has(e.dataset.to);
      e.classList.toggle("lit", lit);
      e.classList.toggle("dim", !!kin && !lit);
    }
  };
  const near = (key) => new Set([key, ...reach(key, above), ...reach(key, below)]);

  // ---- only what is related to the choice, drawn anew: same layers, downwards, packed; implied edges left out
  const only = document.getElementById("only");
  const put = (key, at) => { where.set(key, at); boxes.get(key).setAttribute("transform", `translate(${at.x} ${at.y})`); };
  const narrow = (key) => {
    only.setAttribute("aria-pressed", key ? "true" : "false");
    const kept = key ? near(key) : new Set(boxes.keys());
    for (const [other, g] of boxes) { g.classList.toggle("away", !kept.has(other)); put(other, home.get(other)); }
    const layers = new Map();
    for (const other of key ? kept : []) {
      const at = home.get(other), along = sideways ? at.x : at.y;
      layers.set(along, [...(layers.get(along) || []), other]);
    }
    [...layers].sort((a, b) => a[0] - b[0]).forEach(([, row], level) => {
      row.sort((a, b) => sideways ? home.get(a).y - home.get(b).y : home.get(a).x - home.get(b).x);
      row.forEach((other, i) => put(other, { x: (i - row.length / 2) * (boxWidth + gap), y: level * (boxHeight + rise) }));
    });
    edges.forEach((e, i) => {
      const shown = !key || (kept.has(e.dataset.from) && kept.has(e.dataset.to) && !e.classList.contains("implied"));
      e.classList.toggle("away", !shown);
      if (!key) return e.setAttribute("d", homePaths[i]);
      const a = where.get(e.dataset.from), b = where.get(e.dataset.to), x = a.x + boxWidth / 2, y = a.y + boxHeight, to = b.x + boxWidth / 2, bend = (b.y - y) / 2;
      e.setAttribute("d", `M${x} ${y}C${x} ${y + bend} ${to} ${b.y - bend} ${to} ${b.y}`);
    });
    fit();
  };
  only.onclick = () => { show(false); narrow(only.getAttribute("aria-pressed") === "true" ? null : first); };

  // ---- all versions in a table, where the drawing would be too small to read
  const whole = document.getElementById("whole"), lenses = ["smaller", "larger", "fit"].map((id) => document.getElementById(id));
  const show = (on) => {
    whole.setAttribute("aria-pressed", on ? "true" : "false");
    table.hidden = !on; canvas.hidden = on;
    for (const button of lenses) button.disabled = on;
    if (on) only.setAttribute("aria-pressed", "false");
  };
  whole.onclick = () => {
    show(table.hidden);
    narrow(!table.hidden || view.k >= 0.42 ? null : first);
    if (!table.hidden && first) cells.get(first).scrollIntoView({ block: "nearest", inline: "nearest" });
  };

  const choose = (key, look) => {
    if (only.getAttribute("aria-pressed") === "true" && (!key || boxes.get(key).classList.contains("away"))) narrow(key);
    first = key; second = null;
    only.disabled = !key;
    light();
    if (!key) return;
    describe(key);
    if (!table.hidden) { if (look) cells.get(key).scrollIntoView({ block: "nearest", inline: "nearest" }); }
    else if (look) centre(key);
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
  const rivals = (key) => {  // a second version to compare with, for those without a Shift key
    const kind = key.split("=")[0], others = [...boxes.keys()].filter((k) => k !== key && nodes[k] && k.split("=")[0] === kind);
    if (!others.length) return [];
    const pick = make("select", undefined, "rivals");
    pick.append(make("option", `Compare with another ${kind} …`));
    for (const other of others) {
      const option = make("option", `${title(other)}, ${clock(nodes[other].end) || "no date"}`);
      option.value = other;
      pick.append(option);
    }
    pick.onchange = () => { if (pick.selectedIndex) compare(key, pick.value); };
    return [pick];
  };
  const clock = (iso) => iso && `${iso.slice(0, 19).replace("T", " ")} UTC`;
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
      ["started", clock(m.start)], ["ended", clock(m.end)], ["seed", m.seed], ["digest", m.digest && m.digest.slice(0, 16) + "…"],
      ["package", (m.code || {}).package_version], ["commit", (m.code || {}).git_commit && m.code.git_commit.slice(0, 12) + (m.code.dirty ? " with changes" : "")]];
    const list = make("dl");
    for (const [name, value] of facts) if (value !== undefined && value !== null && value !== "") list.append(make("dt", name), make("dd", count(value)));
    const json = make("details"), config = make("details");
    config.append(make("summary", "Settings"), make("pre", JSON.stringify(m.config, null, 2)));
    json.append(make("summary", "Manifest"), make("pre", JSON.stringify(m, null, 2)));
    config.open = true;
    panel.append(list, ...rivals(key), ...links("Made from", above.get(key)), ...links("Used by", below.get(key)), config, json);
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
    const back = make("button", `Back to ${title(a)}`);
    back.onclick = () => choose(a);
    panel.replaceChildren(make("h2", "Two artifacts compared"), back, make("p", `${paths.length} values differ in settings, inputs, models, metrics and code.`, "hint"), table);
  };
  for (const [key, g] of [...boxes, ...cells]) {
    g.addEventListener("click", (e) => {
      if (moved > 4 && table.hidden) return;
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
    for (const [key, g] of [...boxes, ...cells]) g.classList.toggle("hit", hits.includes(key));
    found.textContent = words.length ? `${hits.length} found${hits.length ? ", Enter walks them" : ""}` : "";
  });
  search.addEventListener("keydown", (e) => {
    if (e.key !== "Enter" || !hits.length) return;
    at = (at + (e.shiftKey ? hits.length - 1 : 1)) % hits.length;
    choose(hits[at], true);
  });
  document.addEventListener("keydown", (e) => { if (e.key === "Escape") choose(null); });

  // A graph too large to read at once opens as the table, or on what belongs to the focus.
  fit();
  if (focus) {
    choose(focus);
    if (view.k < 0.42) narrow(focus);
  } else if (view.k < 0.42) show(true);
})();
