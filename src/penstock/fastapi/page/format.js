// Numbers as people read them, each with its unit; a dash for what is not known.

const NONE = "–";
const whole = new Intl.NumberFormat("en");
const short = new Intl.NumberFormat("en", { maximumSignificantDigits: 3 });
const clockTime = new Intl.DateTimeFormat("en-GB", {
  hour: "2-digit", minute: "2-digit", second: "2-digit",
});

export const isKnown = (value) => typeof value === "number" && Number.isFinite(value);

export const count = (value) => (isKnown(value) ? whole.format(value) : NONE);

export const perSecond = (value) => (isKnown(value) ? `${count(value)} /s` : NONE);

export const percent = (share) => (isKnown(share) ? `${Math.round(share * 100)} %` : NONE);

/** A duration given in seconds. */
export function duration(seconds) {
  if (!isKnown(seconds)) return NONE;
  if (seconds === 0) return "0 ms";
  if (seconds < 0.001) return `${short.format(seconds * 1e6)} µs`;
  if (seconds < 0.9995) return `${short.format(seconds * 1e3)} ms`;
  if (seconds < 100) return `${short.format(seconds)} s`;
  return span(seconds);
}

/** A long duration, in its two largest units. */
export function span(seconds) {
  if (!isKnown(seconds)) return NONE;
  const whole = Math.max(0, Math.round(seconds));
  if (whole < 60) return `${whole} s`;
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${whole % 60} s`;
  if (whole < 86400) return `${Math.floor(whole / 3600)} h ${Math.floor((whole % 3600) / 60)} min`;
  return `${Math.floor(whole / 86400)} d ${Math.floor((whole % 86400) / 3600)} h`;
}

export function bytes(value) {
  if (!isKnown(value)) return NONE;
  const units = ["B", "kB", "MB", "GB", "TB"];
  let unit = 0;
  while (value >= 1000 && unit < units.length - 1) {
    value /= 1000;
    unit += 1;
  }
  return `${short.format(value)} ${units[unit]}`;
}

/** The time of day of a Unix time. */
export const clock = (at) => clockTime.format(new Date(at * 1000));

/** Connections of those that may be open; 0 means without a limit. */
export const ofLimit = (value, limit) => `${count(value)} / ${limit ? count(limit) : "∞"}`;
