/* The points, written into the canvas's pixels one by one. Of the ways to draw ten thousand round
   dots this takes least, most of all where no graphics card helps: a canvas's own circles, or small
   images, take several times as long as a frame lasts. */

const FINE = 8; /* parts of a pixel's side by which an edge is measured */
const WHOLE = 128; /* so that a colour times a share is a small integer: the engine is fast with those */
const FAINT = 0.14;
const LARGEST = 24; /* radius in pixels of the screen; so far a dot may hang over the edge */

export class Dots {
  constructor() {
    this.resize(1, 1);
  }

  /* In pixels of the screen. Around the canvas there is room, so that no dot need be cut. */
  resize(width, height) {
    [this.width, this.height] = [width, height];
    this.stride = width + 2 * LARGEST;
    this.image = new ImageData(this.stride, height + 2 * LARGEST);
    this.pixels = new Int32Array(this.image.data.buffer);
    this.stamp = this.seen = null;
  }

  /* colours: of the classes, as numbers. lit: a class that stands out, or -1. */
  paint(field, view, ratio, size, { colours, ground, lit }) {
    this.pixels.fill(ground);
    this.prepare(Math.min(size * ratio, LARGEST - 2));
    if (lit < 0) {
      this.each(field, view, ratio, field.shown, colours);
      return;
    }
    const faint = colours.map((colour) => mixed(ground, colour, Math.round(WHOLE * FAINT)));
    this.each(field, view, ratio, field.shown.map((is, number) => is && number !== lit), faint);
    this.each(field, view, ratio, field.shown.map((is, number) => is && number === lit), colours);
  }

  put(context) {
    context.putImageData(this.image, -LARGEST, -LARGEST, LARGEST, LARGEST, this.width, this.height);
  }

  each({ x, y, numbers, order }, view, ratio, drawn, colours) {
    const unit = view.unit * ratio;
    const [left, top] = [view.across(0) * ratio + LARGEST, view.down(0) * ratio + LARGEST];
    const { stride, stamp: { half } } = this;
    const [lastColumn, lastRow] = [stride - half - 1, this.height + 2 * LARGEST - half - 1];
    for (const point of order) {
      if (!drawn[numbers[point]]) continue;
      const column = Math.floor(left + x[point] * unit);
      const row = Math.floor(top + y[point] * unit);
      if (column < half || row < half || column > lastColumn || row > lastRow) continue;
      this.press(row * stride + column, colours[numbers[point]]);
    }
  }

  press(middle, colour) {
    const { pixels, stamp: { full, edge, shares } } = this;
    for (let at = 0; at < full.length; at++) pixels[middle + full[at]] = colour;
    for (let at = 0; at < edge.length; at++) {
      const place = middle + edge[at];
      pixels[place] = mixed(pixels[place], colour, shares[at]);
    }
  }

  /* Which pixels a dot covers, from its middle one: wholly, or with which share of WHOLE. */
  prepare(radius) {
    if (this.stamp?.radius === radius) return;
    const half = Math.ceil(radius + 0.5);
    const [full, edge, shares] = [[], [], []];
    for (let row = -half; row <= half; row++) {
      for (let column = -half; column <= half; column++) {
        const share = covered(column, row, radius);
        const place = row * this.stride + column;
        if (share === 1) full.push(place);
        else if (share > 0) {
          edge.push(place);
          shares.push(Math.round(WHOLE * share));
        }
      }
    }
    this.stamp = { radius, half, full, edge, shares };
  }
}

function covered(column, row, radius) {
  const far = Math.hypot(column, row);
  if (Math.abs(far - radius) > 1) return far < radius ? 1 : 0;
  let count = 0;
  for (let part = 0; part < FINE * FINE; part++) {
    const across = column + ((part % FINE) + 0.5) / FINE - 0.5;
    const down = row + (Math.floor(part / FINE) + 0.5) / FINE - 0.5;
    if (Math.hypot(across, down) <= radius) count++;
  }
  return count / (FINE * FINE);
}

/* A colour over another, with a share of WHOLE; as a pixel of the canvas, red in the lowest byte. */
function mixed(under, over, share) {
  const rest = WHOLE - share;
  const redAndBlue = ((under & 0xff00ff) * rest + (over & 0xff00ff) * share) >> 7;
  const green = ((under & 0x00ff00) * rest + (over & 0x00ff00) * share) >> 7;
  return 0xff000000 | (redAndBlue & 0xff00ff) | (green & 0x00ff00);
}

/* From #rrggbb. */
export function pixelOf(colour) {
  const [red, green, blue] = [1, 3, 5].map((at) => parseInt(colour.slice(at, at + 2), 16));
  return 0xff000000 | (blue << 16) | (green << 8) | red;
}
