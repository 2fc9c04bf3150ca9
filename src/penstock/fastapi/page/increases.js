// What numbers that only grow have grown by, in the last seconds of those in which the page looked.

const KEPT = 900; // seconds
const CLOCK_STEP = 60; // seconds back, from which on the service's clock was put back

export class Increases {
  constructor() {
    this.last = null; // numbers by name, of the newest look
    this.steps = []; // {at, grown: Map of name to numbers}
    this.begin = 0;
    this.end = 0;
    this.isWhole = true;
  }

  /**
   * Take what has been counted until a moment.
   *
   * @param {number} at the moment, in Unix time
   * @param {Map<string, number[]>} counts numbers by name
   * @param {boolean} isWhole whether a name that is missing stands for zeros
   */
  add(at, counts, isWhole = true) {
    if (at < this.end - CLOCK_STEP) this.forget();
    if (this.last && at <= this.end) return;
    if (this.last) this.steps.push({ at, grown: this.grown(counts) });
    else if (!this.hasPast) this.begin = at;
    this.steps = this.steps.filter((step) => step.at > at - KEPT);
    this.last = counts;
    this.end = at;
    this.isWhole = isWhole;
  }

  /**
   * Begin with what the service knows of the time before.
   *
   * @param {{at: number, grown: Map<string, number[]>}[]} steps oldest first; the first is empty
   */
  beginWith(steps) {
    this.forget();
    if (!steps.length) return;
    this.begin = steps[0].at;
    this.steps = steps.slice(1);
    this.hasPast = true;
  }

  forget() {
    this.hasPast = false;
    this.last = null;
    this.steps = [];
  }

  grown(counts) {
    const grown = new Map();
    for (const [name, numbers] of counts) {
      const before = this.last.get(name) ?? (this.isWhole ? numbers.map(() => 0) : numbers);
      // A sum of workers falls when one of them ends.
      const more = numbers.map((number, index) => Math.max(0, number - before[index]));
      if (more.some(Boolean)) grown.set(name, more);
    }
    return grown;
  }

  /** Of how many of the last `seconds` it is known. */
  known(seconds) {
    return Math.min(seconds, this.end - this.begin);
  }

  /** The numbers by name that have grown within the last `seconds`. */
  within(seconds) {
    const sums = new Map();
    for (const { at, grown } of this.steps) {
      if (at <= this.end - seconds) continue;
      for (const [name, numbers] of grown) {
        const sum = sums.get(name);
        sums.set(name, sum ? sum.map((number, index) => number + numbers[index]) : numbers);
      }
    }
    return sums;
  }
}
