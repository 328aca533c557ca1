"use strict";

/* The pages work without this file: it adds drop and paste, sends at once, and copies. */

document.documentElement.classList.add("js");

document.addEventListener("DOMContentLoaded", () => {
  document.querySelectorAll(".upload").forEach(prepareUpload);
  document.querySelectorAll("[data-copy]").forEach(prepareCopy);
  document.querySelectorAll(".classes [aria-current]").forEach(bringIntoSight);
});

function prepareUpload(form) {
  const area = form.querySelector(".drop");
  const input = form.querySelector(".file");

  input.addEventListener("change", () => send(form, input.files[0]));
  document.addEventListener("paste", (event) => take(form, event.clipboardData, event));
  /* The whole window takes the drop: one that misses the area must not leave the page. */
  document.addEventListener("dragover", (event) => {
    event.preventDefault();
    area.classList.add("over");
  });
  document.addEventListener("dragleave", (event) => {
    if (event.relatedTarget === null) area.classList.remove("over");
  });
  document.addEventListener("drop", (event) => {
    area.classList.remove("over");
    take(form, event.dataTransfer, event);
    event.preventDefault();
  });
  /* Back from the answer, a page kept by the browser is as it was left: make it fresh. */
  window.addEventListener("pageshow", (event) => {
    if (event.persisted) window.location.reload();
  });
}

function take(form, transfer, event) {
  const files = transfer ? [...transfer.files] : [];
  if (files.length === 0) {
    if (event.type === "drop") say(form, "That was not a file. Save the image first, then drop it.");
    return;
  }
  event.preventDefault();
  if (files.length > 1) {
    say(form, "One image at a time, please.");
    return;
  }
  const one = new DataTransfer();
  one.items.add(files[0]);
  form.querySelector(".file").files = one.files;
  send(form, files[0]);
}

function send(form, file) {
  if (!file || form.dataset.sent) return;
  if (file.size > Number(form.dataset.limit)) {
    form.querySelector(".file").value = "";
    say(form, `${file.name} is too large. ${form.querySelector("#accepted").textContent}`);
    return;
  }
  form.dataset.sent = "yes";
  preview(form, file);
  say(form, `Looking at ${file.name} …`);
  form.submit();
}

function preview(form, file) {
  if (!file.type.startsWith("image/")) return;
  const picture = form.querySelector(".preview");
  picture.addEventListener("load", () => {
    picture.hidden = false;
    form.querySelector(".drop > svg").setAttribute("hidden", "");
  });
  picture.src = URL.createObjectURL(file);
}

function say(form, sentence) {
  form.querySelector(".said").textContent = sentence;
}

function prepareCopy(button) {
  const text = document.getElementById(button.dataset.copy).textContent;
  if (!navigator.clipboard) return;
  button.hidden = false;
  button.addEventListener("click", async () => {
    await navigator.clipboard.writeText(text);
    button.textContent = "Copied";
    setTimeout(() => { button.textContent = "Copy"; }, 2000);
  });
}

/* In a long list the chosen class is in sight; the page itself does not move. */
function bringIntoSight(link) {
  const list = link.closest(".classes");
  const [from, to] = [list.getBoundingClientRect(), link.getBoundingClientRect()];
  list.scrollLeft += to.left - from.left - (from.width - to.width) / 2;
  list.scrollTop += to.top - from.top - (from.height - to.height) / 2;
}
