/* Selects images of the review together: all of the page, or with Shift those from the last one. */

const boxes = [...document.querySelectorAll(".select-image input")];
const said = document.querySelector("[data-selected]");
const buttons = [...document.querySelectorAll("[data-select]")];
let last = null;

boxes.forEach((box, at) => box.addEventListener("click", (event) => {
  if (event.shiftKey && last !== null) {
    boxes.slice(Math.min(last, at), Math.max(last, at) + 1).forEach((one) => { one.checked = box.checked; });
  }
  last = at;
  show();
}));

buttons.forEach((button) => button.addEventListener("click", () => {
  boxes.forEach((box) => { box.checked = button.dataset.select === "all"; });
  last = null;
  show();
}));

/* The browser may restore checkboxes when it returns to the page. */
window.addEventListener("pageshow", show);

function show() {
  const count = boxes.filter((box) => box.checked).length;
  said.textContent = count ? `${count} selected` : "Hold Shift to select a range";
  buttons.forEach((button) => {
    button.disabled = count === (button.dataset.select === "all" ? boxes.length : 0);
  });
}
