/* Draws the points by writing pixels directly, into a picture that reaches beyond the canvas on all
   sides. Of the ways to draw round dots without a graphics card this is the fastest: canvas arcs, or
   small images, take several times as long. What does not fit into one frame is continued in the
   next; meanwhile the last picture is shown, moved and scaled as the map has been. So the map follows
   the hand at any number of points, and its dots are exact as soon as it rests. */

import { DIMMED, HIDDEN, SHADES } from "./points.js";

const SUBSAMPLES = 8; /* per side of a pixel, to antialias edges */
const OPAQUE = 128; /* small enough that colour × alpha stays a small integer, which engines do fast */
const DIMMED_SHARE = 0.14;
const MIN_PADDING = 24; /* screen pixels around the canvas, and so the largest radius */
const PADDING_SHARE = 1 / 8; /* of the longer side, for what comes into view while it is dragged */
const POINTS_PER_CHECK = 512; /* points drawn between two looks at the clock */

export class DotRenderer {
  constructor() {
    this.picture = document.createElement("canvas");
    this.context = this.picture.getContext("2d");
    this.resize(1, 1);
  }

  /* Sizes in screen pixels. The picture is padded so that no dot has to be clipped. */
  resize(width, height) {
    [this.width, this.height] = [width, height];
    this.padding = Math.max(MIN_PADDING, Math.round(Math.max(width, height) * PADDING_SHARE));
    this.stride = width + 2 * this.padding;
    this.rows = height + 2 * this.padding;
    [this.picture.width, this.picture.height] = [this.stride, this.rows];
    this.image = new ImageData(this.stride, this.rows);
    this.pixels = new Int32Array(this.image.data.buffer);
    this.stamp = this.job = this.drawn = this.drawnKey = null;
  }

  /* Begin to draw, unless that is what is drawn, or being drawn. view: { left, top, unit }, the
     map's origin and unit in screen pixels. style: { radius, colours, background }, colours as
     pixel values. A drawing for another view is finished first, since the next view will differ
     again while the map moves; one for other colours is not. */
  start(points, view, style) {
    const looks = [points.revision, style.radius, style.background, ...style.colours].join();
    const key = [view.left, view.top, view.unit, looks].join();
    if (this.job ? this.job.looks === looks : this.drawnKey === key) return;
    this.pixels.fill(style.background);
    this.prepareStamp(Math.min(style.radius, MIN_PADDING - 2));
    const dimmed = style.colours.map((colour) => blend(style.background, colour, Math.round(OPAQUE * DIMMED_SHARE)));
    const passes = SHADES.filter((shade) => shade !== HIDDEN && points.shadeCounts[shade]);
    this.job = { points, view, key, looks, passes, dimmed, colours: style.colours, at: 0 };
  }

  /* Draw on until a time; whether all is drawn. */
  continueUntil(deadline) {
    const { job } = this;
    if (!job) return true;
    while (job.passes.length) {
      if (!this.drawSome(job)) {
        job.passes.shift();
        job.at = 0;
      }
      if (job.passes.length && performance.now() > deadline) return false;
    }
    this.context.putImageData(this.image, 0, 0);
    [this.drawn, this.drawnKey, this.job] = [job.view, job.key, null];
    return true;
  }

  /* Show the picture as the view has it now. */
  paint(context, view, background) {
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.fillStyle = background;
    const scale = this.drawn ? view.unit / this.drawn.unit : 1;
    const place = (now, then) => now - (then + this.padding) * scale;
    if (!this.drawn || scale !== 1 || !this.covers(view)) context.fillRect(0, 0, this.width, this.height);
    if (!this.drawn) return;
    let [x, y] = [place(view.left, this.drawn.left), place(view.top, this.drawn.top)];
    if (scale === 1) [x, y] = [Math.round(x), Math.round(y)];
    context.imageSmoothingEnabled = scale !== 1;
    context.drawImage(this.picture, x, y, this.stride * scale, this.rows * scale);
  }

  covers(view) {
    return Math.abs(view.left - this.drawn.left) < this.padding && Math.abs(view.top - this.drawn.top) < this.padding;
  }

  /* The next points of a pass; whether any are left in it. */
  drawSome(job) {
    const { points: { x, y, shades, colourIndex, drawOrder }, view: { left, top, unit }, passes: [shade] } = job;
    const { stride, padding, stamp: { half } } = this;
    const colours = shade === DIMMED ? job.dimmed : job.colours;
    const [lastColumn, lastRow] = [stride - half - 1, this.rows - half - 1];
    const end = Math.min(job.at + POINTS_PER_CHECK, drawOrder.length);
    for (; job.at < end; job.at++) {
      const point = drawOrder[job.at];
      if (shades[point] !== shade) continue;
      const column = Math.floor(left + padding + x[point] * unit);
      const row = Math.floor(top + padding + y[point] * unit);
      if (column < half || row < half || column > lastColumn || row > lastRow) continue;
      this.drawStamp(row * stride + column, colours[colourIndex[point]]);
    }
    return job.at < drawOrder.length;
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
