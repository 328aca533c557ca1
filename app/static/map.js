/* The map of the training images. This file holds what is pointed at and selected; the others
   show it, follow pointers and keys, and list what was selected. */

import * as address from "./map-address.js";
import { Card } from "./map-card.js";
import { Chosen } from "./map-chosen.js";
import { radius } from "./map-drawing.js";
import { Field } from "./map-field.js";
import { followKeys, followPointers } from "./map-hand.js";
import { Legend } from "./map-legend.js";
import { Sight } from "./map-sight.js";

const REACH = 8; /* pixels from a point at which the pointer finds it */
const WIDE = 40; /* the same for the keyboard */
const RESTS = 120; /* milliseconds on one image after which it is said aloud */
const BY_BUTTON = 1.6;

const stage = document.querySelector(".stage");
const said = document.querySelector(".under .said");

if (stage) {
  stage.querySelector(".failed button").addEventListener("click", () => location.reload());
  load();
}

async function load() {
  const sent = await fetched();
  if (!sent) fail("The points of the map could not be loaded.");
  else if (sent.version !== stage.dataset.version) fail("The index was built anew meanwhile.");
  else {
    stage.querySelector(".wait").hidden = true;
    new Chart(new Field(sent));
  }
}

async function fetched() {
  try {
    const answer = await fetch(stage.dataset.points);
    return answer.ok ? await answer.json() : null;
  } catch {
    return null;
  }
}

function fail(why) {
  stage.querySelector(".wait").hidden = true;
  stage.querySelector(".failed").hidden = false;
  stage.querySelector(".why").textContent = why;
}

class Chart extends Sight {
  constructor(field) {
    super(stage.querySelector("canvas"), field);
    this.card = new Card(stage);
    this.chosen = new Chosen(document.querySelector(".picking").closest("section"), field, stage);
    this.legend = new Legend(document.querySelector(".key").closest("section"), field,
      () => this.reclassed(), (number) => this.light(number));
    this.selecting = false;
    this.marking = this.corner = null;
    this.prepare();
    this.restore(address.read());
  }

  prepare() {
    followPointers(this.canvas, this);
    followKeys(this.canvas, this);
    this.prepareTools();
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

  coloursOf(dark) {
    return this.legend.colours(dark);
  }

  seen() {
    address.write(this.view, this.region, this.legend);
  }

  stopped() {
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
    }, RESTS);
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
