"use strict";
// The series of curves: how they look, and their smoothing.

/** TensorBoard's smoothing: an exponential moving average without its bias towards the start. Gaps stay gaps. */
function smoothed(values, weight) {
  let average = 0;
  let bias = 1;
  return values.map((value) => {
    if (value === null || value === undefined) return value;
    average = average * weight + (1 - weight) * value;
    bias *= weight;
    return average / (1 - bias);
  });
}

/** The smoothing of a section: one slider for all of its curves. */
function smoothingOf(section, points) {
  if (section.smoothing) return section.smoothing;
  const weight = points < 40 ? 0 : 0.6; // of few values each one counts
  const shared = { weight, listeners: [] };
  const slider = make("input", { type: "range", min: 0, max: 0.99, step: 0.01, value: weight });
  const shown = make("output", {}, weight.toFixed(2));
  section.querySelector(".blocks").before(
    make("div", { class: "smoothing controls" }, make("label", {}, "Smoothing", slider, shown),
      make("span", {}, "Drag across a chart to zoom, double-click to see all.")));
  let waiting = 0;
  slider.addEventListener("input", () => {
    shared.weight = Number(slider.value);
    shown.textContent = shared.weight.toFixed(2);
    cancelAnimationFrame(waiting);
    waiting = requestAnimationFrame(() => shared.listeners.forEach((listen) => listen()));
  });
  section.smoothing = shared;
  return shared;
}

const groups = []; // of all charts of the page, so that one has the same colour in each of them

/** Colours of many lines in an order, as those of layers: from the first to the last. */
function gradual(count) {
  return Array.from({ length: count }, (_, place) => {
    const way = (2 * place) / (count - 1);
    const [from, to] = way <= 1 ? ["first", "middle"] : ["middle", "last"];
    return `color-mix(in oklab, var(--${to}) ${((way <= 1 ? way : way - 1) * 100).toFixed(1)}%, var(--${from}))`;
  });
}

/** How each series looks: one colour a group, a pattern for further lines in the same colour. */
function looks(all) {
  const keys = [];
  const lines = {};
  const plain = all.filter((series) => !series.group && !series.dashed);
  const colours = plain.length > SERIES_COLOURS.length ? gradual(plain.length) : SERIES_COLOURS;
  return all.map((series, place) => {
    const key = series.group ? `group ${series.group}` : `series ${place}`;
    if (series.dashed && !series.group) return { name: "var(--quiet)", dash: [7, 5], swatch: "dashed" };
    const known = series.group ? groups : keys;
    if (!known.includes(key)) known.push(key);
    const number = known.indexOf(key);
    const palette = series.group ? SERIES_COLOURS : colours;
    const name = palette[number % palette.length];
    if (series.points) return { name, dash: null, swatch: "points" };
    if (series.dashed) return { name, dash: [7, 5], swatch: "dashed" };
    lines[key] = (lines[key] || 0) + 1;
    const again = lines[key] > 1 || number >= palette.length;
    return { name, dash: again ? [2, 3] : null, swatch: again ? "dotted" : "line" };
  });
}

/** The places of values between gaps, which no line would show; none is null. */
function alone(values) {
  const there = values.flatMap((value, place) => (value === undefined ? [] : [place]));
  const gap = (place) => place === undefined || values[place] === null;
  const found = there.filter((place, index) => values[place] !== null && gap(there[index - 1]) && gap(there[index + 1]));
  return found.length ? found : null;
}
