// The live page: takes documents from the stream and shows the chosen database.

import { Charts } from "./charts.js";
import * as format from "./format.js";
import { Stream } from "./stream.js";
import { element, fill, fillTable, fillTerms, setText } from "./tables.js";
import { chooseTheme } from "./theme.js";

const KEPT = 900; // samples
const TIMES = {
  wait: "Wait", hold: "Held", create: "Opening", ping: "Ping", commit: "COMMIT",
};
const COUNTERS = {
  checkouts: "checkouts", waits: "of them waited", checkins: "check-ins", refused: "refused",
  timeouts: "of them timed out", shed: "of them shed", opened: "opened",
  open_failures: "failed to open", closed: "closed", short_lived: "of them short-lived",
  died: "found dead", recovered: "recovered", leaks: "leaks", nested: "nested checkouts",
  slow: "slow statements",
};
const BAD = new Set(["refused", "timeouts", "shed", "open_failures", "leaks", "nested"]);

const at = (id) => document.getElementById(id);
const charts = new Charts(at("charts"));
const histories = new Map();
let chosen = nameIn(window.location.hash);
let shownSeconds = 300;
let databases = [];
let newestAt = 0;

/** The database that the page's address names; none where it was written by hand and is malformed. */
function nameIn(fragment) {
  try {
    return decodeURIComponent(fragment.slice(1));
  } catch {
    return "";
  }
}

function take(liveDocument) {
  databases = liveDocument.databases;
  newestAt = liveDocument.at;
  for (const database of databases) remember(database);
  if (!document.hidden) show();
}

/** Add what is not known yet: the page has seen workers that the service has forgotten since. */
function remember({ name, history }) {
  const known = histories.get(name);
  const moments = history.at.map(Math.floor);
  // A newer service may count what was not counted before.
  const isKnown = known?.at.length && Object.keys(history).every((column) => column in known);
  if (!isKnown || moments.at(-1) < known.at.at(-1) - 60) {
    histories.set(name, history);
    return;
  }
  const first = Math.floor(known.at[0]);
  const last = Math.floor(known.at.at(-1));
  const older = moments.filter((moment) => moment < first).length;
  const newer = moments.filter((moment) => moment > last).length;
  if (!older && !newer) return;
  for (const [column, values] of Object.entries(history)) {
    const after = newer ? values.slice(-newer) : [];
    known[column] = [...values.slice(0, older), ...known[column], ...after].slice(-KEPT);
  }
}

function show() {
  const database = databases.find(({ name }) => name === chosen) ?? databases[0];
  showTabs(database);
  if (!database) return;
  showTiles(database);
  showFindings(database);
  showLeases(database);
  charts.show(histories.get(database.name), shownSeconds, startsOf(database));
  showRoutes(database);
  showStatements(database);
  showTimes(database);
  showWorkers(database);
  showServer(database);
}

function showTabs(current) {
  const tabs = at("tabs");
  tabs.hidden = databases.length < 2;
  fill(tabs, databases, () => element("button"), (tab, database) => {
    tab.type = "button";
    setText(tab, database.name);
    tab.dataset.worst = worst(database.findings);
    if (database === current) tab.setAttribute("aria-current", "true");
    else tab.removeAttribute("aria-current");
    tab.title = database.findings.length ? `${database.findings.length} finding(s)` : "";
    tab.onclick = () => choose(database.name);
  });
}

function choose(name) {
  chosen = name;
  window.history.replaceState(null, "", `#${encodeURIComponent(name)}`);
  show();
}

function worst(findings) {
  const found = findings.map(({ severity }) => severity);
  return ["critical", "warning", "info"].find((severity) => found.includes(severity)) ?? "";
}

function tile(id, value, note, tone = "") {
  const box = at(id);
  const [, number, unit] = /^(.*?)( [a-zµ/]+)?$/.exec(value);
  setText(box.querySelector("b span"), number);
  setText(box.querySelector("b i"), unit ?? "");
  setText(box.querySelector("small"), note);
  box.dataset.tone = tone;
}

function showTiles({ now, counters, recent, times }) {
  const isFull = now.limit > 0 && now.checked_out >= now.limit;
  const isBusy = now.utilisation >= 0.8;
  tile("tile-in-use", format.ofLimit(now.checked_out, now.limit),
    now.limit ? `${format.percent(now.utilisation)} of the limit` : "no limit",
    isFull ? "bad" : isBusy ? "warn" : "");
  at("tile-in-use").querySelector(".meter i").style.width = format.percent(now.utilisation).replace(" ", "");
  tile("tile-waiting", format.count(now.waiting),
    now.wait_longest ? `longest wait ${format.duration(now.wait_longest)}` : "nobody has to",
    now.waiting ? "bad" : "");
  const [wait, hold, when] = recent.wait.count || recent.hold.count
    ? [recent.wait, recent.hold, `last ${format.span(recent.seconds)}`]
    : [times.wait, times.hold, "since the start"];
  tile("tile-wait", timed(wait, "p99"), `${when}, p50 ${timed(wait, "p50")}`,
    wait.p99 >= 0.5 ? "bad" : "");
  tile("tile-hold", timed(hold, "p99"), `${when}, p50 ${timed(hold, "p50")}`);
  tile("tile-checkouts", format.perSecond(now.checkouts), `${format.count(counters.checkouts)} in all`);
  tile("tile-refused", format.perSecond(now.refused), `${format.count(counters.refused)} in all`,
    now.refused ? "bad" : "");
  document.title = `${format.ofLimit(now.checked_out, now.limit)} in use – Penstock`;
}

const timed = (times, name) => format.duration(times.count ? times[name] : null);

let announced = "";

function showFindings({ name, findings }) {
  at("no-findings").hidden = findings.length > 0;
  const make = () => {
    const item = element("li", "finding card");
    const title = element("h3");
    title.append(element("span", "badge"), element("span", "id"));
    item.append(title, element("p", "evidence"), element("p", "remedy"));
    return item;
  };
  fill(at("findings"), findings, make, (item, finding) => {
    item.dataset.severity = finding.severity;
    setText(item.querySelector(".badge"), finding.severity);
    setText(item.querySelector(".id"), finding.id);
    setText(item.querySelector(".evidence"), finding.evidence);
    setText(item.querySelector(".remedy"), finding.remedy);
  });
  // Only what has come or gone is read aloud, not each number that changes.
  const news = findings.map(({ id, severity }) => `${severity}: ${id}`).join(", ");
  if (news !== announced) {
    setText(at("findings-news"), news ? `Findings of ${name}: ${news}` : "No findings any more");
    announced = news;
  }
}

function showLeases({ now, leases }) {
  const oldestFirst = [...leases].sort((one, other) => one.since - other.since);
  setText(at("leases-count"), leases.length < now.checked_out
    ? `the oldest ${leases.length} of ${now.checked_out}` : "");
  fillTable(at("leases"), oldestFirst, (lease) => [
    { text: lease.route, code: true },
    { text: format.duration(Math.max(0, newestAt - lease.since)), tone: lease.is_overdue ? "bad" : "" },
    lease.state,
    { text: lease.statement || "–", code: Boolean(lease.statement) },
    String(lease.pid),
  ], "No connection is checked out.");
}

/** When workers have started that others were there before: where a service was restarted. */
function startsOf({ name, workers }) {
  const first = histories.get(name).at[0];
  return workers.map(({ started }) => started).filter((started) => started > first + 2);
}

/** How often something has happened in the time that is shown; 0 for what no history is kept of. */
function lately(name, column) {
  const history = histories.get(name);
  const since = newestAt - shownSeconds;
  return (history[column] ?? []).reduce(
    (sum, value, index) => sum + (history.at[index] > since ? value : 0), 0);
}

function showRoutes({ routes }) {
  const all = routes.reduce((sum, { seconds }) => sum + seconds, 0) || 1;
  fillTable(at("routes"), routes, (use) => [
    { text: use.route, code: true },
    { text: format.duration(use.seconds), share: use.seconds / all },
    format.count(use.checkouts), format.duration(use.mean), format.duration(use.longest),
  ], "No connection has come back yet.");
}

function showStatements({ statements }) {
  fillTable(at("statements"), statements, (use) => [
    { text: use.statement, sub: use.route, code: true },
    use.calls ? format.duration(use.seconds) : "–",
    format.count(use.calls),
    use.calls ? format.duration(use.seconds / use.calls) : "–",
    use.calls ? format.duration(use.longest) : "–",
    format.count(use.rows),
    use.most_in_request ? format.count(use.most_in_request) : "–",
    `${format.span(newestAt - use.last_at)} ago`,
  ], "None so far.");
}

function showTimes({ times, recent }) {
  setText(at("recent-head"), recent.seconds < 55 ? `Last ${format.span(recent.seconds)}` : "Last minute");
  fillTable(at("times"), Object.entries(TIMES), ([name, label]) => [
    label,
    timed(recent[name], "p50"), timed(recent[name], "p95"), timed(recent[name], "p99"),
    timed(times[name], "p50"), timed(times[name], "p95"), timed(times[name], "p99"),
    format.count(times[name].count),
  ], "");
}

function showWorkers({ name: database, workers, counters }) {
  setText(at("workers-line"), `${workers.length} worker${workers.length === 1 ? "" : "s"}`);
  fillTable(at("workers"), workers, ({ pid, started, now }) => [
    String(pid), format.span(newestAt - started),
    { text: format.ofLimit(now.checked_out, now.limit), share: now.utilisation },
    format.count(now.checked_in), format.count(now.opening),
    { text: format.count(now.waiting), tone: now.waiting ? "bad" : "" },
    format.duration(now.wait_longest), format.perSecond(now.checkouts),
    { text: format.perSecond(now.refused), tone: now.refused ? "bad" : "" },
    { text: format.duration(now.loop_late), tone: now.loop_late > 0.1 ? "warn" : "" },
  ], "No worker.");
  fillTerms(at("counters"), Object.entries(COUNTERS).map(([name, label]) => [
    label, format.count(counters[name]), BAD.has(name) && lately(database, name) ? "bad" : "",
  ]));
}

function showServer({ now }) {
  const facts = [];
  if (format.isKnown(now.server_connections)) {
    const used = format.ofLimit(now.server_connections, now.server_limit);
    facts.push(`the server has ${used} connections`);
  }
  if (format.isKnown(now.replica_lag_bytes)) {
    const time = format.isKnown(now.replica_lag_seconds)
      ? ` (${format.duration(now.replica_lag_seconds)})` : "";
    facts.push(`the furthest replica is ${format.bytes(now.replica_lag_bytes)}${time} behind`);
  }
  setText(at("server-facts"), facts.join(", "));
}

function showStatus(state, text) {
  at("status").dataset.state = state;
  document.documentElement.classList.toggle("stale", state !== "live");
  const isTrouble = state === "stale" || state === "refused";
  setText(at("status-text"), isTrouble ? "Connection lost" : text);
  at("banner").hidden = !isTrouble;
  setText(at("banner"), isTrouble ? text : "");
}

for (const button of document.querySelectorAll("[data-span]")) {
  button.addEventListener("click", () => {
    shownSeconds = Number(button.dataset.span);
    for (const each of document.querySelectorAll("[data-span]")) {
      each.setAttribute("aria-pressed", String(each === button));
    }
    show();
  });
}
chooseTheme(at("theme"), at("theme-name"), () => charts.repaint());
document.addEventListener("visibilitychange", () => document.hidden || show());
new Stream(take, showStatus);
