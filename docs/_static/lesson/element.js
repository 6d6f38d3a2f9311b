/* What the elements of the lesson are made of: sliders, buttons, a canvas that follows the theme. */
"use strict";

const skd = {
  make(parent, tag, attributes = {}, text = "") {
    const node = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
    node.textContent = text;
    parent.append(node);
    return node;
  },

  read(id) {
    return JSON.parse(document.getElementById(id).textContent);
  },

  write(number, digits = 2) {
    return number.toFixed(digits).replace(/^-0(\.0*)?$/, "0$1").replace("-", "\u2212");
  },

  slider(parent, name, { min, max, step, value, digits = 2 }, changed) {
    const row = skd.make(parent, "label", { class: "skd-slider" });
    skd.make(row, "span", {}, name);
    const input = skd.make(row, "input", { type: "range", min, max, step, value });
    const output = skd.make(row, "output");
    const show = () => (output.textContent = skd.write(Number(input.value), digits));
    input.addEventListener("input", () => (show(), changed()));
    show();
    return {
      get: () => Number(input.value),
      set: (number) => ((input.value = number), show()),
    };
  },

  button(parent, name, pressed) {
    const button = skd.make(parent, "button", { type: "button" }, name);
    button.addEventListener("click", pressed);
    return button;
  },

  says(parent) {
    return skd.make(parent, "p", { class: "skd-says", role: "status", "aria-live": "polite" });
  },

  color(name) {
    return getComputedStyle(document.documentElement).getPropertyValue(`--skd-${name}`).trim();
  },

  /* A square canvas that shows the plane from low to high in both directions, x2 upwards. */
  plane(parent, label, low, high, draw) {
    const size = 384;
    const scale = Math.min(2, window.devicePixelRatio || 1);
    const canvas = skd.make(parent, "canvas", { role: "img", "aria-label": label });
    canvas.width = canvas.height = size * scale;
    const context = canvas.getContext("2d");
    const at = (x) => ((x - low) / (high - low)) * size;
    const plane = {
      context,
      point: (x, y) => [at(x), size - at(y)],
      dot(x, y, color, radius = 8) {
        context.beginPath();
        context.arc(...plane.point(x, y), radius, 0, 2 * Math.PI);
        context.fillStyle = color;
        context.fill();
      },
      path(points, color, width = 2, dash = []) {
        context.beginPath();
        for (const [x, y] of points) context.lineTo(...plane.point(x, y));
        context.strokeStyle = color;
        context.lineWidth = width;
        context.setLineDash(dash);
        context.stroke();
        context.setLineDash([]);
      },
      circle(radius) {
        const turn = Array.from({ length: 101 }, (_, i) => (i * Math.PI) / 50);
        const points = turn.map((t) => [radius * Math.cos(t), radius * Math.sin(t)]);
        plane.path(points, skd.color("ink"), 1.5, [3, 4]);
      },
      /* Where w1 x + w2 y + b is 0. */
      line([w1, w2], b, color, width = 2, dash = []) {
        const far = 10 * (high - low);
        const squared = w1 * w1 + w2 * w2;
        if (squared === 0) return;
        const [x, y] = [(-b * w1) / squared, (-b * w2) / squared];
        const length = Math.sqrt(squared);
        const [dx, dy] = [(-w2 / length) * far, (w1 / length) * far];
        plane.path([[x - dx, y - dy], [x + dx, y + dy]], color, width, dash);
      },
      /* Shade n by n fields by a probability. */
      field(n, probability) {
        const mix = skd.mixer();
        const side = size / n;
        for (let row = 0; row < n; row++) {
          for (let column = 0; column < n; column++) {
            context.fillStyle = mix(probability(row, column));
            context.fillRect(column * side, size - (row + 1) * side, side + 0.6, side + 0.6);
          }
        }
      },
      /* Draw where the probability is one half, between the middles of neighbouring fields. */
      edge(n, probability) {
        const place = (i) => low + ((i + 0.5) * (high - low)) / n;
        const sides = [[0, 0, 0, 1], [0, 1, 1, 1], [1, 1, 1, 0], [1, 0, 0, 0]];
        for (let row = 0; row + 1 < n; row++) {
          for (let column = 0; column + 1 < n; column++) {
            const crossed = [];
            for (const [r0, c0, r1, c1] of sides) {
              const from = probability(row + r0, column + c0) - 0.5;
              const to = probability(row + r1, column + c1) - 0.5;
              if (from > 0 === to > 0) continue;
              const share = from / (from - to);
              const along = (start, i, j) => place(start + i + share * (j - i));
              crossed.push([along(column, c0, c1), along(row, r0, r1)]);
            }
            for (let i = 0; i + 1 < crossed.length; i += 2)
              plane.path(crossed.slice(i, i + 2), skd.color("ink"));
          }
        }
      },
      draw() {
        context.setTransform(scale, 0, 0, scale, 0, 0);
        context.clearRect(0, 0, size, size);
        draw(plane);
      },
    };
    new MutationObserver(plane.draw).observe(document.documentElement, {
      attributeFilter: ["data-theme"],
    });
    return plane;
  },

  /* A function from a probability to its colour: that of the pictures. */
  mixer() {
    const parse = (name) => skd.color(name).match(/\w\w/g).map((part) => parseInt(part, 16));
    const [low, middle, high] = ["low", "middle", "high"].map(parse);
    return (q) => {
      const [end, share] = q < 0.5 ? [low, 1 - 2 * q] : [high, 2 * q - 1];
      const parts = middle.map((m, i) => Math.round(m + share * (end[i] - m)));
      return `rgb(${parts.join(",")})`;
    };
  },

  table(parent, titles) {
    const table = skd.make(parent, "table", { class: "skd-table" });
    const head = skd.make(skd.make(table, "thead"), "tr");
    for (const title of titles) skd.make(head, "th", { scope: "col" }, title);
    const body = skd.make(table, "tbody");
    return (rows) => {
      body.replaceChildren();
      for (const cells of rows) {
        const row = skd.make(body, "tr");
        for (const cell of cells) {
          const { text, name = "" } = typeof cell === "string" ? { text: cell } : cell;
          skd.make(row, "td", { class: name }, text);
        }
      }
    };
  },
};
