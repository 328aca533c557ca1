/* The points of the map and a grid to look them up by position. Coordinates are integers from 0 to
   `scale`; a point is identified by its position in the columns. */

const GRID = 64; /* cells a side */
const LAYERS = 8;

export class Points {
  constructor(data) {
    this.scale = data.scale;
    this.classes = data.classes;
    this.ids = data.ids;
    this.classIndex = Uint16Array.from(data.numbers);
    this.x = Uint16Array.from(data.x);
    this.y = Uint16Array.from(data.y);
    this.visible = data.classes.map(() => true); /* by class */
    this.drawOrder = layeredOrder(this.classIndex);
    this.cellSize = (this.scale + 1) / GRID;
    [this.cellStarts, this.cellPoints] = this.buildGrid();
  }

  get count() {
    return this.ids.length;
  }

  label(point) {
    return this.classes[this.classIndex[point]].label;
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
    const cells = this.ids.map((_, p) => this.cellOf(this.y[p]) * GRID + this.cellOf(this.x[p]));
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
  const rank = Float64Array.from(classIndex, (index, point) => layer(point) * 65536 + index);
  return Uint32Array.from(classIndex.keys()).sort((a, b) => rank[a] - rank[b]);
}
