// Asks the service for its live document: once a second while the page is seen, less often while it
// is hidden, and at growing intervals while the service does not answer.

import { clock } from "./format.js";

const PERIOD = 1; // seconds from one request to the next
const HIDDEN_PERIOD = 15; // the same while nothing of the page is seen
const PAUSES = [1, 2, 4, 8]; // seconds before each further request after one that failed
const TIMEOUT = 5; // seconds for an answer; the next request may reach another worker
const QUIET = 5; // seconds without an answer after which the page says so
const { origin, pathname, search } = window.location;

/** The URL of a path beside the page's, without the user and password that fetch() refuses. */
export const urlOf = (path) => new URL(path, origin + pathname);

export class Poll {
  /**
   * @param {Function} newest gives the last second that is known, in Unix time; 0 without any
   * @param {Function} onDocument is given each live document
   * @param {Function} onStatus is given "connecting", "live", "stale" or "refused", and a text
   */
  constructor(newest, onDocument, onStatus) {
    this.newest = newest;
    this.onDocument = onDocument;
    this.onStatus = onStatus;
    this.heardAt = seconds();
    this.since = Date.now() / 1000;
    this.refusal = "";
    this.failures = 0;
    this.tag = "";
    this.wake = () => {};
    document.addEventListener("visibilitychange", () => this.look());
    setInterval(() => this.watch(), 1000);
    this.run();
  }

  async run() {
    for (;;) {
      const begun = seconds();
      this.failures = (await this.ask()) ? 0 : this.failures + 1;
      await this.rest(this.pause(seconds() - begun));
    }
  }

  /** Seconds until the next request, after one that took `spent`. */
  pause(spent) {
    if (this.failures) return PAUSES[Math.min(this.failures, PAUSES.length) - 1];
    return Math.max((document.hidden ? HIDDEN_PERIOD : PERIOD) - spent, 0.2);
  }

  rest(pause) {
    return new Promise((resolve) => {
      const timer = setTimeout(resolve, pause * 1000);
      this.wake = () => {
        clearTimeout(timer);
        resolve();
      };
    });
  }

  /** A page that is seen again asks at once, and is given the time for an answer. */
  look() {
    if (document.hidden) return;
    this.heardAt = seconds();
    this.wake();
  }

  /** Ask once; whether there was a document, or none newer than the last. */
  async ask() {
    try {
      const answer = await fetch(this.address(), {
        cache: "no-store",
        headers: this.tag ? { "If-None-Match": this.tag } : {},
        signal: AbortSignal.timeout(TIMEOUT * 1000),
      });
      if (answer.ok) this.onDocument(await answer.json()); // what cannot be shown is not live
      else if (answer.status !== 304) return this.refuse(answer.status);
      this.tag = answer.headers.get("ETag") ?? "";
    } catch {
      return false; // watch() says so
    }
    this.heardAt = seconds();
    this.since = Date.now() / 1000;
    this.refusal = "";
    this.onStatus("live", "Live");
    return true;
  }

  // With the parameters of the page's address, for an access check may look for something there.
  address() {
    const url = urlOf("pool/state");
    url.search = search;
    url.searchParams.set("since", this.newest());
    return url;
  }

  refuse(status) {
    if (status < 500) {
      this.refusal = `Refused with ${status}`;
      this.complain();
    }
    return false;
  }

  /** Say what is wrong, in words that stay as they are while it is: each change is read aloud. */
  complain() {
    if (this.refusal) this.onStatus("refused", this.refusal);
    else this.onStatus("stale", `No data since ${clock(this.since)}. Reconnecting.`);
  }

  watch() {
    if (!document.hidden && seconds() - this.heardAt > QUIET) this.complain();
  }
}

const seconds = () => performance.now() / 1000;
