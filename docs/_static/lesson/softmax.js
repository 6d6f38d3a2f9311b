/* Page 2: four scores, their probabilities, and the loss. */
"use strict";

{
  const box = document.getElementById("skd-softmax");
  const names = ["first", "second", "third", "fourth"];
  const truth = 3;
  const range = { min: -17, max: 10, step: 0.1, digits: 1 };
  const start = [0.3, -16.2, 5.3, 0.7];
  const sliders = names.map((name, i) =>
    skd.slider(box, `score: ${name}`, { ...range, value: start[i] }, show),
  );
  const fill = skd.table(box, ["class", "q", "\u2212log q", "base 10", "q \u2212 p"]);
  const says = skd.says(box);
  const row = skd.make(box, "div", { class: "skd-buttons" });
  skd.button(row, "Back to the table's scores", () => {
    sliders.forEach((slider, i) => slider.set(start[i]));
    show();
  });

  function show() {
    const scores = sliders.map((slider) => slider.get());
    const largest = Math.max(...scores);
    const powers = scores.map((z) => Math.exp(z - largest));
    const logSum = Math.log(powers.reduce((sum, power) => sum + power, 0));
    const losses = scores.map((z) => logSum + largest - z);
    fill(
      losses.map((loss, i) => {
        const q = Math.exp(-loss);
        const name = i === truth ? `${names[i]} (true)` : names[i];
        const slope = skd.write(q - (i === truth), 3);
        return [name, skd.write(q, 3), skd.write(loss, 3), skd.write(loss / Math.LN10, 3), slope];
      }),
    );
    const below = losses[truth] < Math.LN2 ? "below" : "not below";
    says.textContent =
      `The loss is ${skd.write(losses[truth], 3)} nats, ${below} log 2 = ${skd.write(Math.LN2, 3)}.`;
  }
  show();
}
