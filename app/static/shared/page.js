"use strict";

/* Copy buttons, crop frames on the image, and the current class in view. The pages work without
   this file. */

document.documentElement.classList.add("js");
/* Before anything is drawn; present.js switches it. */
try {
  if (sessionStorage.getItem("present") === "on") document.documentElement.classList.add("present");
} catch {
  /* Storage is blocked. */
}

document.addEventListener("DOMContentLoaded", () => {
  document.querySelectorAll("[data-copy]").forEach(prepareCopy);
  document.querySelectorAll(".answer").forEach(prepareCrops);
  document.querySelectorAll(".classes [aria-current], .top [aria-current]").forEach(scrollIntoView);
});

function prepareCopy(button) {
  const box = document.getElementById(button.dataset.copy);
  /* Behind a proxy the server may not know its own address. */
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

/* Pointing at a crop in the list moves the frame on the image from the centre crop to that one. */
function prepareCrops(answer) {
  const frames = answer.querySelectorAll(".input-image .crop-frame");
  if (!frames.length) return;
  const [inset, { x, y }] = [0.4, frames[0]];
  const moveTo = (left, top) => frames.forEach((frame) => {
    frame.setAttribute("x", left + inset);
    frame.setAttribute("y", top + inset);
  });
  const [centreLeft, centreTop] = [x, y].map((at) => at.baseVal.value - inset);
  answer.querySelectorAll(".crops li").forEach((crop) => {
    crop.addEventListener("pointerenter", () => moveTo(+crop.dataset.left, +crop.dataset.top));
    crop.addEventListener("pointerleave", () => moveTo(centreLeft, centreTop));
  });
}

/* Scroll a long list to the current class without moving the page. */
function scrollIntoView(link) {
  const list = link.closest(".classes, nav");
  const [from, to] = [list.getBoundingClientRect(), link.getBoundingClientRect()];
  list.scrollLeft += to.left - from.left - (from.width - to.width) / 2;
  list.scrollTop += to.top - from.top - (from.height - to.height) / 2;
}
