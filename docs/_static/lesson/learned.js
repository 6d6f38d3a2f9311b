/* Page 5: a network of three hidden units, each of which can be silenced. */
"use strict";

{
  const box = document.getElementById("skd-learned");
  const { radius, W1, b1, w2, b2 } = skd.read("skd-learned-data");
  const n = 64;
  const silent = W1.map(() => false);
  let chosen = 0;
  const place = (i) => ((i + 0.5) * 2) / n - 1;
  const sum = (x, y) =>
    W1.reduce((z, [u, v], k) => z + (silent[k] ? 0 : w2[k] * Math.max(0, u * x + v * y + b1[k])), b2);
  const probability = (row, column) => 1 / (1 + Math.exp(-sum(place(column), place(row))));

  const plane = skd.plane(box, "What the network says, and the lines of its units", -1, 1, () => {
    plane.field(n, probability);
    plane.edge(n, probability);
    plane.circle(radius);
    W1.forEach((weights, k) => {
      const width = k === chosen ? 4 : 1.5;
      plane.line(weights, b1[k], skd.color("muted"), width, silent[k] ? [2, 6] : []);
    });
  });
  const looks = skd.make(box, "div", { class: "skd-buttons" });
  const lookers = W1.map((_, k) =>
    skd.button(looks, `Look at unit ${k + 1}`, () => {
      chosen = k;
      show();
    }),
  );
  const silences = skd.make(box, "div", { class: "skd-buttons" });
  const silencers = W1.map((_, k) =>
    skd.button(silences, `Silence unit ${k + 1}`, () => {
      silent[k] = !silent[k];
      show();
    }),
  );
  const formula = skd.make(box, "p");
  const says = skd.says(box);

  function show() {
    lookers.forEach((button, k) => button.setAttribute("aria-pressed", k === chosen));
    silencers.forEach((button, k) => button.setAttribute("aria-pressed", silent[k]));
    const signed = (x) => (x < 0 ? " \u2212 " : " + ") + skd.write(Math.abs(x));
    const [u, v] = W1[chosen];
    formula.textContent =
      `Unit ${chosen + 1} (the thick line): max(0, ${skd.write(u)} x1${signed(v)} x2` +
      `${signed(b1[chosen])}). The score of inside grows by ${skd.write(w2[chosen])} times that.`;
    let right = 0;
    for (let row = 0; row < n; row++)
      for (let column = 0; column < n; column++)
        right += probability(row, column) > 0.5 === Math.hypot(place(row), place(column)) < radius;
    says.textContent = `${skd.write((100 * right) / (n * n), 0)} % of the square are right.`;
    plane.draw();
  }
  show();
}
