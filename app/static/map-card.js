/* The thumbnail that follows the pointer. It is asked for when the pointer rests a moment, so that a
   sweep over the map does not ask for a thousand. */

const REST = 50; /* milliseconds */
const KEPT = 300;
const AWAY = 14; /* pixels from the pointer */

export class Card {
  constructor(stage) {
    this.stage = stage;
    this.element = stage.querySelector(".card");
    this.frame = this.element.querySelector(".frame");
    this.words = this.element.querySelector(".caption span");
    this.pictures = new Map();
    this.id = null;
  }

  addressOf(id) {
    return this.stage.dataset.image.replace(/0$/, id);
  }

  /* firm: whether it can be tapped itself. */
  show(id, label, across, down, firm = false) {
    if (id !== this.id) this.change(id, label);
    this.element.classList.toggle("firm", firm);
    this.element.hidden = false;
    const { offsetWidth: width, offsetHeight: height } = this.element;
    const beside = (at, size, room) => (at + AWAY + size <= room ? at + AWAY : Math.max(at - AWAY - size, 0));
    const left = beside(across, width, this.stage.clientWidth);
    const top = beside(down, height, this.stage.clientHeight);
    this.element.style.transform = `translate(${Math.round(left)}px, ${Math.round(top)}px)`;
  }

  hide() {
    clearTimeout(this.timer);
    this.element.hidden = true;
    this.id = null;
  }

  change(id, label) {
    this.id = id;
    this.element.href = this.addressOf(id);
    this.words.textContent = label;
    clearTimeout(this.timer);
    const known = this.pictures.get(id);
    this.frame.replaceChildren(...(known ? [known] : []));
    if (!known) this.timer = setTimeout(() => this.frame.replaceChildren(this.picture(id)), REST);
  }

  picture(id) {
    const made = new Image(128, 128);
    made.alt = "";
    made.src = this.stage.dataset.thumbnail.replace("/0/", `/${id}/`);
    this.pictures.set(id, made);
    if (this.pictures.size > KEPT) this.pictures.delete(this.pictures.keys().next().value);
    return made;
  }
}
