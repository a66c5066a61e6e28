// The page: its parts, connected.

import { getKey, models, setKey } from "./api.js";
import * as chat from "./chat.js";
import * as composer from "./composer.js";
import { ask, byId, el } from "./dom.js";
import * as engine from "./engine.js";
import { ago } from "./format.js";
import { onSettings } from "./settings.js";
import * as store from "./store.js";

const MODEL = "cyllama.model";
const HELP = byId("prompt-help").textContent;
let served = [];

// ---- the model

const model = () => byId("model").value;

async function readModels() {
  const select = byId("model");
  try {
    served = await models();
    byId("prompt-help").textContent = HELP;
  } catch (error) {
    served = [];
    byId("prompt-help").textContent = error.status === 401 && getKey() ? "This key cannot chat" : error.message;
  }
  const wanted = select.value || localStorage.getItem(MODEL);
  select.replaceChildren(...served.map((each) => el("option", { value: each.id }, each.id)));
  if (served.some((each) => each.id === wanted)) select.value = wanted;
  chooseModel();
}

function chooseModel() {
  if (model()) localStorage.setItem(MODEL, model());
  const found = served.find((each) => each.id === model());
  composer.offerImages(found?.architecture?.input_modalities?.includes("image") ?? false);
  chat.showState();
}

// ---- the key

let declined = false; // to enter a key: the button asks again

/** Ask for a key where the server shows nothing without one. */
async function failed(error) {
  if (error.status !== 401 || declined || byId("key-dialog").open) return;
  await enterKey(getKey() ? "The server does not know that key." : "The server asks for a key.");
}

async function enterKey(why) {
  const field = byId("key");
  byId("key-text").textContent = `${why} It is kept in this tab until you close it.`;
  declined = !(await ask(byId("key-dialog")));
  if (!declined) {
    setKey(field.value.trim());
    engine.restart();
    await readModels();
  }
  field.value = "";
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

chat.connect({ changed: showChats, model });
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
byId("key-button").addEventListener("click", () => enterKey("Enter another key, or none."));
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
engine.watch({ failed, recovered: readModels, model });
setInterval(showChats, 60000); // how long ago they were
readModels();
