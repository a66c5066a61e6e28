// Elements, made without markup: whatever a model or a client says stays text.

const SVG = "http://www.w3.org/2000/svg";

/** Return the element of an id. */
export const byId = (id) => document.getElementById(id);

/** Return a new element: properties, attributes with a dash, "class" and handlers "on...", then its children. */
export function el(tag, given = {}, ...children) {
  return fill(document.createElement(tag), given, children);
}

/** Return a new element of SVG. */
export function svg(tag, given = {}, ...children) {
  return fill(document.createElementNS(SVG, tag), given, children, true);
}

function fill(element, given, children, attributes = false) {
  for (const [name, value] of Object.entries(given)) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "class") element.setAttribute("class", value);
    else if (attributes || name.includes("-") || name === "role") element.setAttribute(name, value);
    else element[name] = value;
  }
  element.append(...children.flat().filter((each) => each !== null && each !== undefined && each !== false));
  return element;
}

/** Say something to those who hear the page. */
export function announce(text) {
  byId("announce").textContent = text;
}

/** Show a dialog, and return whether it was accepted. */
export function ask(dialog) {
  dialog.returnValue = "cancel";
  dialog.querySelector("[data-cancel]").onclick = () => dialog.close("cancel");
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => resolve(dialog.returnValue === "ok"), { once: true });
  });
}
