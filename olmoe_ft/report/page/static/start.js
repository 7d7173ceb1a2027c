"use strict";
// Everything begins here, once the whole document is there.

const DRAW = { curves: startCurves, histogram: startHistogram, "heat-maps": startHeatMaps };

startScheme();
startContents();
startLineBreaks();
for (const figure of document.querySelectorAll("figure.chart")) {
  DRAW[figure.dataset.chart](figure, JSON.parse(figure.querySelector("script").textContent));
}
startLongTexts();
startCopying();
startPrinting();
