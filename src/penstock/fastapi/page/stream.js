// The connection to the service: events while they come, and coming back when they do not.

import { clock } from "./format.js";

const QUIET = 5; // seconds without data after which the page says so
const LOST = 8; // seconds after which a new connection is tried, maybe to another worker
const { origin, pathname, search } = window.location;
// Without the user and password that the page's address may have had, which fetch() refuses; with
// its parameters, for an access check may look for something there.
const addressOf = (path) => `${new URL(path, origin + pathname)}${search}`;

export class Stream {
  /**
   * @param {Function} onDocument is given each live document
   * @param {Function} onStatus is given "connecting", "live", "stale" or "refused", and a text
   */
  constructor(onDocument, onStatus) {
    this.onDocument = onDocument;
    this.onStatus = onStatus;
    this.heardAt = null;
    this.since = Date.now() / 1000;
    this.refusal = "";
    this.triedAt = -Infinity;
    this.source = null;
    this.open();
    setInterval(() => this.watch(), 1000);
  }

  open() {
    this.source?.close();
    this.triedAt = seconds();
    this.source = new EventSource(addressOf("pool/events"));
    this.source.onopen = () => this.load();
    this.source.onmessage = (event) => this.take(JSON.parse(event.data));
  }

  /** Ask for the whole history, at first and to fill the gap that a lost connection left. */
  async load() {
    try {
      const answer = await fetch(addressOf("pool/state"), {
        cache: "no-store", signal: AbortSignal.timeout(LOST * 1000),
      });
      if (answer.ok) this.take(await answer.json());
      else if (answer.status < 500) {
        this.refusal = `Refused with ${answer.status}`;
        this.complain();
      }
    } catch {
      // The watch says so, and tries again.
    }
  }

  take(liveDocument) {
    this.onDocument(liveDocument); // first: what cannot be shown is not live
    this.heardAt = seconds();
    this.since = Date.now() / 1000;
    this.refusal = "";
    this.onStatus("live", "Live");
  }

  /** Say what is wrong, in words that stay as they are while it is: each change is read aloud. */
  complain() {
    if (this.refusal) this.onStatus("refused", this.refusal);
    else this.onStatus("stale", `No data since ${clock(this.since)}. Reconnecting.`);
  }

  watch() {
    const quiet = seconds() - (this.heardAt ?? this.triedAt);
    const sinceTry = seconds() - this.triedAt;
    if (quiet > QUIET) this.complain();
    const closed = this.source.readyState === EventSource.CLOSED;
    if (closed && sinceTry > 2) {
      if (this.heardAt === null || quiet > QUIET) this.load();
      this.open();
    } else if (quiet > LOST && sinceTry > LOST) {
      this.open();
    }
  }
}

const seconds = () => performance.now() / 1000;
