// The sessions of a model as a table.

import { colourOf, dot } from "./cells.js";
import { el } from "./dom.js";
import { count } from "./format.js";
import * as store from "./store.js";

const PLACES = { context: "context", host: "host memory", none: "tokens only" };
const HELP = {
  context: "Its KV cache is in the context",
  host: "Its KV cache is in host memory, and comes back when it goes on",
  none: "Its tokens are evaluated again when it goes on",
};

/** Return the table of a model's sessions. */
export function sessionTable(model) {
  if (!model.sessions.length) return [el("p", { class: "note" }, "There are no sessions.")];
  const head = el("tr", {}, th("Session"), th("Tokens", "number"), th("Where", "place"), th("Does", "does"));
  const table = el("table", { class: "sessions" }, el("thead", {}, head), el("tbody", {}, ...model.sessions.map(row)));
  table.prepend(el("caption", { class: "sr" }, "Sessions of the model"));
  const more = model.n_sessions - model.sessions.length;
  return more > 0 ? [table, el("p", { class: "note" }, `and ${count(more)} more`)] : [table];
}

const th = (text, name = "") => el("th", { scope: "col", class: name }, text);

function row(session) {
  const name = nameOf(session);
  const place = PLACES[session.place] + (session.saved ? ", disk" : "");
  const title = HELP[session.place] + (typeof session.saved === "string" ? `; saved to ${session.saved}` : "");
  return el("tr", {},
    el("td", {}, el("div", { class: "name", title: name }, dot(colourOf(session.id)), el("span", {}, name))),
    el("td", { class: "number" }, count(session.tokens)),
    el("td", { class: "place", title }, place),
    el("td", { class: "does" }, state(session)));
}

/** Return what people call a session: the title of a chat of this browser, or the name that a client gave it. */
function nameOf(session) {
  const chat = store.find(session.conversation);
  if (chat) return chat.title;
  const name = session.conversation ?? session.id;
  return session.tenant ? `${name} of ${session.tenant}` : name;
}

function state({ running, waiting }) {
  if (running) return el("span", { class: "running" }, "running");
  return waiting ? el("span", { class: "waiting" }, "waiting") : el("span", { class: "idle" }, "idle");
}
