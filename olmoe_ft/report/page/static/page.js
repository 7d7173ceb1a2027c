"use strict";
// What all charts share, and the page around them: colours, scheme, contents, long texts, copying, printing.

const SERIES_COLOURS = [1, 2, 3, 4, 5, 6, 7, 8].map((number) => `var(--s${number})`);
const charts = []; // each has draw(): from nothing, in the colours and width of now

/** An element with attributes; children are elements or texts, and a text is never read as HTML. */
function make(tag, attributes = {}, ...children) {
  const svg = ["svg", "g", "rect", "line", "text", "title"].includes(tag);
  const element = svg ? document.createElementNS("http://www.w3.org/2000/svg", tag) : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== null && value !== false) element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children);
  return element;
}

/** A colour as the browser resolves it now, such as "var(--ink)"; canvases know no variables. */
function colour(css) {
  const probe = make("span", { style: `color: ${css}` });
  document.body.append(probe);
  const found = getComputedStyle(probe).color;
  probe.remove();
  return found;
}

/** The same as `number` in numbers.py. */
function formatNumber(value, digits = 4) {
  if (value === null || value === undefined || !Number.isFinite(value)) return "–";
  const size = Math.abs(value);
  if (size >= 1e9 || (size > 0 && size < 1e-4)) return value.toExponential(digits - 1);
  if (Number.isInteger(value) || size >= 10 ** digits) return value.toLocaleString("en", { maximumFractionDigits: 0 });
  return value.toLocaleString("en", { maximumSignificantDigits: digits });
}

/** A number beside an axis: short. */
function formatTick(value) {
  const size = Math.abs(value);
  if (value === null || value === undefined) return "";
  if (size === 0) return "0";
  if (size >= 1e15 || size < 1e-4) return value.toExponential(2).replace(/\.?0+e/, "e").replace("e+", "e");
  for (const [factor, letter] of [[1e12, "T"], [1e9, "G"], [1e6, "M"], [1e4, "k"]]) {
    if (size >= factor) return +(value / (letter === "k" ? 1e3 : factor)).toPrecision(4) + letter;
  }
  return String(+value.toPrecision(6));
}

/** Draw a chart now, again whenever its width changes, and in other colours when the scheme changes. */
function keepDrawn(figure, box, draw) {
  let width = 0;
  const chart = {
    figure,
    draw(fixed) {
      const found = Math.floor(fixed || box.clientWidth);
      if (found < 40) return; // in a fold that is closed
      width = found;
      try {
        draw(found);
        figure.dataset.drawn = "yes";
      } catch (error) {
        box.replaceChildren(make("p", { class: "broken" }, "This chart could not be drawn. Its numbers are in the table below."));
        console.error(error);
      }
    },
  };
  charts.push(chart);
  new ResizeObserver(() => {
    if (Math.floor(box.clientWidth) !== width && !document.documentElement.dataset.printing) chart.draw();
  }).observe(box);
  chart.draw();
}

function drawAll(fixed) {
  for (const chart of charts) chart.draw(fixed && Math.min(fixed, chart.figure.closest(".half") ? fixed / 2 - 14 : fixed));
}

function startScheme() {
  const button = document.querySelector(".scheme");
  const system = matchMedia("(prefers-color-scheme: dark)");
  const root = document.documentElement;
  const dark = () => (root.dataset.scheme ? root.dataset.scheme === "dark" : system.matches);
  const name = () => { button.textContent = dark() ? "☀ Light" : "☾ Dark"; };
  button.hidden = false;
  name();
  const changed = () => { name(); drawAll(); };
  button.addEventListener("click", () => { root.dataset.scheme = dark() ? "light" : "dark"; changed(); });
  system.addEventListener("change", changed);
}

function startContents() {
  const contents = document.querySelector(".contents");
  const wide = matchMedia("(min-width: 70rem)");
  const fit = () => { contents.open = wide.matches; };
  fit();
  wide.addEventListener("change", fit);
  const links = new Map([...contents.querySelectorAll("a")].map((link) => [link.getAttribute("href").slice(1), link]));
  contents.addEventListener("click", (event) => { if (event.target.closest("a")) fit(); });
  contents.addEventListener("keydown", (event) => { if (event.key === "Escape" && !wide.matches) contents.open = false; });
  const places = [document.getElementById("top"), ...document.querySelectorAll(".part")];
  const mark = () => {
    const ahead = innerHeight * 0.3;
    const end = innerHeight + scrollY >= document.documentElement.scrollHeight - 4;
    const here = end && scrollY > 0 ? places.at(-1) : places.filter((place) => place.getBoundingClientRect().top <= ahead).at(-1);
    for (const [id, link] of links) {
      if (here && id === here.id) link.setAttribute("aria-current", "true");
      else link.removeAttribute("aria-current");
    }
  };
  addEventListener("scroll", mark, { passive: true });
  mark();
}

const WITHIN_NAME = /(?<=[\p{L}\d_]{2}[._/])(?=\p{L}[\p{L}\d_])/u; // not in numbers, and not in "e.g."

/** In tables a line may break after the dots, underscores and slashes of a name. Copied, the name is as it was. */
function startLineBreaks() {
  for (const cell of document.querySelectorAll("th, td, .facts dt, .facts dd")) {
    const texts = document.createTreeWalker(cell, NodeFilter.SHOW_TEXT);
    const found = [];
    while (texts.nextNode()) if (WITHIN_NAME.test(texts.currentNode.data)) found.push(texts.currentNode);
    for (const text of found) text.replaceWith(...text.data.split(WITHIN_NAME).flatMap((part) => [make("wbr"), part]).slice(1));
  }
}

/** Texts of more than a few lines are cut, with a button that shows all of them. */
function startLongTexts() {
  const cut = (text) => {
    if (text.dataset.measured || text.clientWidth === 0) return;
    text.dataset.measured = "yes";
    if (text.scrollHeight <= 270) return;
    text.classList.add("cut");
    const button = make("button", { type: "button", class: "more", "aria-expanded": "false" }, "Show all");
    button.addEventListener("click", () => {
      const open = !text.classList.toggle("cut");
      button.textContent = open ? "Show less" : "Show all";
      button.setAttribute("aria-expanded", open);
    });
    text.after(button);
  };
  const all = () => document.querySelectorAll(".long").forEach(cut);
  all();
  document.addEventListener("toggle", all, true); // a fold was opened
}

function startCopying() {
  for (const button of document.querySelectorAll(".copy")) {
    const code = button.closest(".block").querySelector("code");
    button.hidden = false;
    button.addEventListener("click", async () => {
      try {
        await navigator.clipboard.writeText(code.textContent);
        button.textContent = "Copied";
      } catch { // not allowed: it is selected, for the person to copy
        getSelection().selectAllChildren(code);
        button.textContent = "Selected";
      }
      setTimeout(() => { button.textContent = "Copy"; }, 2000);
    });
  }
}

const PAPER = { width: 670, fold: 34 }; // pixels of a sheet, and of what a fold takes of it

/** A table that is wider than the sheet, even with all its lines broken, becomes smaller. */
function fitTable(table) {
  table.style.width = "min-content";
  const room = PAPER.width - (table.closest(".fold") ? PAPER.fold : 0);
  table.style.zoom = Math.min(1, room / table.offsetWidth);
  table.style.width = "";
}

/** On paper: light, as wide as a sheet, all folds open but for the tables of charts. */
function startPrinting() {
  const root = document.documentElement;
  let before = null;
  addEventListener("beforeprint", () => {
    if (before) return;
    before = { scheme: root.dataset.scheme, closed: [...document.querySelectorAll("details.fold:not([open])")] };
    root.dataset.printing = "yes";
    root.dataset.scheme = "light";
    for (const fold of before.closed) fold.open = true;
    drawAll(PAPER.width);
    document.querySelectorAll(".scroll table").forEach(fitTable);
  });
  addEventListener("afterprint", () => {
    if (!before) return;
    if (before.scheme) root.dataset.scheme = before.scheme;
    else delete root.dataset.scheme;
    for (const fold of before.closed) fold.open = false;
    before = null;
    delete root.dataset.printing;
    for (const table of document.querySelectorAll(".scroll table")) table.style.zoom = "";
    drawAll();
  });
}
