// The settings of a chat, and the request that they make of it.

import { byId } from "./dom.js";

const form = byId("settings-form");
const NUMBERS = ["temperature", "top_p", "max_tokens", "seed"];
const TEXTS = ["system", "format", "schema", "tools"];
let current = null;

/** Show the settings of a chat, which change with the fields; `changed` is called then. */
export function showSettings(chat) {
  current = chat;
  for (const name of [...NUMBERS, ...TEXTS]) form.elements[name].value = chat.settings[name] ?? "";
  if (!chat.settings.format) form.elements.format.value = "text";
  check();
}

export function onSettings(changed) {
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("input", ({ target }) => {
    if (!target.name || current === null) return;
    if (target.value === "") delete current.settings[target.name];
    else current.settings[target.name] = target.value;
    check();
    changed(current);
  });
}

/** Return whether all fields can be sent; what is wrong is shown beside its field. */
export function check() {
  const isSchema = form.elements.format.value === "schema";
  byId("schema-label").hidden = !isSchema;
  const schema = isSchema ? problem("schema", "object") : "";
  show("schema", schema);
  const tools = form.elements.tools.value.trim() ? problem("tools", "array") : "";
  show("tools", tools);
  return !schema && !tools && NUMBERS.every((name) => form.elements[name].checkValidity());
}

function problem(name, kind) {
  try {
    const value = JSON.parse(form.elements[name].value);
    if (kind === "array") return Array.isArray(value) ? "" : "Expected a list of tools: [{\"type\": \"function\", ...}]";
    return typeof value === "object" && value !== null && !Array.isArray(value) ? "" : "Expected a JSON schema, an object";
  } catch (error) {
    return `Not valid JSON: ${error.message}`;
  }
}

function show(name, text) {
  form.elements[name].setAttribute("aria-invalid", String(Boolean(text)));
  byId(`${name}-error`).textContent = text;
  byId(`${name}-error`).hidden = !text;
}

/** Return the request that answers a chat. */
export function requestOf(chat, model) {
  const { settings } = chat;
  const body = { model, session_id: chat.id, messages: messagesOf(chat), stream: true };
  body.stream_options = { include_usage: true };
  for (const name of NUMBERS) if (settings[name] !== undefined) body[name] = Number(settings[name]);
  if (settings.tools?.trim()) body.tools = JSON.parse(settings.tools);
  if (settings.format === "json") body.response_format = { type: "json_object" };
  if (settings.format === "schema") {
    body.response_format = { type: "json_schema", json_schema: { name: "answer", schema: JSON.parse(settings.schema) } };
  }
  return body;
}

function messagesOf(chat) {
  const sent = chat.messages.filter((each) => !each.busy && !each.error).map(plain);
  return chat.settings.system ? [{ role: "system", content: chat.settings.system }, ...sent] : sent;
}

function plain({ role, content, images, tool_calls, tool_call_id, name }) {
  if (role === "tool") return { role, content, tool_call_id, name };
  if (role === "assistant") return tool_calls?.length ? { role, content: content || null, tool_calls } : { role, content };
  if (!images?.length) return { role, content };
  return { role, content: [{ type: "text", text: content }, ...images.map((url) => ({ type: "image_url", image_url: { url } }))] };
}
