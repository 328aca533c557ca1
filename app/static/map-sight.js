/* What is seen of the map: the canvas, its size and colours, the names, and moving and magnifying. */

import { Dots } from "./map-dots.js";
import { draw, fontOf } from "./map-drawing.js";
import { placeNames } from "./map-names.js";
import { MOST, View } from "./map-view.js";

const SETTLED = 120; /* milliseconds after which names find new places */
const GLIDE = 180;

const dark = matchMedia("(prefers-color-scheme: dark)");
const calm = matchMedia("(prefers-reduced-motion: reduce)");

/* Whoever extends it says what colours classes have, and is told when the view has changed, and when
   it has stopped gliding. */
export class Sight {
  constructor(canvas, field) {
    this.canvas = canvas;
    this.field = field;
    this.context = canvas.getContext("2d");
    this.view = new View(field.scale);
    this.dots = new Dots();
    this.names = [];
    this.ringed = this.lit = -1;
    this.region = this.draft = this.cursor = null;
    new ResizeObserver(() => this.resize()).observe(canvas);
    addEventListener("resize", () => this.resize());
    dark.addEventListener("change", () => this.paint());
  }

  paint() {
    const style = getComputedStyle(document.documentElement);
    const token = (name) => style.getPropertyValue(`--${name}`).trim();
    this.tokens = { ink: token("ink"), card: token("card"), link: token("link") };
    this.colours = this.coloursOf(dark.matches);
    this.redraw();
  }

  resize() {
    const { clientWidth: width, clientHeight: height } = this.canvas;
    const ratio = devicePixelRatio;
    if (this.view.width === width && this.view.height === height && this.ratio === ratio) return;
    Object.assign(this.view, { width, height });
    this.ratio = ratio;
    const size = [width, height].map((side) => Math.round(side * ratio));
    [this.canvas.width, this.canvas.height] = size;
    this.dots.resize(...size);
    this.rename();
    this.drawNow();
  }

  redraw() {
    this.frame ??= requestAnimationFrame(() => this.drawNow());
  }

  drawNow() {
    cancelAnimationFrame(this.frame);
    this.frame = null;
    draw(this.context, { ...this, region: this.draft ?? this.region });
  }

  /* Names keep their places while the map moves, and find new ones when it rests. */
  rename() {
    this.context.font = fontOf(this.view);
    const widthOf = (label) => this.context.measureText(label).width;
    this.names = placeNames(this.field, this.view, widthOf, this.names);
    this.redraw();
  }

  moved() {
    this.redraw();
    clearTimeout(this.settling);
    this.settling = setTimeout(() => this.rename(), SETTLED);
    this.seen();
  }

  /* Whoever moves the map by hand ends what still glides. */
  move(across, down) {
    this.gliding = this.target = null;
    this.view.move(across, down);
    this.moved();
  }

  zoomAbout(across, down, factor) {
    this.gliding = this.target = null;
    this.view.zoomAbout(across, down, factor);
    this.moved();
  }

  /* Pressed again while it still glides, it goes on from where that leads. */
  zoomBy(factor) {
    const { width, height, zoom } = this.view;
    const [across, down] = this.cursor ?? [width / 2, height / 2];
    const target = Math.min(Math.max((this.target ?? zoom) * factor, 1), MOST);
    this.glide((share) => this.view.zoomAbout(
      across, down, (zoom * (target / zoom) ** share) / this.view.zoom), target);
  }

  showWhole() {
    const { x, y, zoom, scale } = this.view;
    const between = (from, to, share) => from + (to - from) * share;
    this.glide((share) => this.view.to(
      between(x, scale / 2, share), between(y, scale / 2, share), zoom ** (1 - share)));
  }

  glide(to, target = null) {
    const start = performance.now();
    const gliding = (this.gliding = {});
    this.target = target;
    const step = (now) => {
      if (this.gliding !== gliding) return;
      const share = calm.matches ? 1 : Math.min(Math.max((now - start) / GLIDE, 0), 1);
      to(1 - (1 - share) ** 3);
      this.moved();
      if (share < 1) requestAnimationFrame(step);
      else this.stop();
    };
    step(start);
  }

  stop() {
    this.gliding = this.target = null;
    this.stopped();
  }
}
