/* Page 1: a threshold neuron with three sliders, and the truth table that it is to give. */
"use strict";

{
  const box = document.getElementById("skd-neuron");
  const learned = skd.read("skd-neuron-data");
  const inputs = [[0, 0], [0, 1], [1, 0], [1, 1]];
  const tables = { AND: [0, 0, 0, 1], OR: [0, 1, 1, 1], XOR: [0, 1, 1, 0] };
  let chosen = "AND";

  const choices = skd.make(box, "div", { class: "skd-buttons" });
  const buttons = Object.keys(tables).map((name) =>
    skd.button(choices, name, () => {
      chosen = name;
      show();
    }),
  );
  const plane = skd.plane(box, "The four points and the line of your neuron", -0.6, 1.6, () => {
    const sum = compute();
    const place = (i) => (i + 0.5) / 80 - 0.6;
    plane.field(176, (row, column) => Number(sum([place(column), place(row)]) > 0));
    plane.line([w1.get(), w2.get()], b.get(), skd.color("ink"));
    if (chosen === "AND")
      plane.line([learned.w1, learned.w2], learned.b, skd.color("muted"), 2, [4, 4]);
    inputs.forEach(([x, y], i) => {
      plane.dot(x, y, skd.color("ink"), 10);
      plane.dot(x, y, skd.color(tables[chosen][i] ? "inside" : "outside"));
    });
  });
  const range = { min: -4, max: 4, step: 0.25, digits: 2 };
  const w1 = skd.slider(box, "weight w1", { ...range, value: 1 }, show);
  const w2 = skd.slider(box, "weight w2", { ...range, value: -1 }, show);
  const b = skd.slider(box, "bias b", { ...range, value: 0.5 }, show);
  const fill = skd.table(box, ["x1, x2", "z", "neuron", "wanted", ""]);
  const says = skd.says(box);

  function compute() {
    return ([x, y]) => w1.get() * x + w2.get() * y + b.get();
  }

  function show() {
    const wanted = tables[chosen];
    const sums = inputs.map(compute());
    const right = sums.map((z, i) => Number(z > 0) === wanted[i]);
    buttons.forEach((each) => each.setAttribute("aria-pressed", each.textContent === chosen));
    fill(
      inputs.map((x, i) => {
        const mark = right[i] ? { text: "right", name: "skd-right" } : "wrong";
        return [x.join(", "), skd.write(sums[i]), String(Number(sums[i] > 0)), String(wanted[i]), mark];
      }),
    );
    const count = right.filter(Boolean).length;
    const dashed = chosen === "AND" ? " The dashed line is the learned one." : "";
    says.textContent = `${count} of 4 rows of ${chosen} are right.${dashed}`;
    plane.draw();
  }
  show();
}
