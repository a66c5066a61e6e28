// The chats of this browser, each under a key of its own: two tabs change different ones.

const PREFIX = "cyllama.chat.";
const chats = new Map();

/** Return an id that cannot be guessed; crypto.randomUUID needs HTTPS. */
export function newId() {
  const bytes = crypto.getRandomValues(new Uint8Array(12));
  return `page-${Array.from(bytes, (each) => each.toString(16).padStart(2, "0")).join("")}`;
}

/** Return a new chat with the settings of another one. */
export function newChat(settings = {}) {
  return { id: newId(), title: "New chat", updated: Date.now(), settings: { ...settings }, messages: [] };
}

export const find = (id) => chats.get(id);

/** Return all chats, the latest first. */
export const all = () => [...chats.values()].sort((a, b) => b.updated - a.updated);

/** Keep a chat; return whether the browser had room for it. */
export function save(chat) {
  chats.set(chat.id, chat);
  try {
    localStorage.setItem(PREFIX + chat.id, JSON.stringify(chat));
    return true;
  } catch {
    return false;
  }
}

export function remove(id) {
  chats.delete(id);
  localStorage.removeItem(PREFIX + id);
}

/** Read all chats. What was answered when the page was left is marked as stopped. */
export function load() {
  for (const key of Object.keys(localStorage)) if (key.startsWith(PREFIX)) read(key);
}

/** Call a function when another tab changes a chat that this one does not generate. */
export function onChange(isBusy, call) {
  addEventListener("storage", ({ key, newValue }) => {
    if (!key?.startsWith(PREFIX) || isBusy(key.slice(PREFIX.length))) return;
    if (newValue === null) chats.delete(key.slice(PREFIX.length));
    else read(key);
    call();
  });
}

function read(key) {
  try {
    const chat = JSON.parse(localStorage.getItem(key));
    if (typeof chat.id !== "string" || !Array.isArray(chat.messages)) return;
    for (const message of chat.messages) {
      if (message.busy) message.stopped = true;
      delete message.busy;
    }
    chats.set(chat.id, chat);
  } catch {
    // not a chat of this page
  }
}
