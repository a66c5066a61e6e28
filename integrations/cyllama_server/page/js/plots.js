// Small plots of the last minutes.

import { el, svg } from "./dom.js";
import { SECONDS } from "./history.js";

const WIDTH = 300;
const HEIGHT = 40;
const GAP = 4; // seconds after which a line is broken

/** A plot with a figure above it: `draw(samples, value, details, read, most)`. */
export class Plot {
  constructor(title) {
    this.title = title;
    this.value = el("p", { class: "value" });
    this.detail = el("p", { class: "detail" });
    this.area = svg("path", { class: "area" });
    this.lines = [svg("path", { class: "line0" }), svg("path", { class: "line1" })];
    const base = svg("path", { class: "base", d: `M0 ${HEIGHT}H${WIDTH}` });
    this.picture = svg("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", role: "img" }, base, this.area, ...this.lines);
    this.element = el("figure", { class: "plot" }, el("h3", {}, title), this.value, this.detail, this.picture);
  }

  /**
   * Draw samples.
   *
   * `value` is the figure, `details` are the texts below it (those with a line have its colour), `read` are functions
   * from a sample to a number or null, `least` is the smallest top of the scale.
   */
  draw(samples, { value, details, read, least }) {
    this.value.textContent = value;
    this.detail.replaceChildren(...details.map((text, i) => el("span", { class: read.length > 1 ? `key${i}` : "" }, text)));
    const end = samples.at(-1)?.time ?? 0;
    const rows = read.map((each) => samples.map((sample) => [sample.time, each(sample)]));
    const top = Math.max(least, ...rows.flat().map(([, y]) => y ?? 0));
    const x = (time) => WIDTH - ((end - time) / SECONDS) * WIDTH;
    const y = (number) => HEIGHT - (number / top) * (HEIGHT - 2);
    this.lines.forEach((line, i) => line.setAttribute("d", rows[i] ? lineOf(rows[i], x, y) : ""));
    this.area.setAttribute("d", areaOf(rows[0], x, y));
    this.picture.setAttribute("aria-label", `${this.title} over the last ${SECONDS / 60} minutes: now ${value}`);
  }
}

/** Return the parts of a row without gaps. */
function partsOf(row) {
  const parts = [];
  let last = null;
  for (const [time, number] of row) {
    if (number === null) {
      last = null;
      continue;
    }
    if (last === null || time - last > GAP) parts.push([]);
    parts.at(-1).push([time, number]);
    last = time;
  }
  return parts;
}

const points = (part, x, y) => part.map(([time, number]) => `${x(time).toFixed(1)} ${y(number).toFixed(1)}`).join("L");

const lineOf = (row, x, y) => partsOf(row).map((part) => `M${points(part, x, y)}`).join("");

const areaOf = (row, x, y) =>
  partsOf(row)
    .map((part) => `M${x(part[0][0]).toFixed(1)} ${HEIGHT}L${points(part, x, y)}V${HEIGHT}Z`)
    .join("");
