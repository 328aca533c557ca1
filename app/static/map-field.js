/* The points of the map, and which of them lie where. Coordinates are whole numbers from 0 to
   `scale`; a point is named by its place in the columns. */

const CELLS = 64; /* a side */
const LAYERS = 8;

export class Field {
  constructor(sent) {
    this.scale = sent.scale;
    this.classes = sent.classes;
    this.ids = sent.ids;
    this.numbers = Uint16Array.from(sent.numbers);
    this.x = Uint16Array.from(sent.x);
    this.y = Uint16Array.from(sent.y);
    this.shown = sent.classes.map(() => true);
    this.order = mixed(this.numbers);
    this.cell = (this.scale + 1) / CELLS;
    [this.starts, this.members] = this.sorted();
  }

  get count() {
    return this.ids.length;
  }

  label(point) {
    return this.classes[this.numbers[point]].label;
  }

  /* The point of a class that is shown nearest to a place, or -1 when none is so near. */
  nearest(x, y, within) {
    let [best, least] = [-1, within * within];
    const around = { left: x - within, top: y - within, right: x + within, bottom: y + within };
    this.each(around, (point) => {
      const distance = (this.x[point] - x) ** 2 + (this.y[point] - y) ** 2;
      if (distance <= least) [best, least] = [point, distance];
    });
    return best;
  }

  /* The points in a region, its edges included, of the classes that are shown. */
  inside(region) {
    const found = [];
    this.each(region, (point) => found.push(point));
    return found;
  }

  each({ left, top, right, bottom }, visit) {
    const [firstColumn, lastColumn] = [this.place(left), this.place(right)];
    for (let row = this.place(top); row <= this.place(bottom); row++) {
      const from = this.starts[row * CELLS + firstColumn];
      const to = this.starts[row * CELLS + lastColumn + 1];
      for (let at = from; at < to; at++) {
        const point = this.members[at];
        const [x, y] = [this.x[point], this.y[point]];
        if (x < left || x > right || y < top || y > bottom) continue;
        if (this.shown[this.numbers[point]]) visit(point);
      }
    }
  }

  place(value) {
    return Math.min(Math.max(Math.floor(value / this.cell), 0), CELLS - 1);
  }

  /* Where each cell's points begin in the list of all points, cell by cell. */
  sorted() {
    const cells = this.ids.map((_, p) => this.place(this.y[p]) * CELLS + this.place(this.x[p]));
    const starts = new Uint32Array(CELLS * CELLS + 1);
    cells.forEach((cell) => { starts[cell + 1]++; });
    for (let cell = 0; cell < CELLS * CELLS; cell++) starts[cell + 1] += starts[cell];
    const [next, members] = [starts.slice(), new Uint32Array(cells.length)];
    cells.forEach((cell, point) => { members[next[cell]++] = point; });
    return [starts, members];
  }
}

/* An order to draw in: class by class, so that the colour changes seldom, but in several layers, so
   that no class covers the others. */
function mixed(numbers) {
  const layer = (point) => (Math.imul(point, 0x9e3779b1) >>> 16) % LAYERS;
  const rank = Float64Array.from(numbers, (number, point) => layer(point) * 65536 + number);
  return Uint32Array.from(numbers.keys()).sort((a, b) => rank[a] - rank[b]);
}
