/* Page 4: the lesson's run, epoch by epoch. */
"use strict";

{
  const box = document.getElementById("skd-disk");
  const { size, radius, accuracies, frames } = skd.read("skd-disk-data");
  const bytes = Uint8Array.from(atob(frames), (letter) => letter.charCodeAt(0));
  const look = (row, column) => bytes[(epoch.get() / 10) * size * size + row * size + column] / 255;
  const plane = skd.plane(box, "The probability of inside on the square", -1, 1, () => {
    plane.field(size, look);
    plane.edge(size, look);
    plane.circle(radius);
  });
  const last = 10 * (accuracies.length - 1);
  const range = { min: 0, max: last, step: 10, value: 0, digits: 0 };
  const epoch = skd.slider(box, "epoch", range, show);
  const says = skd.says(box);

  function show() {
    const [middle, corner] = [look(size / 2, size / 2), look(0, 0)];
    says.textContent =
      `${skd.write(accuracies[epoch.get() / 10], 1)} % right. Probability of inside: ` +
      `${skd.write(middle, 2)} in the middle, ${skd.write(corner, 2)} in the corner.`;
    plane.draw();
  }
  show();
}
