"use strict";

/* The pages work without this file: it copies, and shows a crop's frame on the image. */

document.documentElement.classList.add("js");

document.addEventListener("DOMContentLoaded", () => {
  document.querySelectorAll("[data-copy]").forEach(prepareCopy);
  document.querySelectorAll(".answer").forEach(prepareCrops);
  document.querySelectorAll(".classes [aria-current]").forEach(bringIntoSight);
});

function prepareCopy(button) {
  const box = document.getElementById(button.dataset.copy);
  /* Behind a proxy the server may know its own address less well. */
  if (box.id === "link") box.textContent = window.location.origin + window.location.pathname;
  const text = box.textContent;
  if (!navigator.clipboard) return;
  button.hidden = false;
  button.addEventListener("click", async () => {
    await navigator.clipboard.writeText(text);
    button.textContent = "Copied";
    setTimeout(() => { button.textContent = "Copy"; }, 2000);
  });
}

/* A crop that is pointed at in the list is framed on the image, in the place of the centre one. */
function prepareCrops(answer) {
  const frames = answer.querySelectorAll(".seen .window");
  const put = (left, top) => frames.forEach((frame) => {
    frame.setAttribute("x", left + 0.4);
    frame.setAttribute("y", top + 0.4);
  });
  answer.querySelectorAll(".crops li").forEach((crop) => {
    crop.addEventListener("pointerenter", () => put(+crop.dataset.left, +crop.dataset.top));
    crop.addEventListener("pointerleave", () => put(16, 16));
  });
}

/* In a long list the chosen class is in sight; the page itself does not move. */
function bringIntoSight(link) {
  const list = link.closest(".classes");
  const [from, to] = [list.getBoundingClientRect(), link.getBoundingClientRect()];
  list.scrollLeft += to.left - from.left - (from.width - to.width) / 2;
  list.scrollTop += to.top - from.top - (from.height - to.height) / 2;
}
