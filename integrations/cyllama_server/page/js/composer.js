// The field in which messages are written.

import { byId, el } from "./dom.js";
import { bytes } from "./format.js";

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
    showProblems([]);
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
  if (!hasEyes) {
    images = [];
    showProblems([]);
  }
  showImages();
}

function grow() {
  prompt.style.height = "auto";
  prompt.style.height = `${prompt.scrollHeight + 2}px`;
}

async function take(input) {
  const files = [...input.files];
  input.value = "";
  const found = await Promise.allSettled(files.map(load));
  images.push(...found.filter((each) => each.status === "fulfilled").map((each) => each.value));
  showImages();
  showProblems(found.flatMap((each, i) => (each.status === "rejected" ? [`${files[i].name} ${each.reason.message}`] : [])));
}

async function load(file) {
  if (!file.type.startsWith("image/")) throw new Error("is not an image.");
  if (file.size > MOST_BYTES) {
    throw new Error(`has ${bytes(file.size)}, and an image has at most ${bytes(MOST_BYTES)}: scale it down, or save it as a JPEG.`);
  }
  return read(file).catch((error) => {
    throw new Error(`cannot be read: ${error.message}`);
  });
}

function read(file) {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.addEventListener("load", () => resolve(reader.result));
    reader.addEventListener("error", () => reject(reader.error));
    reader.readAsDataURL(file);
  });
}

/** Say which files are not sent, and why. */
function showProblems(problems) {
  const shown = byId("image-errors");
  shown.hidden = !problems.length;
  shown.replaceChildren(...problems.map((text) => el("p", {}, text)));
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
