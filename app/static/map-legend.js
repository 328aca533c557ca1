/* The list of classes: which of them are on the map, and which one stands out while it is pointed at. */

export class Legend {
  /* changed(): after a class was shown or hidden. lit(number): one is pointed at; -1: none is. */
  constructor(section, field, changed, lit) {
    this.boxes = [...section.querySelectorAll(".key input")];
    this.field = field;
    this.changed = changed;
    this.boxes.forEach((box, number) => {
      const item = box.closest("li");
      box.disabled = false;
      box.addEventListener("change", () => this.read());
      item.addEventListener("pointerenter", () => lit(number));
      item.addEventListener("pointerleave", () => lit(-1));
      item.addEventListener("focusin", () => lit(item.matches(":has(:focus-visible)") ? number : -1));
      item.addEventListener("focusout", () => lit(-1));
    });
    section.querySelectorAll("[data-all]").forEach((button) => {
      button.disabled = false;
      button.addEventListener("click", () => this.set(() => button.dataset.all === "show"));
    });
  }

  colours(dark) {
    return this.boxes.map((box) => (dark ? box.dataset.dark : box.dataset.light));
  }

  /* shown(id): whether the class of that id is on the map. */
  set(shown) {
    this.boxes.forEach((box) => { box.checked = shown(Number(box.value)); });
    this.read();
  }

  read() {
    this.field.shown = this.boxes.map((box) => box.checked);
    this.changed();
  }

  ids(checked) {
    return this.boxes.filter((box) => box.checked === checked).map((box) => Number(box.value));
  }
}
