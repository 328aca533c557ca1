/* Images selected for a search by their mean, remembered across pages while the tab is open and
   shown at the bottom of the window. Without this file the form sends one page's checkboxes. */

const KEY = "picked";
const [MIN_PICKS, MAX_PICKS] = [2, 6];
const bar = document.querySelector(".selection-bar");
let picks = [];

if (bar) start();

function start() {
  document.addEventListener("change", (event) => {
    if (event.target.matches(".select-image input")) change(event.target);
  });
  bar.querySelector(".clear").addEventListener("click", () => keepOnly([]));
  bar.closest("form").addEventListener("formdata", ({ formData }) => {
    formData.delete("image");
    picks.forEach((pick) => formData.append("image", pick.id));
  });
  document.addEventListener("tiles", updateCheckboxes);
  /* Also when the browser restores a page from its cache. */
  window.addEventListener("pageshow", () => show(read()));
  show(read());
}

function read() {
  try {
    const stored = JSON.parse(sessionStorage.getItem(KEY) ?? "[]");
    return stored.filter((one) => /^\d+$/.test(one.id) && one.picture.startsWith("/")).slice(0, MAX_PICKS);
  } catch {
    return picks;
  }
}

function change(box) {
  if (box.checked && picks.length === MAX_PICKS) {
    box.checked = false;
    say("At most 6 images can be selected; remove one first.");
    return;
  }
  const rest = picks.filter((one) => one.id !== box.value);
  const { label, picture } = box.dataset;
  store(box.checked ? [...rest, { id: box.value, label, picture }] : rest);
}

/* Keep fewer picks and move the focus from the removed button to its neighbour. */
function keepOnly(rest, at = 0) {
  store(rest);
  const next = bar.querySelectorAll(".selected-images button")[Math.min(at, rest.length - 1)];
  (next ?? document.getElementById("content")).focus();
}

function store(next) {
  try {
    sessionStorage.setItem(KEY, JSON.stringify(next));
  } catch {
    /* Storage is full or blocked: the picks last as long as this page. */
  }
  show(next);
}

function show(next) {
  picks = next;
  bar.classList.toggle("visible", picks.length > 0);
  bar.querySelector(".selected-images").replaceChildren(...picks.map(thumbnail));
  bar.querySelector(".clear").hidden = false;
  bar.querySelector("[type=submit]").disabled = picks.length < MIN_PICKS;
  say(picks.length < MIN_PICKS ? `${picks.length} selected; select one more` : `${picks.length} selected`);
  updateCheckboxes();
}

function say(words) {
  bar.querySelector(".status-text").textContent = words;
}

function updateCheckboxes() {
  const ids = new Set(picks.map((one) => one.id));
  document.querySelectorAll(".select-image input").forEach((box) => { box.checked = ids.has(box.value); });
}

function thumbnail(pick, at) {
  const [item, button, image, cross] = ["li", "button", "img", "span"].map((tag) => document.createElement(tag));
  Object.assign(image, { src: pick.picture, alt: "", width: 44, height: 44 });
  Object.assign(cross, { textContent: "×", ariaHidden: "true" });
  button.type = "button";
  button.ariaLabel = `Remove ${pick.label}, image ${pick.id}`;
  button.append(image, cross);
  button.addEventListener("click", () => keepOnly(picks.filter((one) => one !== pick), at));
  item.append(button);
  return item;
}
