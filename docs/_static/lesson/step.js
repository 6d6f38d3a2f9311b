/* Page 3: one more step of the network with two hidden units. */
"use strict";

/* Go forward and backward, and change the weights; return probabilities and loss before that. */
function takeStep(net, X, y, lr) {
  const n = X.length;
  const gradient = { W1: [[0, 0], [0, 0]], b1: [0, 0], W2: [[0, 0], [0, 0]], b2: [0, 0] };
  const add = (weights, bias, x) => weights.map((row, i) => row[0] * x[0] + row[1] * x[1] + bias[i]);
  let loss = 0;
  const q = X.map((x, i) => {
    const z1 = add(net.W1, net.b1, x);
    const h = z1.map((z) => Math.max(z, 0));
    const powers = add(net.W2, net.b2, h).map(Math.exp);
    const probabilities = powers.map((power) => power / (powers[0] + powers[1]));
    loss -= Math.log(probabilities[y[i]]) / n;
    const dz2 = probabilities.map((p, k) => (p - (k === y[i])) / n);
    for (const k of [0, 1]) {
      const dz1 = z1[k] > 0 ? dz2[0] * net.W2[0][k] + dz2[1] * net.W2[1][k] : 0;
      gradient.b2[k] += dz2[k];
      gradient.b1[k] += dz1;
      for (const j of [0, 1]) {
        gradient.W2[k][j] += dz2[k] * h[j];
        gradient.W1[k][j] += dz1 * x[j];
      }
    }
    return probabilities;
  });
  const move = (value, slope) =>
    Array.isArray(value) ? value.map((v, i) => move(v, slope[i])) : value - lr * slope;
  const after = {};
  for (const name of Object.keys(gradient)) after[name] = move(net[name], gradient[name]);
  return { after, loss, q };
}

if (typeof document !== "undefined") {
  const box = document.getElementById("skd-step");
  const data = skd.read("skd-step-data");
  let net = data;
  let before = null;
  let steps = 0;

  const row = skd.make(box, "div", { class: "skd-buttons" });
  skd.button(row, "One more step", () => {
    const step = takeStep(net, data.X, data.y, rate.get());
    before = { net, loss: step.loss };
    net = step.after;
    steps += 1;
    show();
  });
  skd.button(row, "Again", () => {
    [net, before, steps] = [data, null, 0];
    show();
  });
  const rate = skd.slider(
    box, "learning rate", { min: 0.1, max: 5, step: 0.1, value: data.lr, digits: 1 }, () => {},
  );
  const says = skd.says(box);
  const fillRows = skd.table(box, ["row", "class", "q of it", ""]);
  const fillWeights = skd.table(box, ["weight", "before", "now"]);

  function show() {
    const { loss, q } = takeStep(net, data.X, data.y, 0);
    const was = before ? ` It was ${skd.write(before.loss, 3)} before the last one.` : "";
    says.textContent = `After ${steps} steps the loss is ${skd.write(loss, 3)}.${was}`;
    fillRows(
      q.map((p, i) => {
        const right = p[data.y[i]] > 0.5;
        const mark = right ? { text: "right", name: "skd-right" } : "wrong";
        return [data.X[i].map((x) => skd.write(x, 1)).join(", "), String(data.y[i]),
          skd.write(p[data.y[i]], 3), mark];
      }),
    );
    const list = (of) => ["W1", "b1", "W2", "b2"].map((name) => of[name].flat()
      .map((value) => skd.write(value, 3)).join("  "));
    const old = before ? list(before.net) : ["", "", "", ""];
    const now = list(net);
    fillWeights(["W1", "b1", "W2", "b2"].map((name, i) => [name, old[i], now[i]]));
  }
  show();
} else {
  module.exports = { takeStep };
}
