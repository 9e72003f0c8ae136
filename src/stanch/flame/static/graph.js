"use strict";
// Draws the call tree in #data: a row for each depth, callers above callees, widths by value.
// All text comes from a profile that somebody else wrote: it is set as text, never as markup.

const ROW_PX = 21;
const MIN_FRAME_PX = 1;
const MIN_TEXT_PX = 24;
const HUES = 10;
const UNITS = {
  bytes: [[2 ** 50, "PB"], [2 ** 40, "TB"], [2 ** 30, "GB"], [2 ** 20, "MB"], [2 ** 10, "kB"], [1, "B"]],
  nanoseconds: [[3600e9, "hrs"], [1e9, "s"], [1e6, "ms"], [1e3, "us"], [1, "ns"]],
};

const data = JSON.parse(document.getElementById("data").textContent);
const byId = (id) => document.getElementById(id);
const graph = byId("graph");
const tooltip = byId("tooltip");
const searchBox = byId("search");

const nodes = buildNodes(data);
const root = nodes[0];
const state = { type: data.selected, zoom: root, query: null };
const elements = new Map(); // what is drawn, by node
let focusable = root; // the one frame that Tab reaches

function buildNodes({ depths, frameOf, values }) {
  const path = [];
  return depths.map((depth, index) => {
    const node = {
      index,
      depth,
      parent: depth ? path[depth - 1] : null,
      frame: data.frames[frameOf[index]],
      children: [],
      self: values.map((column) => column[index]),
    };
    if (node.parent) node.parent.children.push(node);
    path[depth] = node;
    return node;
  });
}

// Add up the chosen type: `now` and `was` with calls, and `size`, which is what is drawn. In a
// comparison a frame is as wide as the larger of both, so that what vanished can be seen too.
function addUp() {
  const now = state.type;
  const was = now + data.types.length;
  for (const node of nodes) {
    node.ownNow = node.self[now];
    node.ownWas = data.compares ? node.self[was] : 0;
    node.now = node.ownNow;
    node.was = node.ownWas;
    node.size = Math.max(node.ownNow, node.ownWas, 0);
  }
  for (let index = nodes.length - 1; index > 0; index--) {
    const { parent, now, was, size } = nodes[index];
    parent.now += now;
    parent.was += was;
    parent.size += size;
  }
  for (const node of nodes) node.children.sort((a, b) => b.size - a.size || a.index - b.index);
}

// Give what is to be drawn: each node with its left edge and width as parts of the whole.
function layOut() {
  const boxes = [];
  for (let above = state.zoom.parent; above; above = above.parent) {
    boxes.push({ node: above, left: 0, width: 1 });
  }
  const least = MIN_FRAME_PX / Math.max(graph.clientWidth, 1);
  const pending = state.zoom.size > 0 ? [{ node: state.zoom, left: 0, width: 1 }] : [];
  while (pending.length) {
    const box = pending.pop();
    boxes.push(box);
    let left = box.left;
    for (const child of box.node.children) {
      const width = child.size / state.zoom.size;
      if (width >= least) pending.push({ node: child, left, width });
      left += width;
    }
  }
  return boxes;
}

function draw() {
  const boxes = layOut();
  const shown = new Set(boxes.map((box) => box.node));
  for (const [node, element] of elements) {
    if (!shown.has(node)) {
      element.remove();
      elements.delete(node);
    }
  }
  if (!shown.has(focusable)) focusable = state.zoom;
  let deepest = 0;
  const added = document.createDocumentFragment();
  for (const { node, left, width } of boxes) {
    let element = elements.get(node);
    if (!element) {
      element = newElement(node);
      elements.set(node, element);
      added.append(element);
    }
    place(element, node, left, width);
    deepest = Math.max(deepest, node.depth);
  }
  graph.append(added);
  graph.style.height = `${(deepest + 1) * ROW_PX}px`;
  byId("reset").disabled = state.zoom === root;
  byId("empty").hidden = root.size > 0;
  showMatched();
}

function newElement(node) {
  const element = document.createElement("div");
  element.setAttribute("role", "treeitem");
  element.setAttribute("aria-level", node.depth + 1);
  element.dataset.node = node.index;
  return element;
}

function place(element, node, left, width) {
  const widthPx = width * graph.clientWidth;
  const thin = widthPx < MIN_TEXT_PX;
  element.className = `frame ${colourOf(node)}`;
  element.classList.toggle("thin", thin);
  element.classList.toggle("above", node.depth < state.zoom.depth);
  if (state.query) element.classList.add(matches(node) ? "match" : "dim");
  element.textContent = thin ? "" : node.frame.short;
  element.setAttribute("aria-label", `${node.frame.name}, ${shareText(node.now, root.now)}`);
  element.tabIndex = node === focusable ? 0 : -1;
  element.style.left = `${left * 100}%`;
  element.style.width = `max(${MIN_FRAME_PX}px, calc(${width * 100}% - 1px))`;
  element.style.top = `${node.depth * ROW_PX}px`;
}

function colourOf(node) {
  if (data.compares) return `c${changeStep(node.now, node.was)}`;
  const { group, shade } = node.frame;
  return group !== null && group < HUES ? `hue h${group} s${shade}` : "rest";
}

// 0 for gone, 3 for unchanged, 6 for new.
function changeStep(now, was) {
  const larger = Math.max(Math.abs(now), Math.abs(was));
  const change = larger ? (now - was) / larger : 0;
  if (Math.abs(change) < 0.02) return 3;
  const strength = Math.abs(change) < 0.2 ? 1 : Math.abs(change) < 0.6 ? 2 : 3;
  return 3 + Math.sign(change) * strength;
}

function zoomTo(node) {
  state.zoom = node;
  focusable = node;
  hideTooltip();
  draw();
}

// --- search

function setQuery(text) {
  state.query = text ? expressionFor(text) : null;
  draw();
}

function expressionFor(text) {
  try {
    return new RegExp(text, "i");
  } catch {
    return new RegExp(text.replace(/[.*+?^${}()|[\]\\]/g, "\\$&"), "i");
  }
}

function matches({ frame }) {
  return state.query.test(frame.name) || state.query.test(frame.file) ||
    state.query.test(data.groups[frame.group] ?? "");
}

// A frame below another that matches is already counted in it.
function matchedTotal() {
  let total = 0;
  const pending = [state.zoom];
  while (pending.length) {
    const node = pending.pop();
    if (matches(node)) total += node.size;
    else pending.push(...node.children);
  }
  return total;
}

function showMatched() {
  const output = byId("matched");
  output.textContent = "";
  if (!state.query) return;
  const total = matchedTotal();
  output.textContent = `${percentage(total, state.zoom.size)} matched, ${valueText(total)}`;
}

// --- numbers

function valueText(value, { unit } = data.types[state.type]) {
  const scale = UNITS[unit];
  if (!scale) return `${value.toLocaleString("en")}${unit === "count" ? "" : ` ${unit}`}`;
  if (value === 0) return "0";
  const size = Math.abs(value);
  const [factor, symbol] = scale.find(([least]) => size >= least) ?? scale[scale.length - 1];
  return `${(value / factor).toFixed(2).replace(/\.00$/, "")}${symbol}`;
}

function percentage(part, whole) {
  const percent = whole ? (part / whole) * 100 : 0;
  if (percent === 0) return "0%";
  return `${percent >= 99.95 ? "100" : percent.toFixed(percent >= 10 ? 1 : 2)}%`;
}

function shareText(value, whole) {
  return `${valueText(value)}, ${percentage(value, whole)}`;
}

// --- tooltip

function showTooltip(node, x, y) {
  const { frame } = node;
  tooltip.replaceChildren(textElement("div", "function", frame.name));
  const place = frame.file + (frame.line ? `:${frame.line}` : "");
  if (place) tooltip.append(textElement("div", "place", place));
  const list = document.createElement("dl");
  const row = (label, value, note, grew) => {
    list.append(textElement("dt", "", label), textElement("dd", "", value));
    list.append(textElement("dd", grew ? "grew" : "", note));
  };
  if (data.compares) {
    row("now", valueText(node.now), percentage(node.now, root.now));
    row("before", valueText(node.was), percentage(node.was, root.was));
    const change = node.now - node.was;
    const sign = change > 0 ? "+" : "";
    const relative = node.was > 0 ? `${sign}${((change / node.was) * 100).toFixed(1)}%` : "new";
    row("change", sign + valueText(change), change ? relative : "", change > 0);
    const own = node.ownNow - node.ownWas;
    row("flat change", (own > 0 ? "+" : "") + valueText(own), "", own > 0);
  } else {
    row("cum", valueText(node.now), percentage(node.now, root.now));
    row("flat", valueText(node.ownNow), percentage(node.ownNow, root.now));
    if (state.zoom !== root) row("of this view", percentage(node.now, state.zoom.now), "");
  }
  tooltip.append(list);
  tooltip.hidden = false;
  const { width, height } = tooltip.getBoundingClientRect();
  const below = y + 18 + height < window.innerHeight;
  tooltip.style.left = `${Math.max(8, Math.min(x + 14, window.innerWidth - width - 12))}px`;
  tooltip.style.top = `${below ? y + 18 : Math.max(8, y - height - 12)}px`;
}

function hideTooltip() {
  tooltip.hidden = true;
}

function textElement(tag, className, text) {
  const element = document.createElement(tag);
  if (className) element.className = className;
  element.textContent = text;
  return element;
}

// --- header

function drawTypes() {
  const buttons = data.types.map((valueType, index) => {
    const before = index + data.types.length;
    let total = 0;
    for (const node of nodes) total += node.self[index] - (data.compares ? node.self[before] : 0);
    const sign = data.compares && total > 0 ? "+" : "";
    const button = document.createElement("button");
    button.type = "button";
    button.append(
      textElement("b", "", valueType.type),
      textElement("small", "", sign + valueText(total, valueType)),
    );
    button.disabled = !nodes.some((node) => node.self[index] || node.self[before]);
    button.setAttribute("aria-pressed", String(index === state.type));
    button.addEventListener("click", () => {
      state.type = index;
      state.zoom = root;
      addUp();
      drawTypes();
      draw();
    });
    return button;
  });
  byId("types").replaceChildren(...buttons);
}

function drawLegend() {
  const legend = byId("legend");
  if (data.compares) {
    const ramp = textElement("span", "ramp", "");
    for (let step = 0; step <= 6; step++) ramp.append(textElement("i", `c${step}`, ""));
    const scale = textElement("span", "scale", "");
    scale.append("shrank", ramp, "grew; width is the larger of before and now");
    legend.replaceChildren(scale);
    return;
  }
  const buttons = data.groups.slice(0, HUES).map((name, group) => {
    const button = document.createElement("button");
    button.type = "button";
    button.title = `Search ${name}`;
    button.append(textElement("span", `swatch hue h${group}`, ""), textElement("span", "name", name));
    button.addEventListener("click", () => {
      searchBox.value = name.replace(/[.*+?^${}()|[\]\\]/g, "\\$&");
      setQuery(searchBox.value);
    });
    return button;
  });
  legend.replaceChildren(...buttons);
}

// --- events

function nodeOf(target) {
  const element = target.closest?.(".frame");
  return element ? nodes[Number(element.dataset.node)] : null;
}

function moveFocus(node) {
  const element = elements.get(node);
  if (!element) return;
  elements.get(focusable)?.setAttribute("tabindex", "-1");
  focusable = node;
  element.tabIndex = 0;
  element.focus({ preventScroll: false });
  const box = element.getBoundingClientRect();
  showTooltip(node, box.left, box.bottom - 14);
}

// The next frame in a row, in the order in which they are drawn.
function neighbour(node, step) {
  const row = [...elements.keys()]
    .filter((other) => other.depth === node.depth)
    .sort((a, b) => parseFloat(elements.get(a).style.left) - parseFloat(elements.get(b).style.left));
  return row[row.indexOf(node) + step];
}

const MOVES = {
  ArrowUp: (node) => node.parent,
  ArrowDown: (node) => node.children.find((child) => elements.has(child)),
  ArrowLeft: (node) => neighbour(node, -1),
  ArrowRight: (node) => neighbour(node, 1),
};

function onFrameKey(event) {
  const node = nodeOf(event.target);
  if (!node || event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.key in MOVES) {
    const next = MOVES[event.key](node);
    if (next) moveFocus(next);
  } else if (event.key === "Enter" || event.key === " ") {
    zoomTo(node);
    moveFocus(node);
  } else if (event.key === "Backspace" && state.zoom.parent) {
    zoomTo(state.zoom.parent);
    moveFocus(state.zoom);
  } else {
    return;
  }
  event.preventDefault();
}

function onPageKey(event) {
  const inSearch = event.target === searchBox;
  if (!inSearch && event.target.closest?.("input, select, textarea")) return;
  if (event.key === "/" && !inSearch) {
    searchBox.focus();
    searchBox.select();
    event.preventDefault();
  } else if (event.key === "Escape" && inSearch && searchBox.value) {
    searchBox.value = "";
    setQuery("");
  } else if (event.key === "Escape") {
    zoomTo(root);
  }
}

graph.addEventListener("click", (event) => {
  const node = nodeOf(event.target);
  if (node) zoomTo(node);
});
graph.addEventListener("mousemove", (event) => {
  const node = nodeOf(event.target);
  if (node) showTooltip(node, event.clientX, event.clientY);
  else hideTooltip();
});
graph.addEventListener("mouseleave", hideTooltip);
graph.addEventListener("focusout", hideTooltip);
graph.addEventListener("keydown", onFrameKey);
document.addEventListener("keydown", onPageKey);
if (searchBox.value) state.query = expressionFor(searchBox.value);
searchBox.addEventListener("input", () => setQuery(searchBox.value));
byId("reset").addEventListener("click", () => zoomTo(root));
new ResizeObserver(draw).observe(document.body);

addUp();
drawTypes();
drawLegend();
draw();
