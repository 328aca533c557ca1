/* The images of the selected region, in a grid of six, those nearest to its middle first. */

const AT_ONCE = 24;
const [LEAST, MOST] = [2, 6];
const NAMED = 5;

export class Chosen {
  constructor(section, field, stage) {
    this.section = section;
    this.field = field;
    this.stage = stage;
    this.list = section.querySelector(".chosen");
    this.rest = section.querySelector(".more");
    this.rest.querySelector("button").addEventListener("click", () => this.more());
    this.points = [];
  }

  /* Without a region nothing is selected. Gives a sentence that says what is. */
  show(points, region) {
    this.points = region ? byDistance(this.field, points, region) : [];
    this.list.replaceChildren();
    const sentence = region ? this.sentence() : "";
    this.section.querySelector(".counts").textContent = region && points.length ? this.counts() : "";
    const none = this.section.querySelector(".none");
    this.said ??= none.textContent;
    none.hidden = points.length > 0;
    none.textContent = region ? "There is no image in this region." : this.said;
    this.offerMean();
    this.more();
    return sentence;
  }

  sentence() {
    const count = this.points.length;
    return count === 1 ? "1 image selected" : `${count.toLocaleString("en")} images selected`;
  }

  /* The largest classes of the selection by name. */
  counts() {
    const counts = new Map();
    this.points.forEach((point) => {
      const number = this.field.numbers[point];
      counts.set(number, (counts.get(number) ?? 0) + 1);
    });
    const sorted = [...counts].sort(([a, m], [b, n]) => n - m || a - b);
    const named = sorted.slice(0, NAMED)
      .map(([number, count]) => `${this.field.classes[number].label} ${count.toLocaleString("en")}`);
    const others = sorted.length - named.length;
    if (others) named.push(others === 1 ? "one more class" : `${others} more classes`);
    return `${this.points.length.toLocaleString("en")}: ${named.join(", ")}`;
  }

  offerMean() {
    const [part, count] = [this.section.querySelector(".mean"), this.points.length];
    part.hidden = count < LEAST || count > MOST;
    if (part.hidden) return;
    const link = part.querySelector("a");
    link.search = this.points.map((point) => `image=${this.field.ids[point]}`).join("&");
    link.querySelector("span").textContent = count;
  }

  more() {
    const from = this.list.children.length;
    const added = this.points.slice(from, from + AT_ONCE).map((point) => this.tile(point));
    this.list.append(...added);
    const left = this.points.length - from - added.length;
    this.rest.hidden = left === 0;
    this.rest.querySelector("p").textContent = `and ${left.toLocaleString("en")} more`;
    this.rest.querySelector("button").textContent = `Show ${Math.min(left, AT_ONCE)} more`;
    if (from) added[0].querySelector("a").focus();
    document.dispatchEvent(new Event("tiles"));
  }

  tile(point) {
    const [id, label] = [this.field.ids[point], this.field.label(point)];
    const picture = this.stage.dataset.thumbnail.replace("/0/", `/${id}/`);
    const [item, link, caption, words] = ["li", "a", "span", "span"].map((tag) => document.createElement(tag));
    const image = new Image(256, 256);
    Object.assign(image, { loading: "lazy", src: picture, alt: `${label}, training image ${id}` });
    Object.assign(link, { className: "tile", href: this.stage.dataset.image.replace(/0$/, id) });
    caption.className = "caption";
    words.textContent = label;
    words.ariaHidden = "true";
    caption.append(words);
    link.append(image, caption);
    item.append(link, pick(id, label, picture));
    return item;
  }
}

/* A box as the pages of Explore have it. */
function pick(id, label, picture) {
  const [frame, box, words] = ["label", "input", "span"].map((tag) => document.createElement(tag));
  frame.className = "pick-one";
  Object.assign(box, { type: "checkbox", name: "image", value: id });
  Object.assign(box.dataset, { label, picture });
  words.className = "hidden";
  words.textContent = `Pick ${label}, image ${id}`;
  frame.append(box, words);
  return frame;
}

function byDistance(field, points, { left, top, right, bottom }) {
  const [x, y] = [(left + right) / 2, (top + bottom) / 2];
  const far = (point) => (field.x[point] - x) ** 2 + (field.y[point] - y) ** 2;
  return [...points].sort((a, b) => far(a) - far(b) || a - b);
}
