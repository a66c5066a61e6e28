// Numbers as people read them.

const whole = new Intl.NumberFormat("en");

export const count = (n) => whole.format(Math.round(n));

export function rate(n) {
  return n >= 100 || n === 0 ? count(n) : n.toFixed(1);
}

export function bytes(n) {
  if (n < 2 ** 20) return `${count(n / 1024)} KiB`;
  return n < 2 ** 30 ? `${(n / 2 ** 20).toFixed(n < 100 * 2 ** 20 ? 1 : 0)} MiB` : `${(n / 2 ** 30).toFixed(2)} GiB`;
}

/** Return how long ago something was, in a few letters. */
export function ago(milliseconds) {
  const minutes = Math.round((Date.now() - milliseconds) / 60000);
  if (minutes < 1) return "now";
  if (minutes < 60) return `${minutes} min ago`;
  const hours = Math.round(minutes / 60);
  return hours < 48 ? `${hours} h ago` : `${Math.round(hours / 24)} days ago`;
}
