/* Page 6: down a bowl that is ten times steeper in one direction than in the other. */
"use strict";

{
  const box = document.getElementById("skd-descent");
  const curvatures = [1, 10];
  const start = [-0.9, 0.6];

  function roll(n) {
    let [x, velocity] = [start, [0, 0]];
    const path = [x];
    for (let i = 0; i < n; i++) {
      velocity = velocity.map((v, k) => momentum.get() * v + curvatures[k] * x[k]);
      x = x.map((value, k) => value - rate.get() * velocity[k]);
      path.push(x);
    }
    return path;
  }

  const plane = skd.plane(box, "The bowl from above, and the way of 60 steps", -1, 1, () => {
    for (const height of [0.02, 0.1, 0.3, 0.7, 1.5, 3]) {
      const turn = Array.from({ length: 121 }, (_, i) => (i * Math.PI) / 60);
      const ring = turn.map((t) => [
        Math.sqrt((2 * height) / curvatures[0]) * Math.cos(t),
        Math.sqrt((2 * height) / curvatures[1]) * Math.sin(t),
      ]);
      plane.path(ring, skd.color("muted"), 0.7);
    }
    const path = roll(60).filter((x) => Math.hypot(...x) < 1e6);
    plane.path(path, skd.color("ink"), 1.5);
    for (const x of path) plane.dot(...x, skd.color("ink"), 2.5);
  });
  const rates = { min: 0.01, max: 0.45, step: 0.01, value: 0.05 };
  const rate = skd.slider(box, "learning rate", rates, show);
  const momentum = skd.slider(box, "momentum", { min: 0, max: 0.95, step: 0.05, value: 0 }, show);
  const says = skd.says(box);

  function show() {
    const end = Math.hypot(...roll(400).at(-1));
    const near = roll(400).findIndex((x) => Math.hypot(...x) < 0.01);
    says.textContent =
      end < 0.01
        ? `It comes to the bottom: within 0.01 of it after ${near} steps.`
        : end < Math.hypot(...start)
          ? "It has not come to the bottom in 400 steps."
          : "It does not come to the bottom: each step goes too far.";
    plane.draw();
  }
  show();
}
