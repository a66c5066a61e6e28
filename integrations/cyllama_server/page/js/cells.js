// The cells of the KV cache as a map: squares, by the session that owns them.

import { el, svg } from "./dom.js";
import { count } from "./format.js";

const MOST_SQUARES = 512;
const COLUMNS = 32;
const COLOURS = 8;
const STEP = 10;

const colours = new Map(); // the colour of each session that has cells

/** Return the class of the colour of a session, the same one as long as it is shown. */
export function colourOf(id) {
  return colours.has(id) ? `c${colours.get(id)}` : "free";
}

/** Give colours to the sessions that have cells. */
export function paint(sessions) {
  const shown = new Set(sessions.filter((each) => each.cells || each.shared_cells).map((each) => each.id));
  for (const id of colours.keys()) if (!shown.has(id)) colours.delete(id);
  for (const id of shown) {
    if (colours.has(id)) continue;
    const taken = [...colours.values()];
    const uses = Array.from({ length: COLOURS }, (_, i) => taken.filter((each) => each === i).length);
    colours.set(id, uses.indexOf(Math.min(...uses)));
  }
}

/** Return the map of a model's cells. */
export function cellMap(model) {
  const { total, used, shared } = model.cells;
  if (!total) return [el("p", { class: "note" }, "There is no context yet: the first answer creates it.")];
  const size = squareSize(total);
  const owners = ownersOf(model, size);
  const rows = Math.ceil(owners.length / COLUMNS);
  const picture = svg("svg", {
    class: "map", viewBox: `0 0 ${COLUMNS * STEP - 1} ${rows * STEP - 1}`, role: "img",
    "aria-label": `${count(used)} of ${count(total)} cells are in use, ${count(shared)} of them shared`,
  }, ...[...new Set(owners)].map((owner) => svg("path", { class: owner, d: squares(owners, owner) })));
  return [picture, legend(owners, size)];
}

/** Return how many cells a square stands for, a power of two. */
function squareSize(total) {
  let size = 1;
  while (total / size > MOST_SQUARES) size *= 2;
  return size;
}

/** Return the class of each square: shared cells first, then those of each session, others', free ones. */
function ownersOf(model, size) {
  const { total, used, shared } = model.cells;
  const own = model.sessions.filter((each) => each.cells > 0);
  const others = used - shared - own.reduce((sum, each) => sum + each.cells, 0);
  const parts = [["shared", shared], ...own.map((each) => [colourOf(each.id), each.cells]), ["other", others]];
  const owners = parts.flatMap(([owner, n]) => Array(n > 0 ? Math.max(1, Math.round(n / size)) : 0).fill(owner));
  const all = Math.ceil(total / size);
  return [...owners, ...Array(Math.max(0, all - owners.length)).fill("free")].slice(0, all);
}

function squares(owners, owner) {
  return owners
    .map((each, i) => (each === owner ? `M${(i % COLUMNS) * STEP} ${Math.floor(i / COLUMNS) * STEP}h9v9h-9z` : ""))
    .join("");
}

function legend(owners, size) {
  const names = { shared: "shared", other: "others", free: "free" };
  const keys = Object.keys(names).filter((name) => owners.includes(name));
  return el("p", { class: "legend" }, el("span", {}, size === 1 ? "a square is a cell" : `a square is ${count(size)} cells`), ...keys.map((name) => el("span", {}, dot(name), names[name])));
}

/** Return a square of a colour. */
export function dot(name) {
  return svg("svg", { class: "dot", viewBox: "0 0 9 9", "aria-hidden": "true" }, svg("path", { class: name, d: "M0 0h9v9H0z" }));
}
