/* The part of the map in view: converts map coordinates to canvas pixels and back. */

export const MARGIN = 28;
export const MAX_ZOOM = 24;

export class Viewport {
  constructor(scale) {
    this.scale = scale;
    this.width = this.height = 0;
    [this.x, this.y, this.zoom] = [scale / 2, scale / 2, 1];
  }

  get pixelsPerUnit() {
    return ((Math.min(this.width, this.height) - 2 * MARGIN) * this.zoom) / this.scale;
  }

  toPixelX(x) {
    return this.width / 2 + (x - this.x) * this.pixelsPerUnit;
  }

  toPixelY(y) {
    return this.height / 2 + (y - this.y) * this.pixelsPerUnit;
  }

  /* The map coordinates under a pixel. */
  toMap(pixelX, pixelY) {
    return [
      this.x + (pixelX - this.width / 2) / this.pixelsPerUnit,
      this.y + (pixelY - this.height / 2) / this.pixelsPerUnit,
    ];
  }

  panBy(pixelsX, pixelsY) {
    this.moveTo(this.x - pixelsX / this.pixelsPerUnit, this.y - pixelsY / this.pixelsPerUnit);
  }

  /* The centre stays on the map, so the map cannot be lost from view. */
  moveTo(x, y, zoom = this.zoom) {
    this.zoom = Math.min(Math.max(zoom, 1), MAX_ZOOM);
    [this.x, this.y] = [x, y].map((value) => Math.min(Math.max(value, 0), this.scale));
  }

  /* Zoom while the point under a pixel stays where it is. */
  zoomAt(pixelX, pixelY, factor) {
    const [x, y] = this.toMap(pixelX, pixelY);
    this.moveTo(this.x, this.y, this.zoom * factor);
    const [newX, newY] = this.toMap(pixelX, pixelY);
    this.moveTo(this.x + x - newX, this.y + y - newY);
  }
}
