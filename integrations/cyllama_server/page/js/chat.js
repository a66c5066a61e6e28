// The chat that is shown: sending, stopping, forking.

import { forgetSession, forkSession } from "./api.js";
import { generate } from "./answer.js";
import { announce, byId, el } from "./dom.js";
import { messageElement, updateMessage } from "./messages.js";
import { check, requestOf, showSettings } from "./settings.js";
import * as store from "./store.js";

const log = byId("messages");
const runs = new Map(); // of each chat that is answered now, what stops it
let chat = store.newChat();
let elements = new Map(); // of the messages that are shown
let hooks = { changed() {}, model: () => "" };

export const current = () => chat;
export const isBusy = (id) => runs.has(id);

/** Say what to call when chats change, and for the model that answers. */
export function connect(given) {
  hooks = given;
}

/** Show a chat. */
export function show(shown) {
  chat = shown;
  elements = new Map();
  log.replaceChildren();
  showSettings(chat);
  render();
}

/** Show what the chat holds now. Elements of messages stay: a screen reader would read all of them again. */
function render() {
  for (const [message, shown] of elements) {
    if (chat.messages.includes(message)) continue;
    shown.remove();
    elements.delete(message);
  }
  log.querySelector(".empty")?.remove();
  for (const message of chat.messages) if (!elements.has(message)) log.append(element(message));
  for (const message of chat.messages.slice(-3)) updateMessage(elements.get(message), message, actionsOf(message));
  if (!chat.messages.length) log.replaceChildren(empty());
  log.setAttribute("aria-busy", String(isBusy(chat.id)));
  log.scrollTop = log.scrollHeight;
  byId("chat-title").textContent = chat.title;
  history.replaceState(null, "", chat.messages.length ? `#${chat.id}` : location.pathname + location.search);
  showState();
  hooks.changed();
}

/** Send a message, and generate the answer. */
export function send(content, images) {
  if (!chat.messages.length) chat.title = content.trim().split("\n")[0].slice(0, 60) || "Image";
  add({ role: "user", content, ...(images.length ? { images } : {}) });
  return respond();
}

export function stop() {
  runs.get(chat.id)?.abort();
}

/** Continue a chat up to a message as another one, whose session the server copies: nothing is evaluated again. */
export async function fork(message = chat.messages.at(-1)) {
  const source = chat;
  const end = source.messages.indexOf(message) + 1;
  const copy = store.newChat(source.settings);
  copy.title = `Fork: ${source.title.replace(/^Fork: /, "")}`;
  copy.messages = structuredClone(source.messages.slice(0, end)).filter((each) => !each.busy);
  await forkSession(source.id, copy.id).catch(() => {}); // a server that has started again evaluates the history
  store.save(copy);
  show(copy);
  announce("This is a fork of the chat.");
}

/** Forget the chat, here and on the server. */
export async function discard() {
  const { id } = chat;
  stop();
  store.remove(id);
  show(store.all()[0] ?? store.newChat(chat.settings));
  await forgetSession(id).catch(() => {});
}

async function respond() {
  const answered = chat;
  const model = hooks.model();
  const body = requestOf(answered, model);
  const message = { role: "assistant", model, content: "", busy: true };
  const controller = new AbortController();
  runs.set(answered.id, controller);
  add(message);
  const changed = throttled(answered, message);
  await generate(body, message, controller.signal, changed);
  changed.now();
  runs.delete(answered.id);
  finish(answered, message);
}

function finish(answered, message) {
  const isEmpty = !message.content && !message.reasoning && !message.tool_calls && !message.error;
  if (isEmpty && message.stopped) answered.messages.pop();
  answered.updated = Date.now();
  keep(answered);
  if (answered === chat) render();
  else hooks.changed();
  announce(message.error ? "The answer failed." : message.stopped ? "Stopped." : "The answer is complete.");
}

/** Return a function that shows a message and keeps its chat, some times a second at most. */
function throttled(answered, message) {
  let shown = 0;
  let kept = 0;
  let timer = 0;
  const now = () => {
    clearTimeout(timer);
    timer = 0;
    shown = performance.now();
    if (answered === chat) refresh(message);
    if (shown - kept > 500) {
      kept = shown;
      keep(answered);
    }
  };
  const changed = () => {
    timer ||= setTimeout(now, Math.max(0, 60 - (performance.now() - shown)));
  };
  changed.now = now;
  return changed;
}

function refresh(message) {
  const follows = log.scrollHeight - log.scrollTop - log.clientHeight < 60;
  const shown = elements.get(message);
  if (shown) updateMessage(shown, message, actionsOf(message));
  if (follows) log.scrollTop = log.scrollHeight;
}

function add(message) {
  chat.messages.push(message);
  chat.updated = Date.now();
  keep(chat);
  render();
}

function keep(kept) {
  if (!store.save(kept)) announce("The browser has no room to keep this chat.");
}

function element(message) {
  const made = messageElement(message, actionsOf(message));
  elements.set(message, made);
  return made;
}

function actionsOf(message) {
  const isLast = message === chat.messages.at(-1) && !isBusy(chat.id);
  const actions = { fork };
  if (isLast && message.role === "assistant") {
    actions.again = () => {
      chat.messages.pop();
      return respond();
    };
    actions.answerCalls = (results) => {
      for (const { call, content } of results) {
        chat.messages.push({ role: "tool", tool_call_id: call.id, name: call.function.name, content });
      }
      return respond();
    };
  }
  if (isLast && message.role !== "assistant") actions.again = respond;
  return actions;
}

function empty() {
  return el("div", { class: "empty" }, el("strong", {}, "What can I do for you?"), el("span", {}, "The model runs on this server. Nothing leaves it."));
}

/** Enable what can be done now. */
export function showState() {
  const busy = isBusy(chat.id);
  byId("stop").hidden = !busy;
  byId("send").hidden = busy;
  byId("send").disabled = !hooks.model() || !check();
  byId("fork-chat").disabled = byId("delete-chat").disabled = !chat.messages.length;
}
