"use strict";
// Heat maps of layers and experts, on a canvas: one at a time, chosen by whose tokens and which kind.

const RAMPS = { // from idle to busy, the middle among them
  light: [[33, 82, 150], [118, 170, 214], [244, 243, 240], [240, 150, 110], [165, 20, 35]],
  dark: [[120, 190, 255], [52, 104, 158], [38, 41, 46], [160, 74, 50], [255, 150, 120]],
};
const CELL = { least: 9, most: 30, highest: 24 };

function isDark() {
  return getComputedStyle(document.documentElement).colorScheme === "dark"
    || (!document.documentElement.dataset.scheme && matchMedia("(prefers-color-scheme: dark)").matches);
}

/** A colour for a place from 0 to 1. */
function rampColour(place) {
  const stops = RAMPS[isDark() ? "dark" : "light"];
  const at = Math.max(0, Math.min(1, place)) * (stops.length - 1);
  const low = Math.min(stops.length - 2, Math.floor(at));
  return `rgb(${stops[low].map((part, index) => Math.round(part + (at - low) * (stops[low + 1][index] - part))).join(" ")})`;
}

/** How values become colours: of loads by powers of two around an even share, of differences evenly around 0. */
function scaleOf(maps, difference) {
  const values = maps.filter((map) => map.difference === difference).flatMap((map) => map.values.flat()).filter((value) => value !== null);
  if (difference) {
    const most = values.reduce((high, value) => Math.max(high, Math.abs(value)), 1e-3);
    return { place: (value) => 0.5 + value / most / 2, ticks: [-most, 0, most].map((value) => [value, (value > 0 ? "+" : "") + formatNumber(value, 3)]) };
  }
  const reach = values.reduce((high, value) => Math.max(high, value > 0 ? Math.abs(Math.log2(value)) : 3), 1);
  const ends = Math.min(3, Math.ceil(reach));
  const place = (value) => 0.5 + Math.max(-ends, Math.min(ends, Math.log2(Math.max(value, 1e-9)))) / ends / 2;
  const ticks = [];
  for (let power = -ends; power <= ends; power++) ticks.push([2 ** power, power < 0 ? `1/${2 ** -power}` : String(2 ** power)]);
  ticks[0][1] = `≤ ${ticks[0][1]}`;
  ticks[ticks.length - 1][1] = `≥ ${ticks[ticks.length - 1][1]}`;
  return { place, ticks };
}

class HeatMapsChart {
  constructor(figure, data) {
    this.data = data;
    this.figure = figure;
    this.box = figure.querySelector(".plot");
    this.reading = figure.querySelector(".reading");
    this.scales = { true: scaleOf(data.maps, true), false: scaleOf(data.maps, false) };
    this.label = this.box.getAttribute("aria-label");
    this.box.removeAttribute("aria-label"); // the canvas in it has it
    this.box.removeAttribute("role");
    this.on = null;
    this.addControls();
    this.addParts();
  }

  get map() {
    const { maps } = this.data;
    return maps.find((map) => map.subject === this.subject.value && map.kind === this.kind.value) || maps[0];
  }

  addControls() {
    const choice = (name, values) => {
      const select = make("select", {}, ...values.map((value) => make("option", { value }, value)));
      const label = make("label", { hidden: values.length < 2 }, name, select);
      this.figure.querySelector(".controls").append(label);
      select.addEventListener("change", () => this.chosen());
      return select;
    };
    const { maps } = this.data;
    this.subject = choice("Tokens of", [...new Set(maps.map((map) => map.subject))]);
    this.kind = choice("Shown", [...new Set(maps.map((map) => map.kind))]);
    this.fitKinds();
  }

  /** Of a subject only the kinds that it has can be chosen. */
  fitKinds() {
    for (const option of this.kind.options) {
      option.disabled = !this.data.maps.some((map) => map.subject === this.subject.value && map.kind === option.value);
    }
    if (this.kind.selectedOptions[0]?.disabled) this.kind.value = [...this.kind.options].find((option) => !option.disabled).value;
  }

  chosen() {
    this.fitKinds();
    this.draw(this.width);
    this.read(this.on, true);
  }

  addParts() {
    this.canvas = make("canvas", { tabindex: 0, role: "application", "aria-roledescription": "heat map, read with the arrow keys" });
    this.rows = make("div", { class: "rows", "aria-hidden": "true" });
    this.legend = make("div", { class: "scale", "aria-hidden": "true" });
    this.box.append(make("div", { class: "map" }, this.rows, make("div", { class: "over" }, this.canvas)), this.legend);
    const steps = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] };
    this.canvas.addEventListener("keydown", (event) => {
      if (!(event.key in steps) || event.altKey || event.ctrlKey || event.metaKey) return;
      event.preventDefault();
      const [row, column] = this.on ? this.on.map((place, axis) => place + steps[event.key][axis]) : [0, 0];
      this.read([Math.max(0, Math.min(this.height - 1, row)), Math.max(0, Math.min(this.columns - 1, column))], true);
      const over = this.canvas.parentElement; // what is read is seen
      const x = this.on[1] * this.cell[0];
      if (x < over.scrollLeft || x + this.cell[0] > over.scrollLeft + over.clientWidth) over.scrollLeft = x - over.clientWidth / 2;
    });
    this.canvas.addEventListener("pointermove", (event) => {
      const place = [Math.floor(event.offsetY / this.cell[1]), Math.floor(event.offsetX / this.cell[0])];
      this.read(place[0] < this.height && place[1] < this.columns && place.every((one) => one >= 0) ? place : null, false);
    });
    this.canvas.addEventListener("pointerleave", () => this.read(null, false));
  }

  read(place, spoken) {
    this.on = place;
    this.reading.setAttribute("aria-live", spoken ? "polite" : "off");
    this.paint();
    const { rowName, columnName, unit } = this.data;
    if (place === null) {
      this.reading.textContent = this.summary();
      return;
    }
    const value = this.map.values[place[0]][place[1]];
    this.reading.textContent = `${rowName} ${place[0]}, ${columnName} ${place[1]}: ${this.written(value)} ${unit}`;
  }

  written(value) { return (this.map.difference && value > 0 ? "+" : "") + formatNumber(value, 3); }

  /** The two cells that differ most from the others. */
  summary() {
    let [low, high] = [null, null];
    this.map.values.forEach((row, layer) => row.forEach((value, expert) => {
      if (value === null) return;
      if (!low || value < low[0]) low = [value, layer, expert];
      if (!high || value > high[0]) high = [value, layer, expert];
    }));
    if (!low) return "no values";
    const { rowName, columnName } = this.data;
    const at = ([value, layer, expert]) => `${this.written(value)} (${rowName} ${layer}, ${columnName} ${expert})`;
    return `lowest ${at(low)}, highest ${at(high)}`;
  }

  draw(width) {
    if (!this.data.maps.length) throw new Error("a heat map without maps");
    this.width = width;
    const { values } = this.map;
    this.height = values.length;
    this.columns = Math.max(0, ...values.map((row) => row.length));
    const room = width - 22 - 12;
    const across = Math.max(CELL.least, Math.min(CELL.most, Math.floor(room / Math.max(1, this.columns))));
    this.cell = [across, Math.max(12, Math.min(CELL.highest, across))];
    const every = this.columns > 24 ? 8 : this.columns > 12 ? 4 : 1;
    const lines = this.height > 8 ? Math.ceil(this.height / 8) : 1;
    this.rows.replaceChildren(...values.map((_, row) => row).filter((row) => row % lines === 0).map((row) =>
      make("span", { style: `top: ${2 + (row + 0.5) * this.cell[1]}px` }, String(row))));
    this.every = every;
    this.paint();
    this.addLegend();
    const about = `${this.map.subject}, ${this.map.kind}: ${this.summary()}`;
    this.canvas.setAttribute("aria-label", this.first ? `Heat map: ${about}` : this.label);
    this.first = true;
    if (!this.on) this.reading.textContent = this.summary();
  }

  paint() {
    const ratio = devicePixelRatio || 1;
    const [across, down] = this.cell;
    const size = [this.columns * across, this.height * down + 16];
    Object.assign(this.canvas, { width: size[0] * ratio, height: size[1] * ratio });
    this.canvas.style.width = `${size[0]}px`;
    this.canvas.style.height = `${size[1]}px`;
    const context = this.canvas.getContext("2d");
    context.scale(ratio, ratio);
    const { place } = this.scales[this.map.difference];
    this.map.values.forEach((row, layer) => row.forEach((value, expert) => {
      if (value === null) return;
      context.fillStyle = rampColour(place(value));
      context.fillRect(expert * across, layer * down, across - (across > 6 ? 1 : 0), down - 1);
    }));
    context.fillStyle = colour("--quiet");
    context.font = "10px system-ui, sans-serif";
    for (let expert = 0; expert < this.columns; expert += this.every) {
      context.textAlign = expert === 0 ? "left" : "center";
      context.fillText(String(expert), expert === 0 ? 1 : (expert + 0.5) * across, this.height * down + 12);
    }
    if (this.on && this.on[0] < this.height && this.on[1] < this.columns) {
      context.strokeStyle = colour("--ink");
      context.lineWidth = 2;
      context.strokeRect(this.on[1] * across, this.on[0] * down, across - 1, down - 1);
    }
  }

  addLegend() {
    const { place, ticks } = this.scales[this.map.difference];
    const stops = [0, 0.125, 0.25, 0.375, 0.5, 0.625, 0.75, 0.875, 1].map((at) => `${rampColour(at)} ${at * 100}%`);
    const ramp = make("div", { class: "ramp" }, make("i", { style: `background: linear-gradient(to right, ${stops.join(", ")})` }),
      ...ticks.map(([value, text]) => make("span", { style: `left: ${place(value) * 100}%` }, text)));
    const [left, right] = this.map.difference ? ["less", "more"] : ["idle", "busy"];
    this.legend.replaceChildren(make("span", {}, left), ramp, make("span", {}, right));
  }
}

function startHeatMaps(figure, data) {
  const chart = new HeatMapsChart(figure, data);
  keepDrawn(figure, chart.box, (width) => chart.draw(width));
}
