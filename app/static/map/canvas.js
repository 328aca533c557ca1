/* The map's canvas: its size, colours and labels, and panning and zooming. */

import { DotRenderer } from "./dot_renderer.js";
import { drawScene, labelFont } from "./drawing.js";
import { placeLabels } from "./labels.js";
import { Thumbnails } from "./thumbnails.js";
import { MAX_ZOOM, Viewport } from "./viewport.js";

const LABEL_DELAY = 120; /* milliseconds after which labels find new places */
const ANIMATION = 180; /* milliseconds */

const darkScheme = matchMedia("(prefers-color-scheme: dark)");
const reducedMotion = matchMedia("(prefers-reduced-motion: reduce)");

/* A subclass gives classColours(dark), as #rrggbb, and may handle onViewChange() and onAnimationEnd(). */
export class MapCanvas {
  constructor(canvas, points) {
    this.canvas = canvas;
    this.points = points;
    this.context = canvas.getContext("2d");
    this.viewport = new Viewport(points.scale);
    this.dots = new DotRenderer();
    this.thumbnails = new Thumbnails(canvas.parentElement, () => this.requestDraw());
    this.labels = [];
    this.hovered = -1;
    this.region = this.draft = this.cursor = null;
    new ResizeObserver(() => this.resize()).observe(canvas);
    addEventListener("resize", () => this.resize());
    darkScheme.addEventListener("change", () => this.applyTheme());
  }

  applyTheme() {
    const style = getComputedStyle(document.documentElement);
    const token = (name) => style.getPropertyValue(`--${name}`).trim();
    this.theme = { ink: token("ink"), card: token("card"), link: token("link") };
    /* After the classes: another class, and label and prediction agreeing and disagreeing. */
    this.colours = [...this.classColours(darkScheme.matches), token("muted"), token("agreeing"), token("ink")];
    this.requestDraw();
  }

  resize() {
    const { clientWidth: width, clientHeight: height } = this.canvas;
    const ratio = devicePixelRatio;
    if (this.viewport.width === width && this.viewport.height === height && this.ratio === ratio) return;
    Object.assign(this.viewport, { width, height });
    this.ratio = ratio;
    const size = [width, height].map((side) => Math.round(side * ratio));
    [this.canvas.width, this.canvas.height] = size;
    this.dots.resize(...size);
    this.updateLabels();
    this.draw();
  }

  requestDraw() {
    this.frame ??= requestAnimationFrame(() => this.draw());
  }

  draw() {
    cancelAnimationFrame(this.frame);
    this.frame = null;
    const complete = drawScene(this.context, { ...this, region: this.draft ?? this.region });
    if (!complete) this.requestDraw();
  }

  /* Labels keep their places while the map moves and find new ones when it rests. */
  updateLabels() {
    this.context.font = labelFont(this.viewport);
    const measureWidth = (label) => this.context.measureText(label).width;
    this.labels = placeLabels(this.points, this.viewport, measureWidth, this.labels);
    this.requestDraw();
  }

  viewChanged() {
    this.requestDraw();
    clearTimeout(this.labelTimer);
    this.labelTimer = setTimeout(() => this.updateLabels(), LABEL_DELAY);
    this.onViewChange();
  }

  /* Moving the map by hand ends a running animation. */
  panBy(pixelsX, pixelsY) {
    this.animation = this.targetZoom = null;
    this.viewport.panBy(pixelsX, pixelsY);
    this.viewChanged();
  }

  zoomAt(pixelX, pixelY, factor) {
    this.animation = this.targetZoom = null;
    this.viewport.zoomAt(pixelX, pixelY, factor);
    this.viewChanged();
  }

  /* Called again during an animation, it continues from that animation's target. */
  zoomBy(factor) {
    const { width, height, zoom } = this.viewport;
    const [x, y] = this.cursor ?? [width / 2, height / 2];
    const target = Math.min(Math.max((this.targetZoom ?? zoom) * factor, 1), MAX_ZOOM);
    this.animate((share) => this.viewport.zoomAt(
      x, y, (zoom * (target / zoom) ** share) / this.viewport.zoom), target);
  }

  showWholeMap() {
    const { x, y, zoom, scale } = this.viewport;
    const between = (from, to, share) => from + (to - from) * share;
    this.animate((share) => this.viewport.moveTo(
      between(x, scale / 2, share), between(y, scale / 2, share), zoom ** (1 - share)));
  }

  /* moveView(share): move the view to a share of the way, 0–1. */
  animate(moveView, targetZoom = null) {
    const start = performance.now();
    const animation = (this.animation = {});
    this.targetZoom = targetZoom;
    const step = (now) => {
      if (this.animation !== animation) return;
      const share = reducedMotion.matches ? 1 : Math.min(Math.max((now - start) / ANIMATION, 0), 1);
      moveView(1 - (1 - share) ** 3);
      this.viewChanged();
      if (share < 1) requestAnimationFrame(step);
      else {
        this.animation = this.targetZoom = null;
        this.onAnimationEnd();
      }
    };
    step(start);
  }
}
