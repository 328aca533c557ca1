/* The thumbnail that follows the pointer. It is requested only after the pointer has rested for a
   moment, so that sweeping over the map does not request thousands. */

const LOAD_DELAY = 50; /* milliseconds */
const MAX_CACHED = 300;
const OFFSET = 14; /* pixels from the pointer */

export class Preview {
  constructor(stage) {
    this.stage = stage;
    this.element = stage.querySelector(".card");
    this.frame = this.element.querySelector(".frame");
    this.caption = this.element.querySelector(".caption span");
    this.cache = new Map();
    this.id = null;
  }

  imageUrl(id) {
    return this.stage.dataset.image.replace(/0$/, id);
  }

  /* tappable: whether the preview itself is a link; under a mouse the point below it is. */
  show(id, label, pixelX, pixelY, tappable = false) {
    if (id !== this.id) this.setImage(id, label);
    this.element.classList.toggle("tappable", tappable);
    this.element.hidden = false;
    const { offsetWidth: width, offsetHeight: height } = this.element;
    const place = (at, size, available) =>
      (at + OFFSET + size <= available ? at + OFFSET : Math.max(at - OFFSET - size, 0));
    const left = place(pixelX, width, this.stage.clientWidth);
    const top = place(pixelY, height, this.stage.clientHeight);
    this.element.style.transform = `translate(${Math.round(left)}px, ${Math.round(top)}px)`;
  }

  hide() {
    clearTimeout(this.timer);
    this.element.hidden = true;
    this.id = null;
  }

  setImage(id, label) {
    this.id = id;
    this.element.href = this.imageUrl(id);
    this.caption.textContent = label;
    clearTimeout(this.timer);
    const cached = this.cache.get(id);
    this.frame.replaceChildren(...(cached ? [cached] : []));
    if (!cached) {
      this.timer = setTimeout(() => this.frame.replaceChildren(this.loadThumbnail(id)), LOAD_DELAY);
    }
  }

  loadThumbnail(id) {
    const thumbnail = new Image(128, 128);
    thumbnail.alt = "";
    thumbnail.src = this.stage.dataset.thumbnail.replace("/0/", `/${id}/`);
    this.cache.set(id, thumbnail);
    if (this.cache.size > MAX_CACHED) this.cache.delete(this.cache.keys().next().value);
    return thumbnail;
  }
}
