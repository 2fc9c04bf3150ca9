// The charts: uPlot draws, the legend below each title says the same in text.

import { element, fill, setText } from "./tables.js";
import * as format from "./format.js";

const HEIGHT = 190;
const LEAST = 60; // seconds that a chart spans, even while less is known
const SYNC = "pool";

const MISSING = 3; // seconds without a sample that a line does not cross
// uPlot takes null for a gap and undefined for nothing to say, which a line may cross.
const ratio = (sums, counts) => sums.map((sum, i) => {
  if (counts[i] === null) return null;
  return counts[i] ? sum / counts[i] : undefined;
});
const never = () => false;
const isAnyKnown = (...columns) => columns.some((column) => column.some(format.isKnown));

/** What is charted: the series of each from the history's columns, uppermost first. */
const CHARTS = [
  {
    title: "Connections",
    wide: true,
    stacked: true,
    format: format.count,
    series: [
      { label: "waiting", className: "c-waiting", of: (h) => h.waiting },
      { label: "opening", className: "c-opening", of: (h) => h.opening },
      { label: "idle", className: "c-idle", of: (h) => h.checked_in },
      { label: "in use", className: "c-used", of: (h) => h.checked_out },
      { label: "limit", className: "c-limit", of: (h) => h.limit.map((n) => n || null), line: [6, 4] },
    ],
  },
  {
    title: "Checkouts per second",
    format: format.perSecond,
    axis: format.count,
    series: [
      { label: "checkouts", className: "c-used", of: (h) => h.checkouts, area: true },
      { label: "rejected", className: "c-waiting", of: (h) => h.rejected },
    ],
  },
  {
    title: "Wait for a connection",
    format: format.duration,
    series: [
      { label: "longest", className: "c-soft", of: (h) => h.wait_longest, area: true },
      { label: "mean", className: "c-waiting", of: (h) => ratio(h.wait_seconds, h.checkouts) },
    ],
  },
  {
    title: "Connection held",
    format: format.duration,
    series: [
      { label: "mean", className: "c-used", of: (h) => ratio(h.hold_seconds, h.checkins), area: true },
    ],
  },
  {
    title: "Opened and closed per second",
    format: format.perSecond,
    axis: format.count,
    series: [
      { label: "opened", className: "c-opened", of: (h) => h.opened },
      { label: "closed", className: "c-opening", of: (h) => h.closed },
      { label: "failed to open", className: "c-waiting", of: (h) => h.open_failures },
    ],
  },
  {
    title: "Connections of the server",
    format: format.count,
    isHidden: (h) => !isAnyKnown(h.server_connections),
    series: [
      { label: "of all clients", className: "c-used", of: (h) => h.server_connections, area: true },
      { label: "max_connections", className: "c-limit", of: (h) => h.server_limit, line: [6, 4] },
    ],
  },
  {
    title: "Replica lag",
    format: format.bytes,
    isHidden: (h) => !isAnyKnown(h.replica_lag_bytes),
    series: [
      { label: "behind", className: "c-opening", of: (h) => h.replica_lag_bytes, area: true },
    ],
  },
];

const STARTS = { label: "workers started", className: "c-start" };

/** All charts of a page, with one cursor. */
export class Charts {
  constructor(root) {
    this.charts = CHARTS.map((chart) => new Chart(root, chart));
  }

  /** Show a history's last `seconds`, and when workers have started within them. */
  show(history, seconds, starts) {
    const spaced = withGaps(history);
    for (const chart of this.charts) chart.show(spaced, seconds, starts);
  }

  /** Draw anew, in the colours of another theme. */
  repaint() {
    for (const chart of this.charts) chart.repaint();
  }
}

class Chart {
  constructor(root, chart) {
    this.chart = chart;
    this.figure = root.appendChild(element("figure", chart.wide ? "card wide" : "card"));
    const caption = this.figure.appendChild(element("figcaption"));
    caption.append(element("h3", "", chart.title));
    this.time = caption.appendChild(element("span", "muted time"));
    const legend = caption.appendChild(element("ul", "legend"));
    this.entries = chart.series.map((series) => legendEntry(legend, series));
    if (chart.wide) this.startsCount = legendEntry(legend, STARTS); // once for all charts
    this.place = this.figure.appendChild(element("div", "plot"));
    this.place.setAttribute("aria-hidden", "true"); // the legend says it
    new ResizeObserver(() => this.resize()).observe(this.place);
  }

  show(history, seconds, starts) {
    this.starts = starts;
    this.figure.hidden = (this.chart.isHidden ?? never)(history);
    if (this.figure.hidden || !history.at.length) return;
    this.history = history;
    this.seconds = seconds;
    this.raw = this.chart.series.map((series) => series.of(history));
    this.data = [history.at, ...(this.chart.stacked ? this.stack() : this.raw)];
    if (this.plot) this.plot.setData(this.data);
    else this.repaint();
    this.describe();
  }

  stack() {
    const sum = new Array(this.history.at.length).fill(0);
    const stacked = [...this.raw];
    for (let number = this.raw.length - 1; number >= 0; number -= 1) {
      if (this.chart.series[number].line) continue;
      stacked[number] = this.raw[number].map((value, i) => (value === null ? null : (sum[i] += value)));
    }
    return stacked;
  }

  repaint() {
    if (!this.data) return;
    this.plot?.destroy();
    this.plot = new uPlot(this.options(), this.data, this.place);
  }

  resize() {
    const width = this.place.clientWidth;
    if (this.plot && width && width !== this.plot.width) {
      this.plot.setSize({ width, height: HEIGHT });
    }
  }

  /** Say in the legend what is under the cursor, or the newest. */
  describe() {
    const under = this.plot?.cursor.idx;
    const index = under ?? this.history.at.length - 1;
    this.entries.forEach((entry, number) => {
      setText(entry, this.chart.format(this.raw[number][index]));
    });
    setText(this.time, under == null ? "" : format.clock(this.history.at[index]));
  }

  options() {
    const style = getComputedStyle(this.figure);
    const ink = style.getPropertyValue("color");
    const grid = style.getPropertyValue("border-top-color");
    const axis = { stroke: ink, font: "11px system-ui, sans-serif", ticks: { show: false } };
    const values = this.chart.axis ?? this.chart.format;
    return {
      width: this.place.clientWidth || 300,
      height: HEIGHT,
      padding: [8, 26, 0, 0], // to the right, room for half a time of day
      legend: { show: false },
      cursor: { sync: { key: SYNC }, y: false, drag: { x: false, y: false }, points: { size: 6 } },
      scales: {
        x: { range: () => this.range() },
        y: { range: (_, __, max) => [0, this.ceiling(max)] },
      },
      axes: [
        { ...axis, grid: { show: false }, size: 26, space: 78,
          values: (_, ticks, __, ___, step) =>
            ticks.map((at) => format.clock(at).slice(0, step < 60 ? 8 : 5)),
          incrs: [10, 15, 30, 60, 120, 300] },
        { ...axis, grid: { stroke: grid, width: 1 }, size: 58, gap: 6, space: 36,
          values: (_, ticks) => ticks.map((tick) => (tick ? values(tick) : "0")) },
      ],
      series: [{}, ...this.chart.series.map((series, number) => this.seriesOptions(series, number))],
      hooks: { setCursor: [() => this.describe()], draw: [(plot) => this.markStarts(plot)] },
    };
  }

  /** Draw a line where a worker has started; pointed at, it says when. */
  markStarts(plot) {
    const { min, max } = plot.scales.x;
    const shown = this.starts.filter((at) => at > min && at < max);
    fill(this.marks(plot), shown, () => element("i", "mark"), (mark, at) => {
      mark.style.left = `${Math.round(plot.valToPos(at, "x"))}px`;
      mark.title = `A worker started at ${format.clock(at)}.`;
    });
    if (!this.startsCount) return;
    this.startsCount.parentElement.hidden = !shown.length;
    setText(this.startsCount, format.count(shown.length));
  }

  marks(plot) {
    return plot.over.querySelector(".marks") ?? plot.over.appendChild(element("div", "marks"));
  }

  range() {
    const end = this.history.at.at(-1);
    const first = Math.min(this.history.at[0], end - LEAST);
    return [Math.max(first, end - this.seconds), end];
  }

  /** Keep room above, and counts whole: an empty chart of connections ends at 1, not at 0.1. */
  ceiling(max) {
    const isCount = this.chart.format !== format.duration;
    return Math.max((max || 0) * 1.08, isCount ? 1 : 0.001);
  }

  seriesOptions(series, number) {
    const colour = getComputedStyle(this.entries[number].parentElement.firstElementChild)
      .getPropertyValue("background-color");
    const isFilled = this.chart.stacked && !series.line;
    return {
      stroke: colour,
      width: isFilled ? 0 : 1.5,
      dash: series.line,
      // Each sum paints over the larger ones: what stays visible is the difference.
      fill: isFilled ? colour : series.area && faint(colour),
      spanGaps: false,
      points: { show: false },
    };
  }
}

/** A history with a row of nulls wherever samples are missing. */
export function withGaps(history) {
  const after = history.at.flatMap((at, i) => (i && at - history.at[i - 1] > MISSING ? [i] : []));
  if (!after.length) return history;
  return Object.fromEntries(Object.entries(history).map(([column, values]) => {
    const spaced = [];
    values.forEach((value, i) => {
      if (after.includes(i)) spaced.push(column === "at" ? history.at[i - 1] + 1 : null);
      spaced.push(value);
    });
    return [column, spaced];
  }));
}

function faint(colour) {
  return colour.replace(/^rgb\((.*)\)$/, "rgba($1, 0.16)");
}

function legendEntry(legend, series) {
  const item = legend.appendChild(element("li"));
  item.append(element("i", `swatch ${series.className}`), element("span", "muted", series.label));
  return item.appendChild(element("b", "", "–"));
}
