"use strict";
// Curves: lines and points over steps, by uPlot. Shows values under the pointer, zooms, smooths, scales by powers of ten.

const HEIGHT = { half: 230, whole: 270 };

class CurvesChart {
  constructor(figure, data) {
    this.figure = figure;
    data.series.sort((one, other) => one.points - other.points); // points lie on lines
    this.data = data;
    this.box = figure.querySelector(".plot");
    this.controls = figure.querySelector(".controls");
    this.reading = figure.querySelector(".reading");
    this.section = figure.closest(".part");
    this.looks = looks(data.series);
    this.hidden = new Set();
    this.log = data.log && this.positive();
    this.zoom = null;
    this.uplot = null;
    const smooth = data.series.filter((series) => this.smooths(series));
    this.smoothing = smooth.length
      ? smoothingOf(this.section, Math.max(...smooth.map((series) => series.y.length))) : { weight: 0, listeners: [] };
    this.smoothing.listeners.push(() => this.redraw());
    this.addControls();
    this.addKeys();
  }

  smooths(series) { return this.data.smooth && !series.points && !series.dashed; }

  withErrors() { return this.data.series.filter((series, place) => series.errors && !this.hidden.has(place)); }

  positive() { return this.data.series.some((series) => series.y.some((value) => value > 0)); }

  name(series) {
    return series.group && !series.name.includes(series.group) ? `${series.group}: ${series.name}` : series.name;
  }

  addControls() {
    this.buttons = this.data.series.map((series, place) => {
      const { swatch, name } = this.looks[place];
      const value = make("b");
      const about = make("span", { class: "about" });
      const button = make("button", { type: "button", class: "series", "aria-pressed": "true" },
        make("span", { class: `swatch ${swatch}`, style: `border-color: ${name}` }), this.name(series), value, about);
      button.addEventListener("click", () => {
        if (!this.hidden.delete(place)) this.hidden.add(place);
        button.setAttribute("aria-pressed", !this.hidden.has(place));
        this.redraw();
      });
      this.controls.append(button);
      return { value, about };
    });
    this.reset = make("button", { type: "button", hidden: true }, "Reset zoom");
    this.reset.addEventListener("click", () => this.showAll());
    const scale = make("button", { type: "button", "aria-pressed": String(this.log) }, "Log");
    scale.title = "Logarithmic scale";
    scale.disabled = !this.positive();
    scale.addEventListener("click", () => {
      this.log = !this.log;
      scale.setAttribute("aria-pressed", this.log);
      this.redraw();
    });
    this.figure.querySelector("figcaption").append(make("span", { class: "end" }, this.reset, scale));
  }

  showAll() {
    this.zoom = null;
    this.reset.hidden = true;
    this.redraw();
  }

  addKeys() {
    this.box.tabIndex = 0;
    this.box.setAttribute("role", "application");
    this.box.setAttribute("aria-roledescription", "chart, read with the arrow keys");
    this.box.addEventListener("keydown", (event) => {
      const { uplot } = this;
      const steps = { ArrowLeft: -1, ArrowRight: 1, PageUp: -20, PageDown: 20, Home: -Infinity, End: Infinity };
      if (event.key === "Escape" && this.zoom) this.showAll();
      if (!uplot || !(event.key in steps) || event.altKey || event.ctrlKey || event.metaKey) return;
      event.preventDefault();
      const x = uplot.data[0];
      const { min, max } = uplot.scales.x;
      const first = x.findIndex((value) => value >= min);
      const last = x.findLastIndex((value) => value <= max);
      if (first < 0 || last < first) return;
      const from = uplot.cursor.idx ?? (event.key === "ArrowLeft" ? last + 1 : first - 1);
      const place = Math.max(first, Math.min(last, from + steps[event.key]));
      this.reading.setAttribute("aria-live", "polite");
      this.spoken = true;
      uplot.setCursor({ left: uplot.valToPos(x[place], "x"), top: uplot.over.clientHeight / 2 });
      this.spoken = false;
    });
    this.box.addEventListener("mousemove", () => this.reading.setAttribute("aria-live", "off"));
  }

  /** For uPlot: x of all series in one, and two columns a series, what it is and what is drawn of it. */
  table() {
    const usable = (values) => (this.log ? values.map((value) => (value > 0 ? value : value === undefined ? value : null)) : values);
    const tables = this.data.series.map((series) => {
      const y = usable(series.y);
      const drawn = this.smooths(series) && this.smoothing.weight > 0 ? smoothed(y, this.smoothing.weight) : y;
      return [this.data.axes[series.x], y, drawn];
    });
    for (const series of this.withErrors()) { // unseen, for the scale to take in the error bars
      const end = (sign) => usable(series.y.map((value, place) => (value === null ? null : value + sign * (series.errors[place] || 0))));
      tables.push([this.data.axes[series.x], end(-1), end(1)]);
    }
    return tables.length ? uPlot.join(tables) : [[]];
  }

  /** The place of a series' value nearest to the pointer; none where it has none nearby. */
  nearest(uplot, column, place) {
    const y = uplot.data[column];
    const x = uplot.data[0];
    let [before, after] = [place, place];
    while (before >= 0 && y[before] === undefined) before--;
    while (after < y.length && y[after] === undefined) after++;
    const far = (index) => (y[index] === undefined ? Infinity : Math.abs(x[index] - x[place]));
    const found = far(before) <= far(after) ? before : after;
    const inside = before >= 0 && after < y.length && !this.data.series[(column - 1) >> 1].points;
    const pixels = Math.abs(uplot.valToPos(x[found] ?? Infinity, "x") - uplot.valToPos(x[place], "x"));
    return y[found] !== undefined && y[found] !== null && (inside || pixels < 16) ? found : null;
  }

  series() {
    const made = [{}];
    this.data.series.forEach((series, place) => {
      const look = this.looks[place];
      const stroke = colour(look.name);
      const show = !this.hidden.has(place);
      const smooth = this.smooths(series) && this.smoothing.weight > 0;
      const points = series.points
        ? { show: true, size: 8, width: 2, stroke, fill: colour("var(--card)"), space: 0 } : { size: 5, fill: stroke, show: false, filter: (uplot, column) => alone(uplot.data[column]) };
      made.push(
        { show: show && smooth, stroke, alpha: 0.28, width: 1, points: { show: false, filter: () => null } },
        { show, stroke, width: series.dashed ? 1.5 : 2, dash: look.dash || undefined, points,
          ...(series.points ? { paths: () => null } : {}) });
    });
    for (let unseen = 2 * this.withErrors().length; unseen > 0; unseen--) {
      made.push({ paths: () => null, points: { show: false, filter: () => null } });
    }
    return made;
  }

  rangeY(low, high) {
    if (low === null || low === undefined) return this.log ? [1, 10] : [0, 1];
    if (low === 0 && high === 0) return [0, 1];
    return this.log ? uPlot.rangeLog(low, high, 10, false) : uPlot.rangeNum(low, high, 0.08, true);
  }

  rangeX(low, high) {
    const x = this.uplot ? this.uplot.data[0] : this.columns[0];
    const [first, last] = [x[0], x[x.length - 1]];
    if (first === undefined) return [0, 1];
    if (first === last) return [first - 1, last + 1];
    const margin = (last - first) * 0.012;
    return low <= first && high >= last ? [first - margin, last + margin] : [low, high];
  }

  axes(width) {
    const common = {
      stroke: colour("var(--quiet)"), font: "11px system-ui, sans-serif", labelFont: "11px system-ui, sans-serif",
      grid: { stroke: colour("var(--line)"), width: 1 }, ticks: { stroke: colour("var(--line)"), width: 1, size: 4 }, gap: 4,
      values: (_, splits) => splits.map((value) => (value === null ? null : formatTick(value))),
    };
    const wide = (_, values) => 14 + 6.4 * Math.max(2, ...(values || []).map((value) => (value || "").length));
    return [
      { ...common, space: width < 420 ? 56 : 70, size: 26, label: this.data.xName, labelSize: 16, labelGap: 0 },
      { ...common, space: 38, size: wide },
    ];
  }

  drawErrors(uplot) {
    const { ctx, bbox } = uplot;
    ctx.save();
    ctx.beginPath();
    ctx.rect(bbox.left, bbox.top, bbox.width, bbox.height);
    ctx.clip();
    this.data.series.forEach((series, place) => {
      if (!series.errors || this.hidden.has(place)) return;
      ctx.strokeStyle = colour(this.looks[place].name);
      ctx.lineWidth = 1.5 * uPlot.pxRatio;
      const cap = 3 * uPlot.pxRatio;
      series.y.forEach((value, index) => {
        const error = series.errors[index];
        if (value === null || !error || (this.log && value <= error)) return;
        const x = uplot.valToPos(this.data.axes[series.x][index], "x", true);
        const [low, high] = [value - error, value + error].map((end) => uplot.valToPos(end, "y", true));
        ctx.beginPath();
        for (const y of [low, high]) { ctx.moveTo(x - cap, y); ctx.lineTo(x + cap, y); }
        ctx.moveTo(x, low);
        ctx.lineTo(x, high);
        ctx.stroke();
      });
    });
    ctx.restore();
  }

  /** The legend: values under the pointer, else the last ones. */
  showValues(uplot) {
    const { idx, idxs } = uplot.cursor;
    const hovered = idx !== null && idx !== undefined && uplot.cursor.left >= 0;
    const texts = this.data.series.map((series, place) => {
      const [raw, drawn] = [uplot.data[2 * place + 1], uplot.data[2 * place + 2]];
      let found = hovered ? idxs[2 * place + 2] : raw.findLastIndex((value) => value !== null && value !== undefined);
      if (this.hidden.has(place)) found = null;
      const value = found === null || found < 0 ? null : raw[found];
      this.buttons[place].value.textContent = formatNumber(value, 5);
      const step = value === null ? -1 : this.data.axes[series.x].indexOf(uplot.data[0][found]);
      const error = series.errors && step >= 0 ? series.errors[step] : null;
      const smooth = this.smooths(series) && this.smoothing.weight > 0 && value !== null;
      this.buttons[place].about.textContent = error ? `± ${formatNumber(error, 3)}` : smooth ? `≈ ${formatNumber(drawn[found])}` : "";
      return `${this.name(series)} ${formatNumber(value, 5)}`;
    });
    const at = hovered ? `${this.data.xName} ${formatNumber(uplot.data[0][idx], 12)}` : "";
    this.reading.textContent = this.spoken ? `${at}: ${texts.join(", ")}` : at;
  }

  draw(width) {
    if (this.uplot) this.uplot.destroy();
    this.uplot = null;
    this.width = width;
    this.columns = this.table();
    const options = {
      width,
      height: this.figure.closest(".half") ? HEIGHT.half : HEIGHT.whole,
      legend: { show: false },
      padding: [8, 16, 0, 0],
      scales: {
        x: { time: false, range: (_, low, high) => this.rangeX(low, high) },
        y: { distr: this.log ? 3 : 1, range: (_, low, high) => this.rangeY(low, high) },
      },
      axes: this.axes(width),
      series: this.series(),
      cursor: {
        y: false,
        drag: { x: true, y: false, dist: 8 },
        dataIdx: (uplot, column, place) => {
          if (column === 0) return place;
          return column % 2 || column > 2 * this.data.series.length ? null : this.nearest(uplot, column, place);
        },
        points: { size: 8 },
        sync: { key: `${this.section.id} ${this.data.xName}`, setSeries: false, scales: ["x", null] },
      },
      hooks: {
        draw: [(uplot) => this.drawErrors(uplot)],
        setCursor: [(uplot) => this.showValues(uplot)],
        setScale: [(uplot, key) => {
          if (key !== "x" || !this.uplot) return;
          const { min, max } = uplot.scales.x;
          const x = uplot.data[0];
          this.zoom = min > x[0] || max < x[x.length - 1] ? [min, max] : null;
          this.reset.hidden = !this.zoom;
        }],
      },
    };
    this.box.replaceChildren();
    const zoom = this.zoom;
    this.uplot = new uPlot(options, this.columns, this.box);
    if (zoom) this.uplot.setScale("x", { min: zoom[0], max: zoom[1] });
    this.showValues(this.uplot);
  }

  redraw() { if (this.width) this.draw(this.width); }
}

function startCurves(figure, data) {
  const chart = new CurvesChart(figure, data);
  keepDrawn(figure, chart.box, (width) => chart.draw(width));
}
