// The page: its parts, connected.

import { getKey, models, setKey } from "./api.js";
import * as chat from "./chat.js";
import * as composer from "./composer.js";
import { announce, ask, byId, el } from "./dom.js";
import * as engine from "./engine.js";
import { ago } from "./format.js";
import { onSettings } from "./settings.js";
import * as store from "./store.js";

const MODEL = "cyllama.model";
let served = [];

// ---- the model

const model = () => byId("model").value;

async function readModels() {
  served = await models();
  const select = byId("model");
  const wanted = select.value || localStorage.getItem(MODEL);
  select.replaceChildren(...served.map((each) => el("option", { value: each.id }, each.id)));
  if (served.some((each) => each.id === wanted)) select.value = wanted;
  chooseModel();
}

function chooseModel() {
  localStorage.setItem(MODEL, model());
  const found = served.find((each) => each.id === model());
  composer.offerImages(found?.architecture?.input_modalities?.includes("image") ?? false);
  chat.showState();
}

// ---- the key

async function failed(error) {
  if (error.status !== 401 || byId("key-dialog").open) return;
  if (getKey() === askedFor) return; // it was refused, or none was given: the person decides when to try again
  await enterKey();
}

let askedFor = null;

async function enterKey() {
  const field = byId("key");
  field.value = "";
  const accepted = await ask(byId("key-dialog"));
  if (accepted) setKey(field.value.trim());
  field.value = "";
  askedFor = getKey();
  if (accepted) {
    engine.restart();
    await begin();
  }
}

async function begin() {
  try {
    await readModels();
  } catch (error) {
    served = [];
    byId("model").replaceChildren();
    chooseModel();
    if (error.status === 401 && getKey()) announce("With this key, no chat is possible.");
    await failed(error);
  }
}

// ---- chats

function showChats() {
  byId("chat-list").replaceChildren(
    ...store.all().map((each) => {
      const note = chat.isBusy(each.id) ? "answering" : ago(each.updated);
      const title = el("span", { class: "title" }, each.title);
      const button = el("button", { type: "button", onclick: () => open(each) }, title, el("span", { class: "note" }, note));
      if (each.id === chat.current().id) button.setAttribute("aria-current", "true");
      return el("li", {}, button);
    }),
  );
}

function open(opened) {
  chat.show(opened);
  showView("chat");
  byId("prompt").focus();
}

// ---- views

function showView(name) {
  document.body.dataset.view = name;
  markViews();
}

function markViews() {
  for (const button of document.querySelectorAll(".views button")) {
    button.setAttribute("aria-pressed", String(getComputedStyle(byId(button.dataset.view)).display !== "none"));
  }
}

// ---- all of it

chat.connect({ changed: showChats, failed, model });
composer.connect({ send: chat.send, stop: chat.stop, canSend: () => !byId("send").disabled && !byId("send").hidden });
onSettings((changed) => {
  if (changed.messages.length) store.save(changed);
  chat.showState();
});
byId("model").addEventListener("change", chooseModel);
byId("stop").addEventListener("click", chat.stop);
byId("fork-chat").addEventListener("click", () => chat.fork());
byId("new-chat").addEventListener("click", () => open(store.newChat(chat.current().settings)));
byId("delete-chat").addEventListener("click", async () => {
  if (await ask(byId("confirm-dialog"))) await chat.discard();
});
byId("key-button").addEventListener("click", enterKey);
for (const button of document.querySelectorAll(".views button")) {
  button.addEventListener("click", () => showView(button.dataset.view));
}
addEventListener("resize", markViews);

store.load();
store.onChange(chat.isBusy, () => {
  const changed = store.find(chat.current().id);
  if (changed) chat.show(changed);
  else showChats();
});
chat.show(store.find(location.hash.slice(1)) ?? store.newChat());
showView("chat");
byId("prompt").focus();
engine.watch({ failed, state: showChats, model });
begin();
