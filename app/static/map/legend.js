/* The list of classes: which are visible on the map, and which is highlighted while pointed at. */

export class Legend {
  /* onChange(): after classes were shown or hidden. onHighlight(index): a class is pointed at; -1: none. */
  constructor(section, points, onChange, onHighlight) {
    this.boxes = [...section.querySelectorAll(".key input")];
    this.points = points;
    this.onChange = onChange;
    this.boxes.forEach((box, index) => {
      const item = box.closest("li");
      box.disabled = false;
      box.addEventListener("change", () => this.apply());
      item.addEventListener("pointerenter", () => onHighlight(index));
      item.addEventListener("pointerleave", () => onHighlight(-1));
      item.addEventListener("focusin", () => onHighlight(item.matches(":has(:focus-visible)") ? index : -1));
      item.addEventListener("focusout", () => onHighlight(-1));
    });
    section.querySelectorAll("[data-all]").forEach((button) => {
      button.disabled = false;
      button.addEventListener("click", () => this.setVisible(() => button.dataset.all === "show"));
    });
  }

  colours(dark) {
    return this.boxes.map((box) => (dark ? box.dataset.dark : box.dataset.light));
  }

  /* isVisible(id): whether to show the class with that id. */
  setVisible(isVisible) {
    this.boxes.forEach((box) => { box.checked = isVisible(Number(box.value)); });
    this.apply();
  }

  apply() {
    this.points.visible = this.boxes.map((box) => box.checked);
    this.points.update();
    this.onChange();
  }

  /* The position of the class with an id, or -1. */
  find(id) {
    return this.boxes.findIndex((box) => box.value === id);
  }

  ids(checked) {
    return this.boxes.filter((box) => box.checked === checked).map((box) => Number(box.value));
  }
}
