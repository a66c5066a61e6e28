// The Markdown that models write, as elements. Links and markup stay text: a text of a model loads and runs nothing.

import { el } from "./dom.js";

const INLINE = /`([^`\n]+)`|\*\*([^*\n]+)\*\*|\*([^*\s][^*\n]*)\*/g;
const ITEM = /^\s*(?:[-*+]|(\d+)[.)])\s+(.*)$/;

/** Return the elements of a text. */
export function markdown(text) {
  const lines = text.split("\n");
  const found = [];
  let i = 0;
  while (i < lines.length) {
    const fence = lines[i].match(/^\s*```/);
    if (fence) {
      const end = lines.findIndex((line, n) => n > i && /^\s*```\s*$/.test(line));
      const last = end < 0 ? lines.length : end;
      found.push(el("pre", {}, el("code", {}, lines.slice(i + 1, last).join("\n"))));
      i = last + 1;
    } else if (!lines[i].trim()) {
      i += 1;
    } else {
      const end = endOfBlock(lines, i);
      found.push(block(lines.slice(i, end)));
      i = end;
    }
  }
  return found;
}

function endOfBlock(lines, begin) {
  const isList = ITEM.test(lines[begin]);
  let i = begin + 1;
  while (i < lines.length && lines[i].trim() && !/^\s*```/.test(lines[i]) && !/^#{1,6} /.test(lines[i])) {
    if (/^#{1,6} /.test(lines[begin]) || (!isList && ITEM.test(lines[i]))) break;
    i += 1;
  }
  return i;
}

function block(lines) {
  const heading = lines[0].match(/^(#{1,6}) (.*)$/);
  if (heading) return el("p", {}, el("strong", {}, ...inline(heading[2])));
  if (lines.every((line) => line.startsWith(">"))) {
    return el("blockquote", {}, ...inline(lines.map((line) => line.replace(/^> ?/, "")).join("\n")));
  }
  const first = lines[0].match(ITEM);
  if (first) return list(lines, first[1]);
  return el("p", {}, ...withBreaks(lines));
}

function list(lines, number) {
  const items = [];
  for (const line of lines) {
    const item = line.match(ITEM);
    if (item) items.push(item[2]);
    else items[items.length - 1] += ` ${line.trim()}`;
  }
  const made = items.map((item) => el("li", {}, ...inline(item)));
  return number === undefined ? el("ul", {}, ...made) : el("ol", { start: Number(number) }, ...made);
}

const withBreaks = (lines) => lines.flatMap((line, i) => (i ? [el("br"), ...inline(line)] : inline(line)));

function inline(text) {
  const found = [];
  let end = 0;
  for (const match of text.matchAll(INLINE)) {
    found.push(text.slice(end, match.index));
    const [whole, code, strong, emphasis] = match;
    if (code !== undefined) found.push(el("code", {}, code));
    else if (strong !== undefined) found.push(el("strong", {}, strong));
    else found.push(el("em", {}, emphasis));
    end = match.index + whole.length;
  }
  found.push(text.slice(end));
  return found.filter((each) => each !== "");
}
