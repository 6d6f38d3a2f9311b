// The network of skdisk, its data and its training, without a page: nothing here knows a browser.
//
// Everything is drawn as `random_state` draws it in Python: the points as NumPy does, the initial
// weights and the order of the rows as PyTorch does. So a setting trains the same network here and
// there, and the Python that `writePython` writes can be checked against the page.

const RADIUS = Math.sqrt(2 / Math.PI);
const N_FRESH = 2000;
const NOISE = 0.1;
const GAP = 0.1;

// What can be set, by the names that stand in the address. The first value is what is not written.
const OPTIONS = {
  hidden: ["64-64", "8-8", "3", "none"],
  lr: ["0.01", "0.001", "0.04", "0.1", "0.3", "1", "10"],
  momentum: ["0", "0.5", "0.9"],
  batch: ["32", "1", "8", "128", "512"],
  data: ["disk", "gap", "noise"],
  points: ["3000", "1000", "100"],
  epochs: ["100", "10", "40", "300", "1000"],
  seed: ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"],
};

// Read a setting from the part of an address behind "#". What is unknown counts as not written.
function readSetting(hash) {
  const given = new URLSearchParams(hash.replace(/^#/, ""));
  const setting = {};
  for (const [name, values] of Object.entries(OPTIONS)) {
    setting[name] = values.includes(given.get(name)) ? given.get(name) : values[0];
  }
  return setting;
}

function writeSetting(setting) {
  const changed = Object.entries(OPTIONS).filter(([name, values]) => setting[name] !== values[0]);
  return new URLSearchParams(changed.map(([name]) => [name, setting[name]])).toString();
}

function readSizes(setting) {
  return setting.hidden === "none" ? [] : setting.hidden.split("-").map(Number);
}

// Write the Python that trains the network of a setting. A result, once there is one, is said in
// comments, so that whoever runs the lines can compare.
function writePython(setting, result = null) {
  const sizes = readSizes(setting);
  const noise = setting.data === "noise" ? `noise=${NOISE}, ` : "";
  const gap = setting.data === "gap";
  const lines = [
    ...(gap ? ["import numpy as np"] : []),
    "from skdisk import MLPDiskClassifier, make_disk",
    "",
    `X, y = make_disk(${setting.points}, ${noise}random_state=${setting.seed})`,
    ...(gap
      ? [
          "distance = np.hypot(X[:, 0], X[:, 1])",
          `keep = abs(distance - np.sqrt(2 / np.pi)) > ${GAP}`,
          "X, y = X[keep], y[keep]",
        ]
      : []),
    "clf = MLPDiskClassifier(",
    `    hidden_layer_sizes=(${sizes.join(", ")}${sizes.length === 1 ? "," : ""}),`,
    `    lr=${setting.lr},`,
    `    momentum=${setting.momentum},`,
    "    weight_decay=0,",
    '    lr_schedule="constant",',
    `    max_epochs=${setting.epochs},`,
    `    batch_size=${setting.batch},`,
    `    random_state=${setting.seed},`,
    ").fit(X, y)",
    `fresh = make_disk(${N_FRESH}, random_state=${Number(setting.seed) + 1})`,
    `clf.loss_curve_[-1]${result ? `  # ${result.loss.toFixed(4)} here` : ""}`,
    `clf.score(*fresh)${result ? `  # ${result.fresh.toFixed(4)} here` : ""}`,
  ];
  return lines.join("\n");
}

// The Mersenne Twister, the generator of NumPy's RandomState and of PyTorch on the CPU.
class Random {
  constructor(seed) {
    const state = new Uint32Array(624);
    state[0] = seed;
    for (let i = 1; i < 624; i++) {
      state[i] = Math.imul(1812433253, state[i - 1] ^ (state[i - 1] >>> 30)) + i;
    }
    this.state = state;
    this.next = 624;
  }

  drawUint32() {
    if (this.next === 624) this.#renew();
    let bits = this.state[this.next++];
    bits ^= bits >>> 11;
    bits ^= (bits << 7) & 0x9d2c5680;
    bits ^= (bits << 15) & 0xefc60000;
    return (bits ^ (bits >>> 18)) >>> 0;
  }

  #renew() {
    const state = this.state;
    for (let i = 0; i < 624; i++) {
      const mixed = (state[i] & 0x80000000) | (state[(i + 1) % 624] & 0x7fffffff);
      state[i] = state[(i + 397) % 624] ^ (mixed >>> 1) ^ (mixed & 1 ? 0x9908b0df : 0);
    }
    this.next = 0;
  }

  // NumPy's double, at least 0 and below 1: 53 bits of two draws.
  drawDouble() {
    const high = this.drawUint32() >>> 5;
    return (high * 2 ** 26 + (this.drawUint32() >>> 6)) / 2 ** 53;
  }

  // NumPy's normal numbers come in pairs; the second of a pair is returned first.
  drawNormalPair() {
    for (;;) {
      const u = 2 * this.drawDouble() - 1;
      const v = 2 * this.drawDouble() - 1;
      const square = u * u + v * v;
      if (square > 0 && square < 1) {
        const factor = Math.sqrt((-2 * Math.log(square)) / square);
        return [factor * v, factor * u];
      }
    }
  }

  // The seed that skdisk draws from an int `random_state`: at least 0 and below 2^31 - 1.
  drawSeed() {
    for (;;) {
      const seed = this.drawUint32() & 0x7fffffff;
      if (seed < 0x7fffffff) return seed;
    }
  }

  // PyTorch's float32 between -bound and bound, of 24 bits. Where a CPU rounds the product as well,
  // PyTorch's own last bit differs.
  drawFloat(bound) {
    const fraction = (this.drawUint32() & 0xffffff) / 2 ** 24;
    return Math.fround(fraction * Math.fround(2 * bound) - Math.fround(bound));
  }

  // PyTorch's order of n rows.
  drawOrder(n) {
    const order = Uint32Array.from({ length: n }, (_, i) => i);
    for (let i = 0; i < n - 1; i++) {
      const j = i + (this.drawUint32() % (n - i));
      [order[i], order[j]] = [order[j], order[i]];
    }
    return order;
  }
}

// Draw points on the square [-1, 1) x [-1, 1) as `make_disk` does: {X, y}, X one point after the
// other in float32, y 1 inside the disk and 0 outside.
function makeDisk(n, seed, data = "disk") {
  const random = new Random(seed);
  const points = Array.from({ length: n }, () => [0, 0].map(() => 2 * random.drawDouble() - 1));
  const distances = points.map(([x0, x1]) => Math.hypot(x0, x1));
  let rows = points.map((point, i) => ({ point, label: Number(distances[i] < RADIUS) }));
  if (data === "gap") rows = rows.filter((_, i) => Math.abs(distances[i] - RADIUS) > GAP);
  if (data === "noise") {
    for (const row of rows) {
      const noise = random.drawNormalPair();
      row.point = row.point.map((x, i) => x + NOISE * noise[i]);
    }
  }
  return {
    X: Float32Array.from(rows.flatMap((row) => row.point)),
    y: Uint8Array.from(rows, (row) => row.label),
  };
}

// Sum the products of a row of weights, which begins at `start`, and of the deltas of its units.
function dot(weights, start, deltas) {
  let sum = 0;
  for (let j = 0; j < deltas.length; j++) sum += weights[start + j] * deltas[j];
  return sum;
}

// Fully connected layers with ReLU between them, which end in scores z of the classes. The
// probabilities q are softmax(z), the loss of a point is -log q of its class, in nats.
class Network {
  // `sizes` are the numbers of units from the features to the classes.
  constructor(sizes, random) {
    this.layers = [];
    for (let l = 1; l < sizes.length; l++) {
      const [nIn, nOut] = [sizes[l - 1], sizes[l]];
      const bound = 1 / Math.sqrt(nIn);
      // Parameters are float32, as in Python; sums are float64. PyTorch draws a row for each unit;
      // here a row is what an input adds to all units, so that inputs that are 0 are passed over.
      const draw = (n) => Float32Array.from({ length: n }, () => random.drawFloat(bound));
      const drawn = draw(nIn * nOut);
      this.layers.push({
        nIn,
        nOut,
        weights: drawn.map((_, k) => drawn[(k % nOut) * nIn + Math.floor(k / nOut)]),
        biases: draw(nOut),
        weightGradients: new Float64Array(nIn * nOut),
        biasGradients: new Float64Array(nOut),
        outputs: new Float64Array(nOut),
        // The derivative of the loss by each sum, before the ReLU.
        deltas: new Float64Array(nOut),
      });
    }
    this.scores = this.layers.at(-1).outputs;
    this.probabilities = new Float64Array(sizes.at(-1));
    this.input = new Float64Array(sizes[0]);
  }

  // Compute the scores of a point; what the hidden units put out stays in the layers.
  computeScores(x0, x1) {
    this.input[0] = x0;
    this.input[1] = x1;
    let inputs = this.input;
    for (const layer of this.layers) {
      const { nOut, weights, biases, outputs } = layer;
      outputs.set(biases);
      for (let i = 0; i < layer.nIn; i++) {
        const input = inputs[i];
        if (input === 0) continue;
        for (let j = 0, k = i * nOut; j < nOut; j++, k++) outputs[j] += weights[k] * input;
      }
      if (outputs !== this.scores) {
        for (let j = 0; j < nOut; j++) if (outputs[j] < 0) outputs[j] = 0;
      }
      inputs = outputs;
    }
    return this.scores;
  }

  // Compute the log-odds of "inside": positive where the network says so.
  computeLogOdds(x0, x1) {
    const [outside, inside] = this.computeScores(x0, x1);
    return inside - outside;
  }

  // Compute a point's loss, and leave its probabilities. The largest score is taken off first, or
  // exp would overflow.
  computeLoss(x0, x1, label) {
    const scores = this.computeScores(x0, x1);
    const largest = Math.max(...scores);
    let sum = 0;
    for (let c = 0; c < scores.length; c++) {
      this.probabilities[c] = Math.exp(scores[c] - largest);
      sum += this.probabilities[c];
    }
    for (let c = 0; c < scores.length; c++) this.probabilities[c] /= sum;
    return Math.log(sum) + largest - scores[label];
  }

  // Add the gradient of the loss of the point that `computeLoss` was last called with, times
  // `share`. The derivative of -log softmax(z)[label] by z is q - p, where p is 1 for the label.
  addGradient(label, share) {
    const last = this.layers.at(-1);
    for (let c = 0; c < last.nOut; c++) {
      last.deltas[c] = share * (this.probabilities[c] - (c === label ? 1 : 0));
    }
    for (let l = this.layers.length - 1; l >= 0; l--) {
      const { nIn, nOut, weights, weightGradients, biasGradients, deltas } = this.layers[l];
      const below = l > 0 ? this.layers[l - 1] : null;
      const inputs = below ? below.outputs : this.input;
      for (let j = 0; j < nOut; j++) biasGradients[j] += deltas[j];
      for (let i = 0; i < nIn; i++) {
        const input = inputs[i];
        if (below) below.deltas[i] = 0;
        // A weight of an input that is 0 changes nothing, and a ReLU that puts out 0 has no slope.
        if (input === 0) continue;
        for (let j = 0, k = i * nOut; j < nOut; j++, k++) weightGradients[k] += input * deltas[j];
        if (below) below.deltas[i] = dot(weights, i * nOut, deltas);
      }
    }
  }

  // Return all parameters with their gradients, layer by layer.
  get parameters() {
    return this.layers.flatMap((layer) => [
      { values: layer.weights, gradients: layer.weightGradients },
      { values: layer.biases, gradients: layer.biasGradients },
    ]);
  }
}

// Compute the mean loss and the accuracy on points.
function evaluate(network, { X, y }) {
  let loss = 0;
  let nRight = 0;
  for (let i = 0; i < y.length; i++) {
    loss += network.computeLoss(X[2 * i], X[2 * i + 1], y[i]);
    nRight += Number(network.scores[1] > network.scores[0]) === y[i] ? 1 : 0;
  }
  return { loss: loss / y.length, accuracy: nRight / y.length };
}

// The training of a setting, step by step: stochastic gradient descent with Nesterov's momentum.
class Training {
  constructor(setting) {
    const seed = Number(setting.seed);
    this.setting = setting;
    this.data = makeDisk(Number(setting.points), seed, setting.data);
    // Whatever it trains on, the network is asked for the disk itself.
    this.fresh = makeDisk(N_FRESH, seed + 1);
    this.random = new Random(new Random(seed).drawSeed());
    this.network = new Network([2, ...readSizes(setting), 2], this.random);
    this.velocities = this.network.parameters.map(({ values }) => new Float32Array(values.length));
    this.nSteps = 0;
    // The mean loss of each whole epoch, measured batch by batch before each step.
    this.losses = [];
    this.hasDiverged = false;
    this.#beginEpoch();
  }

  get isOver() {
    return this.hasDiverged || this.losses.length >= Number(this.setting.epochs);
  }

  // Train for another number of epochs in all, from where the training is.
  goOn(epochs) {
    const wasOver = this.isOver;
    this.setting = { ...this.setting, epochs };
    if (wasOver && !this.isOver) this.#beginEpoch();
  }

  #beginEpoch() {
    this.order = this.random.drawOrder(this.data.y.length);
    this.start = 0;
    this.lossOfEpoch = 0;
    // To go back to, as skdisk does, if the epoch ends in something that is not a number.
    this.before = this.network.parameters.map(({ values }) => values.slice());
  }

  // Take one step, and return the rows of its batch and their mean loss.
  step() {
    const { X, y } = this.data;
    const rows = this.order.subarray(this.start, this.start + Number(this.setting.batch));
    let loss = 0;
    for (const i of rows) {
      loss += this.network.computeLoss(X[2 * i], X[2 * i + 1], y[i]) / rows.length;
      this.network.addGradient(y[i], 1 / rows.length);
    }
    this.#descend();
    this.nSteps++;
    this.start += rows.length;
    this.lossOfEpoch += (loss * rows.length) / y.length;
    if (this.start === y.length) this.#endEpoch();
    return { rows, loss };
  }

  #descend() {
    const lr = Number(this.setting.lr);
    const momentum = Number(this.setting.momentum);
    for (const [p, { values, gradients }] of this.network.parameters.entries()) {
      const velocity = this.velocities[p];
      for (let i = 0; i < values.length; i++) {
        velocity[i] = momentum * velocity[i] + gradients[i];
        // Nesterov: the gradient, and the velocity as it will be.
        values[i] -= lr * (gradients[i] + momentum * velocity[i]);
        gradients[i] = 0;
      }
    }
  }

  #endEpoch() {
    const { parameters } = this.network;
    const isFinite = parameters.every(({ values }) => values.every(Number.isFinite));
    if (isFinite && Number.isFinite(this.lossOfEpoch)) {
      this.losses.push(this.lossOfEpoch);
      if (!this.isOver) this.#beginEpoch();
    } else {
      this.hasDiverged = true;
      for (const [p, { values }] of parameters.entries()) values.set(this.before[p]);
    }
  }
}
