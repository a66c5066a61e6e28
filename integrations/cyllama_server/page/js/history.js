// What the engine did over the last minutes, as far as this tab has watched it.

export const SECONDS = 300;
const KEY = "cyllama.live";
const GAP = 4; // seconds between two states after which nothing is known of the time between

let samples = restore();

/** Remember a state, and return the samples of each model by its name. */
export function remember(state) {
  for (const model of state.models) {
    const list = (samples[model.name] ??= []);
    list.push(sample(list.at(-1), model, state.time));
    while (list[0].time < state.time - SECONDS) list.shift();
  }
  return samples;
}

export function forgetAll() {
  samples = {};
}

addEventListener("pagehide", () => {
  try {
    sessionStorage.setItem(KEY, JSON.stringify(samples));
  } catch {
    // the plots begin again
  }
});

function restore() {
  try {
    return JSON.parse(sessionStorage.getItem(KEY)) ?? {};
  } catch {
    return {};
  }
}

function sample(before, model, time) {
  const counters = model.counters ?? { generated: 0, evaluated: 0, reused: 0 };
  const seconds = before ? time - before.time : 0;
  const isKnown = seconds > 0 && seconds < GAP;
  const per = (name) => (isKnown ? Math.max(0, counters[name] - before.counters[name]) / seconds : null);
  return {
    time,
    counters: { ...counters },
    generated: per("generated"),
    prompt: per("evaluated"),
    running: model.running ?? 0,
    waiting: model.waiting ?? 0,
    hits: share(counters.reused, counters.evaluated),
    memory: model.memory ? Object.values(model.memory).reduce((sum, each) => sum + each, 0) : null,
  };
}

const share = (reused, evaluated) => (reused + evaluated ? (100 * reused) / (reused + evaluated) : null);
