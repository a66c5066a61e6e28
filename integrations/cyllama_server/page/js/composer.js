// The field in which messages are written.

import { byId, el } from "./dom.js";

const MOST_BYTES = 8 * 2 ** 20; // of an image; a request has a limit, too
const prompt = byId("prompt");
let images = [];

/** Call `send(text, images)` for messages, and `stop()` for Escape. */
export function connect({ send, stop, canSend }) {
  const submit = () => {
    const text = prompt.value.trim();
    if (!canSend() || (!text && !images.length)) return;
    const sent = images;
    prompt.value = "";
    images = [];
    showImages();
    grow();
    send(text, sent);
  };
  byId("composer").addEventListener("submit", (event) => {
    event.preventDefault();
    submit();
  });
  prompt.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
      event.preventDefault();
      submit();
    }
  });
  prompt.addEventListener("input", grow);
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape" && !document.querySelector("dialog[open]")) stop();
  });
  byId("image").addEventListener("change", ({ target }) => take(target));
}

/** Offer images where the model has eyes. */
export function offerImages(hasEyes) {
  byId("image-label").hidden = !hasEyes;
  if (!hasEyes) images = [];
  showImages();
}

function grow() {
  prompt.style.height = "auto";
  prompt.style.height = `${prompt.scrollHeight + 2}px`;
}

async function take(input) {
  const files = [...input.files].filter((file) => file.type.startsWith("image/") && file.size <= MOST_BYTES);
  input.value = "";
  images.push(...(await Promise.all(files.map(read))));
  showImages();
}

function read(file) {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.addEventListener("load", () => resolve(reader.result));
    reader.addEventListener("error", () => reject(reader.error));
    reader.readAsDataURL(file);
  });
}

function showImages() {
  const list = byId("images");
  list.hidden = !images.length;
  list.replaceChildren(
    ...images.map((src, i) => {
      const remove = () => {
        images.splice(i, 1);
        showImages();
      };
      return el("li", {}, el("img", { src, alt: `Image ${i + 1}` }), el("button", { type: "button", class: "quiet small", onclick: remove }, "Remove"));
    }),
  );
}
