// What the engine does: asked for every second while the page is seen.

import { liveState } from "./api.js";
import { cellMap, paint } from "./cells.js";
import { byId, el } from "./dom.js";
import { bytes, count, rate } from "./format.js";
import { forgetAll, remember } from "./history.js";
import { Plot } from "./plots.js";
import { sessionTable } from "./sessions.js";

const INTERVAL = 1000; // milliseconds
const LATER = 3000; // after a failure

const plots = { tokens: new Plot("Tokens per second"), requests: new Plot("Requests"), hits: new Plot("Prompts cached"), memory: new Plot("Memory") };
const cells = el("section", { class: "block" });
const sessions = el("section", { class: "block" });
const figures = [el("div", { class: "plots" }, ...Object.values(plots).map((plot) => plot.element)), cells, sessions];
let timer = 0;
let wasLost = false;
let hooks = { failed() {}, recovered() {}, model: () => "" };
let last = null;

/** Begin to ask; `failed(error)` is called after a failure, `recovered()` when a lost server answers again. */
export function watch(given) {
  hooks = given;
  byId("engine-model").addEventListener("change", draw);
  document.addEventListener("visibilitychange", () => (document.hidden ? clearTimeout(timer) : ask()));
  ask();
}

/** Ask again at once, as someone else perhaps. */
export function restart() {
  forgetAll();
  ask();
}

async function ask() {
  clearTimeout(timer);
  let wait = INTERVAL;
  try {
    const state = await liveState();
    connection("ok", "Connected");
    if (wasLost) hooks.recovered();
    wasLost = false;
    remember(state);
    last = state;
    draw();
  } catch (error) {
    wait = LATER;
    wasLost = error.status === 0;
    connection("bad", error.status === 401 ? "A key is needed" : "No connection");
    hooks.failed(error);
  }
  clearTimeout(timer);
  if (!document.hidden) timer = setTimeout(ask, wait);
}

function connection(state, text) {
  const element = byId("connection");
  element.dataset.state = state;
  if (element.textContent !== text) element.textContent = text;
}

function draw() {
  if (last === null) return;
  const model = chosen(last.models);
  byId("scope").textContent = last.scope === "own" ? "of this key" : "";
  const body = byId("engine-body");
  if (!model.loaded) {
    body.replaceChildren(el("p", {}, `The model ${model.name} is not loaded: its first request loads it.`));
    return;
  }
  if (!body.contains(cells)) body.replaceChildren(...figures);
  drawPlots(model, remember({ models: [], time: last.time })[model.name]);
  paint(model.sessions);
  const used = model.cells.total ? `${count(model.cells.used)} of ${count(model.cells.total)} cells` : "";
  cells.replaceChildren(heading("KV cache", used), ...cellMap(model));
  sessions.replaceChildren(heading("Sessions", count(model.n_sessions)), ...sessionTable(model));
}

const heading = (text, note) => el("h3", {}, text, el("span", { class: "note" }, note));

/** Return the model to show: the chosen one, by default that of the chat. */
function chosen(models) {
  const select = byId("engine-model");
  select.hidden = models.length < 2;
  const names = models.map((each) => each.name);
  if (names.join("\n") !== [...select.options].map((each) => each.value).join("\n")) {
    select.replaceChildren(...names.map((name) => el("option", { value: name }, name)));
    select.value = names.includes(hooks.model()) ? hooks.model() : names[0];
  }
  return models.find((each) => each.name === select.value) ?? models[0];
}

function drawPlots(model, samples) {
  const now = samples.at(-1);
  plots.tokens.draw(samples, {
    value: rate(now.generated ?? 0), details: ["answers", `prompts ${count(now.prompt ?? 0)}`],
    read: [(each) => each.generated, (each) => each.prompt], least: 10,
  });
  plots.requests.draw(samples, {
    value: `${count(model.running)} running`, details: ["running", `waiting ${count(model.waiting)}`],
    read: [(each) => each.running, (each) => each.waiting], least: 4,
  });
  const { reused, evaluated } = model.counters;
  plots.hits.draw(samples, {
    value: now.hits === null ? "none yet" : `${now.hits.toFixed(0)} %`, details: [`${count(reused)} of ${count(reused + evaluated)}`],
    read: [(each) => each.hits], least: 100,
  });
  plots.memory.element.hidden = !model.memory;
  if (model.memory) {
    plots.memory.draw(samples, {
      value: bytes(now.memory), details: [`${bytes(model.memory.kv_cache)} KV cache`, ...(model.memory.host ? [`${bytes(model.memory.host)} host`] : [])],
      read: [(each) => each.memory], least: 1,
    });
  }
}
