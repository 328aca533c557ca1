/* The map of the training images. This file holds what is seen and selected; the others draw it,
   follow pointers and keys, and list what was selected. */

import * as address from "./map-address.js";
import { Card } from "./map-card.js";
import { Chosen } from "./map-chosen.js";
import { Dots } from "./map-dots.js";
import { draw, fontOf, radius } from "./map-drawing.js";
import { Field } from "./map-field.js";
import { followKeys, followPointers } from "./map-hand.js";
import { Legend } from "./map-legend.js";
import { placeNames } from "./map-names.js";
import { View } from "./map-view.js";

const REACH = 8; /* pixels from a point at which the pointer finds it */
const WIDE = 40; /* the same for the keyboard */
const SETTLED = 120; /* milliseconds after which names find new places */
const GLIDE = 180;
const BY_BUTTON = 1.6;

const stage = document.querySelector(".stage");
const said = document.querySelector(".under .said");
const dark = matchMedia("(prefers-color-scheme: dark)");
const calm = matchMedia("(prefers-reduced-motion: reduce)");

if (stage) {
  stage.querySelector(".failed button").addEventListener("click", () => location.reload());
  load();
}

async function load() {
  try {
    const answer = await fetch(stage.dataset.points);
    if (!answer.ok) throw new Error(answer.statusText);
    const sent = await answer.json();
    if (sent.version !== stage.dataset.version) {
      fail("The index was built anew meanwhile.");
      return;
    }
    stage.querySelector(".wait").hidden = true;
    new Chart(new Field(sent));
  } catch {
    fail("The points of the map could not be loaded.");
  }
}

function fail(why) {
  stage.querySelector(".wait").hidden = true;
  stage.querySelector(".failed").hidden = false;
  stage.querySelector(".why").textContent = why;
}

class Chart {
  constructor(field) {
    this.field = field;
    this.view = new View(field.scale);
    this.canvas = stage.querySelector("canvas");
    this.context = this.canvas.getContext("2d");
    this.dots = new Dots();
    this.card = new Card(stage);
    this.chosen = new Chosen(document.querySelector(".picking").closest("section"), field, stage);
    this.legend = new Legend(document.querySelector(".key").closest("section"), field,
      () => this.reclassed(), (number) => this.light(number));
    this.names = [];
    this.ringed = this.lit = -1;
    this.selecting = false;
    this.marking = this.region = this.draft = this.cursor = this.corner = null;
    this.prepare();
    this.restore(address.read());
  }

  prepare() {
    followPointers(this.canvas, this);
    followKeys(this.canvas, this);
    this.prepareTools();
    new ResizeObserver(() => this.resize()).observe(this.canvas);
    addEventListener("resize", () => this.resize());
    dark.addEventListener("change", () => this.paint());
    this.paint();
    this.resize();
  }

  prepareTools() {
    const does = {
      in: () => this.zoomBy(BY_BUTTON),
      out: () => this.zoomBy(1 / BY_BUTTON),
      whole: () => this.showWhole(),
    };
    document.querySelectorAll("[data-zoom]").forEach((button) => {
      button.disabled = false;
      button.addEventListener("click", does[button.dataset.zoom]);
    });
    document.querySelectorAll("[data-mode]").forEach((button) => {
      button.disabled = false;
      button.addEventListener("click", () => this.turnTo(button.dataset.mode));
    });
  }

  restore({ shown, at, region }) {
    if (at) this.view.to(...at);
    this.region = region;
    this.legend.set(shown);
  }

  /* Drawing */

  paint() {
    const style = getComputedStyle(document.documentElement);
    const token = (name) => style.getPropertyValue(`--${name}`).trim();
    this.tokens = { ink: token("ink"), card: token("card"), link: token("link") };
    this.colours = this.legend.colours(dark.matches);
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
    address.write(this.view, this.region, this.legend);
  }

  /* What is seen */

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
    const target = (this.target ?? zoom) * factor;
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
      else this.stay();
    };
    step(start);
  }

  /* Whoever moves the map by hand ends what still glides. */
  stay() {
    this.gliding = this.target = null;
    if (this.cursor) this.aim(0, 0);
  }

  /* What is pointed at */

  find(across, down, reach) {
    const within = (Math.max(radius(this.field, this.view), 2) + reach) / this.view.unit;
    return this.field.nearest(...this.view.at(across, down), within);
  }

  pointAt(across, down) {
    this.cursor = null;
    this.ring(this.find(across, down, REACH), across, down);
  }

  ring(point, across, down, firm = false) {
    this.ringed = point;
    stage.classList.toggle("over", point >= 0 && !this.selecting);
    if (point < 0) this.card.hide();
    else this.card.show(this.field.ids[point], this.field.label(point), across, down, firm);
    this.redraw();
  }

  letGo() {
    if (this.ringed >= 0 && !this.cursor) this.ring(-1);
  }

  press(across, down, event) {
    const point = this.find(across, down, REACH);
    const touch = event.pointerType === "touch";
    /* A finger points and presses in one: the first tap points, the second opens. */
    if (touch && point !== this.ringed) this.ring(point, across, down, true);
    else if (point >= 0) this.open(point, event.ctrlKey || event.metaKey);
    else if (touch) this.ring(-1);
  }

  open(point, apart = false) {
    if (point < 0) return;
    const there = this.card.addressOf(this.field.ids[point]);
    if (apart) window.open(there, "_blank", "noopener");
    else location.assign(there);
  }

  light(number) {
    this.lit = number;
    this.redraw();
  }

  /* The keyboard's cursor: in the middle, unless it marks a region. */
  aim(across, down) {
    const { width, height } = this.view;
    const middle = [width / 2, height / 2];
    const marks = this.marking || this.selecting;
    const [x, y] = marks ? this.cursor ?? middle : middle;
    this.cursor = [inside(x + across, width), inside(y + down, height)];
    this.view.move(this.cursor[0] - x - across, this.cursor[1] - y - down);
    if (this.marking) this.stretch(this.corner, this.view.at(...this.cursor));
    this.ring(this.find(...this.cursor, WIDE), ...this.cursor);
    this.moved();
    if (!this.marking) this.announce();
  }

  announce() {
    clearTimeout(this.announcing);
    this.announcing = setTimeout(() => {
      if (!this.cursor || this.marking) return;
      const point = this.ringed;
      say(point < 0 ? "No image here" : `${this.field.label(point)}, image ${this.field.ids[point]}`);
    }, SETTLED);
  }

  /* A tap on the card takes the focus, too; then there is no cursor, and the card stays. */
  lookAway() {
    if (!this.cursor) return;
    if (this.marking) this.giveUp();
    this.cursor = null;
    this.letGo();
    this.redraw();
  }

  /* What is selected */

  turnTo(mode) {
    this.selecting = mode === "select";
    stage.classList.toggle("select", this.selecting);
    document.querySelectorAll("[data-mode]").forEach((button) => {
      button.ariaPressed = String(button.dataset.mode === mode);
    });
  }

  mark(by) {
    this.cursor ??= [this.view.width / 2, this.view.height / 2];
    this.marking = by;
    this.corner = this.view.at(...this.cursor);
    say("Region begun: arrows stretch it, Enter ends it");
    this.redraw();
  }

  stretch([x, y], [toX, toY]) {
    this.draft = {
      left: Math.round(Math.min(x, toX)),
      top: Math.round(Math.min(y, toY)),
      right: Math.round(Math.max(x, toX)),
      bottom: Math.round(Math.max(y, toY)),
    };
    this.redraw();
  }

  finish() {
    if (this.draft) this.select(this.draft);
    this.giveUp();
  }

  giveUp() {
    this.marking = this.draft = this.corner = null;
    this.redraw();
  }

  select(region) {
    this.region = region;
    say(this.chosen.show(region ? this.field.inside(region) : [], region));
    address.write(this.view, region, this.legend);
    this.redraw();
  }

  escape() {
    if (this.draft || this.marking) this.giveUp();
    else if (!this.card.element.hidden) this.card.hide();
    else this.select(null);
  }

  /* Classes that are hidden are not selected either. */
  reclassed() {
    this.letGo();
    this.select(this.region);
    this.rename();
  }
}

const inside = (value, most) => Math.min(Math.max(value, 0), most);

function say(sentence) {
  said.textContent = sentence;
}
