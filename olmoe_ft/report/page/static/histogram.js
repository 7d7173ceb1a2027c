"use strict";
// Histograms: bars between edges, as SVG. Each bin takes the same width, so edges need not be even.

const BARS = { height: 190, left: 44, right: 8, top: 20, bottom: 22 };

/** A round number at or above the highest count, for the axis. */
function roundedUp(value) {
  const power = 10 ** Math.floor(Math.log10(Math.max(1, value)));
  return [1, 2, 2.5, 4, 5, 8, 10].map((factor) => factor * power).find((end) => end >= value);
}

class HistogramChart {
  constructor(figure, data) {
    this.data = data;
    this.figure = figure;
    this.names = Object.keys(data.counts);
    this.bins = data.edges.length - 1;
    this.box = figure.querySelector(".plot");
    this.reading = figure.querySelector(".reading");
    this.on = null;
    this.colours = this.names.map((_, place) => SERIES_COLOURS[place % SERIES_COLOURS.length]);
    if (this.names.length > 1) {
      figure.querySelector(".controls").append(...this.names.map((name, place) =>
        make("label", {}, make("span", { class: "swatch box", style: `background: ${this.colours[place]}` }), name)));
    } else figure.querySelector(".controls").remove();
    this.box.tabIndex = 0;
    this.box.setAttribute("role", "application");
    this.box.setAttribute("aria-roledescription", "histogram, read with the arrow keys");
    this.box.addEventListener("keydown", (event) => {
      const steps = { ArrowLeft: -1, ArrowRight: 1, Home: -Infinity, End: Infinity };
      if (!(event.key in steps) || event.altKey || event.ctrlKey || event.metaKey) return;
      event.preventDefault();
      const from = this.on ?? (event.key === "ArrowLeft" ? this.bins : -1);
      this.read(Math.max(0, Math.min(this.bins - 1, from + steps[event.key])), true);
    });
    this.box.addEventListener("pointermove", (event) => {
      const inside = event.clientX - this.box.getBoundingClientRect().left - BARS.left;
      const place = Math.floor((inside / this.plain) * this.bins);
      this.read(place >= 0 && place < this.bins ? place : null, false);
    });
    this.box.addEventListener("pointerleave", () => this.read(null, false));
  }

  edge(place) {
    const value = this.data.edges[place];
    return value === null ? "∞" : formatNumber(value);
  }

  read(place, spoken) {
    this.on = place;
    this.reading.setAttribute("aria-live", spoken ? "polite" : "off");
    this.unders?.forEach((under, bin) => under.classList.toggle("on", bin === place));
    if (place === null) {
      this.reading.textContent = "";
      return;
    }
    const values = this.names.map((name) => `${name} ${formatNumber(this.data.counts[name][place], 12)}`).join(", ");
    this.reading.textContent = `${this.edge(place)} – ${this.edge(place + 1)} ${this.data.unit}: ${values}`;
  }

  /** Where a value is on the axis, in bins from the left. */
  position(value) {
    const { edges } = this.data;
    for (let place = 0; place < this.bins; place++) {
      const [start, end] = [edges[place], edges[place + 1]];
      if (value <= (end ?? Infinity)) return place + Math.max(0, end === null ? 0.5 : (value - start) / (end - start || 1));
    }
    return this.bins;
  }

  draw(width) {
    const { height, left, right, top, bottom } = BARS;
    const plain = (this.plain = Math.max(10, width - left - right));
    const base = height - bottom;
    const highest = roundedUp(Math.max(1, ...this.names.flatMap((name) => this.data.counts[name])));
    const x = (bins) => left + (bins / Math.max(1, this.bins)) * plain;
    const y = (count) => base - (count / highest) * (base - top);
    const svg = make("svg", { class: "bars", viewBox: `0 0 ${width} ${height}`, height, "aria-hidden": "true" });
    this.unders = [];
    for (let place = 0; place < this.bins; place++) {
      this.unders.push(make("rect", { class: "under", x: x(place), y: top, width: plain / this.bins, height: base - top }));
    }
    svg.append(...this.unders);
    for (const part of [0, 0.5, 1]) {
      const at = Math.round(y(part * highest)) + 0.5;
      svg.append(make("line", { x1: left, x2: width - right, y1: at, y2: at }),
        make("text", { x: left - 6, y: at + 4, "text-anchor": "end" }, formatTick(part * highest)));
    }
    const bin = plain / Math.max(1, this.bins);
    const each = (bin - Math.min(3, bin * 0.15)) / Math.max(1, this.names.length);
    this.names.forEach((name, number) => {
      this.data.counts[name].forEach((count, place) => {
        if (count <= 0) return;
        const high = Math.max(1, base - y(count)); // a single one is still seen
        svg.append(make("rect", { x: x(place) + number * each + Math.min(1.5, bin * 0.07), y: base - high,
          width: Math.max(0.7, each), height: high, style: `fill: ${this.colours[number]}` }));
      });
    });
    this.addEdges(svg, x, base);
    this.addMarks(svg, x, width, base);
    this.box.replaceChildren(svg);
  }

  addEdges(svg, x, base) {
    const every = Math.max(1, Math.ceil((this.bins * 52) / this.plain));
    for (let place = 0; place <= this.bins; place += every) {
      const at = x(place);
      const anchor = place === 0 ? "start" : place === this.bins ? "end" : "middle";
      const value = this.data.edges[place];
      svg.append(make("text", { x: at, y: base + 15, "text-anchor": anchor }, value === null ? "∞" : formatTick(+value.toPrecision(4))));
    }
  }

  addMarks(svg, x, width, base) {
    let free = -Infinity; // names that would lie on one another go to the next line
    const marks = Object.entries(this.data.marks).filter(([, value]) => value !== null).sort((a, b) => a[1] - b[1]);
    for (const [name, value] of marks) {
      const at = x(this.position(value));
      const text = `${name} ${formatNumber(value)}`;
      const long = text.length * 6.2;
      const left = at + long + 6 > width;
      const low = (left ? at - long : at) < free;
      free = left ? at : at + long;
      svg.append(make("line", { class: "mark", x1: at, x2: at, y1: low ? 18 : 6, y2: base }),
        make("text", { class: "mark-name", x: at + (left ? -4 : 4), y: low ? 27 : 14, "text-anchor": left ? "end" : "start" }, text));
    }
  }
}

function startHistogram(figure, data) {
  const chart = new HistogramChart(figure, data);
  keepDrawn(figure, chart.box, (width) => chart.draw(width));
}
