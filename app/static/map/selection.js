/* The selected images, in a grid; in a region those nearest to its centre come first. They can be
   searched by their mean, and listed to be corrected. */

const PAGE_SIZE = 24;
const [MIN_FOR_MEAN, MAX_FOR_MEAN] = [2, 6];
const MAX_NAMED_CLASSES = 5;

export class Selection {
  constructor(section, points, stage) {
    this.section = section;
    this.points = points;
    this.stage = stage;
    this.list = section.querySelector(".selected");
    this.rest = section.querySelector(".load-more");
    this.rest.querySelector("button").addEventListener("click", () => this.showMore());
    this.section.querySelector(".mean button").addEventListener("click", () => this.searchByMean());
    this.selected = [];
    this.correct = section.querySelector(".correct");
    this.correct?.querySelector("form").addEventListener("formdata", ({ formData }) => formData.set("images", this.listIds()));
    this.hint = section.querySelector(".empty").textContent;
  }

  listIds() {
    return this.selected.map((point) => this.points.ids[point]).join();
  }

  /* Show the selected points, of a region or not; null: nothing is selected. Returns a status
     message. */
  show(selected, region) {
    this.selected = region ? sortByDistance(this.points, selected, region) : selected ?? [];
    this.list.replaceChildren();
    const count = this.selected.length;
    this.section.querySelector(".counts").textContent = count ? this.countByClass() : "";
    const empty = this.section.querySelector(".empty");
    empty.hidden = count > 0;
    empty.textContent = selected ? "No images match." : this.hint;
    this.offerMean();
    this.offerCorrections();
    this.showMore();
    if (!selected) return "";
    return count === 1 ? "1 image selected" : `${count.toLocaleString("en")} images selected`;
  }

  /* The largest classes of the selection, by name. */
  countByClass() {
    const counts = new Map();
    this.selected.forEach((point) => {
      const index = this.points.classIndex[point];
      counts.set(index, (counts.get(index) ?? 0) + 1);
    });
    const sorted = [...counts].sort(([a, m], [b, n]) => n - m || a - b);
    const parts = sorted.slice(0, MAX_NAMED_CLASSES)
      .map(([index, count]) => `${this.points.classes[index].label} ${count.toLocaleString("en")}`);
    const others = sorted.length - parts.length;
    if (others) parts.push(others === 1 ? "1 more class" : `${others} more classes`);
    return `${this.selected.length.toLocaleString("en")}: ${parts.join(", ")}`;
  }

  offerMean() {
    const [offer, count] = [this.section.querySelector(".mean"), this.selected.length];
    offer.hidden = count < MIN_FOR_MEAN || count > MAX_FOR_MEAN;
    offer.querySelector("span").textContent = count;
  }

  offerCorrections() {
    if (!this.correct) return;
    const [count, most] = [this.selected.length, Number(this.correct.dataset.most)];
    this.correct.hidden = count === 0;
    const legend = this.correct.querySelector("legend");
    if (legend) legend.textContent = `All ${count.toLocaleString("en")} selected images`;
    this.correct.querySelector(".too-many").hidden = count <= most;
    this.correct.querySelectorAll("button").forEach((button) => { button.disabled = count > most; });
  }

  searchByMean() {
    const address = new URL(this.section.querySelector(".selection").action);
    address.search = this.selected.map((point) => `image=${this.points.ids[point]}`).join("&");
    window.location.assign(address);
  }

  showMore() {
    const from = this.list.children.length;
    const added = this.selected.slice(from, from + PAGE_SIZE).map((point) => this.tile(point));
    this.list.append(...added);
    const left = this.selected.length - from - added.length;
    this.rest.hidden = left === 0;
    this.rest.querySelector("p").textContent = `and ${left.toLocaleString("en")} more`;
    this.rest.querySelector("button").textContent = `Show ${Math.min(left, PAGE_SIZE)} more`;
    if (from) added[0].querySelector("a").focus();
    document.dispatchEvent(new Event("tiles"));
  }

  tile(point) {
    const [id, label] = [this.points.ids[point], this.points.label(point)];
    const thumbnail = this.stage.dataset.thumbnail.replace("/0/", `/${id}/`);
    const [item, link, caption, text] = ["li", "a", "span", "span"].map((tag) => document.createElement(tag));
    const image = new Image(256, 256);
    Object.assign(image, { loading: "lazy", src: thumbnail, alt: `${this.points.describe(point)}, training image ${id}` });
    Object.assign(link, { className: "tile", href: this.stage.dataset.image.replace(/0$/, id) });
    caption.className = "caption";
    text.textContent = [label, this.points.wrongGuess(point)].filter(Boolean).join(" → ");
    text.ariaHidden = "true";
    caption.append(text);
    link.append(image, caption);
    item.append(link, selectionBox(id, label, thumbnail));
    return item;
  }
}

/* The same checkbox as on the pages of Explore. */
function selectionBox(id, label, picture) {
  const [frame, box, text] = ["label", "input", "span"].map((tag) => document.createElement(tag));
  frame.className = "select-image";
  Object.assign(box, { type: "checkbox", name: "image", value: id });
  Object.assign(box.dataset, { label, picture });
  text.className = "hidden";
  text.textContent = `Select ${label}, image ${id}`;
  frame.append(box, text);
  return frame;
}

function sortByDistance(points, selected, { left, top, right, bottom }) {
  const [x, y] = [(left + right) / 2, (top + bottom) / 2];
  const squared = (point) => (points.x[point] - x) ** 2 + (points.y[point] - y) ** 2;
  return [...selected].sort((a, b) => squared(a) - squared(b) || a - b);
}
