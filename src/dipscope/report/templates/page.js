"use strict";
// Text of models only ever enters the document as textContent.
(() => {
  const read = (id) => JSON.parse(document.getElementById(id).textContent);
  const all = (selector, root = document) => Array.from(root.querySelectorAll(selector));
  const make = (tag, className, text) => {
    const node = document.createElement(tag);
    if (className) node.className = className;
    if (text !== undefined) node.textContent = text;
    return node;
  };
  const specs = read("data-figures");
  const LEFT = 42;
  const SMALL = new Set(["length", "truncated"]);
  const state = { mode: "all", focus: "" };
  const views = new Map();
  const drawnAt = new Map();

  // Ink follows the page, so light, dark and print need no second drawing.
  const dress = (spec) => {
    const config = structuredClone(spec.config);
    config.background = null;
    config.axis = { ...config.axis, labelColor: "currentColor", titleColor: "currentColor", gridColor: "currentColor", tickColor: "currentColor" };
    config.header = { ...config.header, labelColor: "currentColor" };
    config.style = { total: { color: "currentColor" } };
    return config;
  };

  // The page has one legend for all charts; those in the specifications are for the exported files.
  const withoutLegends = (value) => {
    if (Array.isArray(value)) return value.map(withoutLegends);
    if (value === null || typeof value !== "object") return value;
    return Object.fromEntries(Object.entries(value).map(([k, v]) => [k, k === "datasets" ? v : k === "legend" ? null : withoutLegends(v)]));
  };

  async function draw(node) {
    const width = node.clientWidth;
    if (!width || node.closest("details:not([open])") || drawnAt.get(node) === width) return;
    drawnAt.set(node, width);
    const spec = withoutLegends(specs[node.dataset.figure]);
    spec.config = dress(specs[node.dataset.figure]);
    delete spec.title;
    spec.params = [{ name: "mode", value: state.mode }, { name: "focus", value: state.focus }];
    if (spec.spec) {
      spec.spec.width = Math.max(120, width - LEFT - 8);
      spec.padding = { left: 0, top: 4, right: 4, bottom: 6 };
    } else {
      // Fixed margins instead of fitted ones: panels under each other share their plot area.
      const titled = spec.layer.some((l) => l.encoding?.y?.title);
      const left = titled ? LEFT + 22 : LEFT;
      const right = spec.usermeta.margin;
      const bottom = SMALL.has(node.dataset.kind) ? 20 : 38;
      spec.width = Math.max(100, width - left - right);
      spec.padding = { left, right, top: 8, bottom };
      spec.autosize = { type: "none" };
    }
    views.get(node)?.finalize();
    try {
      const result = await vegaEmbed(node, spec, { actions: false, renderer: "svg", ast: false });
      views.set(node, result);
    } catch (error) {
      node.replaceChildren(make("p", "failed", "This chart could not be drawn: " + error.message));
      throw error;
    }
  }

  const signal = (name, value) => {
    state[name] = value;
    for (const { view } of views.values()) {
      try { view.signal(name, value).runAsync(); } catch { /* a chart without this parameter */ }
    }
  };

  async function drawAll(root = document) {
    for (const node of all(".chart", root)) {
      await draw(node);
      await new Promise((next) => setTimeout(next));
    }
    document.documentElement.dataset.drawn = views.size;
  }

  const press = (buttons, chosen) => buttons.forEach((b) => b.setAttribute("aria-pressed", String(b === chosen)));

  const notes = {
    all: "",
    completed: "Only responses that ended by themselves. They may come from other items at every step; the ledger tests what is left of a dip on paired items.",
    bounds: "Bands now reach from every truncated response counted wrong to every one counted right.",
  };
  const modes = all("[data-mode]");
  modes.forEach((b) => b.addEventListener("click", () => {
    press(modes, b);
    document.querySelector(".mode-note").textContent = notes[b.dataset.mode];
    signal("mode", b.dataset.mode);
  }));
  const keys = all(".key[data-group]");
  keys.forEach((b) => b.addEventListener("click", () => {
    const on = state.focus !== b.dataset.group;
    keys.forEach((k) => k.setAttribute("aria-pressed", String(on && k.dataset.group === b.dataset.group)));
    signal("focus", on ? b.dataset.group : "");
  }));
  const filters = all(".filters [data-verdict]");
  filters.forEach((b) => b.addEventListener("click", () => {
    press(filters, b);
    all(".finding").forEach((f) => { f.hidden = Boolean(b.dataset.verdict) && f.dataset.verdict !== b.dataset.verdict; });
    all(".claim").forEach((c) => { c.hidden = !c.querySelector(".finding:not([hidden])"); });
  }));
  all("details").forEach((d) => d.addEventListener("toggle", () => { if (d.open) drawAll(d); }));
  // A finding may point into a fold.
  const reveal = () => {
    const target = location.hash && document.getElementById(decodeURIComponent(location.hash.slice(1)));
    const fold = target && target.closest("details");
    if (fold && !fold.open) {
      fold.open = true;
      target.scrollIntoView();
    }
  };
  addEventListener("hashchange", reveal);
  addEventListener("beforeprint", () => all("#benchmarks details").forEach((d) => { d.open = true; }));
  let pending = 0;
  addEventListener("resize", () => { clearTimeout(pending); pending = setTimeout(() => drawAll(), 150); });

  function browse() {
    const data = read("data-samples");
    const [run, benchmark, item] = ["pick-run", "pick-benchmark", "pick-item"].map((id) => document.getElementById(id));
    if (!run) return;
    const fill = (select, labels) => {
      select.replaceChildren(...labels.map((label, i) => {
        const option = make("option", "", label);
        option.value = i;
        return option;
      }));
    };
    const unfold = document.getElementById("unfold");
    const strip = document.getElementById("responses");
    const card = (step, response) => {
      const node = make("article", "response " + (response ? response.verdict : "none"));
      const head = make("div", "head");
      head.append(make("span", "", step === 0 ? "base" : "step " + step), make("span", "mark", response ? response.verdict : "not measured"));
      node.append(head);
      if (!response) return node;
      const ended = { stop: "ended by itself", length: "cut off", error: "engine error" }[response.finish] ?? response.finish;
      const facts = [`${response.tokens ?? "?"} tokens`, ended];
      if (response.extracted) facts.push("read as " + response.extracted);
      node.append(make("div", "meta", facts.join(" · ")));
      if (response.reasoning) {
        const fold = make("details");
        fold.open = unfold.getAttribute("aria-pressed") === "true";
        fold.append(make("summary", "", `thinking, ${response.thought ?? "?"} tokens` + (response.closed ? "" : ", not closed")), make("pre", "", response.reasoning));
        node.append(fold);
      }
      const answer = make("pre", "", response.answer || "(no answer)");
      answer.dir = "auto";
      node.append(answer);
      return node;
    };
    const show = () => {
      const chosen = data.benchmarks[benchmark.value].items[item.value];
      document.getElementById("question").textContent = chosen.prompt;
      strip.replaceChildren(...data.runs[run.value].steps.map(([step, at]) => card(step, chosen.responses[at])));
    };
    const items = () => {
      fill(item, data.benchmarks[benchmark.value].items.map((i) => i.changes ? `${i.item} (${i.changes} changes of verdict)` : i.item));
      show();
    };
    fill(run, data.runs.map((r) => `${r.group}, seed ${r.seed}`));
    fill(benchmark, data.benchmarks.map((b) => b.name));
    benchmark.addEventListener("change", items);
    run.addEventListener("change", show);
    item.addEventListener("change", show);
    unfold.addEventListener("click", () => {
      unfold.setAttribute("aria-pressed", String(unfold.getAttribute("aria-pressed") !== "true"));
      show();
    });
    items();
  }

  addEventListener("error", () => { document.documentElement.dataset.error = "script"; });
  addEventListener("unhandledrejection", () => { document.documentElement.dataset.error = "chart"; });
  browse();
  drawAll().then(reveal);
})();
