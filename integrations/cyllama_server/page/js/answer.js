// One answer, while it is generated.

import { answer, ServerError } from "./api.js";

/** Generate an answer into a message; `changed` is called after each piece. Errors stay in the message. */
export async function generate(body, message, signal, changed) {
  try {
    for await (const chunk of answer(body, signal)) {
      take(chunk, message);
      changed();
    }
  } catch (error) {
    if (error.name === "AbortError") message.stopped = true;
    else if (error instanceof ServerError && (error.status || !message.content)) message.error = error.message;
    else message.finish = "lost"; // what has come is kept
  } finally {
    delete message.busy;
  }
}

function take(chunk, message) {
  if (chunk.usage) {
    message.usage = chunk.usage;
    message.timings = chunk.timings;
  }
  for (const { delta, finish_reason } of chunk.choices) {
    if (delta.content) message.content += delta.content;
    if (delta.reasoning_content) message.reasoning = (message.reasoning ?? "") + delta.reasoning_content;
    for (const call of delta.tool_calls ?? []) takeCall(call, message);
    if (finish_reason) message.finish = finish_reason;
  }
}

function takeCall(piece, message) {
  message.tool_calls ??= [];
  const call = (message.tool_calls[piece.index] ??= { id: "", type: "function", function: { name: "", arguments: "" } });
  if (piece.id) call.id = piece.id;
  if (piece.function.name) call.function.name = piece.function.name;
  call.function.arguments += piece.function.arguments ?? "";
}
