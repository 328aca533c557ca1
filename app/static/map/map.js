/* The map of the training images. This module holds what is hovered and selected; the others draw
   it, handle input, and list the selected images. */

import { MapCanvas } from "./canvas.js";
import { dotRadius } from "./drawing.js";
import { handleKeys, handlePointers } from "./input.js";
import { Legend } from "./legend.js";
import { ANY, NOT_LABEL, Points, decodePoints } from "./points.js";
import { Preview } from "./preview.js";
import { Selection } from "./selection.js";
import { readUrlState, writeUrlState } from "./url_state.js";

const HOVER_DISTANCE = 8; /* pixels from a point at which the pointer finds it */
const CURSOR_DISTANCE = 40; /* the same for the keyboard's cursor */
const ANNOUNCE_DELAY = 120; /* milliseconds on one image before it is announced */
const BUTTON_ZOOM = 1.6;

const stage = document.querySelector(".stage");
const status = document.querySelector(".under .status");

if (stage) {
  stage.querySelector(".failed button").addEventListener("click", () => location.reload());
  load();
}

async function load() {
  const data = await fetchPoints();
  if (!data) showFailure("The points of the map could not be loaded.");
  else if (data.version !== stage.dataset.version) showFailure("The index has been rebuilt since this page was loaded.");
  else {
    stage.querySelector(".wait").hidden = true;
    new TrainingMap(new Points(data));
  }
}

async function fetchPoints() {
  try {
    const response = await fetch(stage.dataset.points);
    return response.ok ? decodePoints(await response.arrayBuffer()) : null;
  } catch {
    return null;
  }
}

function showFailure(reason) {
  stage.querySelector(".wait").hidden = true;
  stage.querySelector(".failed").hidden = false;
  stage.querySelector(".reason").textContent = reason;
}

class TrainingMap extends MapCanvas {
  constructor(points) {
    super(stage.querySelector("canvas"), points);
    this.preview = new Preview(stage);
    this.selection = new Selection(document.querySelector(".selection").closest("section"), points, stage);
    this.choices = readChoices();
    this.legend = new Legend(document.querySelector(".key").closest("section"), points,
      () => this.visibilityChanged(), (index) => this.highlight(index));
    this.selecting = false;
    this.regionKey = this.corner = null;
    handlePointers(this.canvas, this);
    handleKeys(this.canvas, this);
    this.enableTools();
    this.applyTheme();
    this.resize();
    this.restore(readUrlState());
  }

  enableTools() {
    const actions = {
      in: () => this.zoomBy(BUTTON_ZOOM),
      out: () => this.zoomBy(1 / BUTTON_ZOOM),
      whole: () => this.showWholeMap(),
    };
    document.querySelectorAll("[data-zoom]").forEach((button) => {
      button.disabled = false;
      button.addEventListener("click", actions[button.dataset.zoom]);
    });
    document.querySelectorAll("[data-mode]").forEach((button) => {
      button.disabled = false;
      button.addEventListener("click", () => this.setMode(button.dataset.mode));
    });
    Object.values(this.choices).forEach((choice) => {
      choice.disabled = false;
      choice.addEventListener("change", () => this.choose());
    });
  }

  restore({ isVisible, at, region, ...chosen }) {
    if (at) this.viewport.moveTo(...at);
    this.region = region;
    Object.entries(this.choices).forEach(([name, choice]) => {
      const known = [...choice.options].some((option) => option.value === chosen[name]);
      choice.value = known ? chosen[name] : "";
    });
    this.readChosen();
    this.legend.setVisible(isVisible);
  }

  /* A label, a prediction or a colouring was chosen. */
  choose() {
    this.readChosen();
    this.points.update();
    this.selectRegion(this.region);
  }

  readChosen() {
    const { label, guess, colouring } = this.choices;
    const position = (choice) => (choice?.value ? this.legend.find(choice.value) : ANY);
    this.points.filter = {
      label: position(label),
      guess: guess?.value === "other" ? NOT_LABEL : position(guess),
    };
    this.points.colouring = colouring?.value || "label";
  }

  writeUrl() {
    const chosen = ([name, choice]) => [name === "colouring" ? "colour" : name, choice.value];
    writeUrlState(this.viewport, this.region, this.legend, Object.fromEntries(Object.entries(this.choices).map(chosen)));
  }

  classColours(dark) {
    return this.legend.colours(dark);
  }

  onViewChange() {
    this.writeUrl();
  }

  onAnimationEnd() {
    if (this.cursor) this.moveCursor(0, 0);
  }

  /* Hovering and opening images */

  findPoint(pixelX, pixelY, distance) {
    const radius = (Math.max(dotRadius(this.points, this.viewport), 2) + distance) / this.viewport.pixelsPerUnit;
    return this.points.nearest(...this.viewport.toMap(pixelX, pixelY), radius);
  }

  hoverAt(pixelX, pixelY) {
    this.cursor = null;
    this.hover(this.findPoint(pixelX, pixelY, HOVER_DISTANCE), pixelX, pixelY);
  }

  hover(point, pixelX, pixelY, tappable = false) {
    this.hovered = point;
    stage.classList.toggle("over", point >= 0 && !this.selecting);
    if (point < 0) this.preview.hide();
    else this.preview.show(this.points.ids[point], this.points.describe(point), pixelX, pixelY, tappable);
    this.requestDraw();
  }

  clearHover() {
    if (this.hovered >= 0 && !this.cursor) this.hover(-1);
  }

  clickAt(pixelX, pixelY, event) {
    const point = this.findPoint(pixelX, pixelY, HOVER_DISTANCE);
    const touch = event.pointerType === "touch";
    /* Touch has no hover: the first tap shows the preview, a tap on the preview opens the image. */
    if (touch && point !== this.hovered) this.hover(point, pixelX, pixelY, true);
    else if (point >= 0) this.openImage(point, event.ctrlKey || event.metaKey);
    else if (touch) this.hover(-1);
  }

  openImage(point, newTab = false) {
    if (point < 0) return;
    const url = this.preview.imageUrl(this.points.ids[point]);
    if (newTab) window.open(url, "_blank", "noopener");
    else location.assign(url);
  }

  highlight(index) {
    this.points.highlighted = index;
    this.points.update();
    this.requestDraw();
  }

  /* The keyboard's cursor stays in the centre, except while it marks a region. */
  moveCursor(pixelsX, pixelsY) {
    const { width, height } = this.viewport;
    const centre = [width / 2, height / 2];
    const [x, y] = this.regionKey || this.selecting ? this.cursor ?? centre : centre;
    this.cursor = [clamp(x + pixelsX, width), clamp(y + pixelsY, height)];
    this.viewport.panBy(this.cursor[0] - x - pixelsX, this.cursor[1] - y - pixelsY);
    if (this.regionKey) this.stretchRegion(this.corner, this.viewport.toMap(...this.cursor));
    this.hover(this.findPoint(...this.cursor, CURSOR_DISTANCE), ...this.cursor);
    this.viewChanged();
    if (!this.regionKey) this.announceImage();
  }

  announceImage() {
    clearTimeout(this.announceTimer);
    this.announceTimer = setTimeout(() => {
      if (!this.cursor || this.regionKey) return;
      const point = this.hovered;
      announce(point < 0 ? "No image here" : `${this.points.describe(point)}, image ${this.points.ids[point]}`);
    }, ANNOUNCE_DELAY);
  }

  /* Tapping the preview also takes the focus; then there is no cursor, and the preview stays. */
  hideCursor() {
    if (!this.cursor) return;
    if (this.regionKey) this.cancelRegion();
    this.cursor = null;
    this.clearHover();
    this.requestDraw();
  }

  /* Selecting a region */

  setMode(mode) {
    this.selecting = mode === "select";
    stage.classList.toggle("select", this.selecting);
    document.querySelectorAll("[data-mode]").forEach((button) => {
      button.ariaPressed = String(button.dataset.mode === mode);
    });
  }

  /* key: which key started the region, and so how it ends. */
  startRegion(key) {
    this.cursor ??= [this.viewport.width / 2, this.viewport.height / 2];
    this.regionKey = key;
    this.corner = this.viewport.toMap(...this.cursor);
    announce("Selecting: resize the region with the arrow keys, finish with Enter");
    this.requestDraw();
  }

  stretchRegion([x, y], [toX, toY]) {
    this.draft = {
      left: Math.round(Math.min(x, toX)),
      top: Math.round(Math.min(y, toY)),
      right: Math.round(Math.max(x, toX)),
      bottom: Math.round(Math.max(y, toY)),
    };
    this.requestDraw();
  }

  finishRegion() {
    if (this.draft) this.selectRegion(this.draft);
    this.cancelRegion();
  }

  cancelRegion() {
    this.regionKey = this.draft = this.corner = null;
    this.requestDraw();
  }

  /* Select what lies in a region and has the chosen label and prediction. */
  selectRegion(region) {
    this.region = region;
    const selecting = region || this.points.isFiltered;
    announce(this.selection.show(selecting ? this.points.select(region) : null, region));
    this.writeUrl();
    this.requestDraw();
  }

  selectNothing() {
    const { label, guess } = this.choices;
    [label, guess].forEach((choice) => { if (choice) choice.value = ""; });
    this.region = null;
    this.choose();
  }

  escape() {
    if (this.draft || this.regionKey) this.cancelRegion();
    else if (!this.preview.element.hidden) this.preview.hide();
    else this.selectNothing();
  }

  /* Images of hidden classes are not selected. */
  visibilityChanged() {
    this.clearHover();
    this.selectRegion(this.region);
    this.updateLabels();
  }
}

/* By parameter of the address; those on predictions are missing where nothing was predicted. */
function readChoices() {
  const found = [...document.querySelectorAll("[data-choice]")];
  return Object.fromEntries(found.map((choice) => [choice.dataset.choice, choice]));
}

const clamp = (value, max) => Math.min(Math.max(value, 0), max);

function announce(message) {
  status.textContent = message;
}
