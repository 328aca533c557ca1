/* Images picked for a search by their mean: kept while the tab is open, across pages, and shown at
   the foot of the window. Without this file the boxes of one page are sent as the form they are. */

const KEY = "picked";
const [LEAST, MOST] = [2, 6];
const bar = document.querySelector(".bar");
let picks = [];

if (bar) start();

function start() {
  document.addEventListener("change", (event) => {
    if (event.target.matches(".pick-one input")) change(event.target);
  });
  bar.querySelector(".clear").addEventListener("click", () => leave([]));
  bar.closest("form").addEventListener("formdata", ({ formData }) => {
    formData.delete("image");
    picks.forEach((pick) => formData.append("image", pick.id));
  });
  document.addEventListener("tiles", tick);
  /* Also when the browser brings back a page that it kept as it was left. */
  window.addEventListener("pageshow", () => show(read()));
  show(read());
}

function read() {
  try {
    const kept = JSON.parse(sessionStorage.getItem(KEY) ?? "[]");
    return kept.filter((one) => /^\d+$/.test(one.id) && one.picture.startsWith("/")).slice(0, MOST);
  } catch {
    return picks;
  }
}

function change(box) {
  if (box.checked && picks.length === MOST) {
    box.checked = false;
    say("Six at most: take one out first.");
    return;
  }
  const rest = picks.filter((one) => one.id !== box.value);
  const { label, picture } = box.dataset;
  keep(box.checked ? [...rest, { id: box.value, label, picture }] : rest);
}

/* Keep fewer; what had the focus is gone, so that it goes to what is next to it. */
function leave(rest, at = 0) {
  keep(rest);
  const next = bar.querySelectorAll(".picked button")[Math.min(at, rest.length - 1)];
  (next ?? document.getElementById("content")).focus();
}

function keep(next) {
  try {
    sessionStorage.setItem(KEY, JSON.stringify(next));
  } catch {
    /* No room or no leave to keep anything: then they last as long as this page. */
  }
  show(next);
}

function show(next) {
  picks = next;
  bar.classList.toggle("any", picks.length > 0);
  bar.querySelector(".picked").replaceChildren(...picks.map(thumbnail));
  bar.querySelector(".clear").hidden = false;
  bar.querySelector("[type=submit]").disabled = picks.length < LEAST;
  say(picks.length < LEAST ? `${picks.length} picked; pick one more` : `${picks.length} picked`);
  tick();
}

function say(words) {
  bar.querySelector(".said").textContent = words;
}

function tick() {
  const ids = new Set(picks.map((one) => one.id));
  document.querySelectorAll(".pick-one input").forEach((box) => { box.checked = ids.has(box.value); });
}

function thumbnail(pick, at) {
  const [item, button, image, cross] = ["li", "button", "img", "span"].map((tag) => document.createElement(tag));
  Object.assign(image, { src: pick.picture, alt: "", width: 44, height: 44 });
  Object.assign(cross, { textContent: "×", ariaHidden: "true" });
  button.type = "button";
  button.ariaLabel = `Take out ${pick.label}, image ${pick.id}`;
  button.append(image, cross);
  button.addEventListener("click", () => leave(picks.filter((one) => one !== pick), at));
  item.append(button);
  return item;
}
