/* The images in view, once one has zoomed so far in that they are few. Loaded a few at a time, the
   last asked for first, and remembered while there is room. */

const MIN_ZOOM = 3;
const MAX_IN_VIEW = 120;
const MAX_LOADING = 6;
const MAX_CACHED = 600;

export class Thumbnails {
  /* onLoad: called whenever another one can be drawn. */
  constructor(stage, onLoad) {
    this.stage = stage;
    this.onLoad = onLoad;
    this.known = new Map(); /* by id: a picture, or null while it loads or if it failed */
    this.waiting = [];
    this.loading = 0;
  }

  /* The points in view; none while there are too many. */
  listPoints(points, viewport) {
    if (viewport.zoom < MIN_ZOOM) return [];
    const [left, top] = viewport.toMap(0, 0);
    const [right, bottom] = viewport.toMap(viewport.width, viewport.height);
    const found = points.inRegion({ left, top, right, bottom });
    return found.length > MAX_IN_VIEW ? [] : found;
  }

  /* The picture of an image, or null; it is requested at the first call. */
  find(id) {
    if (!this.known.has(id)) {
      this.known.set(id, null);
      this.waiting.push(id);
      this.loadNext();
    }
    return this.known.get(id);
  }

  loadNext() {
    while (this.loading < MAX_LOADING && this.waiting.length) this.load(this.waiting.pop());
  }

  async load(id) {
    this.loading++;
    const picture = new Image();
    picture.src = this.stage.dataset.thumbnail.replace("/0/", `/${id}/`);
    try {
      await picture.decode();
      this.known.set(id, picture);
      if (this.known.size > MAX_CACHED) this.known.delete(this.known.keys().next().value);
      this.onLoad();
    } catch {
      /* Its file is gone: the dot stays. */
    }
    this.loading--;
    this.loadNext();
  }
}
