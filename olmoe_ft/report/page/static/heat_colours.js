"use strict";
// The colours of heat maps: how values become places on a ramp from idle to busy, and the legend that says so.

const RAMPS = { // from idle to busy, the middle among them
  light: [[33, 82, 150], [118, 170, 214], [244, 243, 240], [240, 150, 110], [165, 20, 35]],
  dark: [[120, 190, 255], [52, 104, 158], [38, 41, 46], [160, 74, 50], [255, 150, 120]],
};
const NEARLY_ALL = 0.99; // of the differences; a few larger ones would leave all others without colour

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

function signed(value) { return (value > 0 ? "+" : "") + formatNumber(value, 3); }

/** Loads by powers of two around an even share. */
function scaleOfLoads(values) {
  const reach = values.reduce((high, value) => Math.max(high, value > 0 ? Math.abs(Math.log2(value)) : 3), 1);
  const ends = Math.min(3, Math.ceil(reach));
  const place = (value) => 0.5 + Math.max(-ends, Math.min(ends, Math.log2(Math.max(value, 1e-9)))) / ends / 2;
  const ticks = [];
  for (let power = -ends; power <= ends; power++) ticks.push([2 ** power, power < 0 ? `1/${2 ** -power}` : String(2 ** power)]);
  ticks[0][1] = `≤ ${ticks[0][1]}`;
  ticks[ticks.length - 1][1] = `≥ ${ticks[ticks.length - 1][1]}`;
  return { place, ticks, name: "load", ends: ["idle", "busy"] };
}

/** Differences evenly around 0. */
function scaleOfDifferences(values) {
  const sizes = values.map(Math.abs).sort((one, other) => one - other);
  const largest = sizes[sizes.length - 1] || 0;
  const most = Number(Math.max(1e-3, sizes[Math.floor(NEARLY_ALL * (sizes.length - 1))] || 0).toPrecision(2));
  const beyond = largest > most;
  const ticks = [[-most, `${beyond ? "≤ " : ""}${signed(-most)}`], [0, "0"], [most, `${beyond ? "≥ " : ""}${signed(most)}`]];
  return { place: (value) => 0.5 + value / most / 2, ticks, name: "difference", ends: ["less", "more"] };
}

/** The scales of all maps of a chart, so that a colour means the same in each of them: [of loads, of differences]. */
function scalesOf(maps) {
  const of = (difference) => maps.filter((map) => map.difference === difference)
    .flatMap((map) => map.values.flat()).filter((value) => value !== null);
  return [scaleOfLoads(of(false)), scaleOfDifferences(of(true))];
}

function legendOf({ place, ticks, name, ends: [left, right] }) {
  const stops = [0, 0.125, 0.25, 0.375, 0.5, 0.625, 0.75, 0.875, 1].map((at) => `${rampColour(at)} ${at * 100}%`);
  const ramp = make("div", { class: "ramp" }, make("i", { style: `background: linear-gradient(to right, ${stops.join(", ")})` }),
    ...ticks.map(([value, text]) => make("span", { style: `left: ${place(value) * 100}%` }, text)));
  return make("div", { class: "scale" }, make("span", {}, `${name}: ${left}`), ramp, make("span", {}, right));
}
