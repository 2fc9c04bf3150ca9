// The live page: takes the service's documents and shows the chosen database.

import { Charts } from "./charts.js";
import * as format from "./format.js";
import { Increases } from "./increases.js";
import { Poll, urlOf } from "./poll.js";
import { element, fill, fillTable, fillTerms, setText } from "./tables.js";
import { chooseTheme } from "./theme.js";

const KEPT = 900; // samples
const MOST_ROUTES = 100; // of one document
const MOST_STATEMENTS = 40;
const LATE = 5; // seconds by which one worker's document may be behind another's

const at = (id) => document.getElementById(id);
const charts = new Charts(at("charts"));
const histories = new Map();
const memories = new Map();
let chosen = nameIn(window.location.hash);
let shownSeconds = 300;
let databases = [];
let newestAt = 0;
let lacksPast = true;
let explanations = null;
let labels = {};
let troubles = [];

/** The database that the page's address names; none where it was written by hand and is malformed. */
function nameIn(fragment) {
  try {
    return decodeURIComponent(fragment.slice(1));
  } catch {
    return "";
  }
}

function take(liveDocument) {
  const behind = newestAt - liveDocument.at;
  if (behind > 0 && behind < LATE) return;
  ({ databases, labels = {}, troubles = [] } = liveDocument); // an older service has no labels
  newestAt = liveDocument.at;
  lacksPast = false;
  for (const database of databases) {
    remember(database);
    count(database);
  }
  if (!document.hidden) show();
}

/** The last second that is known of every database; 0 where the whole history is needed. */
function newestKnown() {
  const newest = databases.flatMap(({ name }) => histories.get(name).at.slice(-1));
  return lacksPast || !newest.length ? 0 : Math.floor(Math.min(...newest));
}

/** Add what is not known yet: the page has seen workers that the service has forgotten since. */
function remember({ name, history }) {
  const known = histories.get(name);
  const moments = history.at.map(Math.floor);
  // A newer service may count what was not counted before.
  const isKnown = known?.at.length && Object.keys(history).every((column) => column in known);
  if (!isKnown || moments.at(-1) < known.at.at(-1) - 60) {
    lacksPast = Boolean(known?.at.length);
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

/** Count what the document has sums of alone: those since the workers' start. */
function count({ name, counters, routes, statements, workers, growth }) {
  if (!memories.has(name)) {
    memories.set(name, {
      counters: new Increases(), routes: new Increases(), statements: new Increases(),
      starts: new Set(),
    });
  }
  const memory = memories.get(name);
  if (growth) {
    memory.routes.beginWith(growth.map((step) => ({
      at: step.at,
      grown: new Map(step.routes.map(([route, ...numbers]) => [route, numbers])),
    })));
    memory.statements.beginWith(growth.map((step) => ({
      at: step.at,
      grown: new Map(step.statements.map(([statement, route, ...numbers]) =>
        [statementKey({ statement, route }), numbers])),
    })));
  }
  memory.counters.add(newestAt, new Map(
    Object.entries(counters).map(([counter, number]) => [counter, [number]])));
  memory.routes.add(newestAt, new Map(
    routes.map((use) => [use.route, [use.seconds, use.checkouts]])), routes.length < MOST_ROUTES);
  memory.statements.add(newestAt, new Map(
    statements.map((use) => [statementKey(use), [use.seconds, use.calls]])),
  statements.length < MOST_STATEMENTS);
  for (const { started } of workers) memory.starts.add(started);
}

const statementKey = ({ statement, route }) => JSON.stringify([statement, route]);

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
  showServers(database);
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
    now.wait_longest ? `longest wait ${format.duration(now.wait_longest)}` : "no request waits",
    now.waiting ? "bad" : "");
  const isRecent = recent.wait.count || recent.hold.count;
  const [wait, hold, when] = isRecent
    ? [recent.wait, recent.hold, `last ${format.span(recent.seconds)}`]
    : [times.wait, times.hold, "since the start"];
  tile("tile-wait", timed(wait, "p99"), `${when}, p50 ${timed(wait, "p50")}`,
    isRecent && wait.p99 >= 0.5 ? "bad" : "");
  tile("tile-hold", timed(hold, "p99"), `${when}, p50 ${timed(hold, "p50")}`);
  tile("tile-checkouts", format.perSecond(now.checkouts), `${format.count(counters.checkouts)} in all`);
  tile("tile-rejected", format.perSecond(now.rejected), `${format.count(counters.rejected)} in all`,
    now.rejected ? "bad" : "");
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
    const more = element("details", "explanation");
    more.append(element("summary", "", "Explanation"), element("dl"));
    item.append(title, element("p", "evidence"), element("p", "remedy"), more);
    return item;
  };
  fill(at("findings"), findings, make, (item, finding) => {
    item.dataset.severity = finding.severity;
    setText(item.querySelector(".badge"), finding.severity);
    setText(item.querySelector(".id"), finding.id);
    setText(item.querySelector(".evidence"), finding.evidence);
    setText(item.querySelector(".remedy"), finding.remedy);
    explain(item.querySelector(".explanation"), finding.id);
  });
  // Only what has come or gone is read aloud, not each number that changes.
  const news = findings.map(({ id, severity }) => `${severity}: ${id}`).join(", ");
  if (news !== announced) {
    setText(at("findings-news"), news ? `Findings of ${name}: ${news}` : "No findings any more");
    announced = news;
  }
}

/** Give a finding what the documentation says of it, once that is there. */
function explain(details, id) {
  if (details.dataset.id !== id) {
    details.dataset.id = id;
    details.open = false;
  }
  loadExplanations();
  const explanation = explanations?.[id] ?? [];
  details.hidden = !explanation.length;
  fillTerms(details.querySelector("dl"), explanation);
}

async function loadExplanations() {
  if (explanations) return;
  explanations = {};
  try {
    const answer = await fetch(urlOf("pool/assets/findings.json"));
    explanations = await answer.json();
    show();
  } catch {
    explanations = null;
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

/** When workers have started since the page's history began: where a service was restarted. */
function startsOf({ name }) {
  const first = histories.get(name).at[0];
  return [...memories.get(name).starts].filter((started) => started > first + 2);
}

/** How often something has happened in the time that is shown. */
function lately(name, column) {
  const history = histories.get(name);
  if (!(column in history)) {
    return memories.get(name).counters.within(shownSeconds).get(column)?.[0] ?? 0;
  }
  const since = newestAt - shownSeconds;
  return history[column].reduce(
    (sum, value, index) => sum + (history.at[index] > since ? value : 0), 0);
}

/** Of which time a table's first numbers are: the chosen one, or as much of it as is known. */
function showRange(id, increases) {
  const known = increases.known(shownSeconds);
  const range = `Last ${format.span(known)}`;
  setText(at(id), known < shownSeconds - LATE ? `${range}, since the service started` : range);
}

/** Sort by the seconds of the time that is shown, and what has none by those since the start. */
function byRecent(uses, recent) {
  const secondsOf = (use) => recent(use)[0];
  return [...uses].sort((one, other) =>
    secondsOf(other) - secondsOf(one) || other.seconds - one.seconds);
}

const NEVER = [0, 0];
const meanOf = ([seconds, times]) => format.duration(times ? seconds / times : null);

function showRoutes({ name, routes }) {
  const { routes: increases } = memories.get(name);
  const grown = increases.within(shownSeconds);
  const recent = ({ route }) => grown.get(route) ?? NEVER;
  const all = routes.reduce((sum, use) => sum + recent(use)[0], 0) || 1;
  showRange("routes-range", increases);
  fillTable(at("routes"), byRecent(routes, recent), (use) => [
    { text: use.route, code: true },
    { text: format.duration(recent(use)[0]), share: recent(use)[0] / all },
    format.count(recent(use)[1]), meanOf(recent(use)),
    format.duration(use.seconds), format.count(use.checkouts),
    format.duration(use.mean), format.duration(use.longest),
  ], "No connection has been returned yet.");
}

function showStatements({ name, statements }) {
  const { statements: increases } = memories.get(name);
  const grown = increases.within(shownSeconds);
  const recent = (use) => grown.get(statementKey(use)) ?? NEVER;
  showRange("statements-range", increases);
  fillTable(at("statements"), byRecent(statements, recent), (use) => [
    { text: use.statement, sub: use.route, code: true },
    format.duration(recent(use)[0]), format.count(recent(use)[1]), meanOf(recent(use)),
    use.calls ? format.duration(use.seconds) : "–",
    format.count(use.calls),
    meanOf([use.seconds, use.calls]),
    use.calls ? format.duration(use.longest) : "–",
    format.count(use.rows),
    use.most_in_request ? format.count(use.most_in_request) : "–",
    `${format.span(newestAt - use.last_at)} ago`,
  ], "None so far.");
}

function showTimes({ times, recent }) {
  setText(at("recent-head"), recent.seconds < 55 ? `Last ${format.span(recent.seconds)}` : "Last minute");
  fillTable(at("times"), Object.keys(times), (name) => [
    labels[name] ?? name,
    timed(recent[name], "p50"), timed(recent[name], "p95"), timed(recent[name], "p99"),
    timed(times[name], "p50"), timed(times[name], "p95"), timed(times[name], "p99"),
    format.count(times[name].count),
  ], "");
}

const OF_REPLICAS = ["replica_reads", "replica_fallbacks", "position_waits"];

function showWorkers({ name: database, workers, counters, cluster }) {
  setText(at("workers-line"), `${workers.length} worker${workers.length === 1 ? "" : "s"}`);
  fillTable(at("workers"), workers, ({ pid, started, now }) => [
    String(pid), format.span(newestAt - started),
    { text: format.ofLimit(now.checked_out, now.limit), share: now.utilisation },
    format.count(now.checked_in), format.count(now.opening),
    { text: format.count(now.waiting), tone: now.waiting ? "bad" : "" },
    format.duration(now.wait_longest), format.perSecond(now.checkouts),
    { text: format.perSecond(now.rejected), tone: now.rejected ? "bad" : "" },
    { text: format.duration(now.loop_late), tone: now.loop_late > 0.1 ? "warn" : "" },
  ], "No worker.");
  setText(at("counters-range"), `(in the last ${format.span(shownSeconds)})`);
  const counted = Object.entries(counters).filter(([name]) => cluster || !OF_REPLICAS.includes(name));
  fillTerms(at("counters"), counted.map(([name, number]) => {
    const more = lately(database, name);
    const total = format.count(number);
    return [labels[name] ?? name, more ? `${total} (+${format.count(more)})` : total,
      troubles.includes(name) && more ? "bad" : ""];
  }));
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

/** The primary and its replicas, as the worker sees them that has answered; without any, nothing. */
function showServers({ cluster }) {
  at("servers-part").hidden = !cluster;
  if (!cluster) return;
  setText(at("servers-facts"), `as worker ${cluster.pid} sees them, since its start`);
  fillTable(at("servers"), cluster.servers, (server) => [
    { text: server.name, code: true },
    server.role,
    server.role === "primary" ? "–" : format.duration(server.lag),
    { text: server.trouble || "serves reads", tone: isOut(server) ? "bad" : "" },
    format.count(server.reads),
    { text: format.percent(server.share), share: server.share },
  ], "");
}

// A replica that was promoted is the primary, by a name of its own.
const isOut = ({ trouble }) => trouble && trouble !== "it is the primary";

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
new Poll(newestKnown, take, showStatus);
