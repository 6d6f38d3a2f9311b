// The page around the network: what is set, the loop that trains, and what is drawn of it.
//
// A setting stands in the address behind "#", so that a link leads to it. Colours are those of
// style.css. Nothing is asked of any other place.

const LABELS = {
  hidden: "Hidden layers",
  lr: "Learning rate",
  momentum: "Momentum",
  batch: "Batch size",
  data: "Data",
  points: "Points",
  epochs: "Epochs",
  seed: "Random state",
};
// Milliseconds of training between two frames, which leaves the rest of 16 to the page.
const MS_OF_TRAINING = 11;
const MS_BETWEEN_PICTURES = 120;
// For those who ask for less motion the pictures change, but seldom.
const MS_BETWEEN_CALM_PICTURES = 1500;
// The network is asked at so many points on each side, and its scores are interpolated between.
const N_GRID = 61;
const N_PIXELS = 300;
const MOST_UNITS = 16;
// A step changes a weight by little.
const DIGITS_OF_A_STEP = 5;
// Log-odds where the shading changes: probabilities of 0.1, 0.3, 0.5, 0.7 and 0.9.
const LEVELS = [0.1, 0.3, 0.5, 0.7, 0.9].map((p) => Math.log(p / (1 - p)));

const $ = (id) => document.getElementById(`pg-${id}`);
const lessMotion = matchMedia("(prefers-reduced-motion: reduce)");
const darkness = matchMedia("(prefers-color-scheme: dark)");

// What is shown: the training, whether it runs, and what the last step was.
let training;
let isRunning = false;
let frame;
let measured;
let grid;
let drawnAt = 0;
let costOfPicture = 0;
let lastBatch = null;
let formulaBefore = null;
let unit = 0;
let colors;

// ---- Numbers and words

const minus = (text) => text.replace("-", "−");
const round = (value, digits = 2) => {
  const text = Math.abs(value) < 1e4 ? value.toFixed(digits) : value.toExponential(1);
  return minus(Number(text) === 0 ? text.replace("-", "") : text);
};
// With a space that does not break.
const percent = (share) => `${(100 * share).toFixed(1)}\u00a0%`;
const plural = (n, word) => `${n.toLocaleString("en")} ${word}${n === 1 ? "" : "s"}`;
const term = (value, digits) => `${value < 0 ? "−" : "+"} ${round(Math.abs(value), digits)}`;

// ---- Drawing

function readColors() {
  const style = getComputedStyle(document.documentElement);
  const names = ["ground", "ink", "muted", "rule", "inside", "outside", "half", "curve"];
  const read = (name) => style.getPropertyValue(`--${name}`).trim();
  colors = Object.fromEntries(names.map((name) => [name, read(name)]));
  colors.shades = [0, 1, 2, 3, 4, 5].map((band) => {
    const bits = parseInt(read(`shade-${band}`).slice(1), 16);
    return [bits >> 16, (bits >> 8) & 255, bits & 255];
  });
}

// Give a canvas as many pixels as the screen has for it, and return its context, in CSS pixels.
function open(canvas) {
  const { width, height } = canvas.getBoundingClientRect();
  const [w, h] = [width, height].map((n) => Math.round(n * devicePixelRatio));
  if (canvas.width !== w || canvas.height !== h) [canvas.width, canvas.height] = [w, h];
  const context = canvas.getContext("2d");
  context.setTransform(devicePixelRatio, 0, 0, devicePixelRatio, 0, 0);
  context.clearRect(0, 0, width, height);
  return { context, width, height };
}

// Where a point of the plane is on a canvas: the picture shows a little more than the square.
const EDGE = 1.04;
const toPixels = (x, size) => ((x + EDGE) / (2 * EDGE)) * size;
const toX = (pixels, size) => (pixels / size) * 2 * EDGE - EDGE;

function computeGrid() {
  grid = new Float64Array(N_GRID * N_GRID);
  for (let row = 0, k = 0; row < N_GRID; row++) {
    const x1 = -toX(row, N_GRID - 1);
    for (let column = 0; column < N_GRID; column++, k++) {
      grid[k] = training.network.computeLogOdds(toX(column, N_GRID - 1), x1);
    }
  }
}

// Shade the plane by the probability of "inside", in bands as on the figures of skdisk.
const shading = document.createElement("canvas");
shading.width = shading.height = N_PIXELS;
function drawShading(context, size) {
  const image = new ImageData(N_PIXELS, N_PIXELS);
  const scale = (N_GRID - 1) / N_PIXELS;
  for (let row = 0, k = 0; row < N_PIXELS; row++) {
    const v = (row + 0.5) * scale;
    const top = Math.floor(v);
    for (let column = 0; column < N_PIXELS; column++, k += 4) {
      const u = (column + 0.5) * scale;
      const left = Math.floor(u);
      const corner = top * N_GRID + left;
      const above = grid[corner] + (u - left) * (grid[corner + 1] - grid[corner]);
      const below =
        grid[corner + N_GRID] + (u - left) * (grid[corner + N_GRID + 1] - grid[corner + N_GRID]);
      const logOdds = above + (v - top) * (below - above);
      let band = 0;
      while (band < LEVELS.length && logOdds >= LEVELS[band]) band++;
      const [red, green, blue] = colors.shades[band];
      image.data[k] = red;
      image.data[k + 1] = green;
      image.data[k + 2] = blue;
      image.data[k + 3] = 255;
    }
  }
  shading.getContext("2d").putImageData(image, 0, 0);
  context.drawImage(shading, 0, 0, size, size);
}

// Draw where the log-odds are 0: in each cell of the grid, a line between the sides that it cuts.
function drawBoundary(context, size) {
  const cell = size / (N_GRID - 1);
  context.beginPath();
  for (let row = 0; row < N_GRID - 1; row++) {
    for (let column = 0; column < N_GRID - 1; column++) {
      const corner = row * N_GRID + column;
      const around = [0, 1, N_GRID + 1, N_GRID].map((offset) => grid[corner + offset]);
      const cuts = [];
      for (let side = 0; side < 4; side++) {
        const [here, next] = [around[side], around[(side + 1) % 4]];
        if (here > 0 === next > 0) continue;
        const part = here / (here - next);
        cuts.push(
          [
            [part, 0],
            [1, part],
            [1 - part, 1],
            [0, 1 - part],
          ][side],
        );
      }
      for (let i = 0; i + 1 < cuts.length; i += 2) {
        context.moveTo((column + cuts[i][0]) * cell, (row + cuts[i][1]) * cell);
        context.lineTo((column + cuts[i + 1][0]) * cell, (row + cuts[i + 1][1]) * cell);
      }
    }
  }
  context.lineWidth = 2.5;
  context.lineCap = "round";
  context.strokeStyle = colors.ink;
  context.stroke();
}

function drawPoints(context, size) {
  const { X, y } = training.data;
  const radius = (y.length > 500 ? 1.25 : 2.5) * (size / 480);
  const drawRows = (rows, factor) => {
    for (const [label, color] of [colors.outside, colors.inside].entries()) {
      context.beginPath();
      for (const i of rows) {
        if (y[i] !== label) continue;
        const [a, b] = [toPixels(X[2 * i], size), toPixels(-X[2 * i + 1], size)];
        context.moveTo(a + factor * radius, b);
        context.arc(a, b, factor * radius, 0, 2 * Math.PI);
      }
      context.fillStyle = color;
      context.fill();
    }
  };
  context.globalAlpha = lastBatch ? 0.25 : 1;
  drawRows([...y.keys()], 1);
  context.globalAlpha = 1;
  if (lastBatch) drawRows(lastBatch, y.length > 500 ? 3.2 : 1.8);
}

function drawCircle(context, size, width) {
  context.beginPath();
  context.arc(size / 2, size / 2, (RADIUS / (2 * EDGE)) * size, 0, 2 * Math.PI);
  context.setLineDash([width, 2.5 * width]);
  context.lineWidth = width;
  context.strokeStyle = colors.ink;
  context.stroke();
  context.setLineDash([]);
}

// The line on which a unit's sum w0 x0 + w1 x1 + b is 0: a point of it and its unit normal, which
// leads to where the sum is positive.
function findLine({ w0, w1, b }) {
  const length = Math.hypot(w0, w1);
  const normal = [w0 / length, w1 / length];
  return { normal, foot: normal.map((n) => (-b / length) * n) };
}

// Draw the line of a unit, with short strokes to the side where the unit is not 0.
function drawUnitLine(context, size) {
  const { normal, foot } = findLine(readUnit(unit));
  const at = (along, across) => [
    toPixels(foot[0] - along * normal[1] + across * normal[0], size),
    toPixels(-(foot[1] + along * normal[0] + across * normal[1]), size),
  ];
  context.beginPath();
  context.moveTo(...at(-4, 0));
  context.lineTo(...at(4, 0));
  for (let along = -3; along <= 3; along += 0.1) {
    context.moveTo(...at(along, 0));
    context.lineTo(...at(along, 0.045));
  }
  context.lineWidth = 1.25;
  context.strokeStyle = colors.ink;
  context.stroke();
}

function drawProbe(context, size) {
  const [x0, x1] = readProbe();
  context.beginPath();
  context.arc(toPixels(x0, size), toPixels(-x1, size), 7, 0, 2 * Math.PI);
  context.lineWidth = 5;
  context.strokeStyle = colors.ground;
  context.stroke();
  context.lineWidth = 2.5;
  context.strokeStyle = colors.ink;
  context.stroke();
}

function drawPlane() {
  const { context, width } = open($("plane"));
  drawShading(context, width);
  drawPoints(context, width);
  drawCircle(context, width, 2);
  drawUnitLine(context, width);
  drawBoundary(context, width);
  drawProbe(context, width);
}

// Draw the half-planes on which the first units are not 0: in grey, the classes have the colours.
function drawUnits() {
  for (const [j, input] of [...$("units").querySelectorAll("input")].entries()) {
    const { context, width } = open(input.nextElementSibling);
    const { normal, foot } = findLine(readUnit(j));
    context.save();
    context.translate(toPixels(foot[0], width), toPixels(-foot[1], width));
    context.rotate(Math.atan2(-normal[1], normal[0]));
    context.fillStyle = colors.half;
    context.fillRect(0, -4 * width, 8 * width, 8 * width);
    context.fillStyle = colors.ink;
    context.fillRect(-0.75, -4 * width, 1.5, 8 * width);
    context.restore();
    drawCircle(context, width, 1);
  }
}

// Draw curves by epoch: the training points grey and thick, the fresh ones dashed on top.
function drawCurves(canvas, trainingCurve, freshCurve, { low, high, ticks, write }) {
  const { context, width, height } = open(canvas);
  const [left, bottom, top, right] = [46, height - 20, 8, width - 12];
  const epochs = Number(training.setting.epochs);
  const toLeft = (epoch) => left + (epoch / epochs) * (right - left);
  const toTop = (value) => {
    const share = (Math.min(value, high) - low) / (high - low);
    return bottom - share * (bottom - top);
  };
  context.font = "12px system-ui, sans-serif";
  context.textBaseline = "middle";
  context.textAlign = "right";
  context.fillStyle = colors.rule;
  for (const tick of ticks) context.fillRect(left, Math.round(toTop(tick)), right - left, 1);
  context.fillStyle = colors.muted;
  for (const tick of ticks) context.fillText(write(tick), left - 6, toTop(tick));
  context.textBaseline = "alphabetic";
  for (const share of [0, 0.5, 1]) {
    const label = share === 1 ? `epoch ${epochs}` : String(share * epochs);
    context.textAlign = share === 1 ? "right" : "center";
    context.fillText(label, share === 1 ? right + 6 : toLeft(share * epochs), height - 4);
  }
  const draw = (curve) => {
    context.beginPath();
    for (const [epoch, value] of curve) context.lineTo(toLeft(epoch), toTop(value));
    context.stroke();
  };
  context.lineJoin = "round";
  context.lineWidth = 4;
  context.strokeStyle = colors.curve;
  draw(trainingCurve);
  context.lineWidth = 1.5;
  context.strokeStyle = colors.ink;
  context.setLineDash([5, 4]);
  draw(freshCurve);
  context.setLineDash([]);
}

function drawAllCurves() {
  const curve = (read) => measured.map((at) => [at.epoch, read(at)]);
  drawCurves(
    $("accuracy"),
    curve((at) => at.accuracy),
    curve((at) => at.freshAccuracy),
    {
      low: 0.4,
      high: 1,
      ticks: [0.4, 0.6, 0.8, 1],
      write: (value) => `${Math.round(100 * value)} %`,
    },
  );
  const losses = curve((at) => at.loss);
  const freshLosses = curve((at) => at.freshLoss);
  // As high as what there is to see; a loss beyond 4 is drawn at the edge.
  const highest = Math.max(...losses.concat(freshLosses).map(([, loss]) => loss));
  const step = highest < 0.8 ? 0.2 : highest < 1.6 ? 0.5 : 1;
  const high = Math.min(4, step * Math.max(4, Math.ceil(highest / step)));
  drawCurves($("losses"), losses, freshLosses, {
    low: 0,
    high,
    ticks: Array.from({ length: Math.round(high / step) + 1 }, (_, i) => i * step),
    write: (value) => value.toFixed(1),
  });
}

// ---- What is said

function readUnit(j) {
  const { nOut, weights, biases } = training.network.layers[0];
  return { w0: weights[j], w1: weights[nOut + j], b: biases[j] };
}

const readProbe = () => [Number($("x0").value), Number($("x1").value)];
const hasHiddenLayer = () => training.network.layers.length > 1;
const nameUnit = (j) => (hasHiddenLayer() ? "h" : "z") + `<sub>${j}</sub>`;
const wrap = (text) => (hasHiddenLayer() ? `max(0, ${text})` : text);

function writeFormula(j, digits) {
  const { w0, w1, b } = readUnit(j);
  const sum = `${round(w0, digits)} x<sub>0</sub> ${term(w1, digits)} x<sub>1</sub> ${term(b, digits)}`;
  return `${nameUnit(j)} = ${wrap(sum)}`;
}

function showUnit() {
  const { w0, w1, b } = readUnit(unit);
  const [x0, x1] = readProbe();
  const sum = w0 * x0 + w1 * x1 + b;
  const value = hasHiddenLayer() ? Math.max(0, sum) : sum;
  const numbers = `${round(w0)} · ${round(x0)} ${term(w1)} · ${round(x1)} ${term(b)}`;
  $("formula").innerHTML = [
    formulaBefore && `before the step: ${formulaBefore}`,
    `<span class="pg-now">${writeFormula(unit, formulaBefore ? DIGITS_OF_A_STEP : 3)}</span>`,
    `at the point: ${wrap(numbers)} = ${round(value)}`,
    `in Python: <code>clf.module_.layers[0].weight[${unit}]</code> and <code>bias[${unit}]</code>`,
  ]
    .filter(Boolean)
    .map((line) => `<p>${line}</p>`)
    .join("");
}

function showPoint() {
  const { network } = training;
  const [x0, x1] = readProbe();
  const label = Number(Math.hypot(x0, x1) < RADIUS);
  const loss = network.computeLoss(x0, x1, label);
  const [z, q] = [network.scores, network.probabilities];
  const names = ['<b class="pg-outside">outside</b>', '<b class="pg-inside">inside</b>'];
  const verdict = Number(z[1] > z[0]) === label ? "right" : "wrong";
  $("point").innerHTML = [
    `(${round(x0)}, ${round(x1)}) is ${names[label]}, and the network is ${verdict}`,
    `scores: z = (${round(z[0])}, ${round(z[1])})`,
    `softmax: q(${names[0]}) = ${q[0].toFixed(3)}, q(${names[1]}) = ${q[1].toFixed(3)}`,
    `cross-entropy: −ln ${q[label].toFixed(3)} = ${round(loss, 3)} nats`,
  ]
    .map((line) => `<p>${line}</p>`)
    .join("");
}

function measure() {
  const { network, losses, data, fresh, start } = training;
  const [here, there] = [evaluate(network, data), evaluate(network, fresh)];
  const epoch = losses.length + (training.isOver ? 0 : start / data.y.length);
  const row = {
    epoch,
    accuracy: here.accuracy,
    loss: here.loss,
    freshAccuracy: there.accuracy,
    freshLoss: there.loss,
  };
  if (measured.at(-1)?.epoch === epoch) measured.pop();
  measured.push(row);
}

// Show what the choice of a point or unit changes; the network is as it was.
function showChoice() {
  drawPlane();
  showUnit();
  showPoint();
}

function showAll() {
  drawUnits();
  drawAllCurves();
  showChoice();
}

// Ask the network anew, and show all of it.
function update() {
  const begin = performance.now();
  measure();
  computeGrid();
  const now = measured.at(-1);
  $("right").textContent = percent(now.accuracy);
  $("fresh-right").textContent = percent(now.freshAccuracy);
  $("loss").textContent = round(now.loss, 3);
  $("fresh-loss").textContent = round(now.freshLoss, 3);
  $("count").textContent =
    `Epoch ${training.losses.length} of ${training.setting.epochs}, ` +
    plural(training.nSteps, "step");
  showAll();
  drawnAt = performance.now();
  costOfPicture = drawnAt - begin;
}

function showButtons() {
  $("train").textContent = isRunning ? "Pause" : "Train";
  // A button that cannot be pressed loses the focus: the keyboard goes on at the next one.
  const pressed = [$("train"), $("step")];
  if (training.isOver && pressed.includes(document.activeElement)) $("again").focus();
  for (const button of pressed) button.disabled = training.isOver;
}

// Say something once, also to those who do not see the page.
function say(text) {
  $("status").textContent = text;
}

function sayResult() {
  const [here, there] = [measured.at(-1).accuracy, measured.at(-1).freshAccuracy].map(percent);
  if (training.hasDiverged) {
    say(
      `The training has diverged in epoch ${training.losses.length + 1}: with a learning rate of ` +
        `${training.setting.lr} the loss is no number any more. It is back where it was before.`,
    );
  } else {
    const state = training.isOver ? "Trained" : "Paused";
    say(`${state}: ${here} of the training points and ${there} of fresh ones are right.`);
  }
}

function showPython() {
  const isWhole = training.isOver && !training.hasDiverged;
  const result = { loss: training.losses.at(-1), fresh: measured.at(-1).freshAccuracy };
  $("python").textContent = writePython(training.setting, isWhole ? result : null);
  $("copy").textContent = "Copy";
}

// ---- What is done

function run() {
  if (!isRunning) return;
  const end = performance.now() + MS_OF_TRAINING;
  const epoch = training.losses.length;
  // A small network would be through in a blink: not more than one epoch in a frame.
  while (!training.isOver && training.losses.length === epoch && performance.now() < end) {
    training.step();
  }
  const between = lessMotion.matches ? MS_BETWEEN_CALM_PICTURES : MS_BETWEEN_PICTURES;
  if (training.isOver) {
    stop();
  } else {
    // On a slow machine pictures are fewer, so that most of the time is for the training.
    if (performance.now() - drawnAt > Math.max(between, 2 * costOfPicture)) update();
    frame = requestAnimationFrame(run);
  }
}

function stop() {
  isRunning = false;
  update();
  showButtons();
  sayResult();
  showPython();
}

function toggle() {
  if (isRunning) return stop();
  isRunning = true;
  lastBatch = formulaBefore = null;
  showButtons();
  say("Training …");
  cancelAnimationFrame(frame);
  frame = requestAnimationFrame(run);
}

function takeStep() {
  isRunning = false;
  const before = writeFormula(unit, DIGITS_OF_A_STEP);
  const { rows, loss } = training.step();
  [lastBatch, formulaBefore] = [rows, before];
  update();
  showButtons();
  showPython();
  say(
    `One step, with the ${plural(rows.length, "large point")}: their mean loss was ${round(loss, 4)}.`,
  );
}

function begin(setting) {
  isRunning = false;
  training = new Training(setting);
  measured = [];
  lastBatch = formulaBefore = null;
  showUnitButtons();
  update();
  showButtons();
  showPython();
  say("The weights are random: press Train.");
}

// Take over a setting. More epochs go on with the training; all else begins it anew.
function set(setting) {
  for (const select of $("setting").elements) select.value = setting[select.name];
  const hash = writeSetting(setting);
  history.replaceState(null, "", hash ? `#${hash}` : location.pathname + location.search);
  const goesOn =
    training &&
    !training.hasDiverged &&
    training.losses.length <= Number(setting.epochs) &&
    writeSetting({ ...training.setting, epochs: setting.epochs }) === hash;
  if (!goesOn) return begin(setting);
  training.goOn(setting.epochs);
  update();
  showButtons();
  showPython();
}

function showUnitButtons() {
  const { nOut } = training.network.layers[0];
  const n = Math.min(nOut, MOST_UNITS);
  // One whose line crosses the disk is the first to look at, if there is one.
  const crosses = (j) => Math.hypot(...findLine(readUnit(j)).foot) < RADIUS;
  unit = Math.max(0, Array.from({ length: n }, (_, j) => j).findIndex(crosses));
  $("units").replaceChildren(
    ...Array.from({ length: n }, (_, j) => {
      const label = document.createElement("label");
      const name = hasHiddenLayer() ? `unit ${j}` : `score ${j}`;
      label.innerHTML = `<input type="radio" name="unit" value="${j}" aria-label="${name}" /><canvas></canvas>`;
      label.firstChild.checked = j === unit;
      return label;
    }),
  );
  const which = nOut > n ? `The first ${n} of ${nOut} units` : plural(nOut, "unit");
  $("units-text").textContent = hasHiddenLayer()
    ? `${which} of the first layer. A unit is 0 on one side of its line and grows on the other, ` +
      "the grey one. Choose one to see its numbers."
    : "Without a hidden layer there are the two scores only, each positive on the grey side of " +
      "its line. The larger one wins.";
}

function makeSelects() {
  for (const [name, values] of Object.entries(OPTIONS)) {
    const label = document.createElement("label");
    const select = document.createElement("select");
    select.name = name;
    select.append(...values.map((value) => new Option(value)));
    // In the order of their size, whichever comes first in OPTIONS.
    const numbers = [...select.options].filter((option) => !Number.isNaN(Number(option.value)));
    if (numbers.length === values.length) {
      select.append(...numbers.sort((a, b) => a.value - b.value));
    }
    label.append(LABELS[name], select);
    $("setting").append(label);
  }
}

function moveProbe(event) {
  const { left, top, width } = $("plane").getBoundingClientRect();
  $("x0").value = toX(event.clientX - left, width);
  $("x1").value = -toX(event.clientY - top, width);
  showChoice();
}

async function copyPython() {
  const pre = $("python");
  try {
    await navigator.clipboard.writeText(pre.textContent);
    $("copy").textContent = "Copied";
    say("The Python lines are copied.");
  } catch {
    // Not allowed in this place: select the lines instead.
    getSelection().selectAllChildren(pre);
    say("The Python lines are selected: copy them with the keyboard.");
  }
}

makeSelects();
readColors();
set(readSetting(location.hash));
addEventListener("hashchange", () => {
  set(readSetting(location.hash));
  // Whoever followed a link further down is brought to what it has set.
  $("train").focus();
});
$("setting").addEventListener("change", () => {
  set(Object.fromEntries(new FormData($("setting"))));
});
$("setting").addEventListener("submit", (event) => event.preventDefault());
$("train").addEventListener("click", toggle);
$("step").addEventListener("click", takeStep);
$("again").addEventListener("click", () => begin(training.setting));
$("copy").addEventListener("click", copyPython);
$("units").addEventListener("change", (event) => {
  unit = Number(event.target.value);
  formulaBefore = null;
  showChoice();
});
$("plane").addEventListener("pointerdown", moveProbe);
for (const id of ["x0", "x1"]) $(id).addEventListener("input", showChoice);
darkness.addEventListener("change", () => {
  readColors();
  showAll();
});
new ResizeObserver(showAll).observe($("plane"));
