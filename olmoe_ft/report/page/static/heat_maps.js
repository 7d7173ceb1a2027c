"use strict";
// Heat maps of layers and experts: all maps of one subject beside each other, and the same cell is read in all of them.

const CELL = { least: 4, onPaper: 2.6, most: 30, lowest: 11, highest: 24 };
const MAPS = { least: 200, gap: 20, beside: 3, most: 12 }; // pixels; in a row; shown at a time
const ROW_NAMES = 24; // pixels left of a map
const HINT = "Point at a cell, or use the arrow keys, to read it in all maps.";

function leastCell() { return document.documentElement.dataset.printing ? CELL.onPaper : CELL.least; }

/** One map: its name with the value that is read, and a canvas. */
class HeatMapPanel {
  constructor(map, scale, rowName, columnName) {
    Object.assign(this, { map, scale, rowName, columnName });
    this.rows = map.values.length;
    this.columns = Math.max(0, ...map.values.map((row) => row.length));
    this.value = make("b");
    this.names = make("div", { class: "rows" });
    this.canvas = make("canvas");
    this.mark = make("i", { hidden: true });
    this.over = make("div", { class: "over" }, make("div", { class: "cells" }, this.canvas, this.mark));
    this.element = make("div", { class: "panel" }, make("p", {}, map.kind, " ", this.value),
      make("div", { class: "map" }, this.names, this.over));
  }

  draw(width) {
    const across = Math.max(leastCell(), Math.min(CELL.most, (width - ROW_NAMES) / Math.max(1, this.columns)));
    this.cell = [across, Math.max(CELL.lowest, Math.min(CELL.highest, across))];
    const lines = this.rows > 8 ? Math.ceil(this.rows / 8) : 1;
    this.names.replaceChildren(...this.map.values.map((_, row) => row).filter((row) => row % lines === 0).map((row) =>
      make("span", { style: `top: ${(row + 0.5) * this.cell[1]}px` }, String(row))));
    this.paint(document.documentElement.dataset.printing ? 4 : devicePixelRatio || 1);
    const hidden = this.columns * across > width - ROW_NAMES + 1; // the keyboard must be able to come to it
    for (const [name, value] of [["tabindex", 0], ["role", "region"], ["aria-label", `Map: ${this.map.kind}`]]) {
      if (hidden) this.over.setAttribute(name, value);
      else this.over.removeAttribute(name);
    }
  }

  paint(ratio) {
    const [across, down] = this.cell;
    const size = [this.columns * across, this.rows * down + 15];
    Object.assign(this.canvas, { width: Math.round(size[0] * ratio), height: Math.round(size[1] * ratio) });
    this.canvas.style.width = `${size[0]}px`;
    this.canvas.style.height = `${size[1]}px`;
    const context = this.canvas.getContext("2d");
    const gap = across > 6 ? ratio : 0;
    const at = (place) => Math.round(place * across * ratio); // whole pixels: no seams
    this.map.values.forEach((row, layer) => row.forEach((value, expert) => {
      if (value === null) return;
      context.fillStyle = rampColour(this.scale.place(value));
      context.fillRect(at(expert), Math.round(layer * down * ratio), at(expert + 1) - at(expert) - gap, Math.round((down - 1) * ratio));
    }));
    context.scale(ratio, ratio);
    context.fillStyle = colour("var(--quiet)");
    context.font = "10px system-ui, sans-serif";
    const every = [1, 2, 4, 8, 16, 32].find((one) => one * across > 22) || 64;
    for (let expert = 0; expert < this.columns; expert += every) {
      context.textAlign = expert === 0 ? "left" : "center";
      context.fillText(String(expert), expert === 0 ? 1 : (expert + 0.5) * across, this.rows * down + 12);
    }
  }

  /** The cell under the pointer; null beside the cells. */
  cellAt(event) {
    const box = this.canvas.getBoundingClientRect();
    const place = [(event.clientY - box.top) / this.cell[1], (event.clientX - box.left) / this.cell[0]].map(Math.floor);
    return this.has(place) ? place : null;
  }

  has(place) { return place !== null && place.every((one) => one >= 0) && place[0] < this.rows && place[1] < this.columns; }

  written(value) { return this.map.difference ? signed(value) : formatNumber(value, 3); }

  /** Mark a cell, or none; returns its value as a text. */
  read(place, scroll) {
    this.mark.hidden = !this.has(place);
    this.value.textContent = "";
    if (this.mark.hidden) return "–";
    const [left, top] = [place[1] * this.cell[0], place[0] * this.cell[1]];
    this.mark.style.cssText = `left: ${left}px; top: ${top}px; width: ${this.cell[0]}px; height: ${this.cell[1] - 1}px`;
    const { over } = this; // what is read is seen
    if (scroll && (left < over.scrollLeft || left + this.cell[0] > over.scrollLeft + over.clientWidth)) over.scrollLeft = left - over.clientWidth / 2;
    return (this.value.textContent = this.written(this.map.values[place[0]][place[1]] ?? null));
  }

  /** The two cells that differ most from the others. */
  summary() {
    let [low, high] = [null, null];
    this.map.values.forEach((row, layer) => row.forEach((value, expert) => {
      if (value === null) return;
      if (!low || value < low[0]) low = [value, layer, expert];
      if (!high || value > high[0]) high = [value, layer, expert];
    }));
    const at = ([value, layer, expert]) => `${this.written(value)} (${this.rowName} ${layer}, ${this.columnName} ${expert})`;
    return low ? `${this.map.kind}: lowest ${at(low)}, highest ${at(high)}` : `${this.map.kind}: no values`;
  }
}

class HeatMapsChart {
  constructor(figure, data) {
    if (!data.maps.length) throw new Error("heat maps without a map");
    this.data = data;
    this.figure = figure;
    this.box = figure.querySelector(".plot");
    this.reading = figure.querySelector(".reading");
    this.scales = scalesOf(data.maps);
    this.on = null;
    this.panels = [];
    this.field = make("div", { class: "maps" });
    this.legend = make("div", { class: "scales", "aria-hidden": "true" });
    this.box.append(this.field, this.legend);
    this.addControls();
    this.addKeys();
    this.choose();
  }

  choice(name) {
    const select = make("select");
    this.figure.querySelector(".controls").append(make("label", {}, name, select));
    select.addEventListener("change", () => { this.choose(); this.draw(this.width); this.read(this.on, true); });
    return select;
  }

  addControls() {
    this.subject = this.choice("Tokens of");
    this.part = this.choice("Maps");
    const subjects = [...new Set(this.data.maps.map((map) => map.subject))];
    this.subject.replaceChildren(...subjects.map((value) => make("option", { value }, value)));
    this.subject.parentElement.hidden = subjects.length < 2;
  }

  /** Panels for the maps of the subject; of very many, those of the part that is chosen. */
  choose() {
    const { maps, rowName, columnName } = this.data;
    const all = maps.filter((map) => map.subject === this.subject.value);
    const parts = Math.ceil(all.length / MAPS.most);
    if (this.part.length !== parts) {
      this.part.replaceChildren(...Array.from({ length: parts }, (_, part) => make("option", { value: part },
        `${part * MAPS.most + 1} to ${Math.min(all.length, (part + 1) * MAPS.most)} of ${all.length}`)));
    }
    this.part.parentElement.hidden = parts < 2;
    this.part.closest(".controls").hidden = parts < 2 && this.subject.length < 2;
    const shown = all.slice(this.part.value * MAPS.most, (Number(this.part.value) + 1) * MAPS.most);
    this.panels = shown.map((map) => new HeatMapPanel(map, this.scales[Number(map.difference)], rowName, columnName));
    const loads = shown.filter((map) => !map.difference).length;
    const first = this.panels[loads]; // of the differences: in a row of their own, where all do not fit into one
    if (first && shown.length > MAPS.beside && shown.slice(loads).every((map) => map.difference)) first.element.classList.add("first");
    for (const panel of this.panels) this.listen(panel);
    this.field.replaceChildren(...this.panels.map((panel) => panel.element));
    if (this.chosen) this.box.setAttribute("aria-label", `Heat maps, ${this.subject.value}: ${this.summary()}.`);
    this.chosen = true; // the first ones are described by the page itself
  }

  addKeys() {
    this.box.tabIndex = 0;
    this.box.setAttribute("role", "application");
    this.box.setAttribute("aria-roledescription", "heat maps, read with the arrow keys");
    const steps = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] };
    this.box.addEventListener("keydown", (event) => {
      if (!(event.key in steps) || event.altKey || event.ctrlKey || event.metaKey) return;
      event.preventDefault();
      const most = [Math.max(...this.panels.map((panel) => panel.rows)) - 1, Math.max(...this.panels.map((panel) => panel.columns)) - 1];
      const place = this.on ? this.on.map((one, axis) => one + steps[event.key][axis]) : [0, 0];
      this.read(place.map((one, axis) => Math.max(0, Math.min(most[axis], one))), true);
    });
  }

  listen(panel) {
    const point = (event) => this.read(panel.cellAt(event), false);
    panel.canvas.addEventListener("pointermove", point);
    panel.canvas.addEventListener("pointerdown", point);
    panel.canvas.addEventListener("pointerleave", (event) => { // a finger that leaves has chosen a cell
      if (event.pointerType !== "touch") this.read(null, false);
    });
  }

  read(place, spoken) {
    this.on = place;
    this.reading.setAttribute("aria-live", spoken ? "polite" : "off");
    const values = this.panels.map((panel) => `${panel.map.kind} ${panel.read(place, spoken)}`);
    const { rowName, columnName, unit } = this.data;
    this.reading.textContent = place ? `${rowName} ${place[0]}, ${columnName} ${place[1]}: ${values.join(", ")} ${unit}` : HINT;
  }

  summary() { return this.panels.map((panel) => panel.summary()).join("; "); }

  draw(whole) {
    this.width = whole;
    const width = whole - 1; // the box may be a part of a pixel narrower than it says, and a map must not scroll for that
    const columns = Math.max(...this.panels.map((panel) => panel.columns));
    const least = Math.min(width, Math.max(MAPS.least, ROW_NAMES + columns * leastCell() * 1.1));
    const fitting = Math.floor((width + MAPS.gap) / (least + MAPS.gap));
    const beside = Math.max(1, Math.min(fitting, this.panels.length, MAPS.beside));
    this.field.style.gridTemplateColumns = `repeat(${beside}, minmax(0, 1fr))`;
    for (const panel of this.panels) panel.draw((width - (beside - 1) * MAPS.gap) / beside);
    const kinds = [false, true].filter((kind) => this.panels.some((panel) => panel.map.difference === kind));
    this.legend.replaceChildren(...kinds.map((kind) => legendOf(this.scales[Number(kind)])));
    this.read(this.on, false);
  }
}

function startHeatMaps(figure, data) {
  const chart = new HeatMapsChart(figure, data);
  keepDrawn(figure, chart.box, (width) => chart.draw(width));
}
