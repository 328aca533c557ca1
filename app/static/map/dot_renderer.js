/* Draws the points by writing pixels directly. Of the ways to draw ten thousand round dots this is
   the fastest, most of all without a graphics card: canvas arcs, or small images, take several times
   as long as a frame. */

const SUBSAMPLES = 8; /* per side of a pixel, to antialias edges */
const OPAQUE = 128; /* small enough that colour × alpha stays a small integer, which engines do fast */
const DIMMED = 0.14;
const PADDING = 24; /* screen pixels around the canvas, and so the largest radius */

export class DotRenderer {
  constructor() {
    this.resize(1, 1);
  }

  /* Sizes in screen pixels. The buffer is padded so that no dot has to be clipped. */
  resize(width, height) {
    [this.width, this.height] = [width, height];
    this.stride = width + 2 * PADDING;
    this.image = new ImageData(this.stride, height + 2 * PADDING);
    this.pixels = new Int32Array(this.image.data.buffer);
    this.stamp = this.rendered = null;
  }

  /* colours: one a class, as numbers. highlighted: the class that stands out, or -1. */
  render(points, viewport, ratio, radius, { colours, background, highlighted }) {
    this.pixels.fill(background);
    this.prepareStamp(Math.min(radius * ratio, PADDING - 2));
    const { visible } = points;
    if (highlighted < 0) {
      this.drawClasses(points, viewport, ratio, visible, colours);
      return;
    }
    const dimmed = colours.map((colour) => blend(background, colour, Math.round(OPAQUE * DIMMED)));
    this.drawClasses(points, viewport, ratio, visible.map((is, index) => is && index !== highlighted), dimmed);
    this.drawClasses(points, viewport, ratio, visible.map((is, index) => is && index === highlighted), colours);
  }

  copyTo(context) {
    context.putImageData(this.image, -PADDING, -PADDING, PADDING, PADDING, this.width, this.height);
  }

  drawClasses({ x, y, classIndex, drawOrder }, viewport, ratio, drawn, colours) {
    const unit = viewport.pixelsPerUnit * ratio;
    const [left, top] = [viewport.toPixelX(0) * ratio + PADDING, viewport.toPixelY(0) * ratio + PADDING];
    const { stride, stamp: { half } } = this;
    const [lastColumn, lastRow] = [stride - half - 1, this.height + 2 * PADDING - half - 1];
    for (const point of drawOrder) {
      if (!drawn[classIndex[point]]) continue;
      const column = Math.floor(left + x[point] * unit);
      const row = Math.floor(top + y[point] * unit);
      if (column < half || row < half || column > lastColumn || row > lastRow) continue;
      this.drawStamp(row * stride + column, colours[classIndex[point]]);
    }
  }

  drawStamp(centre, colour) {
    const { pixels, stamp: { inner, edge, alphas } } = this;
    for (let at = 0; at < inner.length; at++) pixels[centre + inner[at]] = colour;
    for (let at = 0; at < edge.length; at++) {
      const pixel = centre + edge[at];
      pixels[pixel] = blend(pixels[pixel], colour, alphas[at]);
    }
  }

  /* The pixels a dot covers, as offsets from its centre: fully, or with an alpha up to OPAQUE. */
  prepareStamp(radius) {
    if (this.stamp?.radius === radius) return;
    const half = Math.ceil(radius + 0.5);
    const [inner, edge, alphas] = [[], [], []];
    for (let row = -half; row <= half; row++) {
      for (let column = -half; column <= half; column++) {
        const share = coverage(column, row, radius);
        const offset = row * this.stride + column;
        if (share === 1) inner.push(offset);
        else if (share > 0) {
          edge.push(offset);
          alphas.push(Math.round(OPAQUE * share));
        }
      }
    }
    this.stamp = { radius, half, inner, edge, alphas };
  }
}

/* The share of a pixel inside a disc around the origin, 0–1. */
function coverage(column, row, radius) {
  const distance = Math.hypot(column, row);
  if (Math.abs(distance - radius) > 1) return distance < radius ? 1 : 0;
  let count = 0;
  for (let sample = 0; sample < SUBSAMPLES * SUBSAMPLES; sample++) {
    const x = column + ((sample % SUBSAMPLES) + 0.5) / SUBSAMPLES - 0.5;
    const y = row + (Math.floor(sample / SUBSAMPLES) + 0.5) / SUBSAMPLES - 0.5;
    if (Math.hypot(x, y) <= radius) count++;
  }
  return count / (SUBSAMPLES * SUBSAMPLES);
}

/* One colour over another; alpha up to OPAQUE. Colours are canvas pixels, red in the lowest byte. */
function blend(under, over, alpha) {
  const rest = OPAQUE - alpha;
  const redAndBlue = ((under & 0xff00ff) * rest + (over & 0xff00ff) * alpha) >> 7;
  const green = ((under & 0x00ff00) * rest + (over & 0x00ff00) * alpha) >> 7;
  return 0xff000000 | (redAndBlue & 0xff00ff) | (green & 0x00ff00);
}

/* From #rrggbb. */
export function toPixelValue(colour) {
  const [red, green, blue] = [1, 3, 5].map((at) => parseInt(colour.slice(at, at + 2), 16));
  return 0xff000000 | (blue << 16) | (green << 8) | red;
}
