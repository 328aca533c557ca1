/* What part of the map is seen: from places on the map to pixels of the canvas and back. */

export const MARGIN = 28;
export const MOST = 24;

export class View {
  constructor(scale) {
    this.scale = scale;
    this.width = this.height = 0;
    this.whole();
  }

  /* Pixels that a unit of the map is wide. */
  get unit() {
    return ((Math.min(this.width, this.height) - 2 * MARGIN) * this.zoom) / this.scale;
  }

  whole() {
    [this.x, this.y, this.zoom] = [this.scale / 2, this.scale / 2, 1];
  }

  across(x) {
    return this.width / 2 + (x - this.x) * this.unit;
  }

  down(y) {
    return this.height / 2 + (y - this.y) * this.unit;
  }

  /* The place under a pixel. */
  at(across, down) {
    return [
      this.x + (across - this.width / 2) / this.unit,
      this.y + (down - this.height / 2) / this.unit,
    ];
  }

  move(across, down) {
    this.to(this.x - across / this.unit, this.y - down / this.unit);
  }

  /* The middle stays on the map, so that it cannot be lost. */
  to(x, y, zoom = this.zoom) {
    this.zoom = Math.min(Math.max(zoom, 1), MOST);
    [this.x, this.y] = [x, y].map((value) => Math.min(Math.max(value, 0), this.scale));
  }

  /* Magnify, the place under a pixel staying there; says whether anything changed. */
  zoomAbout(across, down, factor) {
    const [before, [x, y]] = [this.zoom, this.at(across, down)];
    this.to(this.x, this.y, this.zoom * factor);
    const [newX, newY] = this.at(across, down);
    this.to(this.x + x - newX, this.y + y - newY);
    return this.zoom !== before;
  }
}
