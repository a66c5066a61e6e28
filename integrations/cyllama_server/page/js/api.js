// Requests to the server, with the key if there is one.

const KEY = "cyllama.key";

export const getKey = () => sessionStorage.getItem(KEY) ?? "";

export function setKey(key) {
  if (key) sessionStorage.setItem(KEY, key);
  else sessionStorage.removeItem(KEY);
}

/** What the server answers instead of a result. */
export class ServerError extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

async function send(method, path, body, signal) {
  const headers = {};
  if (getKey()) headers.Authorization = `Bearer ${getKey()}`;
  if (body !== undefined) headers["Content-Type"] = "application/json";
  let response;
  try {
    response = await fetch(path, { method, headers, signal, body: body === undefined ? undefined : JSON.stringify(body) });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ServerError(0, "The server does not answer.");
  }
  if (!response.ok) throw new ServerError(response.status, await messageOf(response));
  return response;
}

async function messageOf(response) {
  try {
    return (await response.json()).error.message;
  } catch {
    return `The server answered with the status ${response.status}.`;
  }
}

const session = (id) => `v1/sessions/${encodeURIComponent(id)}`;

export const models = async () => (await (await send("GET", "v1/models")).json()).data;
export const liveState = async () => (await send("GET", "live/state")).json();
export const forgetSession = (id) => send("DELETE", session(id));
export const forkSession = (id, conversation) => send("POST", `${session(id)}/fork`, { conversation });

/** Yield the chunks of an answer to a chat. */
export async function* answer(body, signal) {
  const response = await send("POST", "v1/chat/completions", body, signal);
  for await (const data of eventsOf(response.body)) {
    if (data === "[DONE]") return;
    const chunk = JSON.parse(data);
    if (chunk.error) throw new ServerError(500, chunk.error.message);
    yield chunk;
  }
  throw new ServerError(0, "The connection ended before the answer did.");
}

/** Yield the data of server-sent events. */
async function* eventsOf(stream) {
  const reader = stream.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  try {
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      const parts = (rest + value).split("\n\n");
      rest = parts.pop();
      for (const part of parts) if (part.startsWith("data: ")) yield part.slice(6);
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}
