/* The points of the map and a grid to look them up by position. Coordinates are integers from 0 to
   `scale`; a point is identified by its position in the columns. */

const GRID = 64; /* cells a side */
const LAYERS = 8;
const UNKNOWN = 0xffff; /* a guess that is none of the classes on the map */
const HEADER_START = 4;

/* How a point is drawn; those of a higher shade lie over the others. */
export const [HIDDEN, DIMMED, UNDER, FULL] = [0, 1, 2, 3];
export const SHADES = [HIDDEN, DIMMED, UNDER, FULL];

/* What a filter may ask for beside the position of a class. */
export const [ANY, NOT_LABEL] = [-1, -2];

/* Colours that follow those of the classes. */
const EXTRA_COLOURS = { other: 0, agreeing: 1, disagreeing: 2 };

/* Read the points file (app/views/map/points_file.py), an ArrayBuffer. */
export function decodePoints(buffer) {
  const length = new DataView(buffer).getUint32(0, true);
  const header = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, HEADER_START, length)));
  const { count } = header;
  let at = HEADER_START + length;
  const column = (Type) => {
    const values = new Type(buffer, at, count);
    at += values.byteLength;
    return values;
  };
  const columns = { ids: column(Uint32Array), x: column(Uint16Array), y: column(Uint16Array), numbers: column(Uint16Array) };
  return { ...header, ...columns, guesses: header.guessed ? column(Uint16Array) : null };
}

export class Points {
  constructor({ scale, classes, ids, x, y, numbers, guesses }) {
    Object.assign(this, { scale, classes, ids, x, y, guesses });
    this.classIndex = numbers;
    this.visible = classes.map(() => true); /* by class */
    this.filter = { label: ANY, guess: ANY }; /* positions of classes, ANY or NOT_LABEL */
    this.colouring = "label"; /* or "prediction" or "disagreement" */
    this.highlighted = -1;
    this.drawOrder = layeredOrder(numbers);
    this.shades = new Uint8Array(ids.length);
    this.colourIndex = new Uint16Array(ids.length);
    this.revision = 0; /* counts changes of shades and colours */
    this.cellSize = (this.scale + 1) / GRID;
    [this.cellStarts, this.cellPoints] = this.buildGrid();
    this.update();
  }

  get count() {
    return this.ids.length;
  }

  get isFiltered() {
    return this.filter.label !== ANY || this.filter.guess !== ANY;
  }

  label(point) {
    return this.classes[this.classIndex[point]].label;
  }

  /* The guess where it is another class of the map than the label, or "". */
  wrongGuess(point) {
    const guess = this.guesses?.[point] ?? UNKNOWN;
    return guess === UNKNOWN || guess === this.classIndex[point] ? "" : this.classes[guess].label;
  }

  describe(point) {
    const guess = this.wrongGuess(point);
    return guess ? `${this.label(point)}, predicted: ${guess}` : this.label(point);
  }

  /* Whether a point has the label and the guess that the filter asks for. */
  matches(point) {
    const { label, guess } = this.filter;
    const index = this.classIndex[point];
    return (label === ANY || index === label)
      && (guess === ANY || (guess === NOT_LABEL ? this.guesses[point] !== index : this.guesses[point] === guess));
  }

  /* Settle each point's colour and shade anew, after what they follow from has changed. */
  update() {
    const { colourIndex, shades, classIndex, visible, highlighted, isFiltered } = this;
    this.shadeCounts = SHADES.map(() => 0);
    for (let point = 0; point < this.count; point++) {
      colourIndex[point] = this.chooseColour(point);
      let shade = HIDDEN;
      if (visible[classIndex[point]]) {
        const dimmed = (highlighted >= 0 && classIndex[point] !== highlighted) || (isFiltered && !this.matches(point));
        shade = dimmed ? DIMMED : this.colouring === "disagreement" && this.agrees(point) ? UNDER : FULL;
      }
      shades[point] = shade;
      this.shadeCounts[shade]++;
    }
    this.revision++;
  }

  agrees(point) {
    return this.guesses[point] === this.classIndex[point];
  }

  chooseColour(point) {
    const extra = this.classes.length;
    if (this.colouring === "disagreement") return extra + (this.agrees(point) ? EXTRA_COLOURS.agreeing : EXTRA_COLOURS.disagreeing);
    if (this.colouring === "prediction") return this.guesses[point] === UNKNOWN ? extra + EXTRA_COLOURS.other : this.guesses[point];
    return this.classIndex[point];
  }

  /* The nearest point of a visible class within a radius, or -1. */
  nearest(x, y, radius) {
    let [nearest, least] = [-1, radius * radius];
    const around = { left: x - radius, top: y - radius, right: x + radius, bottom: y + radius };
    this.forEachIn(around, (point) => {
      const squared = (this.x[point] - x) ** 2 + (this.y[point] - y) ** 2;
      if (squared <= least) [nearest, least] = [point, squared];
    });
    return nearest;
  }

  /* The points of visible classes in a region, its edges included. */
  inRegion(region) {
    const found = [];
    this.forEachIn(region, (point) => found.push(point));
    return found;
  }

  /* The visible points that the filter lets through, in a region or, without one, anywhere. */
  select(region) {
    const everywhere = { left: 0, top: 0, right: this.scale, bottom: this.scale };
    return this.inRegion(region ?? everywhere).filter((point) => this.matches(point));
  }

  forEachIn({ left, top, right, bottom }, visit) {
    const [firstColumn, lastColumn] = [this.cellOf(left), this.cellOf(right)];
    for (let row = this.cellOf(top); row <= this.cellOf(bottom); row++) {
      const from = this.cellStarts[row * GRID + firstColumn];
      const to = this.cellStarts[row * GRID + lastColumn + 1];
      for (let at = from; at < to; at++) {
        const point = this.cellPoints[at];
        const [x, y] = [this.x[point], this.y[point]];
        if (x < left || x > right || y < top || y > bottom) continue;
        if (this.visible[this.classIndex[point]]) visit(point);
      }
    }
  }

  cellOf(coordinate) {
    return Math.min(Math.max(Math.floor(coordinate / this.cellSize), 0), GRID - 1);
  }

  /* All points sorted by cell, and where each cell's points start in that list. */
  buildGrid() {
    const cells = Uint16Array.from(this.ids, (_, p) => this.cellOf(this.y[p]) * GRID + this.cellOf(this.x[p]));
    const starts = new Uint32Array(GRID * GRID + 1);
    cells.forEach((cell) => { starts[cell + 1]++; });
    for (let cell = 0; cell < GRID * GRID; cell++) starts[cell + 1] += starts[cell];
    const [next, points] = [starts.slice(), new Uint32Array(cells.length)];
    cells.forEach((cell, point) => { points[next[cell]++] = point; });
    return [starts, points];
  }
}

/* The order to draw in: class by class, so that the colour rarely changes, but in several layers, so
   that no class covers the others. */
function layeredOrder(classIndex) {
  const layer = (point) => (Math.imul(point, 0x9e3779b1) >>> 16) % LAYERS;
  const rank = Uint32Array.from(classIndex, (index, point) => layer(point) * 65536 + index);
  return Uint32Array.from(classIndex.keys()).sort((a, b) => rank[a] - rank[b]);
}
