// Messages as elements.

import { el } from "./dom.js";
import { count, rate } from "./format.js";
import { markdown } from "./markdown.js";

/**
 * Return the element of a message.
 *
 * `actions` has what can be done with it: `fork(message)`, `again()` for the last answer, and `answerCalls(results)`.
 */
export function messageElement(message, actions) {
  const element = el("article", { class: "message", "data-role": message.role });
  // What a model says is announced when it is complete, and what can be done with it is not.
  element.append(el("h3", {}, who(message)), el("div", { class: "body" }), el("footer", { "aria-live": "off" }));
  updateMessage(element, message, actions);
  return element;
}

/** Show what a message holds now. */
export function updateMessage(element, message, actions) {
  element.toggleAttribute("data-busy", Boolean(message.busy));
  element.querySelector(".body").replaceChildren(...bodyOf(message, actions));
  element.querySelector("footer").replaceChildren(...(message.busy ? [] : footerOf(message, actions)));
}

function who(message) {
  if (message.role === "user") return "You";
  return message.role === "tool" ? `Result of ${message.name}` : message.model;
}

function bodyOf(message, actions) {
  if (message.role === "user") return [message.content, ...(message.images ?? []).map((src) => el("img", { src, alt: "Image" }))];
  if (message.role === "tool") return [el("pre", {}, message.content)];
  const found = [];
  if (message.reasoning) {
    found.push(el("details", { class: "thought" }, el("summary", {}, "Reasoning"), el("p", {}, message.reasoning)));
  }
  found.push(...markdown(message.content ?? ""));
  for (const call of message.tool_calls ?? []) found.push(callElement(call));
  if (message.tool_calls?.length && actions.answerCalls && !message.busy) found.push(...resultFields(message, actions));
  if (message.error) found.push(el("p", { class: "error", role: "alert" }, message.error));
  return found;
}

function callElement(call) {
  return el("div", { class: "call" }, el("h4", {}, call.function.name), el("pre", {}, pretty(call.function.arguments)));
}

/** Return the fields in which a person says what the tools would answer. */
function resultFields(message, actions) {
  const fields = message.tool_calls.map((call) => {
    const area = el("textarea", { rows: 2, class: "code" });
    return [call, area, el("label", {}, `Result of ${call.function.name}`, area)];
  });
  const send = () => actions.answerCalls(fields.map(([call, area]) => ({ call, content: area.value })));
  const button = el("button", { type: "button", class: "answer-calls", onclick: send }, "Send the results");
  return [...fields.map(([, , label]) => label), button];
}

function footerOf(message, actions) {
  const button = (text, onclick) => el("button", { type: "button", class: "quiet small", onclick }, text);
  const isAnswer = message.role === "assistant" && !message.error;
  return [
    ...(isAnswer ? [button("Fork from here", () => actions.fork(message))] : []),
    ...(actions.again ? [button(message.error ? "Try again" : "Answer again", actions.again)] : []),
    ...(isAnswer ? figures(message).map((text) => el("span", {}, text)) : []),
  ];
}

function figures(message) {
  const found = [];
  const { usage, timings } = message;
  if (message.stopped) found.push("Stopped");
  if (message.finish === "lost") found.push("The connection ended");
  if (message.finish === "length") found.push("Cut at the limit");
  if (usage) {
    found.push(`${count(usage.completion_tokens)} tokens`);
    if (timings?.predicted_ms > 0) found.push(`${rate((usage.completion_tokens / timings.predicted_ms) * 1000)} tokens/s`);
    found.push(`${count(usage.prompt_tokens_details.cached_tokens)} of ${count(usage.prompt_tokens)} prompt tokens cached`);
  }
  return found;
}

function pretty(text) {
  try {
    return JSON.stringify(JSON.parse(text), null, 2);
  } catch {
    return text;
  }
}
